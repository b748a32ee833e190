"""The enricher: batches form by themselves, nothing is lost uncounted."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import trio

from nurseries.enricher import enrich
from tests.ticker.synthetic import (
    ALPHA,
    BETA,
    NOW,
    Packet,
    create_frame,
    create_future,
    create_index,
    create_market_engine,
    create_share,
    payloads,
)
from ticker.engine import Engine
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import MOCK_CONNECTION, Frame, SnapshotBatch
from ticker.metrics import Metrics
from ticker.mock_market.gate import MockGate
from ticker.status import EngineStatus
from ticker.ticks import PacketKind

FUTURE = create_future(35_000)
INDEX = create_index()
STRANGER = create_share(999, "STRANGER")


class Bench:
    """An enricher's surroundings: both channels, metrics, and what it reported."""

    def __init__(self, out_max: int = 8) -> None:
        self.engine = create_market_engine([FUTURE, INDEX])
        self.metrics = Metrics()
        self.limiter = trio.CapacityLimiter(2)
        self.reports: list[EngineStatus] = []
        self.send, self._frames = trio.open_memory_channel[Frame](100)
        self._snapshots, self.receive = trio.open_memory_channel[SnapshotBatch](out_max)

    async def run(self, **kwargs: Any) -> None:
        await enrich(
            self._frames,
            self._snapshots,
            engine=self.engine,
            limiter=self.limiter,
            metrics=self.metrics,
            report=self.reports.append,
            wall_clock=lambda: NOW + 1,
            **kwargs,
        )

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def busy(engine: Engine) -> Iterator[None]:
    """Keep the engine in the middle of its batch."""
    with engine.board.lock:
        yield


def future_frame(price: float, **kwargs: Any) -> Frame:
    return create_frame([Packet(FUTURE, price, PacketKind.LTP)], **kwargs)


def prices(batch: SnapshotBatch) -> list[float]:
    return [payload["price"] for payload in payloads(batch)]


async def wait_taken(bench: Bench) -> None:
    """Until the enricher has a batch in a worker thread."""
    while not bench.limiter.borrowed_tokens:  # noqa: ASYNC110 # it has no event to wait for
        await trio.sleep(0.001)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine([]).warm_up()


async def test_a_frame_is_processed_as_soon_as_it_is_there(nursery: trio.Nursery) -> None:
    bench = Bench()
    nursery.start_soon(bench.run)
    with trio.fail_after(5):
        for price in (1.0, 2.0):
            await bench.send.send(future_frame(price))
            assert prices(await bench.receive.receive()) == [price]


async def test_what_arrives_meanwhile_is_the_next_batch(nursery: trio.Nursery) -> None:
    bench = Bench()
    nursery.start_soon(bench.run)
    with trio.fail_after(5):
        with busy(bench.engine):
            await bench.send.send(future_frame(0.5))
            await wait_taken(bench)
            for price in range(1, 11):
                await bench.send.send(future_frame(price))
            await trio.testing.wait_all_tasks_blocked()
            assert bench.limiter.borrowed_tokens == 1, "one batch in flight"
        assert prices(await bench.receive.receive()) == [0.5]
        assert prices(await bench.receive.receive()) == [*range(1, 11)]


async def test_a_batch_is_bounded(nursery: trio.Nursery) -> None:
    bench = Bench()
    for price in range(1, 8):
        bench.send.send_nowait(future_frame(price))
    bench.send.close()
    nursery.start_soon(partial(bench.run, frames_max=3))
    with trio.fail_after(5):
        assert [prices(batch) async for batch in bench.receive] == [[1, 2, 3], [4, 5, 6], [7]]


async def test_a_batch_is_bounded_in_bytes() -> None:
    bench = Bench()
    big = create_frame([Packet(FUTURE, 1.0)] * 1500)
    for _ in range(5):
        bench.send.send_nowait(big)
    bench.send.close()
    with trio.fail_after(5):
        await bench.run()
        assert [len(batch) async for batch in bench.receive] == [3000, 3000, 1500]


async def test_all_is_drained_when_the_input_closes() -> None:
    bench = Bench()
    for price in (1.0, 2.0):
        bench.send.send_nowait(future_frame(price))
    bench.send.close()
    with trio.fail_after(5):
        await bench.run()
        assert [prices(batch) async for batch in bench.receive] == [[1.0, 2.0]]


async def test_a_batch_without_a_message_sends_nothing() -> None:
    bench = Bench()
    bench.send.send_nowait(create_frame([Packet(STRANGER, 1.0)]))
    bench.send.send_nowait(Frame(b"\0", NOW, ALPHA))
    bench.send.close()
    with trio.fail_after(5):
        await bench.run()
        assert [batch async for batch in bench.receive] == []
    labels = {"account_id": "alpha", "shard": "0"}
    assert bench.sample("feed_ticks_decoded_total", **labels) == 1
    assert bench.sample("feed_ticks_dropped_total", **labels, reason="unknown_instrument") == 1


async def test_metrics_and_report_tell_what_was_done() -> None:
    bench = Bench()
    ticks = [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL), Packet(FUTURE, 25_050.0)]
    bench.send.send_nowait(create_frame(ticks, NOW, ALPHA))
    bench.send.send_nowait(create_frame([Packet(FUTURE, -1.0)], NOW + 0.5, BETA))
    bench.send.send_nowait(Frame(b"\0\1\0\xb8", NOW, ALPHA))
    bench.send.close()
    with trio.fail_after(5):
        await bench.run()
    sample = bench.sample
    assert sample("feed_ticks_decoded_total", account_id="alpha", shard="0") == 2
    assert sample("feed_ticks_decoded_total", account_id="beta", shard="1") == 1
    dropped = {"account_id": "beta", "shard": "1", "reason": "invalid"}
    assert sample("feed_ticks_dropped_total", **dropped) == 1
    assert sample("tick_validation_errors_total", validation_type="schema") == 1
    assert sample("feed_wire_anomalies_total", kind="truncated_packet") == 1
    assert sample("tick_processor_underlying_price", symbol="NIFTY") == 25_000.0
    assert sample("market_depth_updates_total", instrument_type="future") == 1
    assert sample("ticks_processed_total", tick_type="underlying", status="success") == 1
    assert sample("ticks_processed_total", tick_type="option", status="success") == 1
    assert sample("tick_processing_latency_seconds_sum", tick_type="option") == 1.0
    [report] = bench.reports
    assert (report.decoded, report.batches) == (3, 1)
    assert report.last_tick_at == {"alpha": NOW, "beta": NOW + 0.5}


async def test_mock_ticks_that_the_gate_keeps_out_are_counted_and_no_errors() -> None:
    bench = Bench()
    gate = MockGate(lambda underlying, now: False, lambda underlying, now: now)
    bench.engine = create_market_engine([FUTURE, INDEX], gate=gate)
    mock = future_frame(2.0, connection=MOCK_CONNECTION)
    bench.send.send_nowait(future_frame(1.0))
    bench.send.send_nowait(Frame(mock.data, NOW, MOCK_CONNECTION, is_mock=True))
    bench.send.close()
    with trio.fail_after(5):
        await bench.run()
        assert [prices(batch) async for batch in bench.receive] == [[1.0]]
    labels = {"account_id": "mock", "shard": "0"}
    assert bench.sample("feed_ticks_decoded_total", **labels) == 1
    assert bench.sample("feed_ticks_dropped_total", **labels, reason="market_open") == 1
    assert bench.sample("tick_processing_errors_total", error_type="market_open") == 0


async def test_the_tap_is_handed_each_batch_and_its_instruments() -> None:
    bench = Bench()
    taken: list[tuple[list[Frame], InstrumentRegistry]] = []
    frames = [future_frame(1.0), Frame(b"\0", NOW, ALPHA), future_frame(2.0)]
    for frame in frames:
        bench.send.send_nowait(frame)
    bench.send.close()
    with trio.fail_after(5):
        await bench.run(frames_max=2, tap=lambda batch, known: taken.append(([*batch], known)))
    assert [batch for batch, _ in taken] == [frames[:2], frames[2:]]
    assert all(known.by_token(FUTURE.instrument_token) == FUTURE for _, known in taken)


async def test_cancelled_with_a_batch_in_hand_its_ticks_are_counted() -> None:
    bench = Bench(out_max=0)
    bench.send.send_nowait(future_frame(1.0))
    bench.send.send_nowait(create_frame([Packet(FUTURE, -1.0), Packet(FUTURE, 2.0)]))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.run)
            with busy(bench.engine):
                await wait_taken(bench)
                nursery.cancel_scope.cancel()
    labels = {"account_id": "alpha", "shard": "0"}
    assert bench.sample("feed_ticks_decoded_total", **labels) == 3
    assert bench.sample("feed_ticks_dropped_total", **labels, reason="shutdown") == 2
    assert bench.sample("feed_ticks_dropped_total", **labels, reason="invalid") == 1


async def test_without_a_reader_it_fails_and_counts() -> None:
    bench = Bench()
    bench.send.send_nowait(future_frame(1.0))
    bench.receive.close()
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await bench.run()
    labels = {"account_id": "alpha", "shard": "0", "reason": "shutdown"}
    assert bench.sample("feed_ticks_dropped_total", **labels) == 1
