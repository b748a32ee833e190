"""Whether the database is still the one that this run began with."""

import datetime as dt
from typing import Any

import psycopg

from ticker.errors import StoreUnavailableError
from ticker.stores.database import Database

_MADE_AT = "SELECT min(applied_at) FROM schema_migrations"


class StoreReplacedError(StoreUnavailableError):
    """The tables are others than at first: the database was made anew, or it is another one."""


class StoreOrigin:
    """Remembers when the tables were made; a copy, as of a dump or a replica, is the same."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made_at: dt.datetime | None = None

    async def require_same(self) -> None:
        """Return if the tables are those of the first call; else raise StoreReplacedError.

        To be asked after reading: had they been replaced before that, it says so. Raises
        StoreUnavailableError as ``Database.run`` does.
        """

        def load(connection: psycopg.Connection[Any]) -> dt.datetime | None:
            ((made_at,),) = connection.execute(_MADE_AT).fetchall()
            found: dt.datetime | None = made_at
            return found

        made_at = await self._database.run(load, query_type="load_origin")
        if self._made_at is None:
            self._made_at = made_at
        if made_at != self._made_at:
            raise StoreReplacedError(
                "the database is not the one that this run began with: what streams goes on from "
                "memory; restart to take what this one says, or bring the other one back"
            )
