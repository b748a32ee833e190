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
        assert (loaded, type(loaded)) == (value, type(value))
        assert await settings.load("another") is None


async def test_who_saved_it_and_when_is_in_the_table() -> None:
    async with open_test_database() as database:
        settings = RuntimeSettings(database)
        await settings.save("mock_data", value=True, by="key k1")
        await settings.save("mock_data", value=False, by="key k2")
        rows = await database.run(
            lambda connection: connection.execute(
                "SELECT updated_by, updated_at > now() - interval '1 minute' FROM runtime_settings"
            ).fetchall()
        )
        assert rows == [("key k2", True)]
