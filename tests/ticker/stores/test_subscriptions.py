"""Who may decide what about a subscription, and what its token stands for."""

import datetime as dt

import pytest
import trio

from tests.postgres import open_test_database
from ticker.stores.subscriptions import (
    NewSubscription,
    Origin,
    SubscriptionFilter,
    SubscriptionRow,
    SubscriptionStore,
)

pytestmark = pytest.mark.slow

EXPIRY = dt.date(2026, 11, 24)
ALL = SubscriptionFilter()


def option(token: int, symbol: str = "", **fields: object) -> NewSubscription:
    given = {"exchange": "NFO", "segment": "NFO-OPT", "expiry": EXPIRY} | fields
    return NewSubscription(
        instrument_token=token,
        tradingsymbol=symbol or f"NIFTY26NOV{token}CE",
        **given,  # type: ignore[arg-type]
    )


def outline(rows: list[SubscriptionRow]) -> list[tuple[int, str, str]]:
    return [(row.instrument_token, row.status, row.origin) for row in rows]


async def test_what_is_given_is_stored() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        given = [
            option(5, requested_mode="LTP", account_id="first"),
            option(3, "INFY", exchange="NSE", segment="NSE", expiry=None),
        ]
        rows = await store.upsert(given, origin="user")
        assert [row.instrument_token for row in rows] == [3, 5]
        row = rows[1]
        assert row == SubscriptionRow(
            instrument_token=5,
            exchange="NFO",
            tradingsymbol="NIFTY26NOV5CE",
            segment="NFO-OPT",
            expiry=EXPIRY,
            status="active",
            requested_mode="LTP",
            account_id="first",
            origin="user",
            created_at=row.created_at,
            updated_at=row.created_at,
        )
        assert row.created_at.tzinfo is not None
        assert abs(row.created_at - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=30)
        assert rows[0].expiry is None
        assert await store.load_active() == rows == await store.find(ALL, limit=10)


async def test_a_repeated_wish_replaces_mode_and_account() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        (first,) = await store.upsert([option(5, account_id="first")], origin="user")
        await store.deactivate([5], origin="user")
        (second,) = await store.upsert([option(5, requested_mode="LTP")], origin="user")
        assert (second.requested_mode, second.account_id, second.status) == ("LTP", None, "active")
        assert second.created_at == first.created_at
        assert second.updated_at > first.updated_at


async def test_two_wishes_for_one_token_or_contract_are_the_later_one() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        given = [
            option(5),
            option(5, requested_mode="LTP"),
            option(6, "SAME"),
            option(7, "SAME"),
        ]
        rows = await store.upsert(given, origin="user")
        assert [(row.instrument_token, row.requested_mode) for row in rows] == [
            (5, "LTP"),
            (7, "FULL"),
        ]


@pytest.mark.parametrize("decided", ["active", "inactive"])
async def test_the_rebalancer_leaves_alone_what_a_user_decided(decided: str) -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        await store.upsert([option(5, requested_mode="LTP", account_id="first")], origin="user")
        if decided == "inactive":
            await store.deactivate([5], origin="user")
        before = await store.find(ALL, limit=10)
        assert await store.upsert([option(5)], origin="rebalancer") == before
        assert await store.deactivate([5], origin="rebalancer") == []
        assert await store.find(ALL, limit=10) == before


async def test_the_rebalancer_adds_and_takes_away_what_is_its_own() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        added = await store.upsert([option(5), option(6)], origin="rebalancer")
        assert outline(added) == [(5, "active", "rebalancer"), (6, "active", "rebalancer")]
        removed = await store.deactivate([6, 7], origin="rebalancer")
        assert outline(removed) == [(6, "inactive", "rebalancer")]
        again = await store.upsert([option(6, requested_mode="QUOTE")], origin="rebalancer")
        assert outline(again) == [(6, "active", "rebalancer")]
        assert again[0].requested_mode == "QUOTE"
        untouched = await store.upsert([option(6)], origin="rebalancer")
        assert untouched == again, "an active row is as it should be"


@pytest.mark.parametrize("wish", ["subscribe", "unsubscribe"])
async def test_what_a_user_decides_about_is_the_users(wish: str) -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        await store.upsert([option(5)], origin="rebalancer")
        if wish == "subscribe":
            await store.upsert([option(5)], origin="user")
        else:
            await store.deactivate([5], origin="user")
        decided = await store.find(ALL, limit=10)
        assert decided[0].origin == "user"
        await store.deactivate([5], origin="rebalancer")
        await store.upsert([option(5)], origin="rebalancer")
        assert await store.find(ALL, limit=10) == decided


async def test_deactivating_tells_which_rows_there_are() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        await store.upsert([option(5), option(6), option(7)], origin="user")
        first = await store.deactivate([6, 99], origin="user")
        assert outline(first) == [(6, "inactive", "user")]
        assert await store.deactivate([99], origin="user") == []
        assert await store.deactivate([6], origin="user") == first, "nothing changed"
        assert outline(await store.load_active()) == [(5, "active", "user"), (7, "active", "user")]


@pytest.mark.parametrize("origin", ["user", "rebalancer"])
async def test_a_token_that_means_another_contract_is_a_row_of_its_own(origin: Origin) -> None:
    """What a user decided about the expired contract says nothing about the one with its token."""
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        (old,) = await store.upsert([option(5, "OLD", account_id="first")], origin="user")
        await store.deactivate([5], origin="user")
        rows = await store.upsert([option(5, "NEW", expiry=dt.date(2027, 1, 26))], origin=origin)
        assert outline(rows) == [(5, "active", origin)]
        assert (rows[0].tradingsymbol, rows[0].account_id) == ("NEW", None)
        assert rows[0].created_at > old.created_at
        assert await store.find(ALL, limit=10) == rows


async def test_the_same_symbol_of_another_expiry_is_another_contract() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        await store.upsert([option(5, "FUT")], origin="user")
        await store.upsert([option(6, "FUT", expiry=dt.date(2027, 11, 24))], origin="user")
        assert len(await store.load_active()) == 2


async def test_a_contract_with_a_new_token_keeps_its_row() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        (old,) = await store.upsert([option(5, "SAME")], origin="user")
        await store.deactivate([5], origin="user")
        rows = await store.upsert([option(8, "SAME")], origin="rebalancer")
        assert outline(rows) == [(8, "inactive", "user")], "the user's decision moved with it"
        assert rows[0].created_at == old.created_at
        assert len(await store.find(ALL, limit=10)) == 1


async def test_tokens_move_all_at_once() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        given = [option(1, "A"), option(2, "B", account_id="first"), option(3, "C"), option(4, "D")]
        before = await store.upsert(given, origin="user")
        await store.deactivate([2], origin="user")
        moved = await store.replace_tokens({1: 2, 2: 1, 3: 4, 99: 5})
        assert [(row.instrument_token, row.tradingsymbol) for row in moved] == [
            (1, "B"),
            (2, "A"),
            (4, "C"),
        ]
        assert (moved[0].status, moved[0].account_id) == ("inactive", "first")
        assert moved[1].created_at == before[0].created_at
        assert await store.find(ALL, limit=10) == moved, "what 4 stood for is forgotten"


async def test_expired_contracts_are_deactivated() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        day = dt.timedelta(days=1)
        given = [
            option(1, "INFY", expiry=None),
            option(2, expiry=EXPIRY - day),
            option(3, expiry=EXPIRY),
            option(4, expiry=EXPIRY - 9 * day),
        ]
        await store.upsert(given, origin="user")
        await store.deactivate([4], origin="user")
        assert outline(await store.deactivate_expired(EXPIRY)) == [(2, "inactive", "user")]
        assert [row.instrument_token for row in await store.load_active()] == [1, 3]


async def test_writers_at_the_same_time_wait_for_each_other() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        forwards = [option(token) for token in range(1, 400)]

        async def write(rows: list[NewSubscription], origin: Origin) -> None:
            for _ in range(5):
                await store.upsert(rows, origin=origin)
                await store.deactivate([row.instrument_token for row in rows], origin=origin)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, forwards, "user")
            nursery.start_soon(write, forwards[::-1], "user")
            nursery.start_soon(write, forwards[::-1], "rebalancer")
        assert await store.count(ALL) == 399


async def test_the_plan_of_a_large_service_is_written_and_read_in_one_call() -> None:
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        given = [option(token) for token in range(1, 27_001)]
        began_at = trio.current_time()
        assert len(await store.upsert(given, origin="user")) == 27_000
        written_at = trio.current_time()
        assert len(await store.load_active()) == 27_000
        print(  # noqa: T201
            f"27,000 rows: written in {written_at - began_at:.2f} s, "
            f"loaded in {trio.current_time() - written_at:.2f} s"
        )
        assert trio.current_time() - began_at < 10
