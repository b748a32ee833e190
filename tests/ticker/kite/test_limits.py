"""The rate limits against a broker that counts by the calendar seconds of its own clock."""

import math
import random
from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from ticker.errors import BrokerBusyError
from ticker.kite.limits import BrokerClock, RateLimit, RateLimits, parse_date

WALL = 1_795_000_000.0


class CountingBroker:
    """Counts the calls that arrive in each second of its clock, ``skew_s`` ahead of ours.

    Arrival and answer are late at random, and the answer's body takes ``body_s``; what it says of
    the time is the second in which the answer begins.
    """

    def __init__(self, skew_s: float, latency_s: float, *, body_s: float = 0.0) -> None:
        self.counts: Counter[int] = Counter()
        self._skew_s = skew_s
        self._latency_s = latency_s
        self._body_s = body_s
        self._random = random.Random(1)
        self._began = trio.current_time()

    def now(self) -> float:
        return WALL + self._skew_s + trio.current_time() - self._began

    async def call(self, limit: RateLimit, deadline: float = math.inf) -> None:
        place = await limit.take(deadline)
        await trio.sleep(self._random.random() * self._latency_s)
        self.counts[math.floor(self.now())] += 1
        await trio.sleep(self._random.random() * self._latency_s)
        date_s = math.floor(self.now())
        await trio.sleep(self._random.random() * self._latency_s + self._body_s)
        limit.settle(place, date_s)


def create_limit(calls_per_s: int) -> RateLimit:
    began = trio.current_time()
    return RateLimit(calls_per_s, BrokerClock(lambda: WALL + trio.current_time() - began))


@pytest.mark.parametrize("calls_per_s", [1, 3, 10])
@pytest.mark.parametrize("skew_s", [0.0, 0.37, -3600.9])
@pytest.mark.parametrize("latency_s", [0.0, 0.05, 0.3, 0.9])
async def test_the_broker_never_counts_too_many_in_a_second(
    autojump_clock: MockClock, calls_per_s: int, skew_s: float, latency_s: float
) -> None:
    broker, limit = CountingBroker(skew_s, latency_s), create_limit(calls_per_s)
    async with trio.open_nursery() as nursery:
        for _ in range(20 * calls_per_s):
            nursery.start_soon(broker.call, limit)
    assert sum(broker.counts.values()) == 20 * calls_per_s
    settled = sorted(broker.counts)[3:]  # by then, a clock hours away has been learnt
    assert max(broker.counts[second] for second in settled) <= calls_per_s
    if abs(skew_s) < 1:
        assert max(broker.counts.values()) <= calls_per_s


@pytest.mark.parametrize("calls_per_s", [1, 3, 10])
@pytest.mark.parametrize("body_s", [0.0, 0.9])
async def test_a_prompt_broker_is_asked_at_its_full_rate(
    autojump_clock: MockClock, calls_per_s: int, body_s: float
) -> None:
    broker, limit = CountingBroker(0.37, 0.02, body_s=body_s), create_limit(calls_per_s)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(30 * calls_per_s):
            nursery.start_soon(broker.call, limit)
    assert trio.current_time() - began < 35


async def test_first_come_first_served(autojump_clock: MockClock) -> None:
    broker, limit = CountingBroker(0.0, 0.01), create_limit(1)
    served: list[int] = []

    async def call(number: int) -> None:
        await broker.call(limit)
        served.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()
    assert served == list(range(6))


async def test_who_gives_up_does_not_hold_the_others_up(autojump_clock: MockClock) -> None:
    broker, limit = CountingBroker(0.0, 0.01), create_limit(1)
    await broker.call(limit)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(broker.call, limit)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    began = trio.current_time()
    await broker.call(limit)
    assert trio.current_time() - began < 2.1


async def test_a_turn_that_comes_too_late_is_refused_in_time(autojump_clock: MockClock) -> None:
    limit = create_limit(1)
    await limit.take(math.inf)
    began = trio.current_time()
    with pytest.raises(BrokerBusyError) as caught:
        await limit.take(began + 0.2)
    assert trio.current_time() - began == pytest.approx(0.2)
    assert caught.value.retry_after_s >= 1


async def test_a_queue_longer_than_the_deadline_refuses_at_once(
    autojump_clock: MockClock,
) -> None:
    broker, limit = CountingBroker(0.0, 0.01), create_limit(3)
    async with trio.open_nursery() as nursery:
        for _ in range(33):
            nursery.start_soon(broker.call, limit)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(BrokerBusyError) as caught:
            await limit.take(began + 5)
        assert trio.current_time() == began
        assert caught.value.retry_after_s == pytest.approx(10, abs=1)


async def test_after_a_429_nothing_goes_out_for_a_while(autojump_clock: MockClock) -> None:
    broker, limit = CountingBroker(0.0, 0.0), create_limit(10)
    began = trio.current_time()
    limit.hold(4.0)
    await broker.call(limit)
    assert trio.current_time() - began == pytest.approx(4.0, abs=0.01)
    limit.hold(4.0)
    with pytest.raises(BrokerBusyError):
        await limit.take(trio.current_time() + 3.9)


async def test_classes_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    limits = RateLimits(BrokerClock(lambda: WALL))
    began = trio.current_time()
    for kind in ("quote", "historical", "other"):
        await limits.of(kind).take(math.inf)
    assert trio.current_time() - began < 0.1


async def test_a_call_without_an_end_takes_its_place_for_a_moment_only(
    autojump_clock: MockClock,
) -> None:
    limit = create_limit(1)
    began = trio.current_time()
    for _ in range(3):
        await limit.take(math.inf)
    assert trio.current_time() - began < 8


async def test_the_brokers_clock_is_learnt_and_learnt_anew(autojump_clock: MockClock) -> None:
    clock = BrokerClock(lambda: trio.current_time() + 0.25)
    for step in range(50):
        sent_at = trio.current_time()
        await trio.sleep(0.01)
        date_s = math.floor(trio.current_time() - 0.005 + 7.75)
        clock.observe(date_s, sent_at, trio.current_time())
        assert clock.low_s <= 7.75 <= clock.high_s
        await trio.sleep(0.137 * (step % 7))
    assert clock.high_s - clock.low_s < 0.2
    now = trio.current_time()
    clock.observe(math.floor(now) + 3600, now, now)
    assert clock.low_s > 3000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Sat, 21 Nov 2026 11:00:00 GMT", 1_795_258_800),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("Sat, 99 Nov 2026 11:00:00 GMT", None),
        ("\x00", None),
    ],
)
def test_a_date_header_is_read_or_ignored(header: str | None, expected: int | None) -> None:
    assert parse_date(header) == expected
