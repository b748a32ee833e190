"""Chains that follow the money, in a real PostgreSQL; levels are the test's."""

import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
import trio

from nurseries.rebalance_strikes import RebalancePolicy, rebalance_strikes
from tests.postgres import open_postgres_server, open_test_database
from tests.ticker.planning.test_strikes import NEAR, NEXT, chain_registry
from tests.ticker.synthetic import create_share
from ticker.errors import BrokerUnreachableError, ConfigurationError, UnknownAccountError
from ticker.instruments.registry import InstrumentRegistry
from ticker.latest import Latest
from ticker.planning.reloads import Reloads
from ticker.planning.strikes import Levels, RebalanceStatus, StrikePolicy
from ticker.stores.database import Database, DatabasePolicy, open_database
from ticker.stores.migrate import migrate
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import (
    Mode,
    NewSubscription,
    Origin,
    SubscriptionFilter,
    SubscriptionStore,
)

pytestmark = pytest.mark.slow

NOW = dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC).timestamp()
MODES: tuple[Mode, ...] = ("FULL", "QUOTE")
FAST = RebalancePolicy(
    underlyings=("NIFTY",),
    strikes=StrikePolicy(expiries=1, otm_levels=1, hold_s=0.0),
    interval_s=0.05,
    retry_s=0.05,
)


class Rig:
    """The task's surroundings, and what it did to them."""

    def __init__(self, database: Database) -> None:
        self.store, self.index = SubscriptionStore(database), SubscriptionIndex(database)
        self.registry = Latest(chain_registry())
        self.reloads = Reloads(time.time)
        self.levels: dict[str, Levels] = {}
        self.spots: dict[str, float] | Exception = {}
        self.statuses: list[RebalanceStatus] = []
        self.places = 10_000
        self.now = NOW

    async def run(self, policy: RebalancePolicy = FAST) -> None:
        await rebalance_strikes(
            self.store,
            self.index,
            self.registry,
            self.reloads,
            policy=policy,
            read_levels=self.read_levels,
            load_spots=self.load_spots,
            count_places=lambda: self.places,
            report=self.statuses.append,
            wall_clock=lambda: self.now,
        )

    def read_levels(self, registry: InstrumentRegistry, name: str, today: dt.date) -> Levels:
        return self.levels.get(name, Levels())

    async def load_spots(self, names: Sequence[str]) -> Mapping[str, float]:
        if isinstance(self.spots, Exception):
            raise self.spots
        return self.spots

    async def rows(self, origin: Origin = "rebalancer") -> dict[int, str]:
        """Active rows by token: the mode."""
        found = await self.store.find(
            SubscriptionFilter(status="active", origin=origin), limit=10_000
        )
        return {row.instrument_token: row.requested_mode for row in found}

    async def strikes(self, expiry: dt.date = NEAR) -> set[float]:
        rows = [self.registry.value.by_token(token) for token in await self.rows()]
        return {row.strike for row in rows if row is not None and row.expiry == expiry} - {0.0}

    async def wait_strikes(self, *strikes: float, expiry: dt.date = NEAR) -> None:
        with trio.fail_after(10):
            while await self.strikes(expiry) != set(strikes):  # noqa: ASYNC110 - asks the table
                await trio.sleep(0.01)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not condition():  # noqa: ASYNC110 - reports are a list
                await trio.sleep(0.01)

    async def wait_runs(self, count: int = 2) -> None:
        seen = len(self.statuses)
        await self.wait_for(lambda: len(self.statuses) >= seen + count)

    def token(self, strike: float, kind: str = "CE", expiry: dt.date = NEAR) -> int:
        (found,) = (
            row.instrument_token
            for row in self.registry.value
            if (row.strike, row.instrument_type, row.expiry) == (strike, kind, expiry)
        )
        return found

    def wish(self, strike: float, kind: str = "CE") -> NewSubscription:
        row = self.registry.value.by_token(self.token(strike, kind))
        assert row is not None
        return NewSubscription(
            instrument_token=row.instrument_token,
            exchange=row.exchange,
            tradingsymbol=row.tradingsymbol,
            segment=row.segment,
            expiry=row.expiry,
            requested_mode="LTP",
        )


@asynccontextmanager
async def open_rig(
    policy: RebalancePolicy = FAST, prepare: Callable[[Rig], None] = lambda _: None
) -> AsyncIterator[Rig]:
    async with open_test_database() as database, trio.open_nursery() as nursery:
        rig = Rig(database)
        prepare(rig)
        nursery.start_soon(rig.run, policy)
        yield rig
        nursery.cancel_scope.cancel()


def stand_at(level: float) -> Callable[[Rig], None]:
    def prepare(rig: Rig) -> None:
        rig.levels = {"NIFTY": Levels(level)}

    return prepare


async def test_a_fresh_start_subscribes_to_reference_futures_and_near_strikes() -> None:
    def quote(rig: Rig) -> None:
        rig.spots = {"NIFTY": 24_512.0}

    async with open_rig(prepare=quote) as rig:
        await rig.wait_strikes(24_450, 24_500, 24_550)
        rows = await rig.rows()
        assert 1 in rows, "the index"
        assert len(rows) == 1 + 2 + 2 * 3, "index, futures, two sides of three strikes"
        assert set(rows.values()) == {"FULL"}
        await rig.wait_runs()
        assert rig.reloads.is_pending
        status = rig.statuses[-1]
        assert status.centres == {"NIFTY": {NEAR: 24_500.0}}
        assert (status.unpriced, status.error, status.added, status.removed) == ((), None, 0, 0)


async def test_a_chain_follows_the_forward_both_ways() -> None:
    async with open_rig(prepare=stand_at(25_000.0)) as rig:
        await rig.wait_strikes(24_950, 25_000, 25_050)
        rig.levels = {"NIFTY": Levels(99_999.0, {NEAR: 25_100.0})}
        await rig.wait_strikes(25_050, 25_100, 25_150)
        rig.levels = {"NIFTY": Levels(25_060.0)}
        await rig.wait_runs()
        assert await rig.strikes() == {25_050, 25_100, 25_150}, "not yet a full step away"
        rig.levels = {"NIFTY": Levels(24_999.0)}
        await rig.wait_strikes(24_950, 25_000, 25_050)


async def test_it_does_not_move_again_too_soon() -> None:
    held = replace(FAST, strikes=StrikePolicy(expiries=1, otm_levels=1, hold_s=100.0))
    async with open_rig(held, stand_at(25_000.0)) as rig:
        await rig.wait_strikes(24_950, 25_000, 25_050)
        rig.levels = {"NIFTY": Levels(25_400.0)}
        await rig.wait_runs()
        assert await rig.strikes() == {24_950, 25_000, 25_050}


@pytest.mark.parametrize(
    "answer", [BrokerUnreachableError("nobody there"), UnknownAccountError("no account"), {}]
)
async def test_a_guess_is_corrected_by_the_first_price(
    answer: Exception | dict[str, float],
) -> None:
    def say_nothing(rig: Rig) -> None:
        rig.spots = answer

    held = replace(FAST, interval_s=100.0, strikes=StrikePolicy(expiries=1, otm_levels=1))
    async with open_rig(held, say_nothing) as rig:
        await rig.wait_strikes(24_950, 25_000, 25_050)
        await rig.wait_for(lambda: bool(rig.statuses))
        assert rig.statuses[-1].unpriced == ("NIFTY",)
        rig.levels = {"NIFTY": Levels(24_300.0)}
        await rig.wait_strikes(24_250, 24_300, 24_350)
        await rig.wait_for(lambda: not rig.statuses[-1].unpriced)


async def test_after_a_restart_without_a_price_the_chain_stays() -> None:
    async with open_test_database() as database:
        rig = Rig(database)
        stand_at(24_300.0)(rig)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.run)
            await rig.wait_strikes(24_250, 24_300, 24_350)
            nursery.cancel_scope.cancel()
        before = await rig.rows()
        rig.levels, rig.spots = {}, BrokerUnreachableError("nobody there")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.run)
            await rig.wait_runs()
            assert rig.statuses[-1].unpriced == ("NIFTY",)
            assert await rig.rows() == before
            rig.levels = {"NIFTY": Levels(24_900.0)}
            await rig.wait_strikes(24_850, 24_900, 24_950)
            nursery.cancel_scope.cancel()


async def test_without_a_price_another_day_still_brings_the_next_expiry() -> None:
    async with open_rig(prepare=stand_at(24_300.0)) as rig:
        await rig.wait_strikes(24_250, 24_300, 24_350)
        rig.levels = {}
        rig.now += 5 * 86_400
        await rig.wait_strikes(24_950, 25_000, 25_050, expiry=NEXT)
        assert await rig.strikes(NEAR) == set()


async def test_a_moved_expiry_is_no_new_contract() -> None:
    async with open_test_database() as database, trio.open_nursery() as nursery:
        rig = Rig(database)
        stand_at(25_000.0)(rig)
        await rig.store.upsert([rig.wish(25_000)], origin="user")
        moved = NEAR - dt.timedelta(days=1)
        rig.registry.set(
            InstrumentRegistry(
                msgspec.structs.replace(row, expiry=moved) if row.expiry == NEAR else row
                for row in rig.registry.value
            )
        )
        nursery.start_soon(rig.run)
        await rig.wait_strikes(24_950, 25_000, 25_050, expiry=moved)
        token = rig.token(25_000, expiry=moved)
        assert await rig.rows("user") == {token: "LTP"}, "it stays the user's"
        nursery.cancel_scope.cancel()


async def test_what_users_decided_is_left_alone() -> None:
    async with open_test_database() as database, trio.open_nursery() as nursery:
        rig = Rig(database)
        stand_at(25_000.0)(rig)
        await rig.store.upsert([rig.wish(25_000), rig.wish(24_000)], origin="user")
        await rig.store.upsert([rig.wish(25_050)], origin="user")
        await rig.store.deactivate([rig.token(25_050)], origin="user")
        nursery.start_soon(rig.run)
        await rig.wait_runs()
        assert rig.token(25_050) not in await rig.rows(), "a user does not want it"
        assert rig.token(25_050, "PE") in await rig.rows()
        users = {rig.token(25_000): "LTP", rig.token(24_000): "LTP"}
        assert await rig.rows("user") == users

        rig.levels = {"NIFTY": Levels(25_500.0)}
        await rig.wait_strikes(25_450, 25_500, 25_550)
        assert await rig.rows("user") == users, "out of reach, but a user wants it"

        # A user takes over one of the rebalancer's own; the chain then moves away from it.
        await rig.store.upsert([rig.wish(25_500)], origin="user")
        rig.levels = {"NIFTY": Levels(24_500.0)}
        await rig.wait_strikes(24_450, 24_500, 24_550)
        assert rig.token(25_500) in await rig.rows("user")
        nursery.cancel_scope.cancel()


async def test_nothing_is_added_beyond_what_users_leave_and_the_rest_when_there_is_room() -> None:
    async with open_test_database() as database, trio.open_nursery() as nursery:
        rig = Rig(database)
        stand_at(25_000.0)(rig)
        await rig.store.upsert([rig.wish(24_000), rig.wish(24_100)], origin="user")
        rig.places = 2 + 3 + 4  # users', index and futures, two strikes of two sides
        nursery.start_soon(rig.run)
        await rig.wait_runs()
        assert await rig.strikes() == {24_950, 25_000}, "from the middle outwards"
        assert len(await rig.rows()) == 3 + 4
        assert (rig.statuses[-1].added, rig.statuses[-1].left_out) == (0, 2)

        # Users outgrow the places: what has lost its own stays, to get it back.
        await rig.store.upsert([rig.wish(24_200), rig.wish(24_300)], origin="user")
        before = await rig.rows()
        await rig.wait_runs()
        assert await rig.rows() == before
        rig.places += 20
        await rig.wait_strikes(24_950, 25_000, 25_050)
        await rig.wait_for(lambda: rig.statuses[-1].left_out == 0)
        nursery.cancel_scope.cancel()


async def test_as_long_as_no_account_is_there_its_room_is_not_known() -> None:
    def leave_no_place(rig: Rig) -> None:
        stand_at(25_000.0)(rig)
        rig.places = 0

    async with open_rig(prepare=leave_no_place) as rig:
        await rig.wait_strikes(24_950, 25_000, 25_050)


async def test_expiries_roll() -> None:
    async with open_rig(prepare=stand_at(25_000.0)) as rig:
        await rig.wait_strikes(24_950, 25_000, 25_050)
        rig.now += 5 * 86_400
        await rig.wait_strikes(24_950, 25_000, 25_050, expiry=NEXT)
        assert await rig.strikes(NEAR) == set()


async def test_after_a_restart_with_another_mode_its_rows_follow() -> None:
    async with open_test_database() as database:
        rig = Rig(database)
        stand_at(25_000.0)(rig)
        for mode in MODES:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.run, replace(FAST, mode=mode))
                await rig.wait_runs()
                nursery.cancel_scope.cancel()
            assert set((await rig.rows()).values()) == {mode}
            assert rig.statuses[-1].added == 0, "and there it rests"


async def test_chains_that_are_no_longer_configured_go_and_missing_ones_stay() -> None:
    async with open_test_database() as database:
        rig = Rig(database)
        stand_at(25_000.0)(rig)
        await rig.store.upsert([rig.wish(24_000)], origin="rebalancer")
        missing = rig.wish(24_050)
        whole = rig.registry.value
        rig.registry.set(
            InstrumentRegistry(r for r in whole if r.instrument_token != missing.instrument_token)
        )
        await rig.store.upsert([missing], origin="rebalancer")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.run, replace(FAST, underlyings=("NIFTY", "NOSUCH")))
            await rig.wait_runs()
            rows = await rig.rows()
            assert rig.token(24_000) not in rows
            assert missing.instrument_token in rows, "its instrument may be back in a minute"
            assert rig.statuses[-1].unknown == ("NOSUCH",)
            nursery.cancel_scope.cancel()


async def test_without_any_known_underlying_the_settings_are_wrong() -> None:
    async with open_test_database() as database:
        with pytest.raises(ConfigurationError, match="NOSUCH"):
            await Rig(database).run(replace(FAST, underlyings=("NOSUCH",), exchanges=("NFO",)))


async def test_as_long_as_an_exchange_is_missing_its_underlyings_may_yet_come() -> None:
    async with open_test_database() as database, trio.open_nursery() as nursery:
        rig = Rig(database)
        stand_at(25_000.0)(rig)
        whole = rig.registry.value
        rig.registry = Latest(
            InstrumentRegistry([create_share(1_000, "RELIANCE")]),
        )
        nursery.start_soon(rig.run, replace(FAST, exchanges=("NSE", "NFO")))
        await rig.wait_runs()
        assert rig.statuses[-1].unknown == ("NIFTY",)
        rig.registry.set(whole)
        await rig.wait_strikes(24_950, 25_000, 25_050)
        nursery.cancel_scope.cancel()


async def test_without_the_database_it_does_nothing_and_says_so() -> None:
    policy = DatabasePolicy(connect_timeout_s=0.5, statement_timeout_s=0.5)
    async with (
        open_postgres_server() as server,
        open_database(server.url, policy, wall_clock=time.time) as database,
        trio.open_nursery() as nursery,
    ):
        await migrate(database)
        await server.stop()
        rig = Rig(database)
        stand_at(25_000.0)(rig)
        nursery.start_soon(rig.run)
        await rig.wait_for(lambda: bool(rig.statuses))
        assert rig.statuses[-1].error is not None
        assert not rig.reloads.is_pending
        await server.start()
        await rig.wait_strikes(24_950, 25_000, 25_050)
        await rig.wait_for(lambda: rig.statuses[-1].error is None)
        nursery.cancel_scope.cancel()
