"""``/metrics`` of the whole service: the names that dashboards rely on, and what moves them."""

from collections.abc import Collection
from typing import Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.control import QUICK, find_unsubscribed, log_in, subscribe, wait_reload
from tests.integration.live import Live, open_live

pytestmark = pytest.mark.slow

ACCOUNT: Final = ("account_id",)
SOCKET: Final = ("account_id", "connection_id")
TICKS: Final = ("tick_type",)
BATCH: Final = ("batch_type",)
SERVICE: Final = ("service_name",)

PROMISED: Final[dict[str, Collection[str]]] = {
    "tick_processing_latency_seconds_bucket": (*TICKS, "le"),
    "greeks_calculation_latency_seconds_bucket": ("le",),
    "tick_batch_flush_latency_seconds_bucket": (*BATCH, "le"),
    "ticks_processed_total": (*TICKS, "status"),
    "ticks_published_total": TICKS,
    "tick_batch_size_bucket": (*BATCH, "le"),
    "tick_batches_flushed_total": BATCH,
    "tick_batch_fill_rate": BATCH,
    "tick_batch_pending_size": BATCH,
    "tick_processor_underlying_price": ("symbol",),
    "tick_processor_active_accounts": (),
    "greeks_calculations_total": ("status",),
    "market_depth_updates_total": ("instrument_type",),
    "redis_publish_total": (),
    "redis_publish_failures_total": (),
    "redis_circuit_open_drops_total": (),
    "redis_circuit_state": (),
    "ticker_service_info": ("version", "component"),
    "service_info": (*SERVICE, "version", "environment"),
    "service_start_time_seconds": SERVICE,
    "service_uptime_seconds": SERVICE,
    "service_health_status": SERVICE,
    "service_dependency_health": ("dependency_name",),
    "http_requests_total": ("method", "endpoint", "status"),
    "http_request_duration_seconds_bucket": ("method", "endpoint", "le"),
    "circuit_breaker_state": ACCOUNT,
    "circuit_breaker_failures_total": ACCOUNT,
    "active_subscriptions_total": (),
    "websocket_pool_connections": ACCOUNT,
    "websocket_pool_subscribed_tokens": ACCOUNT,
    "websocket_pool_target_tokens": ACCOUNT,
    "websocket_pool_capacity_utilization_percent": ACCOUNT,
    "websocket_pool_subscriptions_total": ACCOUNT,
    "websocket_pool_unsubscriptions_total": ACCOUNT,
    "websocket_pool_connected_status": SOCKET,
    "instrument_cache_size": (),
    "kite_api_calls_total": ("method", "status"),
    "kite_api_errors_total": ("method", "error_type"),
    "kite_api_rate_limit_exceeded_total": ("account_id", "endpoint_category"),
    "database_queries_total": ("query_type", "status"),
    "database_query_duration_seconds_bucket": ("query_type", "le"),
    "kite_websocket_subscriptions_current": SOCKET,
    "kite_websocket_subscriptions_limit": SOCKET,
    "kite_websocket_subscription_utilization_percent": SOCKET,
    "kite_websocket_connections_active": ACCOUNT,
    "kite_websocket_connections_limit": ACCOUNT,
    "kite_websocket_total_capacity_utilization_percent": ACCOUNT,
    "kite_access_token_expiry_seconds": ACCOUNT,
    "kite_session_active": ACCOUNT,
    "trading_account_connection_status": ACCOUNT,
    "process_resident_memory_bytes": (),
    "process_cpu_seconds_total": (),
    "process_open_fds": (),
}


async def scrape(live: Live) -> dict[str, set[str]]:
    """Labels by sample name, as Prometheus would read them; no name is there twice."""
    async with httpx.AsyncClient(base_url=live.api_url) as client:
        answer = (await client.get("/metrics")).raise_for_status()
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = list(text_string_to_metric_families(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    samples = [sample for family in families for sample in family.samples]
    series = [(sample.name, *sorted(sample.labels.items())) for sample in samples]
    assert len(series) == len(set(series))
    return {sample.name: set(sample.labels) for sample in samples}


async def test_names_that_dashboards_rely_on_are_there_with_their_labels() -> None:
    async with open_live(accounts=1) as live:
        await live.simulator.inject("rest", status=429, error_type="NetworkException", times=1)
        assert (await live.api.get("/account/profile")).status_code == 200, "asked again"
        await live.wait_for(lambda: live.counted("greeks_calculations_total") > 0)
        await live.wait_for(lambda: live.counted("tick_processor_underlying_price") > 0)
        found = await scrape(live)
    assert {name: set(labels) for name, labels in PROMISED.items()} == {
        name: found.get(name) for name in PROMISED
    }


async def test_an_accounts_status_follows_its_token() -> None:
    name = "trading_account_connection_status"
    async with open_live() as live:
        assert live.counted(name, account_id="a0") == live.counted(name, account_id="a1") == 2
        assert live.counted("tick_processor_active_accounts") == 2
        await live.simulator.inject("kill_token", api_key=live.simulator.accounts[0].api_key)
        await live.wait_for(lambda: live.counted(name, account_id="a0") == 0)
        assert live.counted(name, account_id="a1") == 2
        assert live.counted("tick_processor_active_accounts") == 1
        assert live.counted("kite_websocket_connections_active", account_id="a0") == 0
        await log_in(live, "a0")
        await live.wait_for(lambda: live.counted(name, account_id="a0") == 2)
        assert live.counted("kite_websocket_connections_active", account_id="a0") == 1


async def test_what_is_asked_of_a_socket_is_counted() -> None:
    added, removed = (f"websocket_pool_{what}scriptions_total" for what in ("sub", "unsub"))
    async with open_live(accounts=1, **QUICK) as live:
        await live.wait_for(lambda: live.status.plan.planned > 100)
        await live.wait_for(lambda: live.counted(added) == live.status.plan.planned)
        before = live.counted(added)
        (token,) = await find_unsubscribed(live, 1)
        row = await subscribe(live, token)
        await wait_reload(live, row["reload_id"])
        await live.wait_for(lambda: live.counted(added) == before + 1)
        assert live.counted(removed) == 0
        ended = await live.api.delete(f"/subscriptions/{token}")
        await wait_reload(live, ended.json()["reload_id"])
        await live.wait_for(lambda: live.counted(removed) == 1)
        assert live.counted(added) == before + 1
        await live.simulator.inject("reset")
        await live.wait_failures(1)
        await live.wait_for(live.is_live)
        assert live.counted(added) == 2 * before + 1, "a new socket starts with nothing"


async def test_calls_to_postgresql_are_counted() -> None:
    name = "database_queries_total"
    find = {"query_type": "find_subscriptions", "status": "success"}
    async with open_live(accounts=1) as live:
        await live.wait_for(lambda: live.counted("database_up") == 1)
        before = live.counted(name, **find)
        for _ in range(3):
            assert (await live.api.get("/subscriptions")).status_code == 200
        assert live.counted(name, **find) == before + 3


async def test_what_the_broker_refuses_is_counted_by_its_word() -> None:
    async with open_live(accounts=1) as live:
        kinds = {
            "PermissionException": {"status": 403, "error_type": "PermissionException"},
            "other": {"status": 400, "error_type": "MadeUp4711Exception"},
            "unreachable": {"status": 503, "body": "html"},
        }
        for kind, fault in kinds.items():
            labels = {"method": "profile", "error_type": kind}
            assert live.counted("kite_api_errors_total", **labels) == 0
            await live.simulator.inject("rest", path="/user/profile", **fault)
            assert (await live.api.get("/account/profile")).status_code == 502
            await live.simulator.heal()
            attempts = 3 if kind == "unreachable" else 1
            assert live.counted("kite_api_errors_total", **labels) == attempts
        assert live.counted("circuit_breaker_failures_total", account_id="a0") == 3
        assert live.counted("kite_api_rate_limit_exceeded_total") == 0
        await live.simulator.inject("rest", path="/user/profile", status=429, times=1)
        assert (await live.api.get("/account/profile")).status_code == 200, "asked again"
        limited = {"account_id": "a0", "endpoint_category": "other"}
        assert live.counted("kite_api_rate_limit_exceeded_total", **limited) == 1


async def test_a_dependency_that_goes_is_told_and_so_is_its_return() -> None:
    name = "service_dependency_health"
    async with open_live(accounts=1) as live:
        await live.wait_for(lambda: live.counted("service_health_status") == 2)
        live.redis.kill()
        await live.wait_for(lambda: live.counted(name, dependency_name="redis") == 0)
        assert live.counted("service_health_status") == 0
        assert live.counted(name, dependency_name="database") == 1
        live.redis.start()
        await live.wait_for(lambda: live.counted("service_health_status") == 2)
