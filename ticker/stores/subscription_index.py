"""Two questions about ``instrument_subscriptions`` that are answered without reading all of it."""

from collections.abc import Collection
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from ticker.stores.database import Database
from ticker.stores.subscriptions import SubscriptionRow

_VERSION = """
SELECT count(*), max(updated_at),
       coalesce(sum(hashtextextended(
           concat_ws('|', instrument_token, tradingsymbol, requested_mode, account_id), 0)), 0)
FROM instrument_subscriptions WHERE status = 'active'
"""

_ROWS = """
SELECT instrument_token, exchange, tradingsymbol, segment, expiry, status, requested_mode,
       account_id, origin, created_at, updated_at
FROM instrument_subscriptions WHERE instrument_token = ANY(%s) ORDER BY instrument_token
"""


class SubscriptionIndex:
    """Reads beside ``SubscriptionStore``. Both methods raise StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_version(self) -> tuple[Any, ...]:
        """What differs whenever the active rows do, whoever changed them and however.

        A digest over the rows, some 10 ms of the server's time for 27,000.
        """

        def work(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
            row = connection.execute(_VERSION).fetchone()
            return tuple(row or ())

        return await self._database.run(work)

    async def load_rows(self, tokens: Collection[int]) -> dict[int, SubscriptionRow]:
        """The rows of these tokens, active or not, as far as there are any."""

        def work(connection: psycopg.Connection[Any]) -> dict[int, SubscriptionRow]:
            with connection.cursor(row_factory=dict_row) as cursor:
                found = cursor.execute(_ROWS, (list(tokens),)).fetchall()
            rows = (msgspec.convert(row, SubscriptionRow) for row in found)
            return {row.instrument_token: row for row in rows}

        return await self._database.run(work)
