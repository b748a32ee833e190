"""Ticks while the markets are closed, and word of every opening and closing."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio

from ticker.calendar.trading_hours import TradingHours
from ticker.control_metrics import ControlMetrics
from ticker.instruments.registry import InstrumentRegistry
from ticker.kite.wire import HEARTBEAT
from ticker.latest import Latest
from ticker.messages import MOCK_CONNECTION, Event, Frame, MarketPhase
from ticker.mock_market.market import MockMarket, ReleaseReason
from ticker.mock_market.seeder import Seeder
from ticker.mock_market.stage import Carried, changed, choose, play, sort_out, tell_phases
from ticker.mock_market.status import MockMarketStatus
from ticker.mock_market.switch import MockSwitch


async def run_mock_market(
    frames: trio.MemorySendChannel[Frame],
    events: trio.MemorySendChannel[Event],
    *,
    market: MockMarket,
    seeder: Seeder,
    registry: Latest[InstrumentRegistry],
    wanted: Callable[[], Iterable[int]],
    hours: TradingHours,
    switch: Latest[MockSwitch],
    metrics: ControlMetrics,
    report: Callable[[MockMarketStatus], None],
    wall_clock: Callable[[], float],
) -> None:
    """Speak for every underlying whose market is closed, until cancelled.

    Each ``policy.interval_s``, segments whose phase changed are told on ``events``, and if
    ``switch`` is on, what is ``wanted`` (tokens) of the underlyings whose market has been closed
    for ``policy.settle_s`` moves one step and is sent. Who is heard, ``MockGate`` decides: a frame
    that is made before an opening and processed after it is not published.

    ``hours``: of this task alone. ``wall_clock``: UNIX seconds.
    """
    house = _House(market, hours, switch, wall_clock)
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
    switch: Latest[MockSwitch]
    wall_clock: Callable[[], float]
    carried: Carried = field(default_factory=Carried)

    def closed(self) -> dict[str, float]:
        """Underlyings to speak for, and since when their market has been closed, UNIX seconds."""
        if not self.switch.value.is_on:
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
            await trio.to_thread.run_sync(market.follow, instruments)
            house.carried = await trio.to_thread.run_sync(sort_out, instruments, tokens)
        last, closed = closed, house.closed()
        moved = {name for name in {*last, *closed} if last.get(name) != closed.get(name)}
        reason: ReleaseReason = "market_open" if house.switch.value.is_on else "switched_off"
        await trio.to_thread.run_sync(market.release, moved, reason)
        key = (instruments, tokens, closed)
        if key != before and closed:
            chosen = choose(house.carried, closed, market.policy.size_max)
            # what is still wanted gives no place to what is newly so
            await trio.to_thread.run_sync(market.use, [each.instrument_token for each in chosen])
            await seeder.seed(chosen)
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
    mocked: set[str] = set()  # whoever was played since its market closed
    counted: Counter[str] = Counter()
    due = trio.current_time()
    while True:
        made: list[Frame] = []
        played: tuple[str, ...] = ()
        carried = house.carried  # may be another one after each wait
        if closed := house.closed():
            made, played = await trio.to_thread.run_sync(
                play, house.market, carried, closed, house.wall_clock()
            )
        phases = tell_phases(carried, house.hours, played, house.wall_clock())
        for phase in changed(phases, told):
            told[phase.segment] = phase
            await events.send(phase)  # when full, the mock market waits: a phase is not to be lost
        now = house.wall_clock()
        opened = {name for name in mocked if not house.hours.is_closed(name, now)}
        mocked = mocked.union(played) - opened
        if opened:
            # has the gate asked now and not at the feed's first frame: a feed that is away has
            # none, and mock values would stand on the board of an open market
            made.append(Frame(HEARTBEAT, now, MOCK_CONNECTION, is_mock=True))
        for frame in made:
            await frames.send(frame)  # when full, the step waits, and no later one makes up for it
        _count(house.market, counted, metrics)
        segments = tuple(told[phase.segment] for phase in phases)
        report(_status(house, carried, segments, played))
        due = max(due + house.market.policy.interval_s, trio.current_time())
        await trio.sleep_until(due)


def _count(market: MockMarket, counted: Counter[str], metrics: ControlMetrics) -> None:
    metrics.mock_size.set(len(market))
    for reason, total in market.evictions.items():
        metrics.mock_evictions.labels(reason).inc(total - counted[reason])
        counted[reason] = total


def _status(
    house: _House,
    carried: Carried,
    segments: tuple[MarketPhase, ...],
    played: tuple[str, ...],
) -> MockMarketStatus:
    market = house.market
    asked_for = sum(len(carried.by_underlying[name]) for name in played)
    return MockMarketStatus(
        enabled=house.switch.value.is_on,
        segments=segments,
        calendar_ends_at=house.hours.known_until(carried.segments, house.wall_clock()),
        speaks_for=played,
        size=len(market),
        size_max=market.policy.size_max,
        left_out=max(asked_for - market.policy.size_max, 0),
        steps=market.steps,
        seeded=market.seeded,
        evictions={str(reason): total for reason, total in market.evictions.items()},
    )
