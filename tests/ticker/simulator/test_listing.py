"""Dumps of 100,000 rows, and of the day after."""

import datetime as dt
from functools import cache

import pytest
import trio

from tests.ticker.simulator.memory_simulator import (
    ACCOUNTS,
    NIFTY_50,
    MemorySimulator,
    dump_of_start,
)
from ticker.instruments.registry import parse_instruments
from ticker.simulator.dump import InstrumentDump, create_dump, create_following
from ticker.simulator.simulation import SimulatorConfig

TODAY = dt.date(2026, 11, 20)
AFTER_EXPIRY = dt.date(2026, 11, 25)
"""The contracts of Monday the 23rd are gone."""


@cache
def following() -> InstrumentDump:
    return create_following(dump_of_start(), 1, AFTER_EXPIRY)


@pytest.mark.slow
def test_the_whole_dump_has_a_hundred_thousand_rows_of_their_own() -> None:
    dump = create_dump(1, TODAY, "whole")
    assert 99_990 <= len(dump.rows) <= 100_010
    assert len({row.instrument_token for row in dump.rows}) == len(dump.rows)
    assert len({row.key for row in dump.rows}) == len(dump.rows)
    lines = dump.to_csv("BSE").decode().splitlines()
    rows = [row for row in parse_instruments(lines) if row is not None]
    assert rows == [row for row in dump.rows if row.exchange == "BSE"]
    assert len(rows) > 10_000


def test_what_stays_keeps_its_token() -> None:
    before = {row.contract: row.instrument_token for row in dump_of_start().rows}
    after = {row.contract: row.instrument_token for row in following().rows}
    staying = before.keys() & after.keys()
    assert len(staying) > 2000
    assert {key: before[key] for key in staying} == {key: after[key] for key in staying}
    assert len(set(after.values())) == len(after)


def test_what_is_gone_leaves_its_token_to_another_contract() -> None:
    before = {row.instrument_token: row.contract for row in dump_of_start().rows}
    after = {row.instrument_token: row.contract for row in following().rows}
    reused = {token for token in before.keys() & after.keys() if before[token] != after[token]}
    assert len(reused) > 50
    expired = {before[token][2] for token in reused}
    assert min(day for day in expired if day) == dt.date(2026, 11, 23)


async def test_another_day_is_listed_while_it_runs(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    simulator = MemorySimulator(nursery, SimulatorConfig(accounts=ACCOUNTS))
    account = ACCOUNTS[0]
    authorization = f"token {account.api_key}:{account.access_token}"
    async with simulator.open_client() as client:
        await client.subscribe(NIFTY_50)
        first = client.greetings[0]["data"]
        before = await simulator.call("GET", "/instruments/NFO", authorization=authorization)
        told = await simulator.admin("dump", {"date": AFTER_EXPIRY.isoformat()})
        await client.wait_closed()
    async with simulator.open_client() as client:
        assert client.greetings[0]["data"] == told
        assert told["etag"] != first["etag"]
        await client.subscribe(NIFTY_50)
        assert NIFTY_50 in (await client.gather(3)).ticks.token
    after = await simulator.call("GET", "/instruments/NFO", authorization=authorization)
    assert before is not None
    assert after is not None
    rows = [row for row in parse_instruments(after.body.decode().splitlines()) if row]
    assert rows == [row for row in following().rows if row.exchange == "NFO"]
    assert after.body != before.body
