"""What the mock market begins from: prices that were told, and models for those that were not."""

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import msgspec
import numpy as np

from ticker.errors import ConfigurationError
from ticker.greeks.kernel import GreekRow, GreeksStatus, price_options
from ticker.instruments.registry import Instrument
from ticker.mock_market.kernel import YEAR_S
from ticker.mock_market.packets import completed, create_words, is_price
from ticker.mock_market.smiles import Smile, create_smile, volatility_at
from ticker.ticks import FloatArray, Int32Array

Source = Literal["live", "candle", "quote", "model"]
Group = tuple[str, dt.date | None, str]
"""Underlying, expiry and exchange: options that share a forward."""
ExpiryAt = Callable[[str, dt.date], dt.datetime]
K = TypeVar("K")

PRICE: Final = 100.0
"""Rupees, for an underlying of which nothing at all is known. Every segment's wire has room for it:
that of currencies ends at 214."""
VOLATILITY: Final = 0.15
"""Annual fraction, for an underlying of which no option's price is known."""


class LastValue(msgspec.Struct, frozen=True, eq=False):
    """What is known of an instrument. ``price``: rupees; no price is as good as one that
    ``is_price`` refuses.

    ``words``: int32 (46,), its newest packet. ``forward``: what an option was priced from, NaN if
    unknown. ``is_mock``: it is the mock market's own value.
    """

    price: float
    source: Source
    words: Int32Array | None = None
    forward: float = math.nan
    is_mock: bool = False


class Seed(msgspec.Struct, frozen=True, eq=False):
    """An instrument ready to be admitted; fields as in ``kernel.STATE``."""

    instrument: Instrument
    base: float
    volatility: float
    expires_at: float
    words: Int32Array
    source: Source


@dataclass
class Known:
    """What prices others: by underlying and by group, at factor 1; completed as seeds are made.

    ``factors``: where underlyings have walked to, 1 by default. ``levels``: the spot, or what
    stands for it. ``forwards``: by group. ``smiles``: of a group's options.
    """

    factors: dict[str, float] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    forwards: dict[Group, float] = field(default_factory=dict)
    smiles: dict[Group, Smile] = field(default_factory=dict)


def create_seeds(
    instruments: Sequence[Instrument],
    values: Mapping[int, LastValue],
    known: Known,
    *,
    expiry_at: ExpiryAt,
    rate: float,
    now: float,
) -> list[Seed]:
    """Seeds of all that can be priced at ``now``; what has no usable expiry, or a past one, is
    left out. ``known``: of what is held already.

    An option begins at its own last price, on its group's forward and smile: see ``smiles``. Where
    what it is played at differs from that price, it gets there in steps.
    """
    ends = {each.instrument_token: expires_at(each, expiry_at) for each in instruments}
    usable = [each for each in instruments if ends[each.instrument_token] > now]
    return _Nursery(values, known, ends, rate, now).seeds(usable)


def expires_at(instrument: Instrument, expiry_at: ExpiryAt) -> float:
    """UNIX seconds; infinity for what does not expire, NaN for a derivative whose expiry is not
    known: it could never be let go.
    """
    if instrument.expiry is None:
        return math.nan if instrument.is_option or instrument.is_future else math.inf
    try:
        return expiry_at(instrument.exchange, instrument.expiry).timestamp()
    except ConfigurationError:
        return math.nan


def group_of(instrument: Instrument) -> Group:
    """What shares an option's forward."""
    return instrument.underlying, instrument.expiry, instrument.exchange


@dataclass(frozen=True, slots=True)
class _Nursery:
    values: Mapping[int, LastValue]
    known: Known
    ends: Mapping[int, float]
    rate: float
    now: float

    def seeds(self, usable: Sequence[Instrument]) -> list[Seed]:
        levels, forwards = self.known.levels, self.known.forwards
        for name, rows in _grouped(usable, lambda each: each.underlying).items():
            if name not in levels:
                levels[name] = self._level(rows)
        options = [each for each in usable if each.is_option and each.strike > 0]
        for group, rows in _grouped(options, group_of).items():
            if group not in forwards:
                forwards[group] = self._forward(rows)
        options = [each for each in options if is_price(each, forwards[group_of(each)])]
        straight = [self._seed_straight(each) for each in usable if not each.is_option]
        return straight + self._seed_options(options)

    def _seed_straight(self, each: Instrument) -> Seed:
        base = self._base(each)
        if base is None:
            base = self._carried(self.known.levels[each.underlying], each)
        return self._seed(each, base, math.nan, base)

    def _seed_options(self, options: Sequence[Instrument]) -> list[Seed]:
        self._complete_smiles(options)
        return [
            self._seed(
                each,
                self.known.forwards[group_of(each)],
                volatility_at(self.known.smiles[group_of(each)], each.strike),
                value.price if (value := self._value(each)) else math.nan,
            )
            for each in options
        ]

    def _complete_smiles(self, options: Sequence[Instrument]) -> None:
        """Of groups that have none; where no price is told, another expiry's volatilities do."""
        smiles, implied = self.known.smiles, self._imply_smiles(options)
        fresh = {
            group: rows
            for group, rows in _grouped(options, group_of).items()
            if group not in smiles
        }
        for group in sorted(fresh, key=lambda group: group not in implied):
            rows = fresh[group]
            others = (smile for (name, *_), smile in smiles.items() if name == group[0])
            smiles[group] = create_smile(
                implied.get(group) or next(others, {rows[0].strike: VOLATILITY}),
                np.unique([each.strike for each in rows]),
                self.known.forwards[group],
                self._years(rows[0]),
                rows[0].tick_size,
            )

    def _imply_smiles(self, options: Sequence[Instrument]) -> dict[Group, Smile]:
        """What last prices imply: of options out of the money; of the others in groups of which
        nothing else is known. What is in the money trades seldom, and little of its price is time
        value.
        """
        sides: tuple[dict[Group, dict[float, float]], ...] = ({}, {})
        for each, volatility in zip(options, self._imply(options), strict=True):
            if volatility > 0:
                forward = self.known.forwards[group_of(each)] * self._walked(each)
                is_in_the_money = (forward > each.strike) == _is_call(each)
                sides[is_in_the_money].setdefault(group_of(each), {})[each.strike] = volatility
        return {**sides[True], **sides[False]}

    def _value(self, instrument: Instrument) -> LastValue | None:
        value = self.values.get(instrument.instrument_token)
        return value if value is not None and is_price(instrument, value.price) else None

    def _walked(self, each: Instrument) -> float:
        """The factor at which its value was told."""
        value = self._value(each)
        is_own = value is not None and value.is_mock
        return self.known.factors.get(each.underlying, 1.0) if is_own else 1.0

    def _base(self, each: Instrument) -> float | None:
        value = self._value(each)
        return None if value is None else value.price / self._walked(each)

    def _level(self, rows: Iterable[Instrument]) -> float:
        """The spot, at need the nearest future, at need the middle of where strikes are listed:
        exchanges list them around the spot.
        """
        rows = sorted(rows, key=lambda row: (not row.is_index, row.expiry or dt.date.min))
        for row in rows:
            base = None if row.is_option else self._base(row)
            if base is not None and base > 0:
                return base
        strikes = sorted({row.strike for row in rows if row.is_option and row.strike > 0})
        return strikes[len(strikes) // 2] if strikes else PRICE

    def _carried(self, level: float, to: Instrument) -> float:
        """The level moved to an expiry at the interest rate; itself where nothing expires."""
        ends_at = self.ends[to.instrument_token]
        return level if ends_at == math.inf else level * math.exp(self.rate * self._years(to))

    def _years(self, each: Instrument) -> float:
        return (self.ends[each.instrument_token] - self.now) / YEAR_S

    def _forward(self, rows: Sequence[Instrument]) -> float:
        """What the options were priced from, else put-call parity next to the money, else carry."""
        for row in rows:
            value = self._value(row)
            if value is not None and is_price(row, value.forward):
                return value.forward / self._walked(row)
        calls, puts = (
            {
                row.strike: value.price
                for row in rows
                if (value := self._value(row)) and is_side(row)
            }
            for is_side in (_is_call, _is_put)
        )
        if strikes := calls.keys() & puts.keys():
            strike = min(strikes, key=lambda strike: abs(calls[strike] - puts[strike]))
            growth = math.exp(self.rate * self._years(rows[0]))
            return strike + (calls[strike] - puts[strike]) * growth
        return self._carried(self.known.levels[rows[0].underlying], rows[0])

    def _imply(self, options: Sequence[Instrument]) -> list[float]:
        """Volatilities that last prices imply; NaN where they imply none."""
        n = len(options)
        told = [self._value(each) for each in options]
        out: FloatArray = np.empty((len(GreekRow), n))
        statuses = np.empty(n, np.uint8)
        price_options(
            np.array([value.price if value else math.nan for value in told], np.float64),
            np.array(
                [self.known.forwards[group_of(each)] * self._walked(each) for each in options],
                np.float64,
            ),
            np.array([each.strike for each in options], np.float64),
            np.array([self._years(each) for each in options], np.float64),
            np.full(n, self.rate),
            np.zeros(n),
            np.array([_is_call(each) for each in options], np.uint8),
            np.zeros(n),
            out,
            statuses,
        )
        is_told = statuses == int(GreeksStatus.OK)
        implied: list[float] = np.where(is_told, out[GreekRow.IV], math.nan).tolist()
        return implied

    def _seed(self, each: Instrument, base: float, volatility: float, price: float) -> Seed:
        """``price``: rupees, NaN if the first step is to say."""
        value = self._value(each)
        words = None if value is None else value.words
        words = create_words(each, price) if words is None else completed(words)
        source: Source = value.source if value else "model"
        return Seed(each, base, volatility, self.ends[each.instrument_token], words, source)


def _is_call(instrument: Instrument) -> bool:
    return instrument.instrument_type == "CE"


def _is_put(instrument: Instrument) -> bool:
    return instrument.instrument_type == "PE"


def _grouped(
    instruments: Iterable[Instrument], key: Callable[[Instrument], K]
) -> dict[K, list[Instrument]]:
    groups: dict[K, list[Instrument]] = {}
    for each in instruments:
        groups.setdefault(key(each), []).append(each)
    return groups
