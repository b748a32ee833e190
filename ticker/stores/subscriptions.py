"""Table ``instrument_subscriptions``: what users and the strike rebalancer want streamed.

A row belongs to a contract (exchange, tradingsymbol and expiry) and is found by its token. The
broker gives the token of an expired contract to another one; what was decided about the first is
then nobody's wish about the second.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, LiteralString

import msgspec
import psycopg
from psycopg.rows import class_row

from ticker.stores import subscription_sql as sql
from ticker.stores.database import Database

Mode = Literal["FULL", "QUOTE", "LTP"]
Origin = Literal["user", "rebalancer"]
Status = Literal["active", "inactive"]


BULK_ROWS: Final = 2000

BULK_TIMEOUT_S: Final = 30.0
"""More rows than ``BULK_ROWS`` in one call may take this long; 27,000 take one second or two."""


class NewSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument to be streamed. ``account_id`` None: by any account."""

    instrument_token: int
    exchange: str
    tradingsymbol: str
    segment: str
    expiry: dt.date | None = None
    requested_mode: Mode = "FULL"
    account_id: str | None = None


class SubscriptionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row as stored. ``origin``: who decided last. Times are aware UTC."""

    instrument_token: int
    exchange: str
    tradingsymbol: str
    segment: str
    expiry: dt.date | None
    status: Status
    requested_mode: Mode
    account_id: str | None
    origin: Origin
    created_at: dt.datetime
    updated_at: dt.datetime


class SubscriptionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions that a row must all meet; None is no condition.

    ``underlying`` is looked up among the instruments.
    """

    status: Status | None = None
    account_id: str | None = None
    segment: str | None = None
    instrument_token: int | None = None
    origin: Origin | None = None
    underlying: str | None = None


class SubscriptionStore:
    """Every method is one transaction and raises StoreUnavailableError as ``Database.run`` does.

    A call that fails so late that its outcome is unknown may be repeated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_active(self) -> list[SubscriptionRow]:
        """Every active row, by token."""

        def load(connection: psycopg.Connection[Any]) -> list[SubscriptionRow]:
            return _fetch(connection, sql.SELECT_ACTIVE)

        return await self._database.run(load, query_type="load_active_subscriptions")

    async def find(
        self, wanted: SubscriptionFilter, *, limit: int, offset: int = 0, after: int | None = None
    ) -> list[SubscriptionRow]:
        """One page, by token: past ``after`` if given, less the first ``offset``."""
        statement, values = sql.create_page(_given(wanted), limit, offset, after)

        def find(connection: psycopg.Connection[Any]) -> list[SubscriptionRow]:
            return _fetch(connection, statement, values)

        return await self._database.run(find, query_type="find_subscriptions")

    async def count(self, wanted: SubscriptionFilter) -> int:
        """How many rows meet the conditions."""
        statement, values = sql.create_count(_given(wanted))

        def count(connection: psycopg.Connection[Any]) -> int:
            ((found,),) = connection.execute(statement, values).fetchall()
            return int(found)

        return await self._database.run(count, query_type="count_subscriptions")

    async def upsert(
        self, rows: Sequence[NewSubscription], *, origin: Origin
    ) -> list[SubscriptionRow]:
        """Make rows active; the rows as they are then, by token, those left alone included.

        A user's wish replaces mode and account, and the row is the user's from then on. The
        rebalancer's only adds a row where the contract has none, or takes up a row of its own that
        is inactive: a row that a user made or deactivated is left alone. Of two rows with the same
        token or the same contract the later counts.
        """
        by_contract = {(row.exchange, row.tradingsymbol, row.expiry): row for row in rows}
        by_token = {row.instrument_token: row for row in by_contract.values()}
        columns = _columns(list(by_token.values()))

        def upsert(connection: psycopg.Connection[Any]) -> list[SubscriptionRow]:
            connection.execute(sql.LOCK)
            connection.execute(sql.DELETE_OTHER_CONTRACTS, columns)
            connection.execute(sql.MOVE_TO_TOKENS, columns)
            insert = sql.INSERT_OR_REPLACE if origin == "user" else sql.INSERT_OR_TAKE_UP
            connection.execute(insert, columns | {"origin": origin})
            return _fetch(connection, sql.SELECT_LISTED, columns)

        timeout_s = BULK_TIMEOUT_S if len(by_token) > BULK_ROWS else None
        return await self._database.run(
            upsert, timeout_s=timeout_s, query_type="upsert_subscriptions"
        )

    async def deactivate(self, tokens: Collection[int], *, origin: Origin) -> list[SubscriptionRow]:
        """Make rows inactive; those that there are, by token, the already inactive ones included.

        A user may deactivate any row, which is the user's from then on; the rebalancer its own.
        """
        values = {"tokens": list(tokens), "origin": origin}

        def deactivate(connection: psycopg.Connection[Any]) -> list[SubscriptionRow]:
            connection.execute(sql.LOCK)
            return _by_token(_fetch(connection, sql.DEACTIVATE, values))

        return await self._database.run(deactivate, query_type="deactivate_subscriptions")

    async def deactivate_expired(self, before: dt.date) -> list[SubscriptionRow]:
        """Make active rows inactive whose contract expired earlier than that day; these rows."""

        def deactivate(connection: psycopg.Connection[Any]) -> list[SubscriptionRow]:
            connection.execute(sql.LOCK)
            return _by_token(_fetch(connection, sql.DEACTIVATE_EXPIRED, {"before": before}))

        return await self._database.run(deactivate, query_type="deactivate_expired_subscriptions")

    async def replace_tokens(self, moves: Mapping[int, int]) -> list[SubscriptionRow]:
        """Give rows other tokens, old to new, all at once; the rows moved, by token.

        For contracts that the broker lists under another token. What a new token stood for is
        forgotten, unless it moves too.
        """

        def move(connection: psycopg.Connection[Any]) -> list[SubscriptionRow]:
            connection.execute(sql.LOCK)
            moved = _fetch(connection, sql.TAKE_OUT, {"tokens": list(moves)})
            if not moved:
                return []
            places = [moves[row.instrument_token] for row in moved]
            connection.execute(sql.TAKE_OUT, {"tokens": places})
            values = _columns(moved) | {
                "tokens": places,
                "statuses": [row.status for row in moved],
                "origins": [row.origin for row in moved],
                "created": [row.created_at for row in moved],
            }
            return _by_token(_fetch(connection, sql.PUT_BACK, values))

        return await self._database.run(move, query_type="move_subscriptions")


def _fetch(
    connection: psycopg.Connection[Any],
    statement: LiteralString,
    values: Mapping[str, object] | None = None,
) -> list[SubscriptionRow]:
    with connection.cursor(row_factory=class_row(SubscriptionRow)) as cursor:
        return cursor.execute(statement, values).fetchall()


def _by_token(rows: list[SubscriptionRow]) -> list[SubscriptionRow]:
    return sorted(rows, key=lambda row: row.instrument_token)


def _given(wanted: SubscriptionFilter) -> dict[str, object]:
    fields = msgspec.structs.asdict(wanted)
    return {name: value for name, value in fields.items() if value is not None}


def _columns(rows: Sequence[NewSubscription | SubscriptionRow]) -> dict[str, object]:
    """One array a column, for ``unnest``."""
    return {
        "tokens": [row.instrument_token for row in rows],
        "exchanges": [row.exchange for row in rows],
        "symbols": [row.tradingsymbol for row in rows],
        "segments": [row.segment for row in rows],
        "expiries": [row.expiry for row in rows],
        "modes": [row.requested_mode for row in rows],
        "accounts": [row.account_id for row in rows],
    }
