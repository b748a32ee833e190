"""What the broker lists, in PostgreSQL: today's instruments, and every contract there has been."""

import datetime as dt
from collections.abc import Mapping, Sequence
from sys import intern
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from ticker.instruments.dump import ExchangeDump
from ticker.instruments.registry import Instrument, InstrumentQuery
from ticker.stores.database import Database
from ticker.stores.instrument_merge import MergeResult, merge_dumps

MERGE_TIMEOUT_S: Final = 60.0
"""For one merge of 100,000 rows, which takes three seconds."""

_FETCH: Final = 200  # rows made into objects at a time: a millisecond with the interpreter held

_COLUMNS: Final = sql.SQL(", ").join(map(sql.Identifier, Instrument.__struct_fields__))


class ArchivedInstrument(msgspec.Struct, frozen=True):
    """A contract, and the dumps in which its token stood for it; ``last_day`` None: it still is."""

    instrument: Instrument
    first_day: dt.date
    last_day: dt.date | None


class DumpMark(msgspec.Struct, frozen=True):
    """The newest dump of an exchange that is in the table."""

    exchange: str
    day: dt.date
    rows: int
    rejected: int
    loaded_at: dt.datetime


class StoredInstruments(msgspec.Struct, frozen=True):
    """What is active in the table, and by exchange since when."""

    instruments: list[Instrument]
    marks: Mapping[str, DumpMark]


class InstrumentStore:
    """Every method raises StoreUnavailableError when PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, exchanges: Sequence[str]) -> StoredInstruments:
        """All active instruments of these exchanges: half a second for 100,000, in a thread."""

        def work(connection: psycopg.Connection[Any]) -> StoredInstruments:
            return _load(connection, list(exchanges))

        return await self._database.run(work, query_type="load_instruments")

    async def merge(self, dumps: Sequence[ExchangeDump], at: dt.datetime) -> MergeResult:
        """Make the tables say what these dumps say, in one transaction; see ``merge_dumps``."""

        def work(connection: psycopg.Connection[Any]) -> MergeResult:
            return merge_dumps(connection, dumps, at)

        return await self._database.run(
            work, timeout_s=MERGE_TIMEOUT_S, query_type="merge_instruments"
        )

    async def find(
        self, query: InstrumentQuery, day: dt.date, *, limit: int, after: int = 0
    ) -> list[Instrument]:
        """What was listed on that day, a page by token as of ``InstrumentRegistry.search``."""
        statement, values = create_find(query, day, limit=limit, after=after)

        def work(connection: psycopg.Connection[Any]) -> list[Instrument]:
            rows = connection.cursor(row_factory=tuple_row).execute(statement, values)
            return [Instrument(*row) for row in rows]

        return await self._database.run(work, query_type="find_instruments")

    async def find_token(self, token: int, day: dt.date) -> ArchivedInstrument | None:
        """The contract that most lately had this token on that day; None if none had."""
        statement = sql.SQL(
            "SELECT first_day, last_day, {} FROM instrument_archive "
            "WHERE instrument_token = %s AND first_day <= %s "
            "ORDER BY first_day DESC, spell DESC LIMIT 1"
        ).format(_COLUMNS)

        def work(connection: psycopg.Connection[Any]) -> ArchivedInstrument | None:
            cursor = connection.cursor(row_factory=tuple_row).execute(statement, (token, day))
            row = cursor.fetchone()
            return None if row is None else ArchivedInstrument(Instrument(*row[2:]), *row[:2])

        return await self._database.run(work, query_type="find_instruments")


def create_find(
    query: InstrumentQuery, day: dt.date, *, limit: int, after: int
) -> tuple[sql.Composed, list[object]]:
    """The statement of a page and its values, with a condition for each thing that is asked."""
    conditions = [
        "instrument_token > %s",
        "first_day <= %s",
        "(last_day IS NULL OR last_day >= %s)",
    ]
    values: list[object] = [after, day, day]
    for column in ("underlying", "expiry", "instrument_type", "segment", "exchange"):
        if (wanted := getattr(query, column)) is not None:
            conditions.append(f"{column} = %s")
            values.append(wanted)
    for condition, wanted in (
        ("strike >= %s", query.strike_min),
        ("strike <= %s", query.strike_max),
        ("tradingsymbol LIKE %s", query.prefix and _like(query.prefix)),
    ):
        if wanted is not None:
            conditions.append(condition)
            values.append(wanted)
    # of two contracts that had a token on one day, the later
    statement = sql.SQL(
        "SELECT DISTINCT ON (instrument_token) {} FROM instrument_archive WHERE {} "
        "ORDER BY instrument_token, first_day DESC, spell DESC LIMIT %s"
    ).format(_COLUMNS, sql.SQL(" AND ").join(map(sql.SQL, conditions)))
    return statement, [*values, limit]


def _like(prefix: str) -> str:
    escaped = prefix.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    return f"{escaped}%"


def _load(connection: psycopg.Connection[Any], exchanges: list[str]) -> StoredInstruments:
    cursor = connection.cursor(row_factory=tuple_row)
    cursor.execute(
        "SELECT exchange, day, row_count, rejected, loaded_at FROM instrument_dumps "
        "WHERE exchange = ANY(%s)",
        (exchanges,),
    )
    marks = {row[0]: DumpMark(*row) for row in cursor}
    # The marks first: rows that another process merges in between are newer than their mark, and
    # are at worst read again.
    statement = sql.SQL(
        "SELECT {} FROM instrument_registry WHERE is_active AND exchange = ANY(%s)"
    ).format(_COLUMNS)
    cursor.execute(statement, (exchanges,))
    instruments: list[Instrument] = []
    days: dict[dt.date | None, dt.date | None] = {}  # a hundred thousand rows share some hundred
    while rows := cursor.fetchmany(_FETCH):
        for token, number, symbol, name, expiry, strike, tick, lot, kind, segment, exchange in rows:
            instruments.append(
                Instrument(
                    instrument_token=token,
                    exchange_token=number,
                    tradingsymbol=symbol,
                    name=intern(name),
                    expiry=days.setdefault(expiry, expiry),
                    strike=strike,
                    tick_size=tick,
                    lot_size=lot,
                    instrument_type=intern(kind),
                    segment=intern(segment),
                    exchange=intern(exchange),
                )
            )
    return StoredInstruments(instruments, marks)
