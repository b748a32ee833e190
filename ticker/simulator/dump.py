"""The instrument dump of one day, made from a seed and a date.

Same rows, symbols, lots and token arithmetic (exchange token << 8 | segment) as the broker's
CSV; which contracts exist follows from the expiry rules and the spot that the seed gives the day.
"""

import datetime as dt
import hashlib
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ticker.calendar.market_hours import expiry_at, is_trading_day
from ticker.instruments.registry import COLUMNS, OPTION_TYPES, Instrument
from ticker.simulator.days import IST, OPEN
from ticker.simulator.listing import WHOLE_MARKET, create_dormant, with_tokens_of
from ticker.simulator.paths import SpotPaths
from ticker.simulator.underlyings import (
    SEGMENT_IDS,
    Chain,
    InstrumentSet,
    Spot,
    Underlying,
    load_underlyings,
)

_FIRST_TOKENS: Final = {
    "NSE": 20_001,
    "NFO": 35_001,
    "CDS": 1_001,
    "BFO": 830_001,
    "BCD": 1_150_001,
    "MCX": 430_001,
    "NCO": 510_001,
}
_MONTH_CHARACTERS: Final = "123456789OND"

FAR_MONTHS: Final = 3
"""Monthly expiries after these have their strikes ``FAR_STEP`` times as far apart."""

FAR_STEP: Final = 10

Numbers = Mapping[str, Iterator[int]]
"""The next exchange token of each exchange."""


@dataclass(frozen=True, slots=True)
class InstrumentDump:
    """``instruments`` in the order of the CSV: cash first, then futures, then options.

    ``dormant``: what is listed behind them and has no market.
    """

    date: dt.date
    underlyings: tuple[Underlying, ...]
    instruments: tuple[Instrument, ...]
    dormant: tuple[Instrument, ...] = ()

    @property
    def rows(self) -> tuple[Instrument, ...]:
        """Everything that is listed."""
        return self.instruments + self.dormant

    @property
    def etag(self) -> str:
        """26 characters that change with the contents."""
        symbols = "".join(row.tradingsymbol for row in self.rows)
        return hashlib.sha256(f"{self.date}{symbols}".encode()).hexdigest()[:26]

    def to_csv(self, exchange: str | None = None) -> bytes:
        """The broker's ``/instruments`` body, for one exchange or all."""
        out = io.StringIO()
        out.write(",".join(COLUMNS) + "\n")
        for row in self.rows:
            if exchange is None or row.exchange == exchange:
                out.write(_csv_line(row))
        return out.getvalue().encode()


def create_dump(seed: int, date: dt.date, which: InstrumentSet = "near") -> InstrumentDump:
    """Every contract that is listed on ``date``; equal arguments give equal dumps."""
    underlyings = load_underlyings(which)
    opening = dt.datetime.combine(date, OPEN, IST).timestamp()
    paths = SpotPaths(seed, underlyings)
    spots = paths.spots(paths.everything, np.array([opening]))[:, 0]
    numbers = {exchange: itertools.count(first) for exchange, first in _FIRST_TOKENS.items()}
    cash = [_cash(underlying.spot, numbers) for underlying in underlyings if underlying.spot]
    futures: list[Instrument] = []
    options: list[Instrument] = []
    for underlying, spot in zip(underlyings, spots, strict=True):
        if underlying.chain is not None:
            listing = _Listing(underlying.name, underlying.chain, date, numbers)
            futures += listing.futures()
            options += listing.options(float(spot))
    rows = (*cash, *futures, *options)
    dormant = create_dormant(rows, WHOLE_MARKET) if which == "whole" else ()
    return InstrumentDump(date, underlyings, rows, dormant)


def create_following(
    before: InstrumentDump, seed: int, date: dt.date, which: InstrumentSet = "near"
) -> InstrumentDump:
    """A later day's dump after this one: what stays keeps its token, what is gone leaves it."""
    dump = create_dump(seed, date, which)
    rows = with_tokens_of(before.rows, dump.rows)
    listed = len(dump.instruments)
    return replace(dump, instruments=rows[:listed], dormant=rows[listed:])


def dump_date(now: float) -> dt.date:
    """The day whose dump is in force at a UNIX time: today's until its contracts have expired."""
    today = dt.datetime.fromtimestamp(now, IST).date()
    over = expiry_at("NFO", today).timestamp() <= now
    return today + dt.timedelta(days=1) if over else today


def _cash(spot: Spot, numbers: Numbers) -> Instrument:
    exchange_token = spot.exchange_token or next(numbers[spot.exchange])
    segment = "INDICES" if spot.is_index else spot.exchange
    return Instrument(
        instrument_token=exchange_token << 8 | SEGMENT_IDS[segment],
        exchange_token=exchange_token,
        tradingsymbol=spot.tradingsymbol,
        name=spot.name,
        expiry=None,
        strike=0.0,
        tick_size=0.0 if spot.is_index else spot.tick_size,
        lot_size=0 if spot.is_index else 1,
        instrument_type="EQ",
        segment=segment,
        exchange=spot.exchange,
    )


class _Listing:
    """The contracts of one underlying on one day."""

    def __init__(self, name: str, chain: Chain, date: dt.date, numbers: Numbers) -> None:
        self._name = name
        self._chain = chain
        self._numbers = numbers[chain.exchange]
        self._monthlies = _monthly_expiries(chain, date)
        weeklies = _weekly_expiries(chain, date)
        self._expiries = sorted({*weeklies, *self._monthlies})

    def futures(self) -> Iterator[Instrument]:
        for expiry in self._monthlies[: self._chain.months]:
            symbol = f"{self._name}{_month_code(expiry)}FUT"
            yield self._contract(symbol, expiry, 0.0, "FUT", self._chain.future_tick)

    def options(self, spot: float) -> Iterator[Instrument]:
        counts = self._chain.strikes
        if not counts:
            return
        for rank, expiry in enumerate(self._expiries):
            code = _month_code(expiry) if expiry in self._monthlies else _week_code(expiry)
            count = counts[min(rank, len(counts) - 1)]
            for strike in self._strikes(spot, count, _is_far(expiry, self._monthlies)):
                for right in OPTION_TYPES:
                    symbol = f"{self._name}{code}{_number(strike)}{right}"
                    yield self._contract(symbol, expiry, strike, right, self._chain.option_tick)

    def _strikes(self, spot: float, count: int, far: bool) -> list[float]:
        step = self._chain.strike_step * (FAR_STEP if far else 1)
        middle = round(spot / step)
        return [place * step for place in range(max(middle - count, 1), middle + count + 1)]

    def _contract(
        self, symbol: str, expiry: dt.date, strike: float, kind: str, tick_size: float
    ) -> Instrument:
        exchange = self._chain.exchange
        exchange_token = next(self._numbers)
        return Instrument(
            instrument_token=exchange_token << 8 | SEGMENT_IDS[exchange],
            exchange_token=exchange_token,
            tradingsymbol=symbol,
            name=self._name,
            expiry=expiry,
            strike=strike,
            tick_size=tick_size,
            lot_size=self._chain.lot_size,
            instrument_type=kind,
            segment=f"{exchange}-{'FUT' if kind == 'FUT' else 'OPT'}",
            exchange=exchange,
        )


def _weekly_expiries(chain: Chain, date: dt.date) -> list[dt.date]:
    days = (date + dt.timedelta(days=ahead) for ahead in range(7 * (chain.weeklies + 2)))
    nominal = (day for day in days if day.weekday() == chain.expiry_weekday)
    moved = (_trading_day_until(chain.exchange, day) for day in nominal)
    return [day for day in moved if day >= date][: chain.weeklies]


def _monthly_expiries(chain: Chain, date: dt.date) -> list[dt.date]:
    """The near months, then quarter ends, then half-year ends, as many as the chain lists."""
    found: list[dt.date] = []
    wanted = [
        *(range(1, 13) for _ in range(chain.months)),
        *(range(3, 13, 3) for _ in range(chain.quarters)),
        *(range(6, 13, 6) for _ in range(chain.half_years)),
    ]
    month = date.replace(day=1)
    while wanted:
        nominal = _last_weekday(month, chain.expiry_weekday)
        expiry = _trading_day_until(chain.exchange, nominal)
        if expiry >= date and month.month in wanted[0]:
            found.append(expiry)
            wanted.pop(0)
        month = _next_month(month)
    return found


def _next_month(month: dt.date) -> dt.date:
    return (month + dt.timedelta(days=31)).replace(day=1)


def _last_weekday(month: dt.date, weekday: int) -> dt.date:
    last = _next_month(month) - dt.timedelta(days=1)
    return last - dt.timedelta(days=(last.weekday() - weekday) % 7)


def _trading_day_until(exchange: str, day: dt.date) -> dt.date:
    """An expiry that falls on a holiday moves to the trading day before it."""
    while not is_trading_day(exchange, day):
        day -= dt.timedelta(days=1)
    return day


def _is_far(expiry: dt.date, monthlies: Sequence[dt.date]) -> bool:
    return expiry in monthlies[FAR_MONTHS:]


def _month_code(expiry: dt.date) -> str:
    return f"{expiry:%y%b}".upper()


def _week_code(expiry: dt.date) -> str:
    return f"{expiry:%y}{_MONTH_CHARACTERS[expiry.month - 1]}{expiry:%d}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _csv_line(row: Instrument) -> str:
    expiry = row.expiry.isoformat() if row.expiry else ""
    return (
        f'{row.instrument_token},{row.exchange_token},{row.tradingsymbol},"{row.name}",0,{expiry},'
        f"{_number(row.strike)},{_number(row.tick_size)},{row.lot_size},"
        f"{row.instrument_type},{row.segment},{row.exchange}\n"
    )
