"""Dumps into the tables, in one transaction: what is new, what has changed, what is gone."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

import msgspec
import psycopg
from psycopg.rows import tuple_row

from ticker.instruments.dump import ExchangeDump, doubt

_LOCK: Final = 0x696E_7374
"""Advisory lock of a merge: of two processes, the second waits for the first to commit."""

_LISTED: Final = (
    "exchange_token",
    "tradingsymbol",
    "name",
    "segment",
    "instrument_type",
    "strike",
    "expiry",
    "tick_size",
    "lot_size",
    "exchange",
    "underlying",
)


def _row(columns: Iterable[str], table: str = "") -> str:
    """Columns as SQL, all of one table if it is named."""
    return ", ".join(f"{table}.{column}" if table else column for column in columns)


_STAGE: Final = f"""
CREATE TEMP TABLE staged ON COMMIT DROP AS
SELECT current_date AS day, instrument_token, {_row(_LISTED)}
FROM instrument_registry WITH NO DATA
"""  # noqa: S608 (the names of our own columns)

_INDEX: Final = "CREATE INDEX ON staged (instrument_token)"

_CLOSE_SPELLS: Final = """
UPDATE instrument_archive spell
SET last_day = GREATEST(
    first_day, (SELECT day FROM instrument_dumps WHERE exchange = spell.exchange)
)
WHERE last_day IS NULL
    AND (
        exchange = ANY(%(exchanges)s)
        OR instrument_token IN (SELECT instrument_token FROM staged)
    )
    AND NOT EXISTS (
        SELECT FROM staged
        WHERE staged.instrument_token = spell.instrument_token
            AND staged.exchange = spell.exchange
            AND staged.tradingsymbol = spell.tradingsymbol
            AND staged.expiry IS NOT DISTINCT FROM spell.expiry
    )
"""

_DEACTIVATE: Final = """
UPDATE instrument_registry listed SET is_active = FALSE, last_refreshed_at = %(at)s
WHERE is_active AND exchange = ANY(%(exchanges)s)
    AND NOT EXISTS (SELECT FROM staged WHERE staged.instrument_token = listed.instrument_token)
"""

_CHANGE: Final = f"""
UPDATE instrument_registry listed
SET ({_row(_LISTED)}) = ({_row(_LISTED, "staged")}), is_active = TRUE, last_refreshed_at = %(at)s
FROM staged
WHERE staged.instrument_token = listed.instrument_token
    AND (
        NOT listed.is_active
        OR ({_row(_LISTED, "listed")}) IS DISTINCT FROM ({_row(_LISTED, "staged")})
    )
"""  # noqa: S608

_ADD: Final = f"""
INSERT INTO instrument_registry (instrument_token, {_row(_LISTED)}, last_refreshed_at)
SELECT instrument_token, {_row(_LISTED)}, %(at)s FROM staged
WHERE NOT EXISTS (
    SELECT FROM instrument_registry listed
    WHERE listed.instrument_token = staged.instrument_token
)
"""  # noqa: S608

_AMEND_SPELLS: Final = f"""
UPDATE instrument_archive spell SET ({_row(_LISTED)}) = ({_row(_LISTED, "staged")})
FROM staged
WHERE spell.last_day IS NULL AND spell.instrument_token = staged.instrument_token
    AND ({_row(_LISTED, "spell")}) IS DISTINCT FROM ({_row(_LISTED, "staged")})
"""  # noqa: S608

_OPEN_SPELLS: Final = f"""
INSERT INTO instrument_archive (instrument_token, first_day, {_row(_LISTED)})
SELECT instrument_token, day, {_row(_LISTED)} FROM staged
WHERE NOT EXISTS (
    SELECT FROM instrument_archive spell
    WHERE spell.last_day IS NULL AND spell.instrument_token = staged.instrument_token
)
"""  # noqa: S608

_MARK: Final = """
INSERT INTO instrument_dumps (exchange, day, row_count, rejected, loaded_at)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (exchange) DO UPDATE SET (day, row_count, rejected, loaded_at) =
    (excluded.day, excluded.row_count, excluded.rejected, excluded.loaded_at)
"""


class MergeResult(msgspec.Struct, frozen=True):
    """Rows that a merge has changed, and by exchange why its dump was not taken over."""

    added: int = 0
    changed: int = 0
    deactivated: int = 0
    refused: Mapping[str, str] = MappingProxyType({})


def merge_dumps(
    connection: psycopg.Connection[Any], dumps: Sequence[ExchangeDump], at: dt.datetime
) -> MergeResult:
    """Make the tables say what these dumps say; the caller commits.

    Their exchanges list exactly what is in them afterwards; what is gone stays as inactive, and in
    the archive. A dump that is older than the one an exchange has, or not to be believed, is left
    out. Only rows that differ are written: a day after a merge, a few percent.
    """
    cursor = connection.cursor(row_factory=tuple_row)
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    cursor.execute("SELECT exchange, day, row_count FROM instrument_dumps")
    marks = {row[0]: (row[1], row[2]) for row in cursor}
    refused = {dump.exchange: reason for dump in dumps if (reason := _refusal(dump, marks))}
    dumps = [dump for dump in dumps if dump.exchange not in refused]
    if not dumps:
        return MergeResult(refused=refused)
    cursor.execute(_STAGE)
    with cursor.copy("COPY staged FROM STDIN") as copy:
        for row in _staged(dumps):
            copy.write_row(row)
    cursor.execute(_INDEX)
    cursor.execute("ANALYZE staged")
    terms = {"at": at, "exchanges": [dump.exchange for dump in dumps]}
    cursor.execute(_CLOSE_SPELLS, terms)
    deactivated = cursor.execute(_DEACTIVATE, terms).rowcount
    changed = cursor.execute(_CHANGE, terms).rowcount
    added = cursor.execute(_ADD, terms).rowcount
    cursor.execute(_AMEND_SPELLS)
    cursor.execute(_OPEN_SPELLS)
    cursor.executemany(
        _MARK,
        [(dump.exchange, dump.day, len(dump.instruments), dump.rejected, at) for dump in dumps],
    )
    return MergeResult(added, changed, deactivated, refused)


def _refusal(dump: ExchangeDump, marks: Mapping[str, tuple[dt.date, int]]) -> str | None:
    """Why a dump is not taken over; None if it is. ``marks``: day and rows of the last ones."""
    day, rows = marks.get(dump.exchange, (dump.day, 0))
    if dump.day < day:
        return f"{dump.exchange}: the dump is of {dump.day}, the stored one of {day}"
    return doubt(dump, rows)


def _staged(dumps: Iterable[ExchangeDump]) -> Iterable[tuple[object, ...]]:
    """Rows in the order of the staging table; of two with one token, one."""
    values = attrgetter(*_LISTED)
    seen: set[int] = set()
    for dump in dumps:
        for row in dump.instruments:
            if row.instrument_token not in seen:
                seen.add(row.instrument_token)
                yield (dump.day, row.instrument_token, *values(row))
