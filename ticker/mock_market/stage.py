"""What the mock market plays: whose instruments, in which frames, and what is told of it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType
from typing import Final

import msgspec

from ticker.calendar.trading_hours import TradingHours
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import encode_frame
from ticker.messages import MOCK_CONNECTION, FeedSide, Frame, MarketPhase
from ticker.mock_market.market import MockMarket
from ticker.mock_market.snapshot import MockSnapshot

_PACKETS_MAX: Final = 3000
"""Instruments in one frame, as many as the broker sends."""


class Carried(msgspec.Struct, frozen=True):
    """What the service carries, by underlying, and on which segments that is.

    Of each underlying first what prices others, then options by expiry: a place is found for
    them in this order.
    """

    by_underlying: Mapping[str, Sequence[Instrument]] = MappingProxyType({})
    segments: tuple[str, ...] = ()

    def of(self, underlyings: Collection[str]) -> Iterator[Instrument]:
        """The instruments of these: first all indices, shares and futures, then the options."""
        rows = [self.by_underlying[name] for name in sorted(underlyings)]
        yield from (each for each in chain.from_iterable(rows) if not each.is_option)
        yield from (each for each in chain.from_iterable(rows) if each.is_option)


def sort_out(registry: InstrumentRegistry, tokens: Iterable[int]) -> Carried:
    """Group tokens by underlying; what the registry does not know is left out. 27,000 take some
    50 ms: call it in a worker thread.
    """
    found = [row for row in map(registry.by_token, tokens) if row is not None]
    found.sort(key=lambda row: (row.is_option, str(row.expiry or "")))
    groups: dict[str, list[Instrument]] = {}
    for row in found:
        groups.setdefault(row.underlying, []).append(row)
    return Carried(groups, tuple(sorted({row.exchange for row in found})))


def choose(carried: Carried, closed: Collection[str], size_max: int) -> tuple[Instrument, ...]:
    """Whom to play of the underlyings whose market is closed; as many as there is room for."""
    return tuple(islice(carried.of(carried.by_underlying.keys() & set(closed)), size_max))


def play(
    market: MockMarket, carried: Carried, underlyings: Collection[str], now: float
) -> tuple[list[Frame], tuple[str, ...]]:
    """Move the market one step; returns frames, and for which underlyings there are any.

    A chain is in one frame, so that its forward and its prices are of the same instant.
    """
    snapshot = market.step(now)
    frames: list[Frame] = []
    played: list[str] = []
    for name in sorted(carried.by_underlying.keys() & set(underlyings)):
        made = [*_frames(snapshot, carried.by_underlying[name], now)]
        frames += made
        played += [name] * bool(made)
    return frames, tuple(played)


def tell_phases(
    carried: Carried, hours: TradingHours, played: Collection[str], now: float
) -> list[MarketPhase]:
    """Where each segment that is carried stands at ``now``; ``played``: underlyings."""
    mocked = frozenset[str]().union(*(hours.segments(name) for name in played))
    phases = []
    for segment in carried.segments:
        phase = hours.phase(segment, now)
        feed: FeedSide = "live"  # also where the calendar does not tell: then the feed is let pass
        if phase is not None and phase.name == "closed":
            feed = "mock" if segment in mocked else "silent"
        phases.append(
            MarketPhase(
                segment,
                phase.name if phase else None,
                is_open=phase is not None and phase.is_open,
                feed=feed,
                ts=now,
                since=phase.since.timestamp() if phase and phase.since else None,
                until=phase.until.timestamp() if phase and phase.until else None,
            )
        )
    return phases


def changed(
    phases: Iterable[MarketPhase], told: Mapping[str, MarketPhase]
) -> Iterator[MarketPhase]:
    """Those that differ, in more than the moment, from what was told of their segment before."""
    for phase in phases:
        before = told.get(phase.segment)
        if before is None or (before.phase, before.feed) != (phase.phase, phase.feed):
            yield phase


def _frames(
    snapshot: MockSnapshot, instruments: Sequence[Instrument], now: float
) -> Iterator[Frame]:
    for start in range(0, len(instruments), _PACKETS_MAX):
        part = instruments[start : start + _PACKETS_MAX]
        ticks = snapshot.ticks(each.instrument_token for each in part)
        if len(ticks):
            yield Frame(encode_frame(ticks), now, MOCK_CONNECTION, is_mock=True)
