"""Today's instruments, from brokers and stores that come and go."""

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from nurseries.refresh_instruments import RefreshPolicy, refresh_instruments
from tests.postgres import open_test_database
from tests.ticker.synthetic import create_future, create_option, create_share
from ticker.errors import (
    BrokerError,
    BrokerResponseError,
    BrokerUnreachableError,
    StoreUnavailableError,
)
from ticker.instruments.archive import load_dump
from ticker.instruments.dump import ExchangeDump
from ticker.instruments.refreshes import InstrumentsStatus, Refreshes
from ticker.instruments.registry import COLUMNS, Instrument, InstrumentRegistry
from ticker.kite.text import InstrumentDump, InstrumentsMeta
from ticker.latest import Latest
from ticker.stores.database import Database
from ticker.stores.instrument_merge import MergeResult
from ticker.stores.instruments import InstrumentStore, StoredInstruments

pytestmark = pytest.mark.slow

IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
FRIDAY = dt.date(2026, 11, 20)
MORNING = dt.datetime(2026, 11, 20, 9, 0, tzinfo=IST)
POLICY = RefreshPolicy(
    exchanges=("NSE", "NFO"), retry_first_s=0.01, retry_max_s=0.02, check_s=0.01, timeout_s=1.0
)

SHARE = create_share(738, "RELIANCE")
FUTURE = create_future(35_000)
OPTIONS = tuple(create_option(40_000 + place, 25_000.0 + 50 * place, "CE") for place in range(4))
MARKET = (SHARE, FUTURE, *OPTIONS)


def csv_of(rows: Sequence[Instrument]) -> bytes:
    lines = [",".join(COLUMNS)]
    lines += [
        f"{row.instrument_token},{row.exchange_token},{row.tradingsymbol},{row.name},0,"
        f"{row.expiry or ''},{row.strike},{row.tick_size},{row.lot_size},{row.instrument_type},"
        f"{row.segment},{row.exchange}"
        for row in rows
    ]
    return "\n".join(lines).encode()


class Broker:
    """One account: what it answers, and what it was asked."""

    def __init__(self, account_id: str = "alpha", market: Sequence[Instrument] = MARKET) -> None:
        self.account_id = account_id
        self.market = market
        self.junk = b""
        self.errors: dict[str, BrokerError] = {}
        self.is_stuck = False
        self.asked: list[str] = []

    def away(self) -> None:
        self.errors = dict.fromkeys(POLICY.exchanges, BrokerUnreachableError("away"))

    async def load_instruments(self, exchange: str) -> AsyncGenerator[bytes, None]:
        self.asked.append(exchange)
        text = csv_of([row for row in self.market if row.exchange == exchange]) + self.junk
        await trio.lowlevel.checkpoint()
        yield text[:100]
        if self.is_stuck:
            await trio.sleep_forever()
        if exchange in self.errors:
            raise self.errors[exchange]
        yield text[100:]


class Store(InstrumentStore):
    """A real one, that can be made to be away."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.is_away = False

    async def load(self, exchanges: Sequence[str]) -> StoredInstruments:
        self._check()
        return await super().load(exchanges)

    async def merge(self, dumps: Sequence[ExchangeDump], at: dt.datetime) -> MergeResult:
        self._check()
        return await super().merge(dumps, at)

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailableError("away")


class Rig:
    """The task with everything around it."""

    def __init__(self, nursery: trio.Nursery, store: Store) -> None:
        self.nursery = nursery
        self.store = store
        self.brokers = [Broker()]
        self.registry = Latest(InstrumentRegistry(()))
        self.refreshes = Refreshes()
        self.status = InstrumentsStatus()
        self.now = MORNING

    @property
    def broker(self) -> Broker:
        return self.brokers[0]

    def start(self, policy: RefreshPolicy = POLICY) -> trio.CancelScope:
        """Run the task; the scope ends it."""
        scope = trio.CancelScope()
        self.registry = Latest(InstrumentRegistry(()))
        self.status = InstrumentsStatus()

        async def run() -> None:
            with scope:
                await refresh_instruments(
                    self.registry,
                    store=self.store,
                    sources=lambda: self.brokers,
                    refreshes=self.refreshes,
                    policy=policy,
                    report=partial(setattr, self, "status"),
                    wall_clock=lambda: self.now.timestamp(),
                )

        self.nursery.start_soon(run)
        return scope

    async def start_and_settle(self) -> trio.CancelScope:
        scope = self.start()
        await until(lambda: self.status.refreshes > 0 and self.status.is_stored)
        return scope

    async def stored(self) -> set[Instrument]:
        found = await InstrumentStore.load(self.store, POLICY.exchanges)  # away or not
        return set(found.instruments)

    def listed(self) -> set[Instrument]:
        return set(self.registry.value)

    def tell_dump(self, etag: str) -> None:
        self.refreshes.note_text(InstrumentsMeta(InstrumentDump(1, etag)))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await trio.sleep(0.005)


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    async with open_test_database() as database:
        with trio.fail_after(30):
            await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                yield Rig(nursery, Store(database))
                nursery.cancel_scope.cancel()


def under(row: Instrument, token: int) -> Instrument:
    return msgspec.structs.replace(row, instrument_token=token)


async def test_an_empty_store_is_filled_and_the_next_start_needs_no_broker() -> None:
    async with open_rig() as rig:
        rig.broker.junk = b"\nnonsense"
        scope = await rig.start_and_settle()
        assert rig.listed() == await rig.stored() == set(MARKET)
        status = rig.status
        assert (status.instruments, status.source, status.last_error) == (6, "broker", None)
        assert status.days == dict.fromkeys(POLICY.exchanges, FRIDAY)
        assert status.rejected == {"NSE": 1, "NFO": 1}
        scope.cancel()
        rig.brokers = []
        rig.start()
        await until(lambda: len(rig.registry.value) == len(MARKET))
        await trio.sleep(0.1)
        status = rig.status
        assert (status.source, status.failures, status.last_error) == ("store", 0, None)
        assert rig.listed() == set(MARKET)


async def test_yesterdays_are_used_until_the_broker_answers() -> None:
    async with open_rig() as rig:
        (await rig.start_and_settle()).cancel()
        rig.now += dt.timedelta(days=3)
        rig.broker.away()
        rig.broker.market = (SHARE, FUTURE, *OPTIONS[1:])
        rig.start()
        await until(lambda: rig.status.failures > 2)
        assert rig.listed() == set(MARKET)
        assert rig.status.source == "store"
        assert "away" in str(rig.status.last_error)
        rig.broker.errors = {}
        await until(lambda: rig.status.refreshes > 0 and rig.status.is_stored)
        assert rig.listed() == await rig.stored() == set(rig.broker.market)
        assert rig.status.last_error is None
        assert rig.status.problems == {}


async def test_the_next_account_takes_over_where_one_fails() -> None:
    async with open_rig() as rig:
        first, second = rig.brokers = [Broker("alpha"), Broker("beta")]
        first.errors["NFO"] = BrokerResponseError(403, "TokenException", "expired")
        scope = await rig.start_and_settle()
        assert rig.listed() == set(MARKET)
        assert (first.asked, second.asked) == (["NSE", "NFO"], ["NFO"])
        scope.cancel()
        first.is_stuck = True
        rig.start(replace(POLICY, timeout_s=0.05))
        result = await rig.refreshes.request(force=True)
        assert (result.refreshed, result.account_used) == (True, "beta")


async def test_an_exchange_that_the_broker_does_not_have_costs_no_other() -> None:
    async with open_rig() as rig:
        rig.broker.errors["NSE"] = BrokerResponseError(400, "InputException", "no such exchange")
        rig.start()
        await until(lambda: rig.status.failures > 2)
        assert rig.listed() == {row for row in MARKET if row.exchange == "NFO"}
        assert list(rig.status.problems) == ["NSE"]
        assert rig.broker.asked.count("NFO") == 1


async def test_a_dump_that_has_shrunk_is_refused_until_somebody_answers_for_it() -> None:
    async with open_rig() as rig:
        await rig.start_and_settle()
        rig.broker.market = (SHARE, FUTURE)
        rig.now += dt.timedelta(days=3)
        await until(lambda: rig.status.failures > 0)
        assert rig.listed() == await rig.stored() == set(MARKET)
        assert list(rig.status.problems) == ["NFO"]
        assert rig.status.days["NFO"] == FRIDAY
        result = await rig.refreshes.request(force=True)
        assert (result.refreshed, result.reason) == (True, None)
        await until(lambda: rig.status.is_stored)
        assert rig.listed() == await rig.stored() == {SHARE, FUTURE}
        rig.broker.market = ()
        result = await rig.refreshes.request(force=True)
        assert not result.refreshed
        assert rig.listed() == {SHARE, FUTURE}, "no row at all is never believed"


async def test_without_the_store_the_broker_is_enough_and_the_store_follows() -> None:
    async with open_rig() as rig:
        rig.store.is_away = True
        rig.start()
        await until(lambda: rig.status.refreshes > 0)
        await trio.sleep(0.1)
        assert rig.listed() == set(MARKET)
        assert not rig.status.is_stored
        assert rig.status.store_error == "away"
        assert rig.status.last_error is None
        rig.store.is_away = False
        await until(lambda: rig.status.is_stored)
        assert await rig.stored() == set(MARKET)
        await until(lambda: rig.status.store_error is None)
        assert rig.broker.asked == ["NSE", "NFO"]


async def test_a_store_that_comes_back_gives_what_it_has() -> None:
    async with open_rig() as rig:
        (await rig.start_and_settle()).cancel()
        rig.store.is_away = True
        rig.broker.away()
        rig.start()
        await until(lambda: rig.status.failures > 0)
        assert not rig.listed()
        rig.store.is_away = False
        await until(lambda: rig.listed() == set(MARKET))


async def test_a_new_day_begins_when_the_broker_has_its_dump() -> None:
    async with open_rig() as rig:
        await rig.start_and_settle()
        monday = dt.datetime(2026, 11, 23, 8, 29, tzinfo=IST)
        for now, refreshes in (
            (monday - dt.timedelta(days=1), 1),  # a Sunday
            (monday, 1),
            (monday + dt.timedelta(minutes=1), 2),
            (monday - dt.timedelta(hours=1), 2),  # the clock was set back
            (monday + dt.timedelta(hours=5), 2),
        ):
            rig.now = now
            await until(lambda wanted=refreshes: rig.status.refreshes >= wanted)  # type: ignore[misc]
            await trio.sleep(0.1)
            await until(lambda: rig.status.is_stored)
            assert rig.status.refreshes == refreshes, now


async def test_another_dump_is_read_once() -> None:
    async with open_rig() as rig:
        await rig.start_and_settle()
        rig.tell_dump("first")
        await trio.sleep(0.05)
        assert rig.status.refreshes == 1, "taken for the one that is in use"
        rig.broker.away()
        rig.tell_dump("second")
        await until(lambda: rig.status.failures > 1)
        rig.broker.errors = {}
        await until(lambda: rig.status.refreshes == 2)
        for etag in ("first", "second", "first"):
            rig.tell_dump(etag)
        await trio.sleep(0.05)
        assert rig.status.refreshes == 2


async def test_requests_are_answered_together() -> None:
    async with open_rig() as rig:
        await rig.start_and_settle()
        asked = len(rig.broker.asked)
        result = await rig.refreshes.request()
        assert (result.refreshed, result.reason) == (False, "today's instruments are in use")
        assert result.last_refreshed_at == MORNING
        assert len(rig.broker.asked) == asked
        results = []

        async def request() -> None:
            results.append(await rig.refreshes.request(force=True))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(request)
        assert len(rig.broker.asked) == asked + len(POLICY.exchanges)
        assert {(each.force, each.refreshed, each.account_used) for each in results} == {
            (True, True, "alpha")
        }


async def test_a_request_says_why_nothing_came_of_it() -> None:
    async with open_rig() as rig:
        rig.brokers = []
        rig.start()
        result = await rig.refreshes.request(force=True)
        assert (result.refreshed, result.account_used) == (False, None)
        assert result.reason == "no account is logged in"
        assert result.last_refreshed_at is None


async def test_the_same_dump_wakes_nobody() -> None:
    async with open_rig() as rig:
        await rig.start_and_settle()
        before = rig.registry.value
        assert (await rig.refreshes.request(force=True)).refreshed
        assert rig.registry.value is before


async def test_a_contract_under_another_token_is_found_there() -> None:
    async with open_rig() as rig:
        await rig.start_and_settle()
        moved = under(OPTIONS[0], 99 << 8 | 2)
        rig.broker.market = (SHARE, FUTURE, moved, *OPTIONS[1:])
        assert (await rig.refreshes.request(force=True)).refreshed
        await until(lambda: rig.status.is_stored)
        assert rig.registry.value.find(*OPTIONS[0].contract) == moved
        assert rig.registry.value.by_token(OPTIONS[0].instrument_token) is None
        assert await rig.stored() == set(rig.broker.market)


async def test_each_days_dumps_are_filed(tmp_path: Path) -> None:
    async with open_rig() as rig:
        rig.start(replace(POLICY, archive_dir=tmp_path))
        await until(lambda: rig.status.refreshes > 0 and rig.status.is_stored)
        filed = load_dump(tmp_path, "NSE", FRIDAY)
        assert filed is not None
        assert filed.instruments == (SHARE,)


async def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    async with open_rig() as rig:
        rig.start(replace(POLICY, archive_dir=in_the_way))
        await until(lambda: "archive" in rig.status.problems)
        assert "file" not in rig.status.problems["archive"], "/health shows it to everybody"
        assert rig.status.is_stored
        assert rig.listed() == set(MARKET)
