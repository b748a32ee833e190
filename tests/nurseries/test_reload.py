"""Rows to plan: a real PostgreSQL, everything else in the test's hands."""

import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
import trio
from prometheus_client import CollectorRegistry

from nurseries.reload import ReloadPolicy, reload
from tests.postgres import open_postgres_server, open_test_database
from tests.ticker.planning.test_plan import make, sockets_of
from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.control_metrics import ControlMetrics
from ticker.errors import StoreUnavailableError
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedState, FeedStatus
from ticker.planning.plan import EMPTY_PLAN, Plan
from ticker.planning.reloads import Reloads, ReloadState
from ticker.planning.status import PlanStatus
from ticker.planning.subscriptions import SubscriptionRequest, Subscriptions
from ticker.stores.database import Database, DatabasePolicy, open_database
from ticker.stores.migrate import migrate
from ticker.stores.origin import StoreOrigin
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import (
    NewSubscription,
    SubscriptionFilter,
    SubscriptionRow,
    SubscriptionStore,
)

pytestmark = pytest.mark.slow

NOW = dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC).timestamp()
EXPIRY = dt.date(2026, 11, 24)
FAST = ReloadPolicy(
    debounce_s=0.0,
    interval_s=0.0,
    failover_s=0.1,
    look_s=0.02,
    check_s=0.1,
    first_tick_look_s=0.02,
    instruments_per_socket=100,
)


def contract(token: int, symbol: str | None = None) -> Instrument:
    return make(token, "NIFTY", "CE", float(token), EXPIRY, symbol=symbol or f"C{token}")


def new_row(token: int) -> NewSubscription:
    row = contract(token)
    return NewSubscription(
        instrument_token=token,
        exchange=row.exchange,
        tradingsymbol=row.tradingsymbol,
        segment=row.segment,
        expiry=row.expiry,
    )


def session(account_id: str, access: str = "token") -> Session:
    return Session(account_id, Latest(Credentials("key", access)))


class Rig:
    """The task's surroundings, and what it did to them."""

    def __init__(self, database: Database, accounts: int = 2) -> None:
        self.database = database
        self.store, self.index = SubscriptionStore(database), SubscriptionIndex(database)
        self.origin = StoreOrigin(database)
        self.registry = Latest(InstrumentRegistry(map(contract, range(1, 101))))
        self.sessions: Latest[Sessions] = Latest(
            {f"a{number}": session(f"a{number}") for number in range(accounts)}
        )
        self.plans = Latest(EMPTY_PLAN)
        self.clock_offset_s = NOW - time.time()
        self.reloads = Reloads(self.wall_clock)
        self.feeds: dict[ConnectionId, FeedStatus] = {}
        self.arrivals: dict[int, float] = {}
        self.statuses: list[PlanStatus] = []
        self.metrics = ControlMetrics(CollectorRegistry())
        self.subscriptions = Subscriptions(
            self.store,
            self.index,
            registry=self.registry,
            sessions=self.sessions,
            reloads=self.reloads,
            account_capacity=300,
            wall_clock=self.wall_clock,
        )

    def wall_clock(self) -> float:
        return time.time() + self.clock_offset_s

    def read_arrivals(self, tokens: Sequence[int]) -> Mapping[int, float]:
        return {token: self.arrivals[token] for token in tokens if token in self.arrivals}

    async def run(self, policy: ReloadPolicy = FAST) -> None:
        await reload(
            self.store,
            self.index,
            self.registry,
            self.sessions,
            self.plans,
            self.reloads,
            require_same_store=self.origin.require_same,
            feeds=lambda: self.feeds,
            read_arrivals=self.read_arrivals,
            policy=policy,
            metrics=self.metrics,
            report=self.statuses.append,
            wall_clock=self.wall_clock,
        )

    async def subscribe(self, *tokens: int) -> ReloadState:
        """Subscribe and return how the reload ended."""
        changed = await self.subscriptions.subscribe([SubscriptionRequest(t) for t in tokens])
        return await self.outcome(changed.reload_id)

    async def outcome(self, reload_id: str) -> ReloadState:
        """How a reload ended, without waiting for ticks."""
        await self.wait_for(lambda: self.state(reload_id).state != "pending")
        return self.state(reload_id)

    def state(self, reload_id: str) -> ReloadState:
        state = self.reloads.find(reload_id)
        assert state is not None
        return state

    async def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        with trio.fail_after(timeout_s):
            while not condition():  # noqa: ASYNC110 - a condition of many parts
                await trio.sleep(0.005)

    async def wait_reports(self, count: int) -> None:
        await self.wait_for(lambda: len(self.statuses) >= count)

    async def wait_plan(self, accept: Callable[[Plan], bool], timeout_s: float = 10.0) -> Plan:
        with trio.fail_after(timeout_s):
            return await self.plans.wait_until(accept)

    async def wait_tokens(self, *tokens: int, timeout_s: float = 10.0) -> Plan:
        return await self.wait_plan(lambda plan: plan.tokens() == set(tokens), timeout_s)

    def set_feeds(self, account_id: str, state: FeedState) -> None:
        for socket in sockets_of(account_id):
            target = len(self.plans.value.shard(socket))
            self.feeds[socket] = FeedStatus(socket, state, since=0.0, target=target)

    async def execute(self, statement: str) -> None:
        def work(connection: psycopg.Connection[object]) -> None:
            connection.execute(statement.encode())

        await self.database.run(work)

    async def active(self) -> list[SubscriptionRow]:
        return await self.store.find(SubscriptionFilter(status="active"), limit=1000)


@asynccontextmanager
async def open_rig(policy: ReloadPolicy = FAST, accounts: int = 2) -> AsyncIterator[Rig]:
    """The task running, and the reload at its start over: it must not take a test's first rows."""
    async with open_test_database() as database, trio.open_nursery() as nursery:
        rig = Rig(database, accounts)
        nursery.start_soon(rig.run, policy)
        await rig.wait_reports(1)
        yield rig
        nursery.cancel_scope.cancel()


async def test_a_change_is_planned_and_its_first_tick_told() -> None:
    async with open_rig() as rig:
        state = await rig.subscribe(1, 2)
        assert state.state == "applied"
        assert (state.added, state.removed, state.error) == ((1, 2), (), None)
        assert rig.plans.value.tokens() == {1, 2}
        assert not state.first_tick_at

        rig.arrivals = {1: rig.wall_clock() + 0.1, 2: rig.wall_clock() + 0.2}
        complete = await rig.reloads.wait(state.reload_id, 5)
        assert complete is not None
        assert complete.first_tick_at == rig.arrivals

        gone = await rig.subscriptions.unsubscribe([1])
        state = await rig.outcome(gone.reload_id)
        assert (state.added, state.removed) == ((), (1,))
        status = rig.statuses[-1]
        assert (status.wanted, status.planned, status.capacity) == (1, 1, 600)
        assert status.last_reload == state
        assert status.utilisation_percent == {"a0": pytest.approx(100 / 300), "a1": 0.0}


async def test_what_is_in_the_table_at_the_start_is_planned() -> None:
    async with open_test_database() as database:
        rig = Rig(database)
        await rig.subscriptions.subscribe(
            [SubscriptionRequest(1, "LTP", "a1"), SubscriptionRequest(2, "QUOTE", "a0")]
        )
        rig.registry = Latest(InstrumentRegistry(()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.run)
            await trio.sleep(0.2)
            assert rig.plans.value.tokens() == set(), "there are no instruments yet"
            rig.registry.set(InstrumentRegistry(map(contract, range(1, 101))))
            plan = await rig.wait_tokens(1, 2)
            assert plan.shards == {
                ConnectionId("a0", 0): {2: "quote"},
                ConnectionId("a1", 0): {1: "ltp"},
            }
            nursery.cancel_scope.cancel()


async def test_a_hundred_calls_in_a_second_are_at_most_two_reloads() -> None:
    async with open_rig(replace(FAST, debounce_s=1.0, interval_s=5.0)) as rig:
        ids = set()
        started_at = trio.current_time()
        for token in range(1, 101):
            changed = await rig.subscriptions.subscribe([SubscriptionRequest(token)])
            ids.add(changed.reload_id)
            await trio.sleep_until(started_at + token / 100)
        for reload_id in ids:
            assert (await rig.outcome(reload_id)).state == "applied"
        assert rig.plans.value.tokens() == set(range(1, 101))
        assert len(rig.statuses) - 1 <= 2


async def test_reloads_that_change_something_keep_their_distance() -> None:
    async with open_rig(replace(FAST, interval_s=0.5)) as rig:
        started_at = trio.current_time()
        await rig.subscribe(1)
        assert trio.current_time() - started_at < 0.4, "nothing was changed at the start"
        changed_at = trio.current_time()
        await rig.subscribe(2)
        assert trio.current_time() - changed_at > 0.4


async def test_rows_that_somebody_else_edits_are_noticed() -> None:
    async with open_rig() as rig:
        await rig.subscribe(1, 2, 3)
        await rig.execute(
            "UPDATE instrument_subscriptions SET requested_mode = 'LTP' WHERE instrument_token = 1"
        )
        await rig.wait_plan(lambda plan: any(s.get(1) == "ltp" for s in plan.shards.values()))
        await rig.execute("DELETE FROM instrument_subscriptions WHERE instrument_token = 2")
        await rig.wait_tokens(1, 3)
        await rig.execute(
            "INSERT INTO instrument_subscriptions"
            " (instrument_token, exchange, tradingsymbol, segment)"
            " VALUES (9, '', 'C9', 'NFO-OPT')"
        )
        await rig.wait_tokens(1, 3, 9)
        reports = len(rig.statuses)
        await trio.sleep(0.5)
        assert len(rig.statuses) == reports, "and nothing is reloaded without a reason"


async def test_expired_contracts_are_put_away_and_moved_ones_followed() -> None:
    async with open_rig() as rig:
        await rig.subscribe(1, 2)
        moved = [contract(500, "C1"), contract(1, "REUSED"), contract(2)]
        rig.registry.set(InstrumentRegistry(moved))
        await rig.wait_tokens(500, 2)
        rows = {row.instrument_token: row.tradingsymbol for row in await rig.active()}
        assert rows == {500: "C1", 2: "C2"}
        rig.clock_offset_s += 10 * 86_400
        rig.reloads.request("next week")
        await rig.wait_tokens()
        assert await rig.active() == []


async def test_a_dead_account_is_stood_in_for_until_it_returns() -> None:
    async with open_rig() as rig:
        await rig.subscribe(*range(1, 41))
        home = rig.plans.value
        (socket,) = home.shards
        other = "a1" if socket.account_id == "a0" else "a0"
        rig.set_feeds(socket.account_id, "backing_off")
        rig.set_feeds(other, "idle")
        plan = await rig.wait_plan(lambda plan: bool(plan.stand_ins))
        assert set(plan.stand_ins) == set(range(1, 41))
        assert {place.account_id for place in plan.stand_ins.values()} == {other}
        assert plan.shard(socket) is home.shard(socket), "its own socket keeps what it had"
        assert rig.statuses[-1].stand_ins == 40
        assert f"{socket}" in rig.statuses[-1].away

        rig.set_feeds(socket.account_id, "live")
        rig.set_feeds(other, "live")
        await rig.wait_plan(lambda plan: plan == home)


async def test_users_displace_what_the_rebalancer_keeps_until_there_is_room() -> None:
    async with open_rig(replace(FAST, instruments_per_socket=10), accounts=1) as rig:
        await rig.store.upsert(list(map(new_row, range(1, 31))), origin="rebalancer")
        await rig.outcome(rig.reloads.request("rebalanced"))
        assert rig.plans.value.tokens() == set(range(1, 31))
        before = rig.plans.value

        state = await rig.subscribe(50, 51)
        assert (state.added, state.removed, state.unplaced) == ((50, 51), (29, 30), (29, 30))
        assert (rig.statuses[-1].unplaced, rig.statuses[-1].planned) == (2, 30)
        assert rig.subscriptions.unplaced == {29, 30}
        for socket, shard in before.shards.items():
            assert shard.keys() - {29, 30} <= rig.plans.value.shard(socket).keys(), "nobody moved"

        rig.sessions.set({"a0": session("a0"), "a1": session("a1")})
        await rig.wait_plan(lambda plan: plan.tokens() >= {29, 30, 50, 51})
        rig.sessions.set({"a0": session("a0")})
        await rig.wait_plan(lambda plan: not plan.tokens() & {29, 30})
        assert rig.plans.value.tokens() >= {50, 51}
        gone = await rig.subscriptions.unsubscribe([50, 51])
        state = await rig.outcome(gone.reload_id)
        assert (state.added, state.removed, state.unplaced) == ((29, 30), (50, 51), ())


async def test_accounts_come_and_go() -> None:
    async with open_rig(accounts=0) as rig:
        await rig.execute(
            "INSERT INTO instrument_subscriptions"
            " (instrument_token, exchange, tradingsymbol, segment, expiry)"
            " VALUES (1, 'NFO', 'C1', 'NFO-OPT', '2026-11-24')"
        )
        await rig.wait_for(lambda: rig.statuses[-1].unplaced == 1)
        rig.sessions.set({"a7": session("a7")})
        await rig.wait_plan(lambda plan: ConnectionId("a7", 0) in plan.shards)
        rig.sessions.set({"a8": session("a8")})
        await rig.wait_plan(lambda plan: set(plan.shards) == {ConnectionId("a8", 0)})
        assert set(rig.statuses[-1].utilisation_percent) == {"a8"}


async def test_an_account_without_a_token_is_stood_in_for_at_once() -> None:
    async with open_rig() as rig:
        await rig.subscribe(1)
        (socket,) = rig.plans.value.shards
        rig.sessions.value[socket.account_id].credentials.set(Credentials("key", ""))
        plan = await rig.wait_plan(lambda plan: bool(plan.stand_ins))
        assert plan.stand_ins[1].account_id != socket.account_id
        rig.sessions.value[socket.account_id].credentials.set(Credentials("key", "another"))
        await rig.wait_plan(lambda plan: not plan.stand_ins)


async def test_without_the_database_wishes_stand_and_with_it_all_is_caught_up() -> None:
    policy = DatabasePolicy(connect_timeout_s=1.0, statement_timeout_s=1.0)
    async with (
        open_postgres_server() as server,
        open_database(server.url, policy, wall_clock=time.time) as database,
        trio.open_nursery() as nursery,
    ):
        await migrate(database)
        rig = Rig(database)
        nursery.start_soon(rig.run)
        await rig.wait_reports(1)
        await rig.subscribe(1, 2)
        await server.stop()

        failed = await rig.outcome(rig.reloads.request("somebody"))
        assert failed.state == "failed"
        assert failed.error is not None
        assert "PostgreSQL" in failed.error
        assert rig.plans.value.tokens() == {1, 2}
        assert rig.statuses[-1].store_error == failed.error
        with pytest.raises(StoreUnavailableError):
            await rig.subscriptions.subscribe([SubscriptionRequest(3)])

        rig.sessions.set({"a9": session("a9")})
        await rig.wait_plan(lambda plan: set(plan.shards) == {ConnectionId("a9", 0)})
        assert rig.plans.value.tokens() == {1, 2}, "accounts still count"

        await server.start()
        started_at = trio.current_time()
        await rig.wait_for(lambda: rig.statuses[-1].store_error is None, 5.0)
        print(f"caught up {trio.current_time() - started_at:.2f} s after PostgreSQL")  # noqa: T201
        newest = rig.reloads.newest
        assert newest is not None
        assert (newest.state, newest.reasons) == ("applied", ("database",))
        nursery.cancel_scope.cancel()


async def test_tables_made_anew_change_nothing_that_streams() -> None:
    async with open_rig() as rig:
        await rig.subscribe(1, 2)
        await rig.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await migrate(rig.database)
        await rig.store.upsert([new_row(7)], origin="user")
        await rig.wait_for(lambda: rig.statuses[-1].is_store_replaced)
        failed = await rig.outcome(rig.reloads.request("somebody"))
        assert failed.state == "failed"
        assert "not the one that this run began with" in (failed.error or "")
        assert (failed.removed, rig.plans.value.tokens()) == ((), {1, 2})
        assert rig.statuses[-1].store_error == failed.error

        rig.sessions.set({"a9": session("a9")})
        await rig.wait_plan(lambda plan: set(plan.shards) == {ConnectionId("a9", 0)})
        reports = len(rig.statuses)
        await trio.sleep(0.5)
        assert len(rig.statuses) <= reports + 1, "it is not asked again and again"

    async with open_rig() as rig:
        await rig.subscribe(1, 2)
        await rig.execute("TRUNCATE instrument_subscriptions")
        await rig.wait_tokens()
        assert not rig.statuses[-1].is_store_replaced, "emptied by hand is what somebody wants"


async def test_a_bug_is_not_taken_for_an_outage() -> None:
    async with open_test_database() as database:
        rig = Rig(database)
        await rig.execute("ALTER TABLE instrument_subscriptions RENAME requested_mode TO other")
        with trio.fail_after(5), pytest.RaisesGroup(psycopg.errors.UndefinedColumn):
            await rig.run()
