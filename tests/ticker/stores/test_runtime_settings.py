import datetime as dt

import pytest

from tests.postgres import open_test_database
from ticker.stores.runtime_settings import RuntimeSettings

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("value", [True, False, 0, 1.5, "on", [1, {"a": None}], {"ä": ["€"]}])
async def test_a_value_comes_back_as_it_was(value: object) -> None:
    async with open_test_database() as database:
        settings = RuntimeSettings(database)
        assert await settings.load("mock_data") is None
        await settings.save("mock_data", "something else", by="somebody")
        await settings.save("mock_data", value, by="key k1")
        loaded = await settings.load("mock_data")
        assert loaded is not None
        assert (loaded.value, type(loaded.value)) == (value, type(value))
        assert await settings.load("another") is None


async def test_who_saved_it_last_and_when_comes_back_too() -> None:
    async with open_test_database() as database:
        settings = RuntimeSettings(database)
        first = await settings.save("mock_data", value=True, by="key k1")
        second = await settings.save("mock_data", value=False, by="key k2")
        assert (first.by, second.by) == ("key k1", "key k2")
        assert first.at < second.at
        assert second.at.utcoffset() == dt.timedelta()
        assert abs(second.at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
        assert await settings.load("mock_data") == second
