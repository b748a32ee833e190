"""A refresh of 100,000 instruments: seconds, and for how long it holds the event loop up.

``python -m tests.benchmarks.instruments`` prints the result as JSON. The broker is a simulator in
a process of its own, PostgreSQL a real one; one task beside the refresh does nothing but tick.
"""

import argparse
import datetime as dt
import gc
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import httpx
import numpy as np
import trio

from nurseries.refresh_instruments import RefreshPolicy, refresh_instruments
from nurseries.run import SWITCH_INTERVAL_S
from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.instruments.refreshes import InstrumentsStatus, Refreshes
from ticker.instruments.registry import InstrumentQuery, InstrumentRegistry
from ticker.kite.calls import RestPolicy
from ticker.kite.rest import Brokers, open_brokers
from ticker.latest import Latest
from ticker.local.postgres import open_postgres
from ticker.simulator.command import run_simulator
from ticker.simulator.days import IST
from ticker.simulator.sessions import create_accounts
from ticker.simulator.simulation import DEFAULT_SEED, SimulatorConfig
from ticker.simulator.underlyings import SEGMENT_IDS
from ticker.stores.database import Database, DatabasePolicy, open_database
from ticker.stores.instruments import InstrumentStore
from ticker.stores.migrate import migrate

TICK_S: Final = 0.001
ACCOUNT: Final = create_accounts(DEFAULT_SEED, 1)[0]
EXCHANGES: Final = tuple(sorted(SEGMENT_IDS.keys() - {"INDICES"}))
POLICY: Final = RefreshPolicy(exchanges=EXCHANGES, check_s=0.05)


class Delays:
    """How late a task that sleeps a millisecond at a time comes back, in ms."""

    def __init__(self) -> None:
        self._delays: list[float] = []

    async def tick(self) -> None:
        while True:
            due = trio.current_time() + TICK_S
            await trio.sleep_until(due)
            self._delays.append(1e3 * (trio.current_time() - due))

    def take(self) -> dict[str, float]:
        delays, self._delays = self._delays, []
        return {
            "stall_p99_ms": round(float(np.percentile(delays, 99)), 2),
            "stall_max_ms": round(max(delays), 2),
        }


class Bench:
    """The task and what it has reported, under a clock that can be moved."""

    def __init__(self, brokers: Brokers, store: InstrumentStore) -> None:
        self.brokers = brokers
        self.store = store
        self.status = InstrumentsStatus()
        self.registry = Latest(InstrumentRegistry(()))
        self.ahead_s = 0.0

    async def run(self) -> None:
        self.status = InstrumentsStatus()
        self.registry = Latest(InstrumentRegistry(()))
        await refresh_instruments(
            self.registry,
            store=self.store,
            sources=self.brokers.in_order,
            refreshes=Refreshes(),
            policy=POLICY,
            report=partial(setattr, self, "status"),
            wall_clock=lambda: time.time() + self.ahead_s,
        )

    async def wait_refreshed(self, count: int) -> tuple[float, float]:
        """Seconds until the registry is another, and until the store has it."""
        started_at = trio.current_time()
        while self.status.refreshes < count:  # noqa: ASYNC110
            await trio.sleep(0.002)
        in_use_s = trio.current_time() - started_at
        while not self.status.is_stored:  # noqa: ASYNC110
            await trio.sleep(0.002)
        return round(in_use_s, 2), round(trio.current_time() - started_at, 2)


async def measure(rest_url: str, database: Database) -> dict[str, Any]:
    """First refresh, a later day's, and a start from the store."""
    credentials = Credentials(ACCOUNT.api_key, ACCOUNT.access_token)
    sessions: Latest[Sessions] = Latest({"bench": Session("bench", Latest(credentials))})
    result: dict[str, Any] = {}
    delays = Delays()
    async with (
        open_brokers(
            rest_url, sessions, policy=RestPolicy(), wall_clock=time.time, observe=_ignore
        ) as brokers,
        httpx.AsyncClient(base_url=rest_url, timeout=60) as admin,
        trio.open_nursery() as nursery,
    ):
        bench = Bench(brokers, InstrumentStore(database))
        nursery.start_soon(delays.tick)
        await trio.sleep(1)
        result["idle"] = delays.take()
        async with trio.open_nursery() as running:
            running.start_soon(bench.run)
            in_use_s, stored_s = await bench.wait_refreshed(1)
            result["rows"] = bench.status.instruments
            result["first_refresh"] = {"in_use_s": in_use_s, "stored_s": stored_s} | delays.take()
            await admin.get("/instruments/NFO")  # the simulator's own work is not measured
            following = dt.datetime.now(IST).date() + dt.timedelta(days=7)
            order = {"date": following.isoformat()}
            (await admin.post("/_simulator/dump", json=order)).raise_for_status()
            delays.take()
            bench.ahead_s = 7 * 86_400.0
            in_use_s, stored_s = await bench.wait_refreshed(2)
            result["next_refresh"] = {"in_use_s": in_use_s, "stored_s": stored_s} | delays.take()
            running.cancel_scope.cancel()
        async with trio.open_nursery() as running:
            running.start_soon(bench.run)
            started_at = trio.current_time()
            while bench.status.source != "store":  # noqa: ASYNC110
                await trio.sleep(0.002)
            loaded_s = round(trio.current_time() - started_at, 2)
            await trio.sleep(0.1)
            result["start_from_store"] = {"in_use_s": loaded_s} | delays.take()
            running.cancel_scope.cancel()
        result["search_all_ms"] = _measure_search(bench.registry.value)
        nursery.cancel_scope.cancel()
    return result


def _measure_search(registry: InstrumentRegistry) -> float:
    started_at = time.perf_counter()
    registry.search(InstrumentQuery(prefix="NOTHING BEGINS SO"), limit=10)
    return round(1e3 * (time.perf_counter() - started_at), 2)


def _ignore(*_: object) -> None:
    """No metrics."""


@asynccontextmanager
async def open_whole_market() -> AsyncIterator[str]:
    """A simulator in a process of its own, which hardly ever moves its market: its REST URL."""
    command = [sys.executable, "-m", "tests.benchmarks.instruments", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
        try:
            assert process.stdout is not None
            while "ready" not in (line := await trio.to_thread.run_sync(process.stdout.readline)):
                if not line:
                    raise RuntimeError("the simulator has ended")
            yield line.split("rest=")[1].split()[0]
        finally:
            process.terminate()


async def run() -> dict[str, Any]:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    async with (
        open_whole_market() as rest_url,
        open_postgres() as url,
        open_database(url, DatabasePolicy(), wall_clock=time.time) as database,
    ):
        await migrate(database)
        gc.collect()
        gc.freeze()
        return await measure(rest_url, database)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", help="be the simulator")
    if parser.parse_args().serve:
        config = SimulatorConfig(
            port=0, instruments="whole", rate=0.01, accounts=(ACCOUNT,), rate_limits=False
        )
        run_simulator(config, partial(print, flush=True))
        return
    print(json.dumps(trio.run(run), indent=2))


if __name__ == "__main__":
    main()
