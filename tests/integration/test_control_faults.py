"""PostgreSQL that stops, freezes or takes no writes, and a clock that jumps: the whole service."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
import pytest
import trio

from tests.integration.control import (
    QUICK,
    SteppedClock,
    assert_problem,
    find_unsubscribed,
    load_table,
    subscribe,
    wait_reload,
)
from tests.integration.live import Live, open_live
from tests.postgres import PostgresServer, open_postgres_server

pytestmark = pytest.mark.slow

DEADLINE_S = 10.0
"""Every answer is there within this, whatever has become of PostgreSQL."""

NOTICED_S = 5.0
"""Readiness says so within this, although writes hold every connection. A probe is given two
seconds and comes one after the last, the rest is a busy machine's."""


@asynccontextmanager
async def open_with_server() -> AsyncIterator[tuple[Live, PostgresServer]]:
    """A service on a PostgreSQL of its own, all its strikes streaming."""
    async with (
        open_postgres_server() as server,
        open_live(database_url=server.url, **QUICK) as live,
    ):
        await live.wait_for(lambda: live.status.plan.planned > 100)
        await wait_ready(live, 5)
        yield live, server


async def wait_ready(live: Live, timeout_s: float, *, ready: bool = True) -> float:
    """Return, once /readyz says so, how many seconds that took; it never answers late."""
    started_at = trio.current_time()
    with trio.fail_after(timeout_s):
        while True:
            asked_at = trio.current_time()
            answer = await live.api.get("/readyz")
            assert trio.current_time() - asked_at < 1
            if (answer.status_code == 200) is ready:
                assert answer.json()["database"] is ready
                return trio.current_time() - started_at
            await trio.sleep(0.05)


class Flow:
    """What arrives from the broker, and at the subscriber, while something else is broken."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._since = trio.current_time()
        self._decoded = live.counted("feed_ticks_decoded_total")
        self.longest_pause_s = 0.0

    def rate(self) -> float:
        grown = self._live.counted("feed_ticks_decoded_total") - self._decoded
        return grown / (trio.current_time() - self._since)

    async def watch(self) -> None:
        """Keep the longest time in which the subscriber received nothing."""
        seen, since = len(self._live.payloads), trio.current_time()
        while True:
            await trio.sleep(0.01)
            now = trio.current_time()
            self.longest_pause_s = max(self.longest_pause_s, now - since)
            if len(self._live.payloads) > seen:
                seen, since = len(self._live.payloads), now


@asynccontextmanager
async def undisturbed(live: Live) -> AsyncIterator[None]:
    """Inside, ticks go on as before: no socket is touched and no pause is seen."""
    before = Flow(live)
    await trio.sleep(1.5)
    usual = before.rate()
    handshakes = (await live.simulator.get("ledger"))["handshakes"]
    table, flow = await load_table(live), Flow(live)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.watch)
        yield
        nursery.cancel_scope.cancel()
    rate, pause_s = flow.rate(), flow.longest_pause_s
    print(f"{rate:.0f} ticks/s, before {usual:.0f}; longest pause {pause_s:.2f} s")  # noqa: T201
    assert rate > 0.7 * usual
    assert pause_s < 1.0, "four a second"
    assert await load_table(live) == table
    assert (await live.simulator.get("ledger"))["handshakes"] == handshakes
    assert live.gaps == []


async def assert_refused(live: Live, token: int) -> float:
    """Writes are answered with a problem, in time; how long the slowest took."""
    streamed = min(await load_table(live))
    calls = [
        ("POST", "/subscriptions", {"instrument_token": token}),
        ("DELETE", f"/subscriptions/{streamed}", None),
        ("POST", "/subscriptions/bulk", {"subscribe": [{"instrument_token": token}]}),
        ("POST", "/trading-accounts", {"account_id": "d0", "api_key": "k"}),
        ("POST", "/api-keys", {"name": "n", "scopes": ["read"]}),
    ]
    slowest_s = 0.0

    async def call(method: str, path: str, body: object) -> None:
        nonlocal slowest_s
        started_at = trio.current_time()
        answer = await live.api.request(method, path, json=body)
        assert answer.json()["type"] in {"/problems/store-unavailable", "/problems/too-slow"}
        assert_problem(answer, 503, answer.json()["type"].removeprefix("/problems/"))
        assert answer.headers["Retry-After"]
        slowest_s = max(slowest_s, trio.current_time() - started_at)

    async with trio.open_nursery() as nursery:
        for each in calls:
            nursery.start_soon(call, *each)
    assert slowest_s <= DEADLINE_S + 0.5
    return slowest_s


async def assert_memory_answers(live: Live) -> None:
    """What needs no database is there at once."""
    paths = ("/option-chain/NIFTY", "/market/status", "/health", "/instruments?underlying=NIFTY")
    for path in (*paths, "/livez", "/metrics", "/subscriptions/reloads/none"):
        started_at = trio.current_time()
        answer = await live.api.get(path)
        assert answer.status_code == (404 if path.endswith("none") else 200), answer.text
        assert trio.current_time() - started_at < 1
    assert (await live.api.get("/health")).json()["status"] == "degraded"


async def test_a_restart_of_postgresql_costs_no_tick_and_no_restart_of_ours() -> None:
    async with open_with_server() as (live, server):
        (token,) = await find_unsubscribed(live, 1)
        async with undisturbed(live):
            await server.stop()
            took_s = await wait_ready(live, 5, ready=False)
            print(f"not ready {took_s:.2f} s after it stopped")  # noqa: T201
            print(f"refused within {await assert_refused(live, token):.2f} s")  # noqa: T201
            assert_problem(await live.api.get("/subscriptions"), 503, "store-unavailable")
            await assert_memory_answers(live)
            await server.start()
            took_s = await wait_ready(live, 5)
            print(f"ready {took_s:.2f} s after it was back")  # noqa: T201
        row = await subscribe(live, token)
        assert (await wait_reload(live, row["reload_id"]))["added"] == [token]
        assert (await load_table(live))[token] == "full"


async def test_a_frozen_postgresql_is_answered_for_in_time() -> None:
    async with open_with_server() as (live, server):
        (token,) = await find_unsubscribed(live, 1)
        async with undisturbed(live):
            with server.frozen():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(say_when_not_ready, live)
                    slowest_s = await assert_refused(live, token)
                print(f"refused within {slowest_s:.2f} s")  # noqa: T201
                await assert_memory_answers(live)
            took_s = await wait_ready(live, 5)
            print(f"ready {took_s:.2f} s after it was thawed")  # noqa: T201
        await wait_reload(live, (await subscribe(live, token))["reload_id"])
        assert (await load_table(live))[token] == "full"


async def say_when_not_ready(live: Live) -> None:
    took_s = await wait_ready(live, NOTICED_S, ready=False)
    print(f"not ready {took_s:.2f} s after it froze")  # noqa: T201


async def test_a_read_only_postgresql_refuses_writes_and_serves_reads() -> None:
    async with open_with_server() as (live, server):
        (token,) = await find_unsubscribed(live, 1)
        async with undisturbed(live):
            with read_only(server):
                took_s = await wait_ready(live, 3, ready=False)
                print(f"not ready after {took_s:.2f} s")  # noqa: T201
                assert await assert_refused(live, token) < 1
                rows = await live.api.get("/subscriptions", params={"status": "active"})
                assert (rows.status_code, len(rows.json())) == (200, 100)
                await assert_memory_answers(live)
            await wait_ready(live, 5)
        await wait_reload(live, (await subscribe(live, token))["reload_id"])


@contextmanager
def read_only(server: PostgresServer) -> Iterator[None]:
    for value in ("on", "off"):
        with psycopg.connect(server.url, autocommit=True) as other:
            other.execute("SET default_transaction_read_only = off")
            other.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            other.execute("SELECT pg_reload_conf()")
        if value == "on":
            yield


async def test_a_clock_that_jumps_fires_no_deadline() -> None:
    """An hour ahead, an hour back, five seconds back: streams, reloads and refreshes go on."""
    clock = SteppedClock()
    clock.avoid_the_mornings_deadlines()
    async with open_live(wall_clock=clock, **QUICK) as live:
        await live.wait_for(lambda: live.status.plan.planned > 100)
        loaded_at = live.status.instruments.loaded_at
        tokens = await find_unsubscribed(live, 4)
        for token, step_s in zip(tokens, (0.0, 3600.0, -7200.0, -5.0), strict=True):
            async with undisturbed(live):
                reloads = live.counted("subscription_reloads_total")
                clock.offset_s += step_s
                await trio.sleep(2)
                assert live.counted("subscription_reloads_total") == reloads
            started_at = trio.current_time()
            reload = await wait_reload(live, (await subscribe(live, token))["reload_id"], 5)
            assert trio.current_time() - started_at < 3
            assert set(reload["first_tick_at"]) == {str(token)}
            assert (await live.api.get("/readyz")).status_code == 200
        assert live.status.instruments.loaded_at == loaded_at, "nothing was downloaded anew"
        refreshed = await live.api.post("/admin/instrument-refresh", params={"force": "true"})
        assert refreshed.json()["refreshed"], refreshed.text
        await live.simulator.freeze()
        clock.offset_s += 3600.0
        await trio.sleep(2.5)  # in which heartbeats alone arrive
        assert live.counted("feed_reconnects_total") == 0


async def test_a_database_that_was_made_anew_ends_no_stream() -> None:
    async with open_with_server() as (live, server):
        async with undisturbed(live):
            await trio.to_thread.run_sync(drop_everything, server.url)
            took_s = await live.wait_for(lambda: live.status.plan.is_store_replaced)
            print(f"noticed {took_s:.1f} s after the tables were gone")  # noqa: T201
            await wait_ready(live, 5, ready=False)
            health = (await live.api.get("/health")).json()["subscriptions"]
            assert "restart to take" in health["store_error"]
            assert health["planned"] > 100
            await trio.sleep(2)
        assert live.status.plan.is_store_replaced


def drop_everything(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
