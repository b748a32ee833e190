"""What is scraped mirrors what the tasks have reported by then, and nothing that has gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.status_metrics import StatusCollector
from tests.rest_brokers import create_session, open_memory_brokers, sessions_of
from ticker import __version__
from ticker.accounts.sessions import AccountStatus
from ticker.circuit_breaker import BreakerPolicy
from ticker.errors import BrokerError
from ticker.instruments.refreshes import InstrumentsStatus
from ticker.kite.calls import RestPolicy
from ticker.kite.rest import Brokers
from ticker.messages import ConnectionId, FeedState, FeedStatus, MarketPhase
from ticker.mock_market.status import MockMarketStatus
from ticker.planning.status import PlanStatus
from ticker.publishers.status import PublisherStatus
from ticker.status import ServiceStatus
from ticker.stores.database import DatabaseStatus

STARTED_AT = 1_795_000_000.0
NOW = STARTED_AT + 90


@dataclass
class Scrape:
    status: ServiceStatus
    brokers: Brokers
    registry: CollectorRegistry

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Values by label values, as Prometheus's own parser reads them."""
        text = generate_latest(self.registry).decode()
        return {
            tuple(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def value(self, name: str, *labels: str) -> float | None:
        return self.samples(name).get(labels)


@asynccontextmanager
async def open_scrape() -> AsyncIterator[Scrape]:
    """Accounts ``a`` and ``b``; the broker refuses every connection."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("away")

    sessions = sessions_of(create_session("a", "k1", "t1"), create_session("b", "k2", "t2"))
    policy = RestPolicy(attempts=1, breaker=BreakerPolicy(2, 10.0, 1))
    status = ServiceStatus(started_at=STARTED_AT, environment="test", account_ids=("a", "b"))
    async with open_memory_brokers(refuse, sessions=sessions, policy=policy) as brokers:
        registry = CollectorRegistry()
        registry.register(
            StatusCollector(
                status=status,
                brokers=brokers,
                sockets=3,
                tokens_per_socket=3000,
                wall_clock=lambda: NOW,
            )
        )
        yield Scrape(status, brokers, registry)


def report_feed(
    status: ServiceStatus, account_id: str, shard: int, state: FeedState, target: int = 10
) -> None:
    status.report_feed(
        FeedStatus(
            ConnectionId(account_id, shard),
            state,
            STARTED_AT,
            subscribed=target if state == "live" else 0,
            target=target,
        )
    )


def report_database(status: ServiceStatus, *, available: bool) -> None:
    status.report_database(DatabaseStatus(available, STARTED_AT, None, 4, 2, 1))


async def test_what_runs_and_since_when() -> None:
    async with open_scrape() as scrape:
        assert scrape.value("service_start_time_seconds", "ticker") == STARTED_AT
        assert scrape.value("service_uptime_seconds", "ticker") == 90
        (labels,) = scrape.samples("service_info")
        assert set(labels) == {"ticker", __version__, "test"}
        assert list(scrape.samples("ticker_service_info").values()) == [1]


async def test_an_accounts_status_follows_its_sockets() -> None:
    name = "trading_account_connection_status"
    async with open_scrape() as scrape:
        status = scrape.status
        assert scrape.samples(name) == {("a",): 0, ("b",): 0}
        assert scrape.value("tick_processor_active_accounts") == 0
        report_feed(status, "a", 0, "live")
        report_feed(status, "a", 1, "live")
        report_feed(status, "b", 0, "waiting_for_token")
        assert scrape.samples(name) == {("a",): 2, ("b",): 0}
        report_feed(status, "a", 1, "backing_off")
        assert scrape.samples(name) == {("a",): 1, ("b",): 0}
        assert scrape.value("tick_processor_active_accounts") == 1
        for pool in ("websocket_pool_connections", "kite_websocket_connections_active"):
            assert scrape.samples(pool) == {("a",): 1, ("b",): 0}
        assert scrape.value("kite_websocket_connections_limit", "a") == 3

        idle = AccountStatus("b", "settings", "valid")
        status.report_accounts((AccountStatus("a", "settings", "valid"), idle))
        report_feed(status, "b", 0, "idle", target=0)
        assert scrape.value(name, "b") == 1, "logged in, and others carry all"
        status.report_plan(PlanStatus(away=("b/0",)))
        assert scrape.value(name, "b") == 0, "others carry it because it is away"

        status.report_accounts((AccountStatus("a", "settings", "valid"),))
        status.forget_account("b")
        assert scrape.samples(name) == {("a",): 1}


async def test_a_sockets_room() -> None:
    async with open_scrape() as scrape:
        report_feed(scrape.status, "a", 0, "live", target=1500)
        report_feed(scrape.status, "a", 2, "idle", target=0)
        report_feed(scrape.status, "b", 1, "connecting", target=7)
        assert scrape.samples("kite_websocket_subscriptions_current") == {
            ("a", "0"): 1500,
            ("b", "1"): 0,
        }
        assert scrape.value("kite_websocket_subscriptions_limit", "a", "0") == 3000
        assert scrape.value("kite_websocket_subscription_utilization_percent", "a", "0") == 50


async def test_what_is_wanted_and_what_room_is_left() -> None:
    async with open_scrape() as scrape:
        scrape.status.report_plan(
            PlanStatus(wanted=20, unplaced=3, utilisation_percent={"a": 80.0, "b": 12.5})
        )
        assert scrape.value("active_subscriptions_total") == 20
        assert scrape.value("subscriptions_unplaced") == 3
        for name in (
            "kite_websocket_total_capacity_utilization_percent",
            "websocket_pool_capacity_utilization_percent",
        ):
            assert scrape.samples(name) == {("a",): 80, ("b",): 12.5}


async def test_each_dependency_by_name() -> None:
    name = "service_dependency_health"
    async with open_scrape() as scrape:
        status = scrape.status
        down = {("broker",): 0, ("instruments",): 0, ("redis",): 0}
        assert scrape.samples(name) == down, "a database that nobody has asked yet is not down"
        assert scrape.samples("database_up") == {}
        assert scrape.value("service_health_status", "ticker") == 0
        status.report_publisher(PublisherStatus(connected=True))
        assert scrape.samples(name) == down | {("redis",): 1}
        status.report_instruments(InstrumentsStatus(9, "broker", STARTED_AT))
        report_database(status, available=True)
        report_feed(status, "a", 0, "live")
        assert set(scrape.samples(name).values()) == {1}
        assert scrape.value("service_health_status", "ticker") == 1, "one account is not live"
        report_feed(status, "b", 0, "live")
        assert scrape.value("service_health_status", "ticker") == 2
        report_database(status, available=False)
        assert scrape.value(name, "database") == scrape.value("database_up") == 0
        assert scrape.samples("database_pool_connections") == {
            ("size",): 4,
            ("in_use",): 2,
            ("waiting",): 1,
        }
        assert scrape.value("service_health_status", "ticker") == 0
        status.report_publisher(PublisherStatus(connected=True, circuit="half_open"))
        assert scrape.value(name, "redis") == 0


async def test_which_markets_are_open() -> None:
    async with open_scrape() as scrape:
        assert scrape.samples("market_segment_open") == {}
        phases = (
            MarketPhase("NFO-OPT", "continuous", is_open=True, feed="live", ts=NOW),
            MarketPhase("MCX-FUT", "closed", is_open=False, feed="mock", ts=NOW),
        )
        scrape.status.report_mock_market(MockMarketStatus(segments=phases))
        assert scrape.samples("market_segment_open") == {("NFO-OPT",): 1, ("MCX-FUT",): 0}


async def test_when_the_calendar_ends() -> None:
    name = "market_calendar_end_timestamp_seconds"
    async with open_scrape() as scrape:
        assert scrape.samples(name) == {}, "a simulated market needs none"
        scrape.status.report_mock_market(MockMarketStatus(calendar_ends_at=NOW - 1))
        assert scrape.samples(name) == {(): NOW - 1}


async def test_an_accounts_circuit_and_its_failures() -> None:
    states, failures = "circuit_breaker_state", "circuit_breaker_failures_total"
    async with open_scrape() as scrape:
        assert scrape.samples(states) == scrape.samples(failures) == {("a",): 0, ("b",): 0}
        for seen in (1, 2, 2):
            with pytest.raises(BrokerError):
                await scrape.brokers.of("a").load_profile()
            assert scrape.samples(failures) == {("a",): seen, ("b",): 0}
        assert scrape.samples(states) == {("a",): 1, ("b",): 0}
