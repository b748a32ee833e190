"""``/advanced/backpressure``: how the publisher keeps up, from what it reports and counts."""

import datetime as dt
import math
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
import trio
from prometheus_client.registry import Collector
from quart import Blueprint

from api.auth import requires
from api.operations import Time, operation
from ticker.metrics import Metrics
from ticker.status import ServiceStatus

SPAN_MIN_S: Final = 1.0
"""Rates are taken over at least this long, from one request to a later one."""

Level = Literal["healthy", "warning", "critical", "overload"]
LEVELS: Final[tuple[tuple[Level, float, int], ...]] = (
    ("healthy", 10.0, 100),
    ("warning", 50.0, 500),
    ("critical", 200.0, 2000),
)
"""Up to which age of the oldest tick, ms, and how many messages waiting; ``overload`` beyond."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """``interval_s``: what the rates and the CPU's share are taken over. Latencies are those from a
    frame's arrival to Redis's acknowledgement, since the start; None before the first.
    ``ingestion_rate_ratio``: published to received; conflation lowers it without any harm.
    """

    ticks_received_per_sec: float
    ticks_published_per_sec: float
    avg_publish_latency_ms: float | None
    p95_publish_latency_ms: float | None
    p99_publish_latency_ms: float | None
    pending_publishes: int
    dropped_messages: int
    conflated_messages: int
    redis_publish_errors: int
    redis_connection_errors: int
    memory_usage_mb: float
    cpu_usage_percent: float
    backpressure_level: Level
    ingestion_rate_ratio: float | None
    interval_s: float
    timestamp: Time


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures as text with their units."""

    backpressure_level: Level
    health_status: str
    ingestion_rate: str
    publish_rate: str
    rate_ratio: str
    avg_latency: str
    p99_latency: str
    pending_publishes: int
    dropped_messages: int
    redis_errors: int
    memory_usage: str
    cpu_usage: str
    timestamp: Time


class Circuit(msgspec.Struct, frozen=True):
    """The publisher's own breaker. Counts are of batches since the start; ``last_error``: what
    keeps Redis away, None while all is well.
    """

    state: str
    failure_count: int
    success_count: int
    last_error: str | None


class PublisherStats(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is sampled out: while Redis is slow, the newest tick of each instrument is kept and
    the older ones are conflated. ``buffer_capacity``: so it is one message an instrument.
    """

    total_published: int
    total_dropped: int
    total_conflated: int
    total_sampled_out: int
    buffer_size: int
    buffer_capacity: int
    circuit_breaker_state: str
    circuit_breaker_failures: int
    backpressure_metrics: Figures


class _Sample(msgspec.Struct, frozen=True):
    at: float
    cpu_s: float
    received: int
    published: int


def create_backpressure_blueprint(
    status: ServiceStatus, metrics: Metrics, wall_clock: Callable[[], float]
) -> Blueprint:
    """What the publisher does, at each request. Reads; steers nothing."""
    blueprint = Blueprint("backpressure", __name__)
    samples: list[_Sample] = []  # at most two: the one that rates begin at, and a newer one

    def take() -> Figures:
        now = _Sample(
            trio.current_time(),
            time.process_time(),
            status.engine.decoded,
            status.publisher.published,
        )
        if not samples:
            samples.append(_Sample(now.at - (wall_clock() - status.started_at), 0.0, 0, 0))
        if now.at - samples[-1].at >= SPAN_MIN_S:
            samples[:] = [samples[-1], now]
        return _figures(status, metrics, samples[0], now, wall_clock())

    @blueprint.get("/advanced/backpressure/metrics")
    @requires("read")
    @operation()
    async def figures() -> Figures:
        """Rates since an earlier request, latencies and totals since the start."""
        return take()

    @blueprint.get("/advanced/backpressure/status")
    @requires("read")
    @operation()
    async def summary() -> Summary:
        """The same figures, to be read by people."""
        return _summary(take())

    @blueprint.get("/advanced/backpressure/circuit-breaker")
    @requires("read")
    @operation()
    async def circuit() -> Circuit:
        """The circuit breaker in front of Redis. It closes by itself: there is no reset."""
        return Circuit(
            state=status.publisher.circuit,
            failure_count=_total(metrics.redis_failures),
            success_count=_total(metrics.batches_flushed),
            last_error=status.publisher.last_error,
        )

    @blueprint.get("/advanced/backpressure/publisher-stats")
    @requires("read")
    @operation()
    async def publisher_stats() -> PublisherStats:
        """Totals since the start, and what waits."""
        found = take()
        return PublisherStats(
            total_published=status.publisher.published,
            total_dropped=found.dropped_messages,
            total_conflated=found.conflated_messages,
            total_sampled_out=0,
            buffer_size=found.pending_publishes,
            buffer_capacity=status.plan.wanted,
            circuit_breaker_state=status.publisher.circuit,
            circuit_breaker_failures=found.redis_publish_errors,
            backpressure_metrics=found,
        )

    return blueprint


def _figures(
    status: ServiceStatus, metrics: Metrics, before: _Sample, now: _Sample, wall: float
) -> Figures:
    interval_s = max(now.at - before.at, 1e-9)
    received, published = now.received - before.received, now.published - before.published
    buckets, total_s = _histogram(metrics.publish_age)
    count = buckets[-1][1] if buckets else 0
    return Figures(
        ticks_received_per_sec=round(received / interval_s, 1),
        ticks_published_per_sec=round(published / interval_s, 1),
        avg_publish_latency_ms=round(1000 * total_s / count, 3) if count else None,
        p95_publish_latency_ms=_quantile_ms(buckets, 0.95),
        p99_publish_latency_ms=_quantile_ms(buckets, 0.99),
        pending_publishes=status.publisher.pending,
        dropped_messages=_total(metrics.feed_dropped),
        conflated_messages=_total(metrics.feed_conflated),
        redis_publish_errors=_total(metrics.redis_failures),
        redis_connection_errors=_total(metrics.redis_errors, error_type="unreachable"),
        memory_usage_mb=_memory_mb(),
        cpu_usage_percent=round(100 * (now.cpu_s - before.cpu_s) / interval_s, 1),
        backpressure_level=_level(status),
        ingestion_rate_ratio=round(published / received, 4) if received else None,
        interval_s=round(interval_s, 3),
        timestamp=dt.datetime.fromtimestamp(wall, dt.UTC).isoformat(timespec="milliseconds"),
    )


def _summary(found: Figures) -> Summary:
    def milliseconds(value: float | None) -> str:
        return "none yet" if value is None else f"{value:g} ms"

    ratio = found.ingestion_rate_ratio
    return Summary(
        backpressure_level=found.backpressure_level,
        health_status="healthy" if found.backpressure_level == "healthy" else "degraded",
        ingestion_rate=f"{found.ticks_received_per_sec:g} ticks/s",
        publish_rate=f"{found.ticks_published_per_sec:g} ticks/s",
        rate_ratio="none yet" if ratio is None else f"{ratio:.1%}",
        avg_latency=milliseconds(found.avg_publish_latency_ms),
        p99_latency=milliseconds(found.p99_publish_latency_ms),
        pending_publishes=found.pending_publishes,
        dropped_messages=found.dropped_messages,
        redis_errors=found.redis_publish_errors,
        memory_usage=f"{found.memory_usage_mb:g} MB",
        cpu_usage=f"{found.cpu_usage_percent:g} %",
        timestamp=found.timestamp,
    )


def _level(status: ServiceStatus) -> Level:
    """By what waits and how old the last batch's oldest tick was; an open circuit is overload."""
    publisher = status.publisher
    if publisher.circuit == "open":
        return "overload"
    age_ms = 1000 * (publisher.age_s or 0.0)
    for level, age_max_ms, pending_max in LEVELS:
        if age_ms <= age_max_ms and publisher.pending <= pending_max:
            return level
    return "overload"


def _total(metric: Collector, **labels: str) -> int:
    """A counter, summed over the label sets that contain ``labels``."""
    return int(
        sum(
            sample.value
            for family in metric.collect()
            for sample in family.samples
            if not sample.name.endswith("_created") and labels.items() <= sample.labels.items()
        )
    )


def _histogram(metric: Collector) -> tuple[list[tuple[float, int]], float]:
    """Upper bounds in seconds with how many were not above, and the sum of all, in seconds."""
    counts: Counter[float] = Counter()
    total_s = 0.0
    for family in metric.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                counts[float(sample.labels["le"])] += int(sample.value)
            elif sample.name.endswith("_sum"):
                total_s += sample.value
    return sorted(counts.items()), total_s


def _quantile_ms(buckets: list[tuple[float, int]], share: float) -> float | None:
    """Within its bucket, a quantile is taken to lie as far as its rank; None without samples."""
    if not buckets or not buckets[-1][1]:
        return None
    rank = share * buckets[-1][1]
    low, below = 0.0, 0
    for high, count in buckets:
        if count >= rank:
            if math.isinf(high):
                return round(1000 * low, 3)
            return round(1000 * (low + (high - low) * (rank - below) / (count - below)), 3)
        low, below = high, count
    return None


def _memory_mb() -> float:
    """What the process holds now; where the system does not tell, the most it ever held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return round(pages * resource.getpagesize() / 1e6, 1)
