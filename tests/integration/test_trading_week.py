"""A week of the exchanges through the whole tree: who speaks, when, and from which price on."""

import datetime as dt
import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio

from nurseries.service import run_service
from tests.integration.live import (
    API_KEY,
    STOP_TIMEOUT_S,
    Live,
    Payload,
    RealMarketSettings,
    Simulator,
    create_settings,
    open_redis_server,
    subscribe,
)
from tests.integration.market_clock import MarketClock
from tests.postgres import open_test_url
from ticker.calendar.market_hours import day_phases
from ticker.metrics import Metrics
from ticker.simulator.days import IST
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.sessions import create_accounts
from ticker.simulator.simulation import SimulatorConfig
from ticker.status import ServiceStatus

pytestmark = pytest.mark.slow

MONDAY = dt.date(2026, 1, 26)
"""Republic Day. The week has NIFTY's monthly expiry on Tuesday and the Budget session on Sunday."""
WEEK = [MONDAY + dt.timedelta(days=ahead) for ahead in range(7)]
HOLIDAY, EXPIRY = WEEK[0], WEEK[1]
SEGMENTS = ("MCX", "NFO", "NSE")
SEGMENTS_OF = {"NIFTY": ("NFO", "NSE"), "CRUDEOIL": ("MCX",)}

SPEED = 40.0
UNDER_WAY_S = 4 * SPEED  # market time that four seconds of this machine take
BEFORE_S, AFTER_S = 30.0, 45.0
"""Market seconds that are lived through around each change of a phase; the rest is leapt over."""
LATE_S = 20.0
"""Market seconds, half a real one, that a live tick may be under way."""
VARIATION = 12.5e-4
SETTLE_S = 5.0


def at(day: dt.date, hour: int, minute: int = 0, second: int = 0) -> float:
    return dt.datetime.combine(day, dt.time(hour, minute, second), IST).timestamp()


def spans(segments: Iterable[str]) -> list[tuple[float, float]]:
    """When any of these is not closed, from the Monday to the Monday after."""
    days = [*WEEK, MONDAY + dt.timedelta(days=7)]
    phases = [phase for name in segments for day in days for phase in day_phases(name, day)]
    return sorted(
        (phase.since.timestamp(), phase.until.timestamp())
        for phase in phases
        if phase.since and phase.until
    )


def changes() -> list[float]:
    """Every moment of the week at which a phase begins or ends, and the first of the next one."""
    moments = {moment for span in spans(SEGMENTS) for moment in span}
    return sorted(moment for moment in moments if moment <= at(WEEK[6] + dt.timedelta(1), 9, 15))


@asynccontextmanager
async def open_week(clock: MarketClock) -> AsyncIterator[Live]:
    """The tree on this clock, with a simulator that keeps the exchanges' hours."""
    config = SimulatorConfig(port=0, rate=20.0, accounts=create_accounts(1, 1), market_hours=True)
    async with (
        open_redis_server() as server,
        open_test_url(is_migrated=False) as database_url,
        trio.open_nursery() as nursery,
    ):
        address: SimulatorAddress = await nursery.start(
            partial(serve_simulator, config, wall_clock=clock)
        )
        async with httpx.AsyncClient(base_url=address.rest_url, timeout=10) as client:
            simulator = Simulator(client, config.accounts)
            changes = {
                "redis_url": server.url,
                "database_url": database_url,
                "fo_underlyings": ("NIFTY", "CRUDEOIL"),
                "otm_levels": 3,
                "enable_mock_data": True,
                "mock_interval_seconds": 0.05,
                "rebalance_interval_seconds": 86_400.0,  # the same strikes all week
            }
            settings = RealMarketSettings(**(dict(create_settings(simulator, address)) | changes))
            status = ServiceStatus(started_at=0.0, environment="test", account_ids=("a0",))
            metrics, stop, ended = Metrics(), trio.Event(), trio.Event()
            payloads: list[Payload] = []
            events: list[Payload] = []

            async def serve(task_status: trio.TaskStatus[str]) -> None:
                await run_service(
                    settings, status, metrics, stop=stop, wall_clock=clock, task_status=task_status
                )
                ended.set()

            nursery.start_soon(subscribe, server.url, payloads, events)
            url: str = await nursery.start(serve)
            headers = {"X-API-Key": API_KEY}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as api:
                yield Live(simulator, status, metrics, server, url, api, payloads, events)
            stop.set()
            with trio.fail_after(STOP_TIMEOUT_S):
                await ended.wait()
        nursery.cancel_scope.cancel()


async def live_through_the_week(live: Live, clock: MarketClock) -> None:
    clock.leap_to(at(EXPIRY, 6))  # the access token ends, and the stream looks for another
    await trio.sleep(3)
    await live.wait_for(live.is_live)
    for moment in changes():
        clock.leap_to(moment - BEFORE_S)
        await sleep_until(clock, moment + AFTER_S)


async def sleep_until(clock: MarketClock, moment: float) -> None:
    while clock() < moment:  # noqa: ASYNC110 - no one but the clock knows
        await trio.sleep(0.01)


async def test_a_week_with_a_holiday_an_expiry_and_a_special_session() -> None:
    clock = MarketClock(at(HOLIDAY, 8, 59), SPEED)
    async with open_week(clock) as live:
        await live.wait_for(lambda: any(row["is_mock"] for row in live.payloads), 30)
        begun_seq = next(row["seq"] for row in live.payloads if row["is_mock"])
        clock.leap_to(at(HOLIDAY, 11))
        await sleep_until(clock, at(HOLIDAY, 11) + AFTER_S)
        await live_through_the_week(live, clock)
        await live.wait_quiet()
        await live.wait_for(lambda: live.unaccounted(("mock", "0")) == 0)
        health = (await live.api.get("/health")).json()["mock_market"]

    rows = sorted((row for row in live.payloads if row["seq"] >= begun_seq), key=by_seq)
    assert_nothing_is_missing_but_at_openings(rows, clock)
    assert_every_payload_says_what_it_is(rows)
    assert_each_session_has_its_first_and_last_tick(rows)
    assert_nobody_interrupts(rows)
    assert_no_jump(rows)
    assert_expired_options_are_silent(rows)
    assert_phases(live.events)
    assert health["enabled"]
    assert {row["segment"]: row["feed"] for row in health["segments"]} == dict.fromkeys(
        SEGMENTS, "live"
    )


def by_seq(row: Payload) -> int:
    return int(row["seq"])


def assert_nothing_is_missing_but_at_openings(rows: list[Payload], clock: MarketClock) -> None:
    """What is mock and still under way when a market opens, or a day ends, is left out; what came
    with it and is live is not.
    """
    days = [*WEEK, MONDAY + dt.timedelta(days=7)]
    moments = [*changes(), *(at(day, 0) for day in days)]
    for before, after in itertools.pairwise(rows):
        assert after["seq"] > before["seq"]
        if after["seq"] > before["seq"] + 1:
            since, until = before["received_ts"], clock.later(after["received_ts"], UNDER_WAY_S)
            assert any(since < moment <= until for moment in moments), (before, after)


def assert_every_payload_says_what_it_is(rows: list[Payload]) -> None:
    """Mock is what the mock market sent, and nothing of it is of a moment of an open market."""
    opens = {name: spans(segments) for name, segments in SEGMENTS_OF.items()}
    kinds: Counter[tuple[str, bool]] = Counter()
    for row in rows:
        assert row["is_mock"] is (row["account_id"] == "mock")
        moment = row["received_ts"] if row["is_mock"] else row["exchange_ts"]
        place = bisect_right(opens[row["symbol"]], (moment, float("inf"))) - 1
        is_inside = place >= 0 and any(
            since <= moment < until + (0.0 if row["is_mock"] else 1.0)
            for since, until in opens[row["symbol"]][max(place - 3, 0) : place + 1]
        )
        assert is_inside is not row["is_mock"], row
        kinds[row["symbol"], row["is_mock"]] += 1
    assert min(kinds.values()) > 100
    assert len(kinds) == 4


def turns(rows: list[Payload], symbol: str) -> Iterator[tuple[bool, list[Payload]]]:
    """An underlying's ticks, as long as one side speaks without a break of a minute."""
    own = [row for row in rows if row["symbol"] == symbol and not row["repriced"]]
    turn: list[Payload] = []
    for row in own:
        if turn and (
            row["is_mock"] is not turn[-1]["is_mock"]
            or row["received_ts"] - turn[-1]["received_ts"] > 60
        ):
            yield turn[0]["is_mock"], turn
            turn = []
        turn.append(row)
    yield turn[0]["is_mock"], turn


def assert_each_session_has_its_first_and_last_tick(rows: list[Payload]) -> None:
    """Live ticks begin and end with each phase; the mock market begins after the last, and is
    still heard just before the first.
    """
    step_s = SPEED * 0.75
    for symbol, segments in SEGMENTS_OF.items():
        sides = [*turns(rows, symbol)]
        for since, until in joined(spans(segments)):
            if since > at(WEEK[6], 23, 59) or until < at(MONDAY, 9):
                continue
            live = [turn for is_mock, turn in sides if not is_mock]
            first = next(turn for turn in live if turn[0]["received_ts"] >= since)
            last = [turn for turn in live if turn[0]["received_ts"] < until][-1]
            assert since <= first[0]["received_ts"] < since + step_s
            assert until - step_s < last[-1]["received_ts"] < until + LATE_S
        for since, until in night_spans(segments):
            mock = [
                row
                for row in rows
                if row["symbol"] == symbol
                and row["is_mock"]
                and since <= row["received_ts"] < until
            ]
            night = dt.datetime.fromtimestamp(since, IST)
            assert mock, f"{symbol} is silent in the night of {night:%A}"
            assert since + SETTLE_S <= mock[0]["received_ts"] < since + SETTLE_S + step_s
            assert until - step_s < mock[-1]["received_ts"] < until


def joined(phases: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Phases of an underlying that follow each other, or overlap, as one."""
    sessions: list[tuple[float, float]] = []
    for since, until in phases:
        if sessions and since <= sessions[-1][1]:
            sessions[-1] = sessions[-1][0], max(until, sessions[-1][1])
        else:
            sessions.append((since, until))
    return sessions


def night_spans(segments: Iterable[str]) -> list[tuple[float, float]]:
    """From the last phase of a day to the first of a later one."""
    sessions = joined(spans(segments))
    return [
        (before[1], after[0])
        for before, after in itertools.pairwise(sessions)
        if dt.datetime.fromtimestamp(before[1], IST).date()
        != dt.datetime.fromtimestamp(after[0], IST).date()
    ]


def assert_nobody_interrupts(rows: list[Payload]) -> None:
    """Of no underlying a mock tick comes after the first live one, until the market has closed."""
    for symbol, segments in SEGMENTS_OF.items():
        sides = [
            is_mock
            for is_mock, _ in itertools.groupby(
                (row for row in rows if row["symbol"] == symbol), lambda row: row["is_mock"]
            )
        ]
        sessions = 1 + len(night_spans(segments))
        assert sides == [True, False] * sessions, symbol


def assert_no_jump(rows: list[Payload]) -> None:
    """The first mock price is within the variation of the last live one, or of its forward."""
    last: dict[int, Payload] = {}
    handed_over = 0
    for row in rows:
        token = row["token"]
        before = last.get(token)
        last[token] = row
        if before is None or before["is_mock"] or not row["is_mock"]:
            continue
        handed_over += 1
        old, new = price(before), price(row)
        level = row["forward"] if row.get("type") in {"CE", "PE"} else old
        tick = row.get("tick_size") or 0.05
        # the published forward may still be on its way to the one that limits the move
        assert abs(new - old) <= 1.01 * VARIATION * level + 1.01 * tick, (before, row)
        assert (row.get("volume") or 0) >= (before.get("volume") or 0)
    assert handed_over > 100


def price(row: Payload) -> float:
    return float(row["last_price"] if "last_price" in row else row["price"])


def assert_expired_options_are_silent(rows: list[Payload]) -> None:
    over = at(EXPIRY, 15, 30)
    own = [row for row in rows if row.get("expiry") == EXPIRY.isoformat()]
    assert any(row["is_mock"] for row in own), "the night before, they are played"
    assert not [row for row in own if row["is_mock"] and row["received_ts"] >= over]
    later = [row for row in rows if row["is_mock"] and row["received_ts"] >= over]
    assert any(row.get("type") == "CE" for row in later), "the next expiry is played"


def assert_phases(events: list[Payload]) -> None:
    """Each segment's phases and who spoke in them, in order, at the calendar's times."""
    phases = [event for event in events if event["type"] == "market_phase"]
    for segment in SEGMENTS:
        told = [event for event in phases if event["segment"] == segment]
        holiday = [*itertools.takewhile(lambda event: event["phase"] == "closed", told)]
        assert holiday[-1]["feed"] == "mock"
        week = told[len(holiday) :]
        assert [(event["phase"], event["feed"]) for event in week] == [*expected_phases(segment)]
        for event in week:
            assert event["is_open"] is (event["phase"] == "continuous")
            if event["feed"] != "mock":
                assert event["since"] <= event["ts"] < event["since"] + SPEED


def expected_phases(segment: str) -> Iterator[tuple[str, str]]:
    """By hand, for this week: Tuesday to Friday, the Budget's Sunday, and the Monday's opening."""
    equity = {
        "NSE": [
            ("pre_open", "live"),
            ("continuous", "live"),
            ("closed", "silent"),
            ("post_close", "live"),
            ("closed", "silent"),
            ("closed", "mock"),
        ],
        "NFO": [
            ("pre_open", "live"),
            ("continuous", "live"),
            ("closed", "silent"),
            ("closed", "mock"),
        ],
        "MCX": [("continuous", "live"), ("closed", "silent"), ("closed", "mock")],
    }
    for _ in range(5):
        yield from equity[segment]
    yield from {"MCX": equity["MCX"][:1]}.get(segment, equity[segment][:2])
