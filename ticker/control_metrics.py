"""Prometheus metrics of what steers the feed: the database, the broker's REST side, accounts,
reloads, the API and the mock market.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ControlMetrics:
    """Part of ``Metrics``; labels are of low cardinality here too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._database()
        self._broker()
        self._accounts()
        self._subscriptions()
        self._api()
        self._mock()

    def _database(self) -> None:
        registry = self._registry
        self.queries = Histogram(
            "database_query_duration_seconds",
            "One transaction, waiting for a connection included",
            ("query_type",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.query_count = Counter(
            "database_queries_total",
            "Transactions, by outcome: success, rolled_back, busy, unavailable, cancelled",
            ("query_type", "status"),
            registry=registry,
        )

    def _broker(self) -> None:
        registry = self._registry
        self.api_calls = Counter(
            "kite_api_calls_total",
            "REST calls to the broker, by outcome",
            ("method", "status"),
            registry=registry,
        )
        self.api_seconds = Histogram(
            "kite_api_call_duration_seconds",
            "One REST call to the broker, waiting for its turn not included",
            ("method",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.api_errors = Counter(
            "kite_api_errors_total",
            "Attempts that failed, or were not made, by the broker's word or ours",
            ("method", "error_type"),
            registry=registry,
        )
        self.rate_limited = Counter(
            "kite_api_rate_limit_exceeded_total",
            "Calls that the broker refused as too many",
            ("account_id", "endpoint_category"),
            registry=registry,
        )
        self.instruments = Gauge(
            "instrument_cache_size", "Instruments in the registry", registry=registry
        )

    def _accounts(self) -> None:
        registry = self._registry
        self.token_expiry = Gauge(
            "kite_access_token_expiry_seconds",
            "Seconds until the access token expires; 0 when it has, or there is none",
            ("account_id",),
            registry=registry,
        )
        self.session_active = Gauge(
            "kite_session_active",
            "1 while the account has an access token that has not expired",
            ("account_id",),
            registry=registry,
        )

    def _subscriptions(self) -> None:
        registry = self._registry
        self.reloads = Counter(
            "subscription_reloads_total",
            "Reloads of the plan, by outcome",
            ("outcome",),
            registry=registry,
        )

    def _api(self) -> None:
        registry = self._registry
        self.requests = Counter(
            "http_requests_total",
            "Requests answered",
            ("method", "endpoint", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds",
            "One request",
            ("method", "endpoint"),
            buckets=_SECONDS,
            registry=registry,
        )

    def _mock(self) -> None:
        registry = self._registry
        self.mock_size = Gauge(
            "mock_state_size", "Instruments the mock market holds", registry=registry
        )
        self.mock_evictions = Counter(
            "mock_state_evictions_total",
            "Instruments the mock market let go, by reason",
            ("reason",),
            registry=registry,
        )
