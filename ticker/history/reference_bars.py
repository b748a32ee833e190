"""Minutes of underlyings, from PostgreSQL where it has them, else from the broker, and kept."""

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from ticker.calendar.india import india_date
from ticker.calendar.market_hours import day_phases
from ticker.errors import ConfigurationError, StoreUnavailableError
from ticker.history.candles import load_range
from ticker.history.range import INDIA, Session, Span, missing_spans
from ticker.instruments.registry import Instrument
from ticker.kite.models import Candles, Interval, create_candles, join_candles
from ticker.kite.rest import Brokers
from ticker.stores.minute_bars import MinuteBar, MinuteBarStore

SETTLED_S: Final = 120.0
"""A minute is kept this long after its end: before, the broker may still change it."""

_MINUTE: Final = dt.timedelta(minutes=1)
_DAY: Final = dt.timedelta(days=1)
_SATURDAY: Final = 5


class ReferenceBars:
    """Loads minute candles of what options are priced from.

    ``store`` None, or away: all of them come from the broker.
    """

    def __init__(
        self,
        brokers: Brokers,
        store: MinuteBarStore | None,
        *,
        wall_clock: Callable[[], float],
        market_hours_file: Path | None = None,
    ) -> None:
        self._brokers = brokers
        self._store = store
        self._wall_clock = wall_clock
        self._market_hours_file = market_hours_file

    async def load(
        self,
        instrument: Instrument,
        interval: Interval,
        span: Span,
        account_id: str | None = None,
    ) -> Candles:
        """The candles of a span. Of minutes, what is missing in the store is asked for, and
        written back; longer candles are not kept.

        Raises BrokerError if something is missing and no account answers.
        """
        if interval != "minute":
            return await self._fetch(instrument, interval, span, account_id)
        symbol = _symbol(instrument)
        known = await self._stored(symbol, span)
        if known is None:
            missing = [span]
        else:
            missing = missing_spans(known.starts, self._sessions(instrument.exchange, span))
        parts = [] if known is None else [known]
        for piece in missing:
            fetched = await self._fetch(instrument, "minute", piece, account_id)
            parts.append(fetched)
            await self._keep(symbol, fetched, self._settled(instrument.exchange))
        return join_candles(parts)

    async def _fetch(
        self, instrument: Instrument, interval: Interval, span: Span, account_id: str | None
    ) -> Candles:
        token = instrument.instrument_token
        return await load_range(self._brokers, token, interval, span, account_id=account_id)

    async def _stored(self, symbol: str, span: Span) -> Candles | None:
        """What the store has; None if it cannot be asked."""
        if self._store is None:
            return None
        try:
            bars = await self._store.load(symbol, span.since_at, span.until_at + _MINUTE)
        except StoreUnavailableError:
            return None
        rows = [(bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars]
        numbers = np.array(rows, np.float64).reshape(-1, 5).T
        return create_candles(
            np.array([int(bar.time.timestamp()) for bar in bars], np.int64), numbers
        )

    def _settled(self, exchange: str) -> float:
        """The last opening of a minute that may be kept, UNIX seconds.

        Until a day is over, the minute in which continuous trading ends stays missing: for its
        sake what comes after it is asked for, the closing auction's minutes, if there are any.
        """
        now = self._wall_clock()
        settled = now - SETTLED_S - _MINUTE.total_seconds()
        today = india_date(now - SETTLED_S)
        try:
            phases = day_phases(exchange, today, self._market_hours_file)
        except ConfigurationError:
            return settled
        ends = [phase.until.timestamp() for phase in phases if phase.until]
        if not ends or now - SETTLED_S >= ends[-1]:
            return settled
        closings = [until for _, until in self._hours(exchange, today)]
        return min([settled, *(until - 2 * _MINUTE.total_seconds() for until in closings[-1:])])

    async def _keep(self, symbol: str, candles: Candles, settled: float) -> None:
        count = int(np.searchsorted(candles.starts, settled, "right"))
        if self._store is None or not count:
            return
        rows = zip(
            candles.starts[:count].tolist(),
            *candles.prices[:, :count].tolist(),
            candles.volume[:count].tolist(),
            strict=True,
        )
        bars = [
            MinuteBar(
                time=dt.datetime.fromtimestamp(start, dt.UTC),
                open=opening,
                high=high,
                low=low,
                close=close,
                volume=volume,
            )
            for start, opening, high, low, close, volume in rows
        ]
        try:
            await self._store.save(symbol, bars)
        except StoreUnavailableError as error:
            log = structlog.get_logger().bind(symbol=symbol)
            log.warning("minutes_not_kept", error=str(error), detail=error.detail)

    def _sessions(self, exchange: str, span: Span) -> Iterator[Session]:
        """Each day's continuous trading, as far as it is over and in the span."""
        since, until = span.since_at.timestamp(), span.until_at.timestamp()
        now = self._wall_clock()
        day = span.since_at.date()
        while day <= span.until_at.date():
            midnight = dt.datetime.combine(day + _DAY, dt.time(), INDIA).timestamp()
            for opened_at, closed_at in self._hours(exchange, day):
                begin, end = max(opened_at, since), min(closed_at, until + 60.0, now)
                if begin < end:
                    # what comes after the day's end is asked for with it, or never would be
                    last = midnight - 1 if end >= closed_at else min(midnight - 1, until)
                    yield Session(begin, end, last)
            day += _DAY

    def _hours(self, exchange: str, day: dt.date) -> list[tuple[float, float]]:
        """Of a year that the calendar does not cover the whole of each working day, which is
        never known wholly: so it is always asked for.
        """
        try:
            phases = day_phases(exchange, day, self._market_hours_file)
        except ConfigurationError:
            midnight = dt.datetime.combine(day, dt.time(), INDIA).timestamp()
            return [(midnight, midnight + 86_400.0)] if day.weekday() < _SATURDAY else []
        return [
            (phase.since.timestamp(), phase.until.timestamp())
            for phase in phases
            if phase.name == "continuous" and phase.since and phase.until
        ]


def _symbol(instrument: Instrument) -> str:
    """What the table calls it: an index or share by its underlying, a future by its own name."""
    return instrument.tradingsymbol if instrument.expiry else instrument.underlying
