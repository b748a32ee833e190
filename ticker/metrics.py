"""Every Prometheus metric of the service that an event sets, and the process's own.

What only mirrors where the service stands is read when it is scraped: ``api/status_metrics.py``.

One ``Metrics`` is built by the composition root and handed down; it owns its registry, so two
services, or two tests, in one process do not share a counter. Labels are of low cardinality:
never a token, a symbol of an option or an order id.
"""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from ticker.control_metrics import ControlMetrics

_TICK_LATENCY: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_SHORT_LATENCY: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
_AGES: Final = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.0125, 0.015),
    *(0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
_SIZES: Final = (1, 10, 50, 100, 500, 1000, 5000)
_FEED: Final = ("account_id", "shard")


class Metrics:
    """The service's metrics, by purpose. ``tick_type`` is ``option`` or ``underlying``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._accounting()
        self._pricing()
        self._publishing()
        self._feeds()
        self.control = ControlMetrics(self.registry)
        ProcessCollector(registry=self.registry)

    def _accounting(self) -> None:
        """``decoded = published + conflated + dropped`` for each connection, when all is quiet."""
        registry = self.registry
        self.feed_frames = Counter(
            "feed_frames_total", "Binary messages received", _FEED, registry=registry
        )
        self.feed_decoded = Counter(
            "feed_ticks_decoded_total", "Packets decoded", _FEED, registry=registry
        )
        self.feed_published = Counter(
            "feed_ticks_published_total", "Ticks acknowledged by Redis", _FEED, registry=registry
        )
        self.feed_conflated = Counter(
            "feed_ticks_conflated_total",
            "Ticks replaced by a newer one of their instrument before they were published",
            _FEED,
            registry=registry,
        )
        self.feed_dropped = Counter(
            "feed_ticks_dropped_total",
            "Ticks that will not be published, by reason",
            (*_FEED, "reason"),
            registry=registry,
        )
        self.wire_anomalies = Counter(
            "feed_wire_anomalies_total", "Malformed input, by kind", ("kind",), registry=registry
        )
        self.ticks_processed = Counter(
            "ticks_processed_total",
            "Ticks that went through the enricher",
            ("tick_type", "status"),
            registry=registry,
        )
        self.processing_latency = Histogram(
            "tick_processing_latency_seconds",
            "Frame received to payload ready, oldest tick of the batch",
            ("tick_type",),
            buckets=_TICK_LATENCY,
            registry=registry,
        )
        self.processing_errors = Counter(
            "tick_processing_errors_total",
            "Ticks that could not be processed",
            ("error_type",),
            registry=registry,
        )
        self.validation_errors = Counter(
            "tick_validation_errors_total",
            "Ticks that broke a validation rule",
            ("validation_type",),
            registry=registry,
        )
        self.depth_updates = Counter(
            "market_depth_updates_total",
            "Ticks that carried a five-level book",
            ("instrument_type",),
            registry=registry,
        )

    def _pricing(self) -> None:
        registry = self.registry
        self.greeks_latency = Histogram(
            "greeks_calculation_latency_seconds",
            "One batch through the pricing engine",
            buckets=_SHORT_LATENCY,
            registry=registry,
        )
        self.greeks_calculations = Counter(
            "greeks_calculations_total",
            "Options priced, by outcome",
            ("status",),
            registry=registry,
        )
        self.underlying_price = Gauge(
            "tick_processor_underlying_price",
            "Last price of each index, rupees",
            ("symbol",),
            registry=registry,
        )
        self.repriced = Counter(
            "options_repriced_total",
            "Options re-priced because their forward moved, not because they ticked",
            registry=registry,
        )

    def _publishing(self) -> None:
        registry = self.registry
        self.ticks_published = Counter(
            "ticks_published_total",
            "Ticks acknowledged by Redis",
            ("tick_type",),
            registry=registry,
        )
        self.flush_latency = Histogram(
            "tick_batch_flush_latency_seconds",
            "One batch sent to Redis and acknowledged",
            ("batch_type",),
            buckets=_SHORT_LATENCY,
            registry=registry,
        )
        self.batch_size = Histogram(
            "tick_batch_size",
            "Messages in a published batch",
            ("batch_type",),
            buckets=_SIZES,
            registry=registry,
        )
        self.batch_fill = Gauge(
            "tick_batch_fill_rate",
            "Messages in the last published batch, of the most it may have: 0 to 1",
            ("batch_type",),
            registry=registry,
        )
        self.batches_flushed = Counter(
            "tick_batches_flushed_total", "Batches published", ("batch_type",), registry=registry
        )
        self.batch_pending = Gauge(
            "tick_batch_pending_size",
            "Messages waiting to be published",
            ("batch_type",),
            registry=registry,
        )
        self.publish_age = Histogram(
            "tick_publish_age_seconds",
            "Frame received to PUBLISH acknowledged, oldest tick of the batch",
            buckets=_AGES,
            registry=registry,
        )
        self.redis_published = Counter(
            "redis_publish_total", "Messages acknowledged by Redis", registry=registry
        )
        self.redis_failures = Counter(
            "redis_publish_failures", "Publish attempts that failed", registry=registry
        )
        self.redis_errors = Counter(
            "redis_errors_total", "Failures by kind", ("error_type",), registry=registry
        )
        self.circuit_drops = Counter(
            "redis_circuit_open_drops",
            "Messages conflated while the circuit was open",
            registry=registry,
        )
        self.circuit_state = Gauge(
            "redis_circuit_state", "0 closed, 1 open, 2 half open", registry=registry
        )
        self.gaps = Counter(
            "feed_gaps_total", "Gap events published, by reason", ("reason",), registry=registry
        )
        self.gaps_dropped = Counter(
            "feed_gaps_dropped_total",
            "Gaps and market phases that will not be published: overflow, refused or shutdown",
            ("reason",),
            registry=registry,
        )

    def _feeds(self) -> None:
        registry = self.registry
        self.subscribed_tokens = Gauge(
            "websocket_pool_subscribed_tokens",
            "Instruments asked of the broker",
            ("account_id",),
            registry=registry,
        )
        self.target_tokens = Gauge(
            "websocket_pool_target_tokens",
            "Instruments the plan wants",
            ("account_id",),
            registry=registry,
        )
        self.subscriptions = Counter(
            "websocket_pool_subscriptions_total",
            "Instruments subscribed to, those restored on a new socket included",
            ("account_id",),
            registry=registry,
        )
        self.unsubscriptions = Counter(
            "websocket_pool_unsubscriptions_total",
            "Instruments unsubscribed from",
            ("account_id",),
            registry=registry,
        )
        self.connected = Gauge(
            "websocket_pool_connected_status",
            "1 while the socket is live",
            ("account_id", "connection_id"),
            registry=registry,
        )
        self.reconnects = Counter(
            "feed_reconnects_total",
            "Connections that ended and were opened again, by reason",
            ("account_id", "reason"),
            registry=registry,
        )
        self.last_data = Gauge(
            "feed_last_data_timestamp_seconds",
            "When the last frame of ticks arrived, UNIX seconds",
            _FEED,
            registry=registry,
        )
        self.last_heartbeat = Gauge(
            "feed_last_heartbeat_timestamp_seconds",
            "When the last heartbeat arrived, UNIX seconds",
            _FEED,
            registry=registry,
        )
        self.task_failures = Counter(
            "task_failures_total",
            "Supervised tasks that failed and were restarted",
            ("task",),
            registry=registry,
        )

    def render(self) -> bytes:
        """The Prometheus text exposition of every metric."""
        return generate_latest(self.registry)
