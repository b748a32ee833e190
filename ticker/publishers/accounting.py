"""What became of each message, as metrics: once per batch, from acknowledgements only."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import prometheus_client

from ticker.circuit_breaker import CircuitState
from ticker.errors import PublishError, RedisReplyError, RedisTimeoutError
from ticker.messages import ConnectionId, Event, Gap
from ticker.metrics import Metrics
from ticker.publishers.outbox import Tally

BATCH_TYPE: Final = "ticks"
"""Label of the batch metrics: options and underlyings share their batches."""

_STATE_VALUES: Final[dict[CircuitState, int]] = {"closed": 0, "open": 1, "half_open": 2}

_Child = Callable[[ConnectionId], prometheus_client.Counter]


def error_kind(error: PublishError) -> str:
    """``timeout``, ``unreachable``, or the code of an error reply."""
    if isinstance(error, RedisReplyError):
        return error.code
    return "timeout" if isinstance(error, RedisTimeoutError) else "unreachable"


class PublishAccounting:
    """Writes the publisher's part of ``decoded = published + conflated + dropped``."""

    def __init__(self, metrics: Metrics, batch_max: int) -> None:
        self._metrics = metrics
        self._batch_max = batch_max
        self._published = _by_connection(metrics.feed_published)
        self._conflated = _by_connection(metrics.feed_conflated)
        self._options = metrics.ticks_published.labels("option")
        self._underlyings = metrics.ticks_published.labels("underlying")
        self._flush_latency = metrics.flush_latency.labels(BATCH_TYPE)
        self._batch_size = metrics.batch_size.labels(BATCH_TYPE)
        self._batch_fill = metrics.batch_fill.labels(BATCH_TYPE)
        self._batches = metrics.batches_flushed.labels(BATCH_TYPE)
        self._pending = metrics.batch_pending.labels(BATCH_TYPE)

    def published(self, tally: Tally, *, elapsed_s: float, age_s: float) -> None:
        """A batch, or the part of it that was acknowledged. ``age_s``: of its oldest tick."""
        _increase(self._published, tally.ticks)
        self._options.inc(tally.ticks.total() - tally.underlyings)
        self._underlyings.inc(tally.underlyings)
        self._metrics.redis_published.inc(tally.messages)
        self._flush_latency.observe(elapsed_s)
        self._batch_size.observe(tally.messages)
        self._batch_fill.set(tally.messages / self._batch_max)
        self._batches.inc()
        self._metrics.publish_age.observe(age_s)

    def conflated(self, tally: Tally, circuit: CircuitState) -> None:
        """Messages that a newer one of their instrument replaced."""
        _increase(self._conflated, tally.ticks)
        if circuit == "open":
            self._metrics.circuit_drops.inc(tally.messages)

    def dropped(self, tally: Tally, reason: str) -> None:
        """Messages that nobody will get."""
        for connection, count in tally.ticks.items():
            self._metrics.feed_dropped.labels(
                connection.account_id, str(connection.shard), reason
            ).inc(count)

    def failed(self, kind: str, circuit: CircuitState) -> None:
        """An attempt that failed; a failed probe of an open circuit is no publish attempt."""
        self._metrics.redis_errors.labels(kind).inc()
        if circuit != "open":
            self._metrics.redis_failures.inc()

    def refused(self, code: str, commands: int) -> None:
        """So many commands were answered with this error."""
        self._metrics.redis_errors.labels(code).inc(commands)

    def event(self, event: Event) -> None:
        """An event that was acknowledged; gaps are counted by reason."""
        if isinstance(event, Gap):
            self._metrics.gaps.labels(event.reason).inc()

    def events_dropped(self, events: int, reason: str) -> None:
        """Events of whatever type that nobody will get."""
        if events:
            self._metrics.gaps_dropped.labels(reason).inc(events)

    def stands(self, circuit: CircuitState, pending: int) -> None:
        """Where the publisher stands now."""
        self._metrics.circuit_state.set(_STATE_VALUES[circuit])
        self._pending.set(pending)


def _by_connection(counter: prometheus_client.Counter) -> _Child:
    """The counter of a connection, looked up once. Connections are few and stay the same."""

    @lru_cache(maxsize=1024)
    def child(connection: ConnectionId) -> prometheus_client.Counter:
        return counter.labels(connection.account_id, str(connection.shard))

    return child


def _increase(child: _Child, ticks: Counter[ConnectionId]) -> None:
    for connection, count in ticks.items():
        child(connection).inc(count)
