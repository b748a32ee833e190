"""The API's keys, read anew every few seconds for what other instances do with them."""

import structlog
import trio

from ticker.errors import StoreUnavailableError
from ticker.stores.api_keys import ApiKeyStore

REFRESH_S = 5.0
"""A key that another instance revokes works here for at most so long, and a deadline's worth."""

RETRY_S = 1.0
"""While PostgreSQL is away; the keys that are known go on working."""


async def keep_api_keys(store: ApiKeyStore, migrated: trio.Event) -> None:
    """Refresh ``store`` until cancelled, from the moment that its table is there."""
    log = structlog.get_logger().bind(task="keep_api_keys")
    await migrated.wait()
    is_away = False
    while True:
        try:
            await store.refresh()
        except StoreUnavailableError as error:
            if not is_away:
                log.warning("api_keys_not_read", error=str(error), detail=error.detail)
            is_away = True
        else:
            is_away = False
        await trio.sleep(RETRY_S if is_away else REFRESH_S)
