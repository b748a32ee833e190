"""Instruments in a real PostgreSQL: merges, the archive, pages and their plans."""

import datetime as dt
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
import psycopg
import pytest
import trio

from tests.postgres import open_test_database
from tests.ticker.synthetic import create_future, create_option, create_share
from ticker.instruments.dump import ExchangeDump
from ticker.instruments.registry import Instrument, InstrumentQuery, InstrumentRegistry
from ticker.simulator.dump import create_dump
from ticker.stores.database import Database
from ticker.stores.instruments import InstrumentStore, create_find

pytestmark = pytest.mark.slow

FRIDAY = dt.date(2026, 11, 20)
MONDAY = dt.date(2026, 11, 23)
TUESDAY = dt.date(2026, 11, 24)
AT = dt.datetime(2026, 11, 20, 3, 0, tzinfo=dt.UTC)

SHARE = msgspec.structs.replace(create_share(738, "RELIANCE"), tick_size=1.0)
FUTURE = create_future(35_000)
CALL = create_option(40_000, 25_000.0, "CE", expiry=MONDAY)
PUT = create_option(40_001, 25_000.0, "PE", expiry=MONDAY)
NEXT_CALL = create_option(40_002, 25_000.0, "CE", expiry=dt.date(2026, 12, 29))


def under(row: Instrument, exchange_token: int) -> Instrument:
    """The same contract under another token."""
    token = exchange_token << 8 | row.instrument_token & 0xFF
    return msgspec.structs.replace(row, exchange_token=exchange_token, instrument_token=token)


def dump(rows: Iterable[Instrument], day: dt.date = FRIDAY, **changes: Any) -> ExchangeDump:
    found = tuple(rows)
    return ExchangeDump(found[0].exchange, day, found, **changes)


async def active(store: InstrumentStore) -> dict[int, Instrument]:
    rows = (await store.load(["NSE", "NFO"])).instruments
    return {row.instrument_token: row for row in rows}


async def listed(store: InstrumentStore, day: dt.date, **wanted: Any) -> set[str]:
    return {row.key for row in await store.find(InstrumentQuery(**wanted), day, limit=1000)}


async def refreshed_at(database: Database) -> dict[str, dt.datetime]:
    def work(connection: psycopg.Connection[Any]) -> Sequence[Any]:
        return connection.execute(
            "SELECT exchange || ':' || tradingsymbol, last_refreshed_at FROM instrument_registry"
        ).fetchall()

    return dict(await database.run(work))


async def test_what_was_merged_is_what_is_loaded() -> None:
    async with open_test_database() as database:
        store = InstrumentStore(database)
        merged = await store.merge([dump([SHARE], rejected=3), dump([FUTURE, CALL, PUT])], AT)
        assert (merged.added, merged.changed, merged.deactivated) == (4, 0, 0)
        stored = await store.load(["NSE", "NFO"])
        expected = sorted([SHARE, FUTURE, CALL, PUT], key=lambda row: row.instrument_token)
        loaded = sorted(stored.instruments, key=lambda row: row.instrument_token)
        assert msgspec.json.encode(loaded) == msgspec.json.encode(expected), "types included"
        mark = stored.marks["NSE"]
        assert (mark.day, mark.rows, mark.rejected, mark.loaded_at) == (FRIDAY, 1, 3, AT)
        assert [row.exchange for row in (await store.load(["NSE"])).instruments] == ["NSE"]


async def test_only_what_differs_is_written() -> None:
    later = AT + dt.timedelta(days=3)
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([FUTURE, CALL, PUT])], AT)
        changed = msgspec.structs.replace(PUT, lot_size=75)
        merged = await store.merge([dump([FUTURE, CALL, changed, NEXT_CALL], MONDAY)], later)
        assert (merged.added, merged.changed, merged.deactivated) == (1, 1, 0)
        assert await refreshed_at(database) == {
            FUTURE.key: AT,
            CALL.key: AT,
            PUT.key: later,
            NEXT_CALL.key: later,
        }
        found = await store.find_token(PUT.instrument_token, MONDAY)
        assert found is not None
        assert found.instrument == changed


async def test_what_is_gone_is_inactive_and_only_where_a_dump_was_read() -> None:
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([SHARE]), dump([FUTURE, CALL, PUT])], AT)
        merged = await store.merge([dump([FUTURE, CALL], TUESDAY)], AT)
        assert merged.deactivated == 1
        assert set(await active(store)) == {row.instrument_token for row in (SHARE, FUTURE, CALL)}
        assert PUT.key in await listed(store, FRIDAY)
        assert PUT.key not in await listed(store, TUESDAY)
        merged = await store.merge([dump([FUTURE, CALL, PUT], TUESDAY)], AT)
        assert (merged.added, merged.changed) == (0, 1), "it is back"
        assert len(await active(store)) == 4


async def test_an_expired_contract_stays_resolvable_though_its_token_is_another() -> None:
    reused = under(NEXT_CALL, CALL.exchange_token)
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([FUTURE, CALL, PUT])], AT)
        await store.merge([dump([FUTURE, CALL, PUT], MONDAY)], AT)
        await store.merge([dump([FUTURE, reused], TUESDAY)], AT)
        token = CALL.instrument_token
        assert (await active(store))[token] == reused
        found = await store.find_token(token, MONDAY)
        assert found is not None
        assert (found.instrument, found.first_day, found.last_day) == (CALL, FRIDAY, MONDAY)
        for day, contract in (
            (FRIDAY, CALL),
            (MONDAY, CALL),
            (TUESDAY, reused),
            (dt.date(2027, 1, 1), reused),
        ):
            then = await store.find_token(token, day)
            assert then is not None
            assert then.instrument == contract
        assert await store.find_token(token, dt.date(2026, 11, 1)) is None
        put = await store.find_token(PUT.instrument_token, TUESDAY)
        assert put is not None
        assert (put.instrument, put.last_day) == (PUT, MONDAY), "gone, and nobody has its token"


async def test_what_was_listed_on_a_day_is_found() -> None:
    reused = under(NEXT_CALL, CALL.exchange_token)
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([SHARE]), dump([FUTURE, CALL, PUT])], AT)
        await store.merge([dump([FUTURE, CALL, PUT], MONDAY)], AT)
        await store.merge([dump([FUTURE, reused], TUESDAY)], AT)
        old, new = {FUTURE.key, CALL.key, PUT.key}, {FUTURE.key, reused.key}
        for day, expected in ((FRIDAY, old), (MONDAY, old), (TUESDAY, new)):
            assert await listed(store, day) == expected | {SHARE.key}
            assert await listed(store, day, underlying="NIFTY") == expected
        assert await listed(store, dt.date(2026, 11, 19)) == set()
        assert await listed(store, MONDAY, prefix=CALL.tradingsymbol) == {CALL.key}
        assert await listed(store, MONDAY, expiry=MONDAY, instrument_type="PE") == {PUT.key}
        assert await listed(store, TUESDAY, expiry=MONDAY) == set()
        await store.merge([dump([FUTURE, CALL], TUESDAY)], AT)
        assert await listed(store, TUESDAY) == {SHARE.key, FUTURE.key, CALL.key}, "one a token"


async def test_a_contract_under_another_token_is_the_same_contract() -> None:
    moved = under(CALL, 41_000)
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([FUTURE, CALL, PUT])], AT)
        await store.merge([dump([FUTURE, moved, PUT], MONDAY)], AT)
        assert CALL.instrument_token not in await active(store)
        for token, contract in ((moved.instrument_token, moved), (CALL.instrument_token, CALL)):
            found = await store.find_token(token, MONDAY)
            assert found is not None
            assert found.instrument == contract
        assert len(await listed(store, MONDAY, prefix=CALL.tradingsymbol)) == 1


async def test_two_contracts_that_change_places() -> None:
    call, put = under(CALL, PUT.exchange_token), under(PUT, CALL.exchange_token)
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([CALL, PUT])], AT)
        merged = await store.merge([dump([call, put], FRIDAY)], AT)
        assert (merged.added, merged.changed, merged.deactivated) == (0, 2, 0)
        then = await store.find_token(CALL.instrument_token, FRIDAY)
        assert then is not None
        assert then.instrument == put, "the later dump of a day is right"


async def test_a_token_that_is_given_away_within_a_day_loses_no_contract() -> None:
    reused = under(NEXT_CALL, CALL.exchange_token)
    async with open_test_database() as database:
        store = InstrumentStore(database)
        for row in (CALL, reused, CALL, reused):
            await store.merge([dump([FUTURE, row])], AT)
        assert await listed(store, FRIDAY) == {FUTURE.key, reused.key}, "one a token"
        then = await store.find_token(CALL.instrument_token, FRIDAY)
        assert then is not None
        assert then.instrument == reused


@pytest.mark.parametrize(
    ("later", "is_taken"),
    [
        (dump([FUTURE], MONDAY), False),
        (dump([FUTURE], MONDAY, is_confirmed=True), True),
        (dump([FUTURE, CALL], MONDAY), True),
        (ExchangeDump("NFO", MONDAY, (), 4, is_confirmed=True), False),
        (dump([FUTURE, CALL], dt.date(2026, 11, 19)), False),
    ],
)
async def test_a_dump_that_cannot_be_believed_changes_nothing(
    later: ExchangeDump, is_taken: bool
) -> None:
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([SHARE]), dump([FUTURE, CALL, PUT])], AT)
        merged = await store.merge([later], AT)
        assert ("NFO" not in merged.refused) == is_taken
        assert (len(await active(store)) == 1 + len(later.instruments)) == is_taken
        assert ((await store.load(["NFO"])).marks["NFO"].day == later.day) == is_taken


async def test_a_merge_that_fails_leaves_what_was() -> None:
    broken = msgspec.structs.replace(CALL, tradingsymbol="a\0b")
    async with open_test_database() as database:
        store = InstrumentStore(database)
        await store.merge([dump([FUTURE, PUT])], AT)
        with pytest.raises(psycopg.Error):
            await store.merge([dump([FUTURE, broken], MONDAY)], AT)
        assert set(await active(store)) == {FUTURE.instrument_token, PUT.instrument_token}
        assert (await store.load(["NFO"])).marks["NFO"].day == FRIDAY


async def test_merges_at_one_time_take_turns() -> None:
    async with open_test_database() as database:
        store = InstrumentStore(database)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                rows = [
                    under(each, 50_000 + 10 * number + at) for at, each in enumerate([CALL, PUT])
                ]
                nursery.start_soon(store.merge, [dump(rows)], AT)
        assert {row.contract for row in (await active(store)).values()} == {
            CALL.contract,
            PUT.contract,
        }
        assert len(await active(store)) == 2


QUERIES = (
    InstrumentQuery(),
    InstrumentQuery(underlying="NIFTY"),
    InstrumentQuery(underlying="NIFTY", expiry=dt.date(2026, 12, 1), instrument_type="CE"),
    InstrumentQuery(underlying="BANKNIFTY", strike_min=58_000.0, strike_max=59_000.0),
    InstrumentQuery(segment="NFO-FUT"),
    InstrumentQuery(exchange="BFO", instrument_type="PE"),
    InstrumentQuery(expiry=dt.date(2026, 12, 1)),
    InstrumentQuery(prefix="RELI"),
    InstrumentQuery(prefix="RELI%", exchange="NSE"),
    InstrumentQuery(prefix="DORMANT00", exchange="MCX"),
    InstrumentQuery(segment="NOSUCH"),
)


@cache
def whole_market() -> tuple[Instrument, ...]:
    return create_dump(1, FRIDAY, "whole").rows


async def fill(database: Database) -> InstrumentStore:
    store = InstrumentStore(database)
    by_exchange: dict[str, list[Instrument]] = {}
    for row in whole_market():
        by_exchange.setdefault(row.exchange, []).append(row)
    await store.merge([dump(rows) for rows in by_exchange.values()], AT)

    def analyze(connection: psycopg.Connection[Any]) -> None:
        connection.execute("ANALYZE instrument_archive")

    await database.run(analyze)
    return store


async def test_pages_of_a_hundred_thousand_rows() -> None:
    """The store and the registry answer alike; each page by an index, in milliseconds."""
    registry = InstrumentRegistry(whole_market())
    async with open_test_database() as database:
        store = await fill(database)
        for query in QUERIES:
            expected = registry.search(query, limit=300)
            paged: list[Instrument] = []
            while len(paged) < len(expected):
                after = paged[-1].instrument_token if paged else 0
                page = await store.find(query, FRIDAY, limit=100, after=after)
                assert page, query
                paged += page
            assert paged == expected, query
            plan, took_ms = await explain(database, query)
            sys.stdout.write(f"\n{query}\n{plan}\n")  # shown by pytest -rP
            assert "Seq Scan" not in plan, plan
            assert "Index" in plan
            assert took_ms < 50, plan


async def explain(database: Database, query: InstrumentQuery) -> tuple[str, float]:
    statement, values = create_find(query, FRIDAY, limit=100, after=0)

    def work(connection: psycopg.Connection[Any]) -> Sequence[Any]:
        explained = b"EXPLAIN ANALYZE " + statement.as_bytes(connection)
        return connection.execute(explained, values).fetchall()

    lines = [str(row[0]) for row in await database.run(work)]
    took = next(line for line in lines if line.startswith("Execution Time"))
    return "\n".join(lines), float(took.split()[2])
