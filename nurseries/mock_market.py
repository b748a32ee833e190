"""Ticks while the markets are closed, and word of every opening and closing."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from ticker.calendar.trading_hours import TradingHours
from ticker.control_metrics import ControlMetrics
from ticker.instruments.registry import InstrumentRegistry
from ticker.latest import Latest
from ticker.messages import Event, Frame, MarketPhase
from ticker.mock_market.market import MockMarket
from ticker.mock_market.seeder import Seeder
from ticker.mock_market.stage import Carried, changed, choose, play, sort_out, tell_phases
from ticker.mock_market.status import MockMarketStatus


async def run_mock_market(
    frames: trio.MemorySendChannel[Frame],
    events: trio.MemorySendChannel[Event],
    *,
    market: MockMarket,
    seeder: Seeder,
    registry: Latest[InstrumentRegistry],
    wanted: Callable[[], Iterable[int]],
    hours: TradingHours,
    enabled: Latest[bool],
    metrics: ControlMetrics,
    report: Callable[[MockMarketStatus], None],
    wall_clock: Callable[[], float],
) -> None:
    """Speak for every underlying whose market is closed, until cancelled.

    Each ``policy.interval_s``, segments whose phase changed are told on ``events``, and if
    ``enabled``, what is ``wanted`` (tokens) of the underlyings whose market has been closed for
    ``policy.settle_s`` moves one step and is sent. Who is heard, ``MockGate`` decides: a frame
    that is made before an opening and processed after it is not published.

    ``hours``: of this task alone. ``wall_clock``: UNIX seconds.
    """
    house = _House(market, hours, enabled, wall_clock)
    await trio.to_thread.run_sync(market.warm_up, abandon_on_cancel=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cast, house, seeder, registry, wanted)
        nursery.start_soon(_clean_up, house)
        await _perform(house, frames, events, metrics, report)


@dataclass
class _House:
    """What the task's parts share. ``carried``: what the service carries; one part replaces it."""

    market: MockMarket
    hours: TradingHours
    enabled: Latest[bool]
    wall_clock: Callable[[], float]
    carried: Carried = field(default_factory=Carried)

    def closed(self) -> dict[str, float]:
        """Underlyings to speak for, and since when their market has been closed, UNIX seconds."""
        if not self.enabled.value:
            return {}
        now, settle_s = self.wall_clock(), self.market.policy.settle_s
        since = {name: self.hours.closed_since(name, now) for name in self.carried.by_underlying}
        return {name: at for name, at in since.items() if at is not None and now - at >= settle_s}


async def _cast(
    house: _House,
    seeder: Seeder,
    registry: Latest[InstrumentRegistry],
    wanted: Callable[[], Iterable[int]],
) -> None:
    """Seed what is to be played as markets close and wishes change; let go of what has opened."""
    market = house.market
    closed: Mapping[str, float] = {}
    key: tuple[object, ...] = ()
    while True:
        tokens = tuple(wanted())
        instruments, before = registry.value, key
        if (instruments, tokens) != key[:2]:
            house.carried = await trio.to_thread.run_sync(sort_out, instruments, tokens)
        last, closed = closed, house.closed()
        moved = {name for name in {*last, *closed} if last.get(name) != closed.get(name)}
        await trio.to_thread.run_sync(market.release, moved)
        key = (instruments, tokens, closed)
        if key != before and closed:
            chosen = choose(house.carried, closed, market.policy.size_max)
            await seeder.seed(chosen, max(closed.values()))
        await trio.sleep(market.policy.interval_s)


async def _clean_up(house: _House) -> None:
    while True:
        await trio.sleep(house.market.policy.clean_up_interval_s)
        await trio.to_thread.run_sync(house.market.clean_up, house.wall_clock())


async def _perform(
    house: _House,
    frames: trio.MemorySendChannel[Frame],
    events: trio.MemorySendChannel[Event],
    metrics: ControlMetrics,
    report: Callable[[MockMarketStatus], None],
) -> None:
    """Step and send, tell phases, and say where the market stands."""
    told: dict[str, MarketPhase] = {}
    counted: Counter[str] = Counter()
    due = trio.current_time()
    while True:
        made: list[Frame] = []
        played: tuple[str, ...] = ()
        if closed := house.closed():
            made, played = await trio.to_thread.run_sync(
                play, house.market, house.carried, closed, house.wall_clock()
            )
        phases = tell_phases(house.carried, house.hours, played, house.wall_clock())
        for phase in changed(phases, told):
            told[phase.segment] = phase
            await events.send(phase)  # when full, the mock market waits: a phase is not to be lost
        for frame in made:
            await frames.send(frame)  # when full, the step waits, and no later one makes up for it
        _count(house.market, counted, metrics)
        report(_status(house, tuple(told[phase.segment] for phase in phases), played))
        due = max(due + house.market.policy.interval_s, trio.current_time())
        await trio.sleep_until(due)


def _count(market: MockMarket, counted: Counter[str], metrics: ControlMetrics) -> None:
    metrics.mock_size.set(len(market))
    for reason, total in market.evictions.items():
        metrics.mock_evictions.labels(reason).inc(total - counted[reason])
        counted[reason] = total


def _status(
    house: _House, segments: tuple[MarketPhase, ...], played: tuple[str, ...]
) -> MockMarketStatus:
    market, carried = house.market, house.carried
    asked_for = sum(len(carried.by_underlying[name]) for name in played)
    return MockMarketStatus(
        enabled=house.enabled.value,
        segments=segments,
        speaks_for=played,
        size=len(market),
        size_max=market.policy.size_max,
        left_out=max(asked_for - market.policy.size_max, 0),
        steps=market.steps,
        seeded=market.seeded,
        evictions={str(reason): total for reason, total in market.evictions.items()},
    )
