"""The mock market's switch, as it was left by the API before this start."""

from typing import Final

import trio

from ticker.errors import StoreUnavailableError
from ticker.latest import Latest
from ticker.mock_market.switch import MockSwitch
from ticker.stores.runtime_settings import RuntimeSettings

RETRY_S: Final = 1.0


async def restore_switch(
    kept: RuntimeSettings, name: str, switch: Latest[MockSwitch], migrated: trio.Event
) -> None:
    """Set ``switch`` to what is kept under ``name`` as soon as that can be read; then return.

    Who switches meanwhile has the last word: that is newer than what is read.
    """
    await migrated.wait()
    while True:
        try:
            found = await kept.load(name)
        except StoreUnavailableError:
            await trio.sleep(RETRY_S)
            continue
        if found is not None and isinstance(found.value, bool) and switch.value.at is None:
            switch.set(MockSwitch(found.value, found.at, found.by))
        return
