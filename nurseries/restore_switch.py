"""The mock market's switch, as it was left by the API before this start."""

from typing import Final

import trio

from ticker.errors import StoreUnavailableError
from ticker.latest import Latest
from ticker.stores.runtime_settings import RuntimeSettings

RETRY_S: Final = 1.0


async def restore_switch(
    kept: RuntimeSettings, name: str, switch: Latest[bool], migrated: trio.Event
) -> None:
    """Set ``switch`` to what is kept under ``name`` as soon as that can be read; then return.

    Whoever sets it earlier saved it first, so what is read is never older than what is set.
    """
    await migrated.wait()
    while True:
        try:
            value = await kept.load(name)
        except StoreUnavailableError:
            await trio.sleep(RETRY_S)
            continue
        if isinstance(value, bool):
            switch.set(value)
        return
