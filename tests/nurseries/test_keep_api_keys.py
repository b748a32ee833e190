import pytest
import trio
import trio.testing

from nurseries.keep_api_keys import REFRESH_S, RETRY_S, keep_api_keys
from ticker.errors import StoreUnavailableError
from ticker.stores.api_keys import ApiKeyStore


class CountingStore(ApiKeyStore):
    """Notes when it is refreshed. ``failure``: what that ends with."""

    def __init__(self) -> None:
        self.refreshed_at: list[float] = []
        self.failure: Exception | None = None

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()
        self.refreshed_at.append(trio.current_time())
        if self.failure:
            raise self.failure


async def test_keys_are_refreshed_from_the_migration_on_and_asked_for_while_away(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    store, migrated = CountingStore(), trio.Event()
    nursery.start_soon(keep_api_keys, store, migrated)
    await trio.sleep(60)
    assert store.refreshed_at == []
    started_at = trio.current_time()
    migrated.set()
    await trio.sleep(2 * REFRESH_S + 0.1)
    assert [at - started_at for at in store.refreshed_at] == [0, REFRESH_S, 2 * REFRESH_S]
    store.failure = StoreUnavailableError("away")
    await trio.sleep(REFRESH_S + 10 * RETRY_S)
    assert len(store.refreshed_at) >= 3 + 10


async def test_bug_is_not_taken_for_an_absent_database(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, migrated = CountingStore(), trio.Event()
    store.failure = ZeroDivisionError()
    migrated.set()
    with pytest.raises(ZeroDivisionError):
        await keep_api_keys(store, migrated)
