"""Frames to snapshots: the engine in a worker thread, one batch at a time."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from ticker.engine import Engine, Enriched
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import Frame, SnapshotBatch
from ticker.metrics import Metrics
from ticker.status import EngineStatus

FRAMES_MAX: Final = 256
"""Frames in one batch. The rest waits in the channel and makes the next."""

BYTES_MAX: Final = 512 * 1024
"""A batch takes no further frame beyond this: 2,800 full packets, some 2 ms of one core."""

_KEPT_OUT: Final = frozenset({"market_open", "market_closed"})
"""Reasons of ticks that nothing is wrong with: the other side speaks for their instrument."""

Tap = Callable[[Sequence[Frame], InstrumentRegistry], None]
"""Takes the frames of a batch, and the instruments that it was looked up in."""


def ignore_frames(frames: Sequence[Frame], registry: InstrumentRegistry) -> None:
    """A tap that is closed."""


async def enrich(
    frames: trio.MemoryReceiveChannel[Frame],
    snapshots: trio.MemorySendChannel[SnapshotBatch],
    *,
    engine: Engine,
    limiter: trio.CapacityLimiter,
    metrics: Metrics,
    report: Callable[[EngineStatus], None],
    wall_clock: Callable[[], float] = time.time,
    tap: Tap = ignore_frames,
    frames_max: int = FRAMES_MAX,
) -> None:
    """Turn frames into batches of payloads until ``frames`` is closed and empty.

    A frame is taken as soon as it is there. While the engine is at work, what arrives forms the
    next batch, so that batches grow with the load and nothing waits for a timer. Both channels
    are closed at the end. ``report`` gets the totals after each batch, ``tap`` the batch itself;
    neither may wait. ``wall_clock``: UNIX seconds.

    Cancellation takes effect once the batch in hand is priced; if it can then not be sent, its
    ticks are counted as dropped, reason ``shutdown``. Raises BrokenResourceError if the reader
    of ``snapshots`` is gone.
    """
    recorder = _Recorder(metrics)
    async with frames, snapshots:
        async for first in frames:
            batch = _drain(first, frames, frames_max)
            enriched = await trio.to_thread.run_sync(
                engine.process, batch, wall_clock(), limiter=limiter
            )
            tap(batch, engine.registry)
            recorder.record(batch, enriched, wall_clock())
            report(recorder.status)
            if enriched.snapshots is not None:
                try:
                    await snapshots.send(enriched.snapshots)
                except (trio.Cancelled, trio.BrokenResourceError):
                    recorder.drop(enriched)
                    raise


def _drain(first: Frame, frames: trio.MemoryReceiveChannel[Frame], frames_max: int) -> list[Frame]:
    """The first frame and what else is ready, up to the bounds."""
    batch = [first]
    size = len(first.data)
    while len(batch) < frames_max and size < BYTES_MAX:
        try:
            frame = frames.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            break
        batch.append(frame)
        size += len(frame.data)
    return batch


class _Recorder:
    """Counts what the engine did, once per batch."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.status = EngineStatus()

    def record(self, batch: list[Frame], enriched: Enriched, now: float) -> None:
        self._count_ticks(enriched)
        self._count_pricing(enriched, now)
        before = self.status
        last_tick_at = dict(before.last_tick_at)
        for frame in batch:
            if frame.connection in enriched.decoded:
                last_tick_at[frame.connection.account_id] = frame.received_at
        self.status = EngineStatus(
            decoded=before.decoded + sum(enriched.decoded.values()),
            priced=before.priced + enriched.greeks.get("ok", 0),
            batches=before.batches + 1,
            last_tick_at=last_tick_at,
        )

    def drop(self, enriched: Enriched) -> None:
        """Count the ticks of a batch that nobody will publish."""
        for connection, decoded in enriched.decoded.items():
            lost = decoded - sum(
                count for (source, _), count in enriched.dropped.items() if source == connection
            )
            labels = (connection.account_id, str(connection.shard), "shutdown")
            self._metrics.feed_dropped.labels(*labels).inc(lost)

    def _count_ticks(self, enriched: Enriched) -> None:
        metrics = self._metrics
        for connection, count in enriched.decoded.items():
            shard = (connection.account_id, str(connection.shard))
            metrics.feed_decoded.labels(*shard).inc(count)
        for (connection, reason), count in enriched.dropped.items():
            shard = (connection.account_id, str(connection.shard))
            metrics.feed_dropped.labels(*shard, reason).inc(count)
            if reason not in _KEPT_OUT:
                metrics.processing_errors.labels(reason).inc(count)
        for kind, count in enriched.anomalies.items():
            metrics.wire_anomalies.labels(kind).inc(count)
        for rule, count in enriched.violations.items():
            metrics.validation_errors.labels(rule).inc(count)
        for what, count in enriched.depths.items():
            metrics.depth_updates.labels(what).inc(count)

    def _count_pricing(self, enriched: Enriched, now: float) -> None:
        metrics = self._metrics
        indices = enriched.classes.get("index", 0)
        others = sum(enriched.classes.values()) - indices
        for tick_type, count in (("option", others), ("underlying", indices)):
            if count:
                metrics.ticks_processed.labels(tick_type, "success").inc(count)
                age_s = max(now - enriched.oldest_at, 0.0)
                metrics.processing_latency.labels(tick_type).observe(age_s)
        for status, count in enriched.greeks.items():
            metrics.greeks_calculations.labels(status).inc(count)
        if enriched.greeks:
            metrics.greeks_latency.observe(enriched.pricing_s)
        if enriched.repriced:
            metrics.repriced.inc(enriched.repriced)
        for symbol, price in enriched.index_prices.items():
            metrics.underlying_price.labels(symbol).set(price)
