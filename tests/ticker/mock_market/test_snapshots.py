"""What readers see while others write: whole steps, that nothing can change."""

import itertools
import math
import operator
import threading
from collections.abc import Callable

import numpy as np
import pytest
import trio

from tests.ticker.mock_market.rig import NEAR, chain_values, create_market, seeded, threads, value
from tests.ticker.synthetic import (
    EXPIRY,
    FUTURE,
    INDEX,
    NOW,
    RATE,
    YEAR_S,
    expiry_at,
)
from ticker.mock_market.snapshot import MockSnapshot
from ticker.ticks import Row


def test_nothing_can_be_changed_from_outside() -> None:
    snapshot = seeded().step(NOW)
    row = value(snapshot, NEAR[0])
    mutations: list[Callable[[], object]] = [
        lambda: setattr(snapshot, "step", 7),
        lambda: setattr(row, "price", 1.0),
        lambda: setattr(row.bids[0], "quantity", 1),
        lambda: snapshot.words.__setitem__((0, 0), 1),
        lambda: snapshot.priced.__setitem__((0, 0), 1.0),
        lambda: snapshot.is_alive.__setitem__(0, False),
        lambda: snapshot.words.setflags(write=True),
        lambda: snapshot.is_alive.setflags(write=True),
        lambda: operator.setitem(snapshot.places, 1, 1),  # type: ignore[call-overload]
        lambda: operator.setitem(row.bids, 0, None),  # type: ignore[call-overload]
    ]
    for mutate in mutations:
        with pytest.raises((AttributeError, TypeError, ValueError)):
            mutate()


SMALL = [INDEX, FUTURE, *NEAR[:10]]


def assert_consistent(snapshot: MockSnapshot) -> None:
    """Price, book and Greeks of one instrument are of the snapshot's own instant."""
    expires_at = expiry_at("NFO", EXPIRY).timestamp()
    ends = np.array([each.strike for each in snapshot.instruments])
    words, priced = snapshot.words, snapshot.priced
    assert (words[:, Row.EXCHANGE_TIMESTAMP] == int(snapshot.at)).all()
    assert len(words) == len(priced) == len(snapshot.places) == len(ends)
    last = words[:, Row.LAST_PRICE]
    traded = words[:, Row.BIDS] != 0
    assert (words[traded, Row.BIDS + 1] < last[traded]).all()
    assert (words[traded, Row.ASKS + 1] > last[traded]).all()
    mid = (words[traded, Row.BIDS + 1] + words[traded, Row.ASKS + 1]) / 2
    assert (np.abs(mid - last[traded]) < 0.6).all()
    is_option = ends > 0
    forward, volatility, delta = (priced[is_option, column] for column in (0, 1, 2))
    assert len(set(forward.tolist())) <= 1, "one chain, one forward"
    years = (expires_at - snapshot.at) / YEAR_S
    deviation = volatility * math.sqrt(years)
    d1 = np.log(forward / ends[is_option]) / deviation + deviation / 2
    normal = np.array([0.5 * math.erfc(-d / math.sqrt(2)) for d in d1])
    sign = np.array([1 if e.instrument_type == "CE" else -1 for e in snapshot.instruments])[
        is_option
    ]
    call_delta = normal * math.exp(-RATE * years)
    assert np.allclose(np.where(sign > 0, call_delta, call_delta - math.exp(-RATE * years)), delta)
    low = np.array([0.5 * math.erfc(-d / math.sqrt(2)) for d in d1 - deviation])
    calls = math.exp(-RATE * years) * (forward * normal - ends[is_option] * low)
    puts = calls - math.exp(-RATE * years) * (forward - ends[is_option])
    fair = np.where(sign > 0, calls, puts) * 100
    assert (np.abs(fair - last[is_option]) <= 2.51).all()


@pytest.mark.slow
def test_three_readers_and_two_writers_in_threads_for_100_000_snapshots() -> None:
    market = seeded(*SMALL)
    market.step(NOW)
    steps = 100_000
    seen: list[int] = []
    times = itertools.count()

    def write() -> None:
        while market.steps < steps:
            market.step(NOW + next(times) % 3600)

    def read() -> None:
        looked, last = 0, 0
        while market.steps < steps:
            snapshot = market.snapshot
            assert snapshot.step >= last
            last = snapshot.step
            assert_consistent(snapshot)
            row = snapshot.of(NEAR[0].instrument_token)
            assert row is not None
            assert row.bids[0].price < row.price < row.asks[0].price
            looked += 1
        seen.append(looked)

    with threads(write, write, read, read, read) as errors:
        pass
    assert not errors, errors[0]
    assert market.steps >= steps
    assert len(seen) == 3
    assert min(seen) > 100


@pytest.mark.slow
async def test_three_readers_and_two_writers_in_tasks() -> None:
    market = seeded(*SMALL)
    market.step(NOW)
    steps = 5_000
    done = trio.Event()
    looked = 0

    async def write() -> None:
        while market.steps < steps:
            await trio.to_thread.run_sync(market.step, NOW + market.steps % 3600)
        done.set()

    async def read() -> None:
        nonlocal looked
        while not done.is_set():
            snapshot = market.snapshot
            await trio.lowlevel.checkpoint()
            assert_consistent(snapshot)
            looked += 1
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        for task in (write, write, read, read, read):
            nursery.start_soon(task)
    assert looked > 100


def test_a_hundred_first_requests_from_threads_seed_once() -> None:
    market, barrier = create_market(), threading.Barrier(100)

    def ask() -> None:
        barrier.wait()
        market.admit([INDEX, FUTURE], chain_values(), NOW)

    with threads(*[ask] * 100) as errors:
        pass
    assert not errors
    assert market.seeded == {"live": 2}
    assert len(market) == 2
