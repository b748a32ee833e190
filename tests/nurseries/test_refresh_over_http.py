"""A day and the next, from a simulator over HTTP into PostgreSQL."""

import datetime as dt
import time
from functools import partial

import httpx
import pytest
import trio

from nurseries.refresh_instruments import RefreshPolicy, refresh_instruments
from tests.postgres import open_test_database
from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.instruments.dump import dump_day
from ticker.instruments.refreshes import InstrumentsStatus, Refreshes
from ticker.instruments.registry import InstrumentRegistry
from ticker.kite.calls import RestPolicy
from ticker.kite.rest import open_brokers
from ticker.kite.text import InstrumentDump, InstrumentsMeta
from ticker.latest import Latest
from ticker.simulator.dump import create_dump, create_following, dump_date
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.sessions import create_accounts
from ticker.simulator.simulation import DEFAULT_SEED, SimulatorConfig
from ticker.stores.instruments import InstrumentStore

pytestmark = pytest.mark.slow

ACCOUNT = create_accounts(DEFAULT_SEED, 1)[0]
POLICY = RefreshPolicy(exchanges=("NFO", "BFO", "NSE", "BSE", "MCX", "CDS"), check_s=0.05)


async def test_a_new_days_dump_with_old_tokens(nursery: trio.Nursery) -> None:
    config = SimulatorConfig(port=0, accounts=(ACCOUNT,), rate_limits=False)
    address: SimulatorAddress = await nursery.start(partial(serve_simulator, config))
    session = Session("alpha", Latest(Credentials(ACCOUNT.api_key, ACCOUNT.access_token)))
    sessions: Latest[Sessions] = Latest({"alpha": session})
    registry = Latest(InstrumentRegistry(()))
    status = Latest(InstrumentsStatus())
    refreshes = Refreshes()
    started, offset_s = time.time(), 0.0
    today = dump_date(started)
    before = create_dump(DEFAULT_SEED, today)
    later = max(row.expiry for row in before.rows if row.expiry) + dt.timedelta(days=1)
    after = create_following(before, DEFAULT_SEED, later)
    async with (
        open_test_database() as database,
        open_brokers(
            address.rest_url,
            sessions,
            policy=RestPolicy(),
            wall_clock=time.time,
            observe=lambda *_: None,
        ) as brokers,
        httpx.AsyncClient(base_url=address.rest_url) as admin,
    ):
        store = InstrumentStore(database)
        task = partial(
            refresh_instruments,
            registry,
            store=store,
            sources=brokers.in_order,
            refreshes=refreshes,
            policy=POLICY,
            report=status.set,
            wall_clock=lambda: time.time() + offset_s,
        )
        nursery.start_soon(task)
        with trio.fail_after(20):
            await status.wait_until(lambda told: told.refreshes == 1 and told.is_stored)
        assert set(registry.value) == {
            row for row in before.rows if row.exchange in POLICY.exchanges
        }

        refreshes.note_text(InstrumentsMeta(InstrumentDump(len(before.rows), before.etag)))
        told = (await admin.post("/_simulator/dump", json={"date": later.isoformat()})).json()
        assert told["etag"] == after.etag
        offset_s = (later - today).days * 86_400.0
        refreshes.note_text(InstrumentsMeta(InstrumentDump(**told)))
        with trio.fail_after(20):
            await status.wait_until(lambda told: told.refreshes == 2 and told.is_stored)
        assert set(registry.value) == {
            row for row in after.rows if row.exchange in POLICY.exchanges
        }

        was = {row.instrument_token: row for row in before.rows if row.exchange == "NFO"}
        reused = next(
            row
            for row in after.rows
            if row.exchange == "NFO" and was.get(row.instrument_token, row).contract != row.contract
        )
        expired = was[reused.instrument_token]
        assert registry.value.by_token(reused.instrument_token) == reused
        assert registry.value.find(*expired.contract) is None
        day = dump_day(dt.datetime.fromtimestamp(started, dt.UTC), POLICY.made_at, POLICY.exchanges)
        found = await store.find_token(expired.instrument_token, day)
        assert found is not None
        assert (found.instrument, found.last_day) == (expired, day)
        nursery.cancel_scope.cancel()
