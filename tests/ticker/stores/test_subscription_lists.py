"""Lists of 100,000 subscriptions: every filter, and the plan that PostgreSQL has for it."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import combinations
from typing import Any

import msgspec
import psycopg
import pytest

from tests.postgres import open_test_database
from ticker.stores import subscription_sql as sql
from ticker.stores.database import Database
from ticker.stores.subscriptions import SubscriptionFilter, SubscriptionRow, SubscriptionStore

pytestmark = pytest.mark.slow

Connection = psycopg.Connection[Any]

ROWS = 100_000
EXECUTION_MAX_MS = 25.0

FILL = """
INSERT INTO instrument_subscriptions (
    instrument_token, exchange, tradingsymbol, segment, expiry, status, account_id, origin
)
SELECT token, 'NFO', 'S' || token,
    (ARRAY['NFO-OPT', 'NFO-OPT', 'NFO-OPT', 'BFO-OPT', 'NSE', 'MCX-FUT'])[1 + token % 6],
    DATE '2026-11-24' + (token % 60)::int,
    CASE WHEN token % 4 = 0 THEN 'active' ELSE 'inactive' END,
    CASE WHEN token > 99990 THEN 'small' ELSE (ARRAY['a', 'b', 'c', NULL])[1 + token % 4] END,
    CASE WHEN token % 10 = 0 THEN 'rebalancer' ELSE 'user' END
FROM generate_series(1::bigint, 100000) AS token;
INSERT INTO instrument_registry (
    instrument_token, exchange_token, tradingsymbol, name, underlying, segment, instrument_type,
    strike, expiry, tick_size, lot_size, exchange
)
SELECT instrument_token, 1, tradingsymbol, 'N', 'U' || instrument_token % 200, segment, 'CE',
    100, expiry, 0.05, 75, exchange
FROM instrument_subscriptions;
ANALYZE;
"""

VALUES: dict[str, list[object]] = {
    "status": ["active", "inactive"],
    "account_id": ["a", "small", "nobody"],
    "segment": ["NFO-OPT", "MCX-FUT"],
    "instrument_token": [40_000],
    "origin": ["rebalancer"],
    "underlying": ["U8"],
}


@asynccontextmanager
async def open_full_database() -> AsyncIterator[Database]:
    async with open_test_database() as database:
        await database.run(lambda connection: connection.execute(FILL.encode()), timeout_s=60)
        yield database


def every_filter() -> Iterator[dict[str, object]]:
    """Every combination of names, and of one value each."""
    for size in range(len(VALUES) + 1):
        for names in combinations(VALUES, size):
            chosen: list[dict[str, object]] = [{}]
            for name in names:
                chosen = [known | {name: value} for known in chosen for value in VALUES[name]]
            yield from chosen


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def explain(statement: str, values: dict[str, object], connection: Connection) -> dict[str, Any]:
    explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode()
    ((found,),) = connection.execute(explained, values).fetchall()
    plan: dict[str, Any] = found[0]
    return plan


async def test_every_page_of_every_filter_has_an_index_and_takes_milliseconds() -> None:
    slowest: tuple[float, str] = (0.0, "")
    checked = 0

    def check(connection: Connection) -> None:
        nonlocal slowest, checked
        for given in every_filter():
            for offset, after in ((0, None), (0, 50_000), (500, None)):
                statement, values = sql.create_page(given, 100, offset, after)
                plan = min(
                    (explain(statement, values, connection) for _ in range(2)),
                    key=lambda plan: float(plan["Execution Time"]),
                )
                said = json.dumps(plan, indent=1)
                scans = [node for node in nodes(plan["Plan"]) if "Relation Name" in node]
                assert scans, said
                assert all(scan["Node Type"] != "Seq Scan" for scan in scans), said
                assert plan["Execution Time"] < EXECUTION_MAX_MS, said
                took = (plan["Execution Time"], f"{given} offset={offset} after={after}")
                slowest = max(slowest, took)
                checked += 1

    async with open_full_database() as database:
        await database.run(check, timeout_s=120)
    print(f"{checked} lists, the slowest {slowest[0]:.1f} ms: {slowest[1]}")  # noqa: T201
    assert checked == 864


async def test_pages_are_complete_in_order_and_without_repetition() -> None:
    wanted = SubscriptionFilter(status="active", segment="NSE", origin="rebalancer")
    expected = [token for token in range(1, ROWS + 1) if token % 20 == 0 and token % 6 == 4]
    async with open_full_database() as database:
        store = SubscriptionStore(database)
        assert await store.count(wanted) == len(expected)
        by_key: list[SubscriptionRow] = []
        after = None
        while page := await store.find(wanted, limit=100, after=after):
            by_key += page
            assert len(by_key) <= len(expected)
            after = page[-1].instrument_token
        by_offset: list[SubscriptionRow] = []
        while page := await store.find(wanted, limit=300, offset=len(by_offset)):
            by_offset += page
        assert [row.instrument_token for row in by_key] == expected
        assert by_offset == by_key


async def test_each_condition_is_what_it_says() -> None:
    async with open_full_database() as database:
        store = SubscriptionStore(database)
        for given in ({"status": "active"}, {"account_id": "small"}, {"segment": "NSE"}):
            wanted = msgspec.convert(given, SubscriptionFilter)
            ((name, value),) = given.items()
            rows = await store.find(wanted, limit=ROWS)
            assert {getattr(row, name) for row in rows} == {value}
            assert len(rows) == await store.count(wanted) > 0
        one = SubscriptionFilter(instrument_token=77)
        assert [row.instrument_token for row in await store.find(one, limit=5)] == [77]
        assert await store.count(SubscriptionFilter()) == ROWS
        assert await store.count(SubscriptionFilter(account_id="")) == 0
        assert await store.count(SubscriptionFilter(instrument_token=0)) == 0
        assert await store.count(SubscriptionFilter(underlying="U8")) == ROWS // 200
        assert await store.count(SubscriptionFilter(underlying="' OR true --")) == 0
