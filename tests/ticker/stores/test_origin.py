"""Tables that were made anew, and those that only lost their rows, in a real PostgreSQL."""

from typing import Any

import psycopg
import pytest

from tests.postgres import open_test_database
from ticker.errors import StoreUnavailableError
from ticker.stores.migrate import migrate
from ticker.stores.origin import StoreOrigin, StoreReplacedError

pytestmark = pytest.mark.slow


def drop_everything(connection: psycopg.Connection[Any]) -> None:
    connection.execute("DROP SCHEMA public CASCADE")
    connection.execute("CREATE SCHEMA public")


def empty_table(connection: psycopg.Connection[Any]) -> None:
    connection.execute("TRUNCATE instrument_subscriptions")


async def test_tables_are_the_same_until_they_are_made_anew() -> None:
    async with open_test_database() as database:
        origin = StoreOrigin(database)
        await origin.require_same()
        await database.run(empty_table)
        await origin.require_same()
        await database.run(drop_everything)
        with pytest.raises(StoreUnavailableError) as caught:
            await origin.require_same()
        assert caught.type is StoreUnavailableError, "no tables are nobody's"
        await migrate(database)
        for _ in range(2):
            with pytest.raises(StoreReplacedError, match="restart"):
                await origin.require_same()
        await StoreOrigin(database).require_same()
