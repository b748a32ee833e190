"""The probes, the summary and the server that serves them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio

from api.app import create_app
from api.server import GRACE_S, SEND_TIMEOUT_S, serve_api
from ticker.accounts.credentials import TokenState
from ticker.accounts.sessions import AccountStatus
from ticker.errors import ConfigurationError
from ticker.instruments.refreshes import InstrumentsStatus
from ticker.messages import ConnectionId, FeedState, FeedStatus
from ticker.metrics import Metrics
from ticker.mock_market.status import MockMarketStatus
from ticker.planning.status import PlanStatus
from ticker.publishers.status import PublisherStatus
from ticker.status import EngineStatus, ServiceStatus
from ticker.stores.database import DatabaseStatus

STARTED_AT = 1_795_000_000.0


def create_status() -> ServiceStatus:
    return ServiceStatus(started_at=STARTED_AT, environment="test", account_ids=("a", "b"))


def report_feed(status: ServiceStatus, account_id: str, state: FeedState, target: int = 10) -> None:
    status.report_feed(
        FeedStatus(
            connection=ConnectionId(account_id, 0),
            state=state,
            since=STARTED_AT,
            subscribed=target if state == "live" else 0,
            target=target,
        )
    )


def make_ready(status: ServiceStatus) -> None:
    status.report_instruments(InstrumentsStatus(1000, "broker", STARTED_AT + 1))
    status.report_plan(PlanStatus(wanted=20))
    status.report_publisher(PublisherStatus(connected=True))
    status.report_engine(EngineStatus(50, 40, 3, {"a": STARTED_AT + 2}))
    report_feed(status, "a", "live")
    report_feed(status, "b", "live")


@asynccontextmanager
async def open_api(
    status: ServiceStatus, metrics: Metrics | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    stop = trio.Event()
    app = create_app(status, metrics or Metrics())
    async with trio.open_nursery() as nursery:
        serve = partial(serve_api, app, host="127.0.0.1", port=0, wait_shutdown=stop.wait)
        url: str = await nursery.start(serve)
        async with httpx.AsyncClient(base_url=url) as client:
            yield client
        stop.set()


@asynccontextmanager
async def open_server(metrics: Metrics) -> AsyncIterator[tuple[str, trio.Event, trio.Event]]:
    """A server's URL, the event that stops it and the event that says it has ended."""
    stop, ended = trio.Event(), trio.Event()
    app = create_app(create_status(), metrics)

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        await serve_api(
            app, host="127.0.0.1", port=0, wait_shutdown=stop.wait, task_status=task_status
        )
        ended.set()

    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve), stop, ended
        stop.set()


async def test_liveness_looks_at_nothing_else() -> None:
    async with open_api(create_status()) as client:
        response = await client.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_readiness_needs_instruments_redis_and_one_live_account() -> None:
    status = create_status()
    async with open_api(status) as client:
        assert (await client.get("/readyz")).status_code == 503
        make_ready(status)
        assert (await client.get("/readyz")).status_code == 200

        report_feed(status, "b", "waiting_for_token")
        ready = await client.get("/readyz")
        assert ready.status_code == 200, "one dead account leaves the others in service"
        assert ready.json()["accounts"] == {"a": True, "b": False}
        assert (await client.get("/readyz/accounts/a")).status_code == 200
        assert (await client.get("/readyz/accounts/b")).status_code == 503

        for away in (
            PublisherStatus(connected=False),
            PublisherStatus(connected=True, circuit="open"),
        ):
            status.report_publisher(away)
            assert (await client.get("/readyz")).status_code == 503
        status.report_publisher(PublisherStatus(connected=True))
        for available in (True, False, True):
            status.report_database(DatabaseStatus(available, STARTED_AT, None, 4, 0, 0))
            ready = await client.get("/readyz")
            assert ready.status_code == (200 if available else 503)
            assert ready.json()["database"] is available
        error = "the database is not the one that this run began with"
        status.report_plan(PlanStatus(store_error=error, is_store_replaced=True))
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["database"]) == (503, False)
        assert (await client.get("/health")).json()["subscriptions"]["store_error"] == error
        status.report_plan(PlanStatus())
        assert (await client.get("/readyz")).status_code == 200
        status.draining = True
        assert (await client.get("/readyz")).status_code == 503


async def test_health_is_the_contracts_summary() -> None:
    status = create_status()
    make_ready(status)
    report_feed(status, "b", "backing_off", target=7)
    async with open_api(status) as client:
        response = await client.get("/health")
    body = response.json()
    assert response.status_code == 200
    assert body["status"] == "degraded"
    assert body["environment"] == "test"
    assert body["ticker"]["running"] is True
    assert body["ticker"]["active_subscriptions"] == 20
    first, second = body["ticker"]["accounts"]
    assert (first["account_id"], first["instrument_count"]) == ("a", 10)
    assert first["last_tick_at"].startswith("2026-11-18T")
    assert (second["instrument_count"], second["last_tick_at"]) == (0, None)
    assert second["connections"][0]["state"] == "backing_off"
    assert body["dependencies"]["redis"]["circuit"] == "closed"
    assert body["dependencies"]["instrument_registry"]["cached_instruments"] == 1000


async def test_places_of_accounts_without_a_token_are_not_usable() -> None:
    status = create_status()
    shares = {f"a{n}": 0.0 for n in range(3)}
    status.report_plan(PlanStatus(capacity=27_000, utilisation_percent=shares))
    states: tuple[TokenState, ...] = ("valid", "missing", "valid")
    async with open_api(status) as client:

        async def told() -> tuple[int, int]:
            plan = (await client.get("/health")).json()["subscriptions"]
            return plan["capacity"], plan["usable_capacity"]

        assert await told() == (27_000, 0)
        status.report_accounts(
            tuple(AccountStatus(f"a{n}", "settings", state) for n, state in enumerate(states))
        )
        assert await told() == (27_000, 18_000)


async def test_an_account_that_has_nothing_to_carry_is_no_trouble_unless_it_cannot() -> None:
    status = create_status()
    make_ready(status)
    report_feed(status, "b", "idle", target=0)
    async with open_api(status) as client:

        async def summary(token_state: TokenState, *away: str) -> object:
            status.report_accounts(
                (
                    AccountStatus("a", "settings", "valid"),
                    AccountStatus("b", "settings", token_state),
                )
            )
            status.report_plan(PlanStatus(wanted=20, away=away))
            return (await client.get("/health")).json()["status"]

        assert await summary("valid") == "ok"
        assert await summary("expired") == "degraded"
        assert await summary("missing") == "degraded"
        assert await summary("valid", "b/0") == "degraded", "its token was refused, say"
        assert await summary("valid", "bb/0") == "ok"


async def test_a_calendar_that_has_ended_is_said() -> None:
    status = create_status()
    make_ready(status)
    async with open_api(status) as client:
        for ends_at, expected in ((None, "ok"), (4e9, "ok"), (STARTED_AT, "ended")):
            status.report_mock_market(MockMarketStatus(calendar_ends_at=ends_at))
            body = (await client.get("/health")).json()
            assert body["calendar"]["status"] == expected
            assert body["status"] == ("ok" if expected == "ok" else "degraded")
        assert body["calendar"]["known_until"].startswith("2026-11-18T")
        assert (await client.get("/readyz")).status_code == 200, "a restart would help nobody"


async def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.feed_decoded.labels("a", "0").inc(3)
    async with open_api(create_status(), metrics) as client:
        response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'feed_ticks_decoded_total{account_id="a",shard="0"} 3.0' in response.text


@pytest.mark.parametrize(
    ("method", "path", "status_code"),
    [
        ("GET", "/no-such-page", 404),
        ("GET", "/readyz/accounts/nobody", 404),
        ("POST", "/health", 405),
        ("GET", "/%00", 404),
    ],
)
async def test_errors_are_problem_documents(method: str, path: str, status_code: int) -> None:
    async with open_api(create_status()) as client:
        response = await client.request(method, path)
    assert response.status_code == status_code
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status_code


async def test_a_bug_in_a_handler_is_a_problem_document_and_the_server_lives() -> None:
    status = create_status()
    status.instruments = None  # type: ignore[assignment]  # the planted bug
    async with open_api(status) as client:
        response = await client.get("/health")
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert "NoneType" not in response.text
        assert (await client.get("/livez")).status_code == 200


async def test_a_port_in_use_is_one_clear_error() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=str(port)):
            await serve_api(
                create_app(create_status(), Metrics()),
                host="127.0.0.1",
                port=port,
                wait_shutdown=trio.sleep_forever,
            )


@pytest.mark.slow
async def test_an_idle_keep_alive_connection_does_not_hold_the_shutdown_up() -> None:
    async with (
        open_server(Metrics()) as (url, stop, ended),
        httpx.AsyncClient(base_url=url) as client,
    ):
        await client.get("/livez")
        stop.set()
        with trio.fail_after(GRACE_S / 2):
            await ended.wait()


@pytest.mark.slow
async def test_a_client_that_stops_reading_does_not_hold_the_shutdown_up() -> None:
    metrics = Metrics()
    for number in range(20_000):  # an answer larger than the socket buffers
        metrics.feed_decoded.labels(f"account-{number}", "0").inc()
    async with (
        open_server(metrics) as (url, stop, ended),
        await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream,
    ):
        stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
        for _ in range(20):
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.5)  # until the server's send is stuck
        stop.set()
        with trio.fail_after(GRACE_S + SEND_TIMEOUT_S + 1):
            await ended.wait()
