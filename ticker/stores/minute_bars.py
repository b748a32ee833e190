"""Table ``minute_bars``: candles of underlyings, kept so that the broker is asked once for each."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg.rows import class_row

from ticker.stores.database import Database

RESOLUTION: Final = 1
"""Minutes; the table has room for others."""


class MinuteBar(msgspec.Struct, frozen=True, kw_only=True):
    """One candle, of which ``time`` is the start: aware UTC. Prices in rupees."""

    time: dt.datetime
    open: float
    high: float
    low: float
    close: float
    volume: int = 0


class MinuteBarStore:
    """Every method is one transaction and raises StoreUnavailableError as ``Database.run`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(
        self, symbol: str, since_at: dt.datetime, until_at: dt.datetime
    ) -> list[MinuteBar]:
        """Bars that start at ``since_at`` or later and before ``until_at``, oldest first."""
        values = (symbol, RESOLUTION, since_at, until_at)

        def load(connection: psycopg.Connection[Any]) -> list[MinuteBar]:
            with connection.cursor(row_factory=class_row(MinuteBar)) as cursor:
                return cursor.execute(SELECT, values).fetchall()

        return await self._database.run(load, query_type="load_minute_bars")

    async def save(self, symbol: str, bars: Sequence[MinuteBar]) -> None:
        """Insert bars, or replace those of the same minute; the later one counts of two."""
        distinct = {bar.time: bar for bar in bars}
        rows = [distinct[time] for time in sorted(distinct)]
        values = {
            "symbol": symbol,
            "resolution": RESOLUTION,
            "times": [bar.time for bar in rows],
            "opens": [bar.open for bar in rows],
            "highs": [bar.high for bar in rows],
            "lows": [bar.low for bar in rows],
            "closes": [bar.close for bar in rows],
            "volumes": [bar.volume for bar in rows],
        }

        def save(connection: psycopg.Connection[Any]) -> None:
            connection.execute(UPSERT, values)

        await self._database.run(save, query_type="save_minute_bars")


SELECT: Final = """
SELECT time, open, high, low, close, volume FROM minute_bars
WHERE symbol = %s AND resolution = %s AND time >= %s AND time < %s
ORDER BY time
"""

UPSERT: Final = """
INSERT INTO minute_bars (
    symbol, resolution, time, open, high, low, close, volume, metadata
)
SELECT %(symbol)s, %(resolution)s, bar.*, '{"source": "kite_backfill", "timeframe": "1min"}'
FROM unnest(
    %(times)s::timestamptz[], %(opens)s::float8[], %(highs)s::float8[], %(lows)s::float8[],
    %(closes)s::float8[], %(volumes)s::bigint[]
) AS bar
ON CONFLICT (symbol, resolution, time) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, metadata = excluded.metadata
"""
