"""Metrics that mirror where the service stands, computed from the tasks' reports at each scrape.

Nobody has to set them, so none can be stale, and what has gone leaves nothing behind. What
happens, rather than stands, is counted where it happens: ``ticker/metrics.py``.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.health_report import health_summary, readiness
from ticker import __version__
from ticker.circuit_breaker import CircuitState
from ticker.kite.rest import Brokers
from ticker.status import ServiceStatus

SERVICE: Final = "ticker"

_CIRCUIT: Final[dict[CircuitState, int]] = {"closed": 0, "open": 1, "half_open": 2}
_ACCOUNT: Final = ("account_id",)
_CONNECTION: Final = ("account_id", "connection_id")

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values and value of each sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusCollector(Collector):
    """To be registered with the service's metrics; scraped from within Trio only.

    ``sockets``: how many an account may have, of ``tokens_per_socket`` instruments each.
    ``wall_clock``: UNIX seconds.
    """

    status: ServiceStatus
    brokers: Brokers
    sockets: int
    tokens_per_socket: int
    wall_clock: Callable[[], float]

    def collect(self) -> Iterator[Metric]:
        yield from self._service()
        yield from self._dependencies()
        yield from self._accounts()
        yield from self._sockets()
        yield from self._plan()
        yield from self._circuits()

    def _service(self) -> Iterator[Metric]:
        status, now = self.status, self.wall_clock()
        service = ("service_name",)
        yield _gauge(
            "service_info",
            "What runs: always 1",
            (*service, "version", "environment"),
            [((SERVICE, __version__, status.environment), 1)],
        )
        yield _gauge(
            "ticker_service_info",
            "What runs: always 1",
            ("version", "component"),
            [((__version__, SERVICE), 1)],
        )
        yield _gauge(
            "service_start_time_seconds",
            "When the service was started, UNIX seconds",
            service,
            [((SERVICE,), status.started_at)],
        )
        yield _gauge(
            "service_uptime_seconds",
            "Since the service was started",
            service,
            [((SERVICE,), now - status.started_at)],
        )
        summary = health_summary(status, now)
        is_ready = readiness(status).ready
        yield _gauge(
            "service_health_status",
            "0: /readyz says no; 1: it says yes, but /health says degraded; 2: all is well",
            service,
            [((SERVICE,), 0 if not is_ready else 2 if summary.status == "ok" else 1)],
        )

    def _dependencies(self) -> Iterator[Metric]:
        ready, database = readiness(self.status), self.status.database
        known = {
            "broker": any(ready.accounts.values()),
            "database": ready.database,
            "instruments": ready.instruments,
            "redis": ready.redis,
        }
        yield _gauge(
            "service_dependency_health",
            "1 while /readyz says so of it; broker: an account is live",
            ("dependency_name",),
            (((name,), is_well) for name, is_well in known.items() if is_well is not None),
        )
        yield _gauge(
            "database_up",
            "1 while PostgreSQL answers and takes writes",
            (),
            [((), database.available)] if database else (),
        )
        pool = (
            {"size": database.pool_size, "in_use": database.in_use, "waiting": database.waiting}
            if database
            else {}
        )
        yield _gauge(
            "database_pool_connections",
            "Connections: size, in_use; and calls waiting for one",
            ("state",),
            (((state,), count) for state, count in pool.items()),
        )
        yield _gauge(
            "market_segment_open",
            "1 while the calendar has the segment trade; none where the market is simulated",
            ("segment",),
            (((phase.segment,), phase.is_open) for phase in self.status.mock_market.segments),
        )
        ends_at = self.status.mock_market.calendar_ends_at
        yield _gauge(
            "market_calendar_end_timestamp_seconds",
            "When the calendar knows no more of a segment that is carried, UNIX seconds",
            (),
            [((), ends_at)] if ends_at is not None else (),
        )

    def _accounts(self) -> Iterator[Metric]:
        standing = {name: self._standing(name) for name in self.status.account_ids}
        live = {name: self._count_live(name) for name in standing}
        yield _gauge(
            "trading_account_connection_status",
            "2: every planned socket is live; 1: some are, or none is planned although the "
            "account is logged in; 0: none is live",
            _ACCOUNT,
            (((name,), value) for name, value in standing.items()),
        )
        yield _gauge(
            "tick_processor_active_accounts",
            "Accounts with a live socket",
            (),
            [((), sum(count > 0 for count in live.values()))],
        )
        for name in ("websocket_pool_connections", "kite_websocket_connections_active"):
            yield _gauge(
                name,
                "Sockets of the account that are live",
                _ACCOUNT,
                (((account,), count) for account, count in live.items()),
            )
        yield _gauge(
            "kite_websocket_connections_limit",
            "Sockets that the account may have",
            _ACCOUNT,
            (((name,), self.sockets) for name in standing),
        )

    def _standing(self, account_id: str) -> int:
        if self.status.account_is_live(account_id):
            return 2
        is_idle = self.status.account_is_idle(account_id)
        return 1 if is_idle or self._count_live(account_id) else 0

    def _count_live(self, account_id: str) -> int:
        return sum(feed.state == "live" for feed in self.status.account_feeds(account_id))

    def _sockets(self) -> Iterator[Metric]:
        """Of the sockets that are planned."""
        carried = {
            (name, str(feed.connection.shard)): feed.subscribed
            for name in self.status.account_ids
            for feed in self.status.account_feeds(name)
        }
        yield _gauge(
            "kite_websocket_subscriptions_current",
            "Instruments asked of the broker",
            _CONNECTION,
            carried.items(),
        )
        yield _gauge(
            "kite_websocket_subscriptions_limit",
            "Instruments that the socket may carry",
            _CONNECTION,
            ((names, self.tokens_per_socket) for names in carried),
        )
        yield _gauge(
            "kite_websocket_subscription_utilization_percent",
            "Instruments asked of the broker, of those that the socket may carry",
            _CONNECTION,
            ((names, 100 * count / self.tokens_per_socket) for names, count in carried.items()),
        )

    def _plan(self) -> Iterator[Metric]:
        plan = self.status.plan
        yield _gauge("active_subscriptions_total", "Instruments wanted", (), [((), plan.wanted)])
        yield _gauge(
            "subscriptions_unplaced",
            "Instruments wanted that no account has room for",
            (),
            [((), plan.unplaced)],
        )
        for name in (
            "kite_websocket_total_capacity_utilization_percent",
            "websocket_pool_capacity_utilization_percent",
        ):
            yield _gauge(
                name,
                "Instruments planned for the account, of those it can carry",
                _ACCOUNT,
                (((account,), percent) for account, percent in plan.utilisation_percent.items()),
            )

    def _circuits(self) -> Iterator[Metric]:
        brokers = self.brokers.in_order()
        yield _gauge(
            "circuit_breaker_state",
            "In front of the broker's REST API: 0 closed, 1 open, 2 half open",
            _ACCOUNT,
            (((broker.account_id,), _CIRCUIT[broker.circuit_state]) for broker in brokers),
        )
        failures = CounterMetricFamily(
            "circuit_breaker_failures_total",
            "REST calls that the broker failed; a refusal is none",
            labels=_ACCOUNT,
        )
        for broker in brokers:
            failures.add_metric((broker.account_id,), broker.circuit_failures)
        yield failures


def _gauge(name: str, says: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, says, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
