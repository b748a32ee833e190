"""The mock market's task: when it speaks, what it tells, and that it lets go, on virtual time."""

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio
import trio.lowlevel

from nurseries.mock_market import run_mock_market
from tests.ticker.mock_market.rig import be_patient, chain_values, seeded
from tests.ticker.synthetic import (
    CHAIN,
    FUTURE,
    INDEX,
    MARKET,
    NOW,
    create_future,
    create_market_engine,
    create_option,
    payloads,
)
from ticker.calendar.market_hours import expiry_at
from ticker.calendar.trading_hours import TradingHours
from ticker.engine import Newest
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import HEARTBEAT, decode_frames
from ticker.latest import Latest
from ticker.messages import MOCK_CONNECTION, Event, Frame, MarketPhase
from ticker.metrics import Metrics
from ticker.mock_market.gate import MockGate
from ticker.mock_market.market import MockMarket
from ticker.mock_market.policy import MockPolicy
from ticker.mock_market.seeder import Seeder
from ticker.mock_market.status import MockMarketStatus
from ticker.mock_market.switch import MockSwitch
from ticker.ticks import WORDS, Int32Array, Row

IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
CRUDE = create_future(900, "CRUDEOIL", exchange="MCX", segment=7)
NEAR = [each for each in CHAIN if abs(each.strike - 25_000) <= 100]
CARRIED = [INDEX, FUTURE, *NEAR, CRUDE]


def clock(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=IST).timestamp()


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine(MARKET).warm_up()
    seeded().step(NOW)


class Bench:
    """The task's surroundings. Wall time follows Trio's, from ``starts``."""

    def __init__(self, starts: str, *, enabled: bool = True, **policy: Any) -> None:
        self._offset = clock(starts) - trio.current_time()
        self.registry = Latest(InstrumentRegistry([*MARKET, CRUDE]))
        self.wanted = [each.instrument_token for each in CARRIED]
        self.switch = Latest(MockSwitch(is_on=enabled))
        self.market = MockMarket(MockPolicy(**policy), expiry_at=expiry_at, interest_rate=0.054)
        self.prometheus = Metrics()
        self.status = MockMarketStatus()
        self.values: dict[int, Newest] = {}
        self.send_frames, self.frames = trio.open_memory_channel[Frame](10_000)
        self.send_events, self.events = trio.open_memory_channel[Event](1_000)

    def now(self) -> float:
        return self._offset + trio.current_time()

    def load_newest(self, tokens: Any) -> Mapping[int, Newest]:
        return {token: self.values[token] for token in tokens if token in self.values}

    def turn(self, *, on: bool) -> None:
        self.switch.set(MockSwitch(on))

    def is_enabled(self) -> bool:
        """As reported."""
        return self.status.enabled

    def report(self, status: MockMarketStatus) -> None:
        self.status = status

    async def run(self) -> None:
        hours = TradingHours(lambda: self.registry.value)
        seeder = Seeder(
            self.market,
            load_newest=self.load_newest,
            last_session=hours.last_session,
            wall_clock=self.now,
        )
        await run_mock_market(
            self.send_frames,
            self.send_events,
            market=self.market,
            seeder=seeder,
            registry=self.registry,
            wanted=lambda: self.wanted,
            hours=hours,
            switch=self.switch,
            metrics=self.prometheus.control,
            report=self.report,
            wall_clock=self.now,
        )

    async def sleep_until(self, text: str) -> None:
        await trio.sleep(clock(text) - self.now())

    def take_frames(self) -> list[Frame]:
        taken: list[Frame] = []
        while True:
            try:
                taken.append(self.frames.receive_nowait())
            except trio.WouldBlock:
                return taken

    def take_phases(self) -> list[tuple[str, str | None, str]]:
        taken: list[tuple[str, str | None, str]] = []
        while True:
            try:
                event = self.events.receive_nowait()
            except trio.WouldBlock:
                return taken
            assert isinstance(event, MarketPhase)
            taken.append((event.segment, event.phase, event.feed))

    def sample(self, name: str, **labels: str) -> float:
        return self.prometheus.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def open_bench(starts: str, **kwargs: Any) -> AsyncIterator[Bench]:
    bench = Bench(starts, **kwargs)
    async with trio.open_nursery() as nursery:
        task = bench.run
        nursery.start_soon(task)
        yield bench
        nursery.cancel_scope.cancel()


def tokens_of(frames: list[Frame]) -> set[int]:
    return set(decode_frames([frame.data for frame in frames]).ticks.token.tolist())


def tokens(*instruments: Instrument) -> set[int]:
    return {each.instrument_token for each in instruments}


@pytest.mark.slow
async def test_it_begins_when_the_last_segment_has_closed_and_ends_when_the_first_opens(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-20 15:59:00") as bench:
        await trio.sleep(58)
        assert not bench.take_frames(), "NFO has closed, NSE has not"
        await bench.sleep_until("2026-11-20 16:00:30")
        frames = bench.take_frames()
        assert clock("2026-11-20 16:00:05") <= frames[0].received_at < clock("2026-11-20 16:00:08")
        assert tokens_of(frames) == tokens(INDEX, FUTURE, *NEAR), "commodities trade on"
        assert all(frame.is_mock and frame.connection == MOCK_CONNECTION for frame in frames)
        assert bench.status.speaks_for == ("NIFTY",)
    async with open_bench("2026-11-23 08:59:40") as bench:
        await bench.sleep_until("2026-11-23 09:00:10")
        frames = [frame for frame in bench.take_frames() if frame.data != HEARTBEAT]
        assert tokens_of(frames) == tokens(*CARRIED), "the night of commodities is over too"
        assert clock("2026-11-23 08:59:58") <= frames[-1].received_at < clock("2026-11-23 09:00:00")
        assert len(bench.market) == 0, "let go of, to begin anew"


@pytest.mark.slow
async def test_at_the_opening_the_word_is_given_back_though_the_feed_is_silent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-23 08:59:40") as bench:
        hours = TradingHours(lambda: bench.registry.value)
        engine = create_market_engine(
            [*MARKET, CRUDE], gate=MockGate(hours.is_closed, hours.closed_until)
        )
        await bench.sleep_until("2026-11-23 08:59:50")
        bench.turn(on=False)  # so that no mock frame is under way at the opening
        await bench.sleep_until("2026-11-23 08:59:59")
        engine.process(bench.take_frames(), bench.now())
        assert engine.newest(bench.wanted).keys() == tokens(*CARRIED)
        await bench.sleep_until("2026-11-23 09:00:05")
        frames = bench.take_frames()
        assert [frame.data for frame in frames] == [HEARTBEAT]
        engine.process(frames, bench.now())
        assert engine.newest(bench.wanted) == {}, "nothing mock stands in an open market"
        await bench.sleep_until("2026-11-23 09:01:00")
        assert not bench.take_frames()


@pytest.mark.slow
async def test_phases_are_told_once_each_and_stand_in_the_report(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-20 15:33:00", interval_s=10.0) as bench:
        bench.wanted = [INDEX.instrument_token, FUTURE.instrument_token]
        await bench.sleep_until("2026-11-20 16:10:00")
        assert bench.take_phases() == [
            ("NFO", "continuous", "live"),
            ("NSE", "closing_auction", "live"),
            ("NSE", "closed", "silent"),  # for five minutes only
            ("NFO", "closed", "silent"),
            ("NSE", "post_close", "live"),
            ("NSE", "closed", "silent"),
            ("NFO", "closed", "mock"),
            ("NSE", "closed", "mock"),
        ]
        assert [(row.segment, row.feed) for row in bench.status.segments] == [
            ("NFO", "mock"),
            ("NSE", "mock"),
        ]


@pytest.mark.slow
async def test_disabled_it_is_silent_and_says_so_and_can_be_switched_at_any_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-20 20:00:00", enabled=False) as bench:
        await trio.sleep(30)
        assert not bench.take_frames()
        assert not bench.is_enabled()
        assert ("NFO", "closed", "silent") in bench.take_phases()
        bench.turn(on=True)
        await trio.sleep(5)
        assert bench.take_frames()
        assert bench.is_enabled()
        assert ("NFO", "closed", "mock") in bench.take_phases()
        bench.turn(on=False)
        await trio.sleep(3)
        bench.take_frames()
        await trio.sleep(30)
        assert not bench.take_frames()
        assert ("NFO", "closed", "silent") in bench.take_phases()
        evictions = bench.market.evictions
        assert evictions["switched_off"] > 0
        assert "market_open" not in evictions, "the night is not over"


@pytest.mark.slow
async def test_a_year_that_the_calendar_does_not_know_is_never_mock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2027-01-09 20:00:00") as bench:
        await trio.sleep(60)
        assert not bench.take_frames()
        assert {phase for _, phase, _ in bench.take_phases()} == {None}
        assert not any(row.is_open for row in bench.status.segments)
        assert bench.status.calendar_ends_at == clock("2027-01-01 00:00:00")


@pytest.mark.slow
async def test_new_wishes_are_played_and_old_ones_no_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-20 20:00:00") as bench:
        bench.wanted = [INDEX.instrument_token, FUTURE.instrument_token]
        await trio.sleep(5)
        assert tokens_of(bench.take_frames()) == tokens(INDEX, FUTURE)
        bench.wanted = [INDEX.instrument_token, NEAR[0].instrument_token, 12345]
        await trio.sleep(3)
        bench.take_frames()
        await trio.sleep(3)
        assert tokens_of(bench.take_frames()) == tokens(INDEX, NEAR[0])


@pytest.mark.slow
async def test_what_there_is_no_place_for_is_left_out_options_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-20 20:00:00", size_max=4) as bench:
        await trio.sleep(10)
        sent = tokens_of(bench.take_frames())
        assert len(sent) == 4
        assert sent > tokens(INDEX, FUTURE)
        assert bench.status.left_out == len(NEAR) - 2
        assert "least_recently_used" not in bench.market.evictions, "nobody is turned out in turn"


@pytest.mark.slow
async def test_a_new_wish_takes_the_place_of_what_is_wanted_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-20 20:00:00", size_max=4) as bench:
        bench.wanted = [each.instrument_token for each in NEAR[:4]]
        await trio.sleep(5)
        bench.wanted = [each.instrument_token for each in (*NEAR[:3], NEAR[4])]
        await trio.sleep(5)
        bench.take_frames()
        await trio.sleep(2)
        assert tokens_of(bench.take_frames()) == tokens(*NEAR[:3], NEAR[4])
        assert bench.market.evictions["least_recently_used"] == 1


@pytest.mark.slow
async def test_a_token_that_is_another_contract_is_played_as_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-20 20:00:00") as bench:
        await trio.sleep(5)
        old = NEAR[0]
        new = create_option(old.instrument_token >> 8, old.strike + 5_000, old.instrument_type)
        assert new.instrument_token == old.instrument_token
        rows = [new if each is old else each for each in [*MARKET, CRUDE]]
        bench.registry.set(InstrumentRegistry(rows))
        await trio.sleep(3)
        held = bench.market.snapshot.of(old.instrument_token)
        assert held is not None
        assert held.instrument == new
        assert bench.market.evictions == {"replaced": 1, "no_expiry": 0}
        bench.take_frames()
        await trio.sleep(2)
        assert tokens_of(bench.take_frames()) == tokens(INDEX, FUTURE, *NEAR)


@pytest.mark.slow
async def test_what_expired_is_cleaned_up_and_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    async with open_bench("2026-11-24 15:39:30", clean_up_interval_s=60.0) as bench:
        await trio.sleep(20)
        assert bench.sample("mock_state_size") == len(NEAR) + 3
        await bench.sleep_until("2026-11-24 15:40:02")
        bench.take_frames()
        await trio.sleep(3)
        assert tokens_of(bench.take_frames()) == tokens(INDEX, CRUDE)
        await trio.sleep(60)
        assert bench.sample("mock_state_size") == 2
        assert bench.sample("mock_state_evictions_total", reason="expired") == len(NEAR) + 1


@pytest.mark.slow
async def test_it_begins_at_the_last_values_and_prices_them_as_the_service_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    last = {
        token: Newest(value.price, words_of(token, value.price), value.forward, is_mock=False)
        for token, value in chain_values().items()
    }
    async with open_bench("2026-11-20 20:00:00") as bench:
        bench.values = last
        await trio.sleep(1.5)
        frames = bench.take_frames()
        rows = payloads(
            create_market_engine([*MARKET, CRUDE]).process(frames, bench.now()).snapshots
        )
    assert {row["token"] for row in rows} == tokens(INDEX, FUTURE, *NEAR)
    assert all(row["is_mock"] for row in rows)
    first = {row["token"]: row for row in reversed(rows)}
    for each in (INDEX, FUTURE, *NEAR):
        row, before = first[each.instrument_token], last[each.instrument_token].price
        price = row["last_price"] if each.is_index else row["price"]
        level = row["forward"] if each.is_option else before
        assert abs(price - before) <= 12.5e-4 * level + 0.051
        if each.is_option:
            assert row["greeks_status"] == "ok"
            assert row["forward_source"] == "parity"
            assert row["depth"]["buy"][0]["price"] < price < row["depth"]["sell"][0]["price"]


def words_of(token: int, price: float) -> Int32Array:
    words = np.zeros(WORDS, np.int32)
    words[Row.INSTRUMENT_TOKEN], words[Row.LAST_PRICE] = token, round(price * 100)
    return words


@pytest.mark.slow
async def test_a_full_channel_holds_the_step_and_nothing_piles_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    bench = Bench("2026-11-20 20:00:00")
    bench.send_frames, bench.frames = trio.open_memory_channel[Frame](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        await trio.sleep(60)
        assert bench.market.steps < 10
        assert len(bench.take_frames()) <= 2
        await trio.sleep(5)
        assert bench.take_frames()
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_wishes_that_change_while_the_channel_is_full(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    bench = Bench("2026-11-21 12:00:00")
    bench.send_frames, bench.frames = trio.open_memory_channel[Frame](1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        await trio.sleep(10)
        bench.wanted = [INDEX.instrument_token]
        await trio.sleep(5)  # of what waits to be sent, some is no longer wanted
        for _ in range(6):
            bench.take_frames()
            await trio.sleep(1)
        assert bench.status.speaks_for == ("NIFTY",)
        assert tokens_of(bench.take_frames()) == tokens(INDEX)
        nursery.cancel_scope.cancel()
