"""What may be subscribed to, and who is told why not; in a real PostgreSQL."""

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.postgres import open_test_database
from tests.ticker.planning.test_plan import make
from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.errors import (
    CapacityError,
    InvalidRequestError,
    RequestError,
    StoreUnavailableError,
    UnknownAccountError,
    UnknownInstrumentError,
    UnknownItemError,
)
from ticker.instruments.registry import InstrumentRegistry
from ticker.latest import Latest
from ticker.planning.reloads import Reloads
from ticker.planning.subscriptions import SubscriptionRequest, Subscriptions
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import (
    NewSubscription,
    Origin,
    SubscriptionFilter,
    SubscriptionStore,
)

pytestmark = pytest.mark.slow

NOW = dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC).timestamp()
EXPIRED, EXPIRY = dt.date(2026, 11, 19), dt.date(2026, 11, 20)
REGISTRY = InstrumentRegistry(
    [make(token, "NIFTY", "CE", 1.0, EXPIRY) for token in range(1, 20)]
    + [make(99, "NIFTY", "CE", 1.0, EXPIRED)]
)
ACTIVE = SubscriptionFilter(status="active")


@asynccontextmanager
async def open_subscriptions(
    registry: InstrumentRegistry = REGISTRY,
    account_capacity: int = 4,
    present: Sequence[NewSubscription] = (),
    origin: Origin = "user",
) -> AsyncIterator[tuple[Subscriptions, Reloads]]:
    """``present``: rows that are there already, of that origin."""
    sessions: Sessions = {
        name: Session(name, Latest(Credentials("key", "token"))) for name in ("a0", "a1")
    }
    reloads = Reloads(lambda: NOW)
    async with open_test_database() as database:
        store = SubscriptionStore(database)
        await store.upsert(present, origin=origin)
        yield (
            Subscriptions(
                store,
                SubscriptionIndex(database),
                registry=Latest(registry),
                sessions=Latest(sessions),
                reloads=reloads,
                account_capacity=account_capacity,
                wall_clock=lambda: NOW,
            ),
            reloads,
        )


def wish(token: int, account_id: str | None = None) -> SubscriptionRequest:
    return SubscriptionRequest(token, account_id=account_id)


def rows_of(*tokens: int, account_id: str | None = None) -> list[NewSubscription]:
    """As they come into the table without us."""
    return [
        NewSubscription(
            instrument_token=token,
            exchange="NFO",
            tradingsymbol=f"NIFTYCE{token}",
            segment="NFO-OPT",
            expiry=EXPIRY,
            account_id=account_id,
        )
        for token in tokens
    ]


async def test_a_change_answers_with_its_rows_and_a_reload() -> None:
    async with open_subscriptions() as (subscriptions, reloads):
        changed = await subscriptions.subscribe([wish(2), SubscriptionRequest(1, "LTP", "a1")])
        assert [row.instrument_token for row in changed.rows] == [1, 2]
        first = changed.rows[0]
        assert (first.requested_mode, first.account_id, first.origin) == ("LTP", "a1", "user")
        assert (first.tradingsymbol, first.expiry) == ("NIFTYCE1", EXPIRY)
        assert reloads.find(changed.reload_id) is not None

        gone = await subscriptions.unsubscribe([1])
        assert [row.status for row in gone.rows] == ["inactive"]
        again = await subscriptions.unsubscribe([1])
        assert [row.status for row in again.rows] == ["inactive"]
        assert [row.instrument_token for row in await subscriptions.find(ACTIVE, limit=9)] == [2]
        assert await subscriptions.count(SubscriptionFilter()) == 2

        changed = await subscriptions.subscribe([SubscriptionRequest(1, "QUOTE")])
        assert (changed.rows[0].requested_mode, changed.rows[0].account_id) == ("QUOTE", None)


@pytest.mark.parametrize(
    ("wanted", "error", "field"),
    [
        ([wish(77)], UnknownInstrumentError, "instrument_token"),
        ([wish(1), wish(77)], UnknownInstrumentError, "subscribe[1].instrument_token"),
        ([wish(1), wish(1, "zz")], UnknownAccountError, "subscribe[1].account_id"),
        ([wish(99)], InvalidRequestError, "instrument_token"),
        ([wish(1, "zz")], UnknownAccountError, "account_id"),
        ([wish(token) for token in range(1, 10)], CapacityError, "instrument_token"),
        ([wish(token, "a1") for token in range(1, 6)], CapacityError, "account_id"),
    ],
)
async def test_what_cannot_be_is_refused_as_a_whole_and_the_field_is_named(
    wanted: list[SubscriptionRequest], error: type[RequestError], field: str
) -> None:
    async with open_subscriptions() as (subscriptions, reloads):
        with pytest.raises(error) as caught:
            await subscriptions.subscribe(wanted, field="subscribe" if "[" in field else "")
        assert caught.value.field == field
        assert await subscriptions.count(SubscriptionFilter()) == 0
        assert not reloads.is_pending


async def test_an_unknown_subscription_is_not_found_and_the_others_stay() -> None:
    async with open_subscriptions() as (subscriptions, _):
        await subscriptions.subscribe([wish(1)])
        with pytest.raises(UnknownItemError) as caught:
            await subscriptions.unsubscribe([1, 2])
        assert caught.value.field == "instrument_token"
        assert await subscriptions.count(ACTIVE) == 1


async def test_places_are_counted_exactly() -> None:
    async with open_subscriptions() as (subscriptions, _):
        await subscriptions.subscribe([wish(token) for token in range(1, 9)])
        await subscriptions.subscribe([wish(1), SubscriptionRequest(2, "LTP")])
        with pytest.raises(CapacityError):
            await subscriptions.subscribe([wish(1), wish(9)])
        await subscriptions.unsubscribe([3])
        await subscriptions.subscribe([wish(9)])
        await subscriptions.subscribe([wish(token, "a0") for token in (1, 2, 4, 5)])
        await subscriptions.subscribe([wish(1, "a0"), wish(6, "a1")])
        with pytest.raises(CapacityError) as caught:
            await subscriptions.subscribe([wish(6, "a0")])
        assert caught.value.field == "account_id"


async def test_what_the_rebalancer_keeps_gives_way_to_users() -> None:
    kept = rows_of(*range(1, 9))
    async with open_subscriptions(present=kept, origin="rebalancer") as (subscriptions, _):
        for token in range(1, 5):
            await subscriptions.subscribe([wish(token), wish(token + 10, "a0")])
        with pytest.raises(CapacityError) as caught:
            await subscriptions.subscribe([wish(5)])
        assert caught.value.field == "instrument_token"
        assert await subscriptions.count(ACTIVE) == 12


@pytest.mark.parametrize("account_id", [None, "a0"])
async def test_what_is_there_and_has_no_place_is_refused_as_if_it_were_not(
    account_id: str | None,
) -> None:
    count = 4 if account_id else 8
    present = rows_of(*range(1, count + 2), account_id=account_id)
    async with open_subscriptions(present=present) as (subscriptions, reloads):
        assert subscriptions.unplaced == frozenset()
        reloads.request("table")
        reloads.settle(reloads.take(), added=range(1, count + 1), unplaced=[count + 1])
        assert subscriptions.unplaced == {count + 1}
        await subscriptions.subscribe([wish(1, account_id)])
        with pytest.raises(CapacityError):
            await subscriptions.subscribe([wish(count + 1, account_id)])
        await subscriptions.unsubscribe([2])
        await subscriptions.subscribe([wish(count + 1, account_id)])


async def test_a_place_on_another_account_is_one_less_on_its_own() -> None:
    async with open_subscriptions() as (subscriptions, _):
        await subscriptions.subscribe([wish(token, "a0") for token in range(1, 5)])
        await subscriptions.subscribe([wish(1, "a1"), wish(5, "a0")])
        with pytest.raises(CapacityError):
            await subscriptions.subscribe([wish(1, "a0")])


async def test_of_two_wishes_for_one_instrument_the_later_counts() -> None:
    async with open_subscriptions() as (subscriptions, _):
        changed = await subscriptions.subscribe([wish(1), SubscriptionRequest(1, "LTP")])
        assert [row.requested_mode for row in changed.rows] == ["LTP"]


async def test_before_there_are_instruments_nothing_can_be_told() -> None:
    async with open_subscriptions(InstrumentRegistry(())) as (subscriptions, _):
        with pytest.raises(StoreUnavailableError):
            await subscriptions.subscribe([wish(1)])
