"""Greeks of an option's past: which instruments they take, and what those cost at each close."""

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import trio

from ticker.calendar.market_hours import expiry_at, market_date
from ticker.errors import BrokerError
from ticker.greeks.history import OptionTerms, align, bears_carry, price_history
from ticker.greeks.pricing import Profile
from ticker.history.answer import GreekColumns
from ticker.history.range import INDIA_S, MINUTES, Span
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.models import Candles, Interval
from ticker.latest import Latest
from ticker.planning.strikes import find_reference
from ticker.ticks import FloatArray

TOLERANCE_S: Final = 300.0
"""A candle without one of the underlying that opens with it is priced from the last one before
it, if that opens no earlier than this."""

_TOLERANCE: Final = dt.timedelta(seconds=TOLERANCE_S)
_DAY_S: Final = 86_400
_EPOCH: Final = dt.date(1970, 1, 1)


class HistoryGreeks:
    """Prices candles of options. ``rate``: of interest, continuous and yearly."""

    def __init__(
        self,
        registry: Latest[InstrumentRegistry],
        references: ReferenceBars,
        *,
        wall_clock: Callable[[], float],
        profile: Profile,
        rate: float,
        market_hours_file: Path | None = None,
    ) -> None:
        self._registry = registry
        self._references = references
        self._wall_clock = wall_clock
        self._profile = profile
        self._rate = rate
        self._market_hours_file = market_hours_file

    async def price(
        self,
        option: Instrument,
        candles: Candles,
        interval: Interval,
        span: Span,
        account_id: str | None,
    ) -> GreekColumns:
        """Greeks at every candle's close; the spot's and the future's candles are loaded once.

        What cannot be loaded is told in the answer, and priced without.
        """
        spot, future = self._find_spot(option), self._find_future(option)
        errors: list[str] = []

        async def closes(instrument: Instrument | None) -> FloatArray:
            if instrument is not None and len(candles):
                early = Span(span.since_at - _TOLERANCE, span.until_at)
                try:
                    found = await self._references.load(instrument, interval, early, account_id)
                except BrokerError as error:
                    errors.append(f"{instrument.tradingsymbol}: {error}")
                else:
                    return align(candles.starts, found.starts, found.close, TOLERANCE_S)
            return np.full(len(candles), np.nan)

        spots, futures = await closes(spot), await closes(future)

        def compute() -> GreekColumns:
            priced = price_history(
                self._terms(option, future),
                self._closed_at(option, candles, interval),
                candles.close,
                spots,
                futures,
                rate=self._rate,
                profile=self._profile,
            )
            symbol = future.tradingsymbol if future else None
            return GreekColumns(priced, spots, symbol, "; ".join(errors) or None)

        return await trio.to_thread.run_sync(compute)

    def _find_spot(self, option: Instrument) -> Instrument | None:
        """The index or share; None for a commodity or a currency, which have futures only."""
        now = dt.datetime.fromtimestamp(self._wall_clock(), dt.UTC)
        today = market_date(now, self._market_hours_file)
        found = find_reference(self._registry.value, option.underlying, today)
        return found if found is not None and found.expiry is None else None

    def _find_future(self, option: Instrument) -> Instrument | None:
        """The future of the option's expiry; else the one that expires nearest, for a commodity
        of those that do not expire before.
        """
        expiry = option.expiry or dt.date.max
        futures: Sequence[Instrument] = [
            row
            for row in self._registry.value.of_underlying(option.underlying)
            if row.is_future and row.exchange == option.exchange
        ]
        if not bears_carry(option.exchange):
            futures = [row for row in futures if row.expiry and row.expiry >= expiry] or futures
        return min(futures, key=lambda row: abs((row.expiry or expiry) - expiry), default=None)

    def _terms(self, option: Instrument, future: Instrument | None) -> OptionTerms:
        return OptionTerms(
            strike=option.strike,
            is_call=option.instrument_type == "CE",
            tick_size=option.tick_size,
            expires_at=self._expires_at(option.exchange, option.expiry),
            future_expires_at=(
                self._expires_at(future.exchange, future.expiry) if future else np.nan
            ),
            bears_carry=bears_carry(option.exchange),
        )

    def _expires_at(self, exchange: str, day: dt.date | None) -> float:
        return expiry_at(exchange, day or dt.date.max, self._market_hours_file).timestamp()

    def _closed_at(self, option: Instrument, candles: Candles, interval: Interval) -> FloatArray:
        """When each candle's last trade was made at the latest, UNIX seconds: its end, but no
        later than the day's, the hour at which contracts expire, and no later than now.
        """
        starts = candles.starts.astype(np.float64)
        ends = starts + 60.0 * MINUTES[interval]
        days, places = np.unique((candles.starts + INDIA_S) // _DAY_S, return_inverse=True)
        closings = np.array(
            [
                self._expires_at(option.exchange, _EPOCH + dt.timedelta(days=day))
                for day in days.tolist()
            ],
            np.float64,
        )[places]
        # a special session may be held in the evening
        ends = np.where(starts < closings, np.minimum(ends, closings), ends)
        return np.minimum(ends, self._wall_clock())
