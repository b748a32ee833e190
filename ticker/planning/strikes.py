"""Which contracts of an underlying to stream: reference, futures, strikes near the money."""

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import msgspec

from ticker.instruments.registry import Instrument, InstrumentRegistry

EQUITY_EXCHANGES: Final = frozenset({"NFO", "BFO"})
"""Where derivatives of shares and their indices are listed."""

ChainKey = tuple[str, dt.date]
"""Underlying and expiry."""


def find_reference(
    registry: InstrumentRegistry, underlying: str, today: dt.date
) -> Instrument | None:
    """What an underlying's price is read from: its index, its share, or its nearest future.

    A share that merely has the name of a commodity, as an NSE fund is called SILVER, is not it.
    """
    rows = registry.of_underlying(underlying)
    for row in rows:
        if row.is_index:
            return row
    exchanges = {row.exchange for row in rows if row.expiry is not None}
    for row in rows if not exchanges or exchanges & EQUITY_EXCHANGES else ():
        if row.expiry is None and row.instrument_type == "EQ" and row.exchange == "NSE":
            return row
    futures = [row for row in rows if row.is_future and row.expiry and row.expiry >= today]
    return min(futures, key=lambda row: row.expiry or today, default=None)


def quote_keys(
    registry: InstrumentRegistry, underlyings: Iterable[str], today: dt.date
) -> dict[str, str]:
    """What to ask the broker for the underlyings' prices: its key of each, to the underlying."""
    references = {name: find_reference(registry, name, today) for name in underlyings}
    return {row.key: name for name, row in references.items() if row is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikePolicy:
    """How wide a chain is, and how far and how long the money has to move for it to follow.

    ``expiries``: option expiries, nearest first. ``otm_levels``: strikes on either side of the
    one at the money. ``hold_s``: the least time between two moves of a chain. ``steps``: how far
    the level must be from the strike in the middle, in steps between strikes.
    """

    expiries: int = 3
    otm_levels: int = 10
    hold_s: float = 300.0
    steps: float = 1.0


@dataclass(frozen=True, slots=True)
class Levels:
    """What an underlying stands at, in rupees: its spot, and its forward by expiry, where known."""

    spot: float | None = None
    forwards: Mapping[dt.date, float] = field(default_factory=dict)

    def at(self, expiry: dt.date) -> float | None:
        """The expiry's forward, else the spot; None if neither is a positive number."""
        for level in (self.forwards.get(expiry), self.spot):
            if level is not None and 0 < level < math.inf:
                return level
        return None

    @property
    def is_priced(self) -> bool:
        """Whether anything at all is known."""
        known = (self.spot, *self.forwards.values())
        return any(level is not None and level > 0 for level in known)


@dataclass(frozen=True, slots=True)
class Centre:
    """The strike in the middle of a chain. ``moved_at``: seconds of the caller's clock; minus
    infinity while no price stands behind it.
    """

    strike: float
    moved_at: float


class RebalanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the rebalancer last did.

    ``centres``: by underlying and expiry, the strike in the middle of the chain. ``unpriced``:
    underlyings whose middle is a guess. ``unknown``: those that are not among the instruments.
    ``added``, ``removed``: subscriptions in the last run; ``left_out``: those that the accounts
    had no room for. ``run_at``: UNIX seconds of the last
    run that reached the store; ``error``: why the newest did not.
    """

    centres: Mapping[str, Mapping[dt.date, float]] = MappingProxyType({})
    unpriced: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    added: int = 0
    removed: int = 0
    left_out: int = 0
    run_at: float | None = None
    error: str | None = None


def list_expiries(
    registry: InstrumentRegistry, underlying: str, today: dt.date, count: int
) -> list[dt.date]:
    """The next option expiries of an underlying, today's included, nearest first."""
    rows = registry.of_underlying(underlying)
    expiries = {row.expiry for row in rows if row.is_option and row.expiry}
    return sorted(expiry for expiry in expiries if expiry >= today)[:count]


def move_centres(
    registry: InstrumentRegistry,
    underlying: str,
    centres: Mapping[dt.date, Centre],
    levels: Levels,
    policy: StrikePolicy,
    *,
    today: dt.date,
    now: float,
) -> dict[dt.date, Centre]:
    """Where the chains of an underlying are to be centred, by expiry; expired ones drop out.

    A centre stays until its level is ``policy.steps`` steps away and it has been held for
    ``policy.hold_s``. Without a price, the middle of the listed strikes stands for it, because
    exchanges list them around the spot; the first price moves it at once.
    """
    moved: dict[dt.date, Centre] = {}
    for expiry in list_expiries(registry, underlying, today, policy.expiries):
        strikes = _strikes(registry, underlying, expiry)
        level = levels.at(expiry)
        old = centres.get(expiry)
        if level is None:
            moved[expiry] = old or Centre(strikes[len(strikes) // 2], -math.inf)
        elif old is None or _is_due(old, level, strikes, policy, now):
            moved[expiry] = Centre(_nearest(strikes, level), now)
        else:
            moved[expiry] = old
    return moved


def choose_instruments(
    registry: InstrumentRegistry,
    underlying: str,
    centres: Mapping[dt.date, Centre],
    *,
    today: dt.date,
    otm_levels: int,
) -> list[Instrument]:
    """What to stream for one underlying: its reference, its futures and the strikes in reach.

    Of each expiry in ``centres``, nearest first, the strike in the middle and ``otm_levels``
    strikes on either side of it, calls and puts, those nearest to the middle first.
    """
    rows = registry.of_underlying(underlying)
    futures = sorted(
        (row for row in rows if row.is_future and row.expiry and row.expiry >= today),
        key=lambda row: (row.expiry or today, row.instrument_token),
    )
    reference = find_reference(registry, underlying, today)
    chosen = [reference] if reference is not None and reference not in futures else []
    chosen += futures
    for expiry, centre in sorted(centres.items()):
        strikes = _strikes(registry, underlying, expiry)
        if not strikes:
            continue
        middle = strikes.index(_nearest(strikes, centre.strike))
        steps = {strike: abs(place - middle) for place, strike in enumerate(strikes)}
        near = (
            (steps[row.strike], row.strike, row.instrument_type, row)
            for row in rows
            if row.is_option and row.expiry == expiry and steps[row.strike] <= otm_levels
        )
        chosen += [row for *_, row in sorted(near, key=lambda found: found[:3])]
    return chosen


def choose_chains(
    registry: InstrumentRegistry,
    levels: Mapping[str, Levels],
    centres: Mapping[str, Mapping[dt.date, Centre]],
    policy: StrikePolicy,
    today: dt.date,
    now: float,
) -> tuple[dict[int, Instrument], dict[str, dict[dt.date, Centre]]]:
    """The instruments of every underlying that has levels, and where its chains are centred.

    ``now``: seconds of the clock that ``Centre.moved_at`` is of. An underlying that is missing
    from the instruments for the moment keeps its centres.
    """
    found: dict[int, Instrument] = {}
    moved = {name: dict(chain) for name, chain in centres.items()}
    for name, of_name in levels.items():
        old = centres.get(name, {})
        moved[name] = move_centres(registry, name, old, of_name, policy, today=today, now=now)
        chosen = choose_instruments(
            registry, name, moved[name], today=today, otm_levels=policy.otm_levels
        )
        found.update((row.instrument_token, row) for row in chosen)
    return found, moved


def chain_of(instrument: Instrument | None) -> ChainKey | None:
    """The chain that an option is of; None for anything else."""
    if instrument is None or instrument.expiry is None or not instrument.is_option:
        return None
    return instrument.underlying, instrument.expiry


def find_guessed(centres: Mapping[str, Mapping[dt.date, Centre]]) -> set[ChainKey | None]:
    """Chains in whose middle no price stands."""
    return {
        (name, expiry)
        for name, chain in centres.items()
        for expiry, centre in chain.items()
        if centre.moved_at == -math.inf
    }


def _strikes(registry: InstrumentRegistry, underlying: str, expiry: dt.date) -> list[float]:
    rows: Iterable[Instrument] = registry.of_underlying(underlying)
    return sorted({row.strike for row in rows if row.is_option and row.expiry == expiry})


def _is_due(
    centre: Centre, level: float, strikes: Sequence[float], policy: StrikePolicy, now: float
) -> bool:
    """Whether a centre is to move: the level is far enough from it, and it was held long enough."""
    if centre.moved_at == -math.inf:
        return True
    if now - centre.moved_at < policy.hold_s:
        return False
    nearest = _nearest(strikes, level)
    step = _step(strikes, strikes.index(nearest))
    return nearest != centre.strike and abs(level - centre.strike) >= policy.steps * step


def _nearest(strikes: Sequence[float], level: float) -> float:
    return min(strikes, key=lambda strike: abs(strike - level))


def _step(strikes: Sequence[float], place: int) -> float:
    """The smallest distance to a neighbour; 0 for a single strike."""
    sides = strikes[max(0, place - 1) : place + 2]
    return min((high - low for low, high in pairwise(sides)), default=0.0)
