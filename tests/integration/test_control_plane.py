"""Subscriptions through the whole service: from the API, and from PostgreSQL, to the broker."""

import datetime as dt
from collections import Counter
from typing import Any, LiteralString

import psycopg
import pytest
import trio

from tests.integration.control import (
    find_unsubscribed,
    load_table,
    open_reference,
    subscribe,
    wait_reload,
    wait_rested,
    wait_table,
)
from tests.integration.live import Live, open_live
from tests.postgres import open_test_url

pytestmark = pytest.mark.slow


async def test_a_subscription_over_the_api_is_priced_in_redis_within_three_seconds() -> None:
    """With the default debounce; and it ends as it began, at the broker."""
    async with open_live() as live:
        await wait_rested(live)
        before = await load_table(live)
        (token,) = await find_unsubscribed(live, 1)
        seen, started_at = len(live.payloads), trio.current_time()
        row = await subscribe(live, token, requested_mode="QUOTE")
        await live.wait_for(lambda: is_priced(live, token, seen))
        took_s = trio.current_time() - started_at
        print(f"priced in Redis {took_s:.2f} s after the call")  # noqa: T201
        assert took_s <= 3.0
        assert (row["status"], row["requested_mode"], row["origin"]) == ("active", "QUOTE", "user")
        reload = await wait_reload(live, row["reload_id"])
        assert reload["added"] == [token]
        requested, applied, ticked = (
            dt.datetime.fromisoformat(at)
            for at in (
                reload["requested_at"],
                reload["applied_at"],
                reload["first_tick_at"][str(token)],
            )
        )
        assert requested <= applied <= ticked
        assert await load_table(live) == before | {token: "quote"}

        ended = await live.api.delete(f"/subscriptions/{token}")
        assert (ended.status_code, ended.json()["status"]) == (200, "inactive")
        reload = await wait_reload(live, ended.json()["reload_id"])
        assert (reload["added"], reload["removed"]) == ([], [token])
        await wait_table(live, before, 3)


def is_priced(live: Live, token: int, seen: int) -> bool:
    return any(
        row["instrument_token"] == token and row["iv"] is not None for row in live.payloads[seen:]
    )


async def test_a_hundred_calls_in_a_second_are_two_reloads_and_cost_no_tick() -> None:
    """Unchanged tokens: as many payloads as an independent socket has had packets, each."""
    async with open_live(accounts=3, configured=2) as live:
        await wait_rested(live)
        before = await load_table(live)
        wanted = await find_unsubscribed(live, 100)
        reloads = live.counted("subscription_reloads_total")
        await live.wait_quiet()
        account = live.simulator.accounts[2]
        async with open_reference(live.simulator, account, before) as packets:
            handshakes = (await live.simulator.get("ledger"))["handshakes"]
            seen = len(live.payloads)
            await live.simulator.freeze(False)
            await live.wait_ticks(200)
            started_at = trio.current_time()
            reload_ids = await subscribe_all(live, wanted)
            print(f"100 calls in {trio.current_time() - started_at:.2f} s")  # noqa: T201
            assert len(reload_ids) <= 2
            for reload_id in reload_ids:
                await wait_reload(live, reload_id)
            await live.wait_ticks(200)
            await live.wait_quiet()
            carried = {
                int(token): mode
                for key, tables in (await live.simulator.tables()).items()
                if key != account.api_key
                for table in tables
                for token, mode in table.items()
            }
        assert carried == before | dict.fromkeys(wanted, "full")
        assert live.counted("subscription_reloads_total") - reloads <= 2
        ledger = await live.simulator.get("ledger")
        ours = [socket for socket in ledger["sockets"] if socket["api_key"] != account.api_key]
        assert live.counted("feed_ticks_decoded_total") == sum(row["packets"] for row in ours)
        assert live.counted("feed_ticks_published_total") == sum(row["packets"] for row in ours)
        assert ledger["handshakes"] - handshakes <= 4, "sockets that had nothing to carry"
        assert live.counted("feed_reconnects_total") == 0
        published = Counter(
            row["instrument_token"] for row in live.payloads[seen:] if not row.get("repriced")
        )
        assert {token: published[token] for token in before} == {
            token: packets[token] for token in before
        }
        assert packets.total() > 400


async def subscribe_all(live: Live, tokens: list[int]) -> set[str]:
    """A call for each, all at once; the reloads that they are served by."""
    reload_ids: set[str] = set()

    async def call(token: int) -> None:
        reload_ids.add((await subscribe(live, token))["reload_id"])

    async with trio.open_nursery() as nursery:
        for token in tokens:
            nursery.start_soon(call, token)
    return reload_ids


async def test_rows_edited_by_others_take_effect_between_runs_and_during_one() -> None:
    quick: dict[str, Any] = {"subscription_reload_interval_seconds": 0.5}
    async with open_test_url(is_migrated=False) as url:
        async with open_live(database_url=url, **quick) as live:
            await wait_rows(live, url)
            gone, changed, *more = await find_unsubscribed(live, 8)
            edit(url, (INSERT, [gone, changed, *more[:2]]))
            took_s = await wait_rows(live, url)
            print(f"followed an INSERT in {took_s:.1f} s")  # noqa: T201
            assert set(more[:2]) <= (await load_table(live)).keys()
            edit(url, (REMOVE, [gone]), (QUOTE, [changed]))
            took_s = await wait_rows(live, url)
            print(f"followed an UPDATE in {took_s:.1f} s")  # noqa: T201
            table = await load_table(live)
            assert (table[changed], gone in table) == ("quote", False)
        edit(url, (INSERT, more[2:]), (REMOVE, [changed]))
        async with open_live(database_url=url, **quick) as live:
            took_s = await wait_rows(live, url)
            print(f"converged {took_s:.1f} s after the start")  # noqa: T201
            table = await load_table(live)
            assert set(more) <= table.keys()
            assert changed not in table


async def wait_rows(live: Live, url: str) -> float:
    """Return when the broker has what is active in the table; F21 gives it ten seconds."""
    await live.wait_for(lambda: live.status.plan.wanted > 0)
    return await wait_table(live, load_rows(url), 10)


def load_rows(url: str) -> dict[int, str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT instrument_token, lower(requested_mode) FROM instrument_subscriptions "
            "WHERE status = 'active'"
        ).fetchall()
    return dict(rows)


INSERT = """
INSERT INTO instrument_subscriptions
    (instrument_token, exchange, tradingsymbol, segment, expiry, requested_mode, origin)
SELECT instrument_token, exchange, tradingsymbol, segment, expiry, 'FULL', 'user'
FROM instrument_registry WHERE instrument_token = ANY(%s)
"""
REMOVE = """
UPDATE instrument_subscriptions SET status = 'inactive', origin = 'user'
WHERE instrument_token = ANY(%s)
"""
QUOTE = """
UPDATE instrument_subscriptions SET requested_mode = 'QUOTE', origin = 'user'
WHERE instrument_token = ANY(%s)
"""


def edit(url: str, *changes: tuple[LiteralString, list[int]]) -> None:
    """Change the table as a person with psql does."""
    with psycopg.connect(url) as connection:
        for statement, tokens in changes:
            connection.execute(statement, (tokens,))
