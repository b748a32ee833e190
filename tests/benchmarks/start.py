"""A start with 27,000 subscriptions in PostgreSQL: until the first tick, and until all stream.

``python -m tests.benchmarks.start`` prints the result as JSON. The simulator has three accounts
and lists the whole market; it, Valkey, PostgreSQL and the service are processes of their own. The
service starts twice: the first time it has to get the instruments from the broker.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping
from typing import Final

import httpx
import trio

from tests.benchmarks.pipeline import open_process, read_metrics, wait_line
from ticker.instruments.registry import parse_instruments
from ticker.local.children import Child, open_child
from ticker.local.postgres import open_postgres
from ticker.local.valkey import open_valkey
from ticker.stores.database import DatabasePolicy, open_database
from ticker.stores.migrate import migrate
from ticker.stores.subscriptions import NewSubscription, SubscriptionStore

SUBSCRIPTIONS: Final = 27_000
"""What three accounts carry: three sockets each, 3,000 instruments a socket."""

ACCOUNTS: Final = 3
WINDOW_S: Final = 10.0
PATIENCE_S: Final = 120.0


async def main() -> None:
    simulate = ["-m", "ticker", "simulate", "--instruments", "full", "--accounts", str(ACCOUNTS)]
    async with (
        open_postgres() as database_url,
        open_valkey() as redis_url,
        open_child(
            [sys.executable, *simulate, "--port", "0"],
            ready=lambda line: line.startswith("ready"),
            name="simulator",
            start_timeout_s=60,
        ) as simulator,
    ):
        address, environment = read_head(simulator)
        environment |= {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "LOG_LEVEL": "error",
            "HISTORICAL_DAYS": "0",
            "API_RATE_LIMIT_PER_MINUTE": "100000",
        }
        await insert_subscriptions(database_url, address, environment)
        for name in ("first_start", "second_start"):
            figures = await trio.to_thread.run_sync(measure_start, environment)
            print(json.dumps({name: figures}, indent=2))


def read_head(simulator: Child) -> tuple[str, dict[str, str]]:
    """Where the simulator listens, and the environment of a service that streams from it."""
    lines = [
        dict(word.split("=", 1) for word in line.split() if "=" in word) for line in simulator.head
    ]
    address = next(line for line in lines if "rest" in line)
    environment = {
        "KITE_API_ROOT": address["rest"],
        "KITE_WS_ROOT": address["websocket"],
        "KITE_ACCOUNTS": ",".join(f"a{number}" for number in range(ACCOUNTS)),
    }
    for number, account in enumerate(line for line in lines if "api_key" in line):
        environment[f"KITE_A{number}_API_KEY"] = account["api_key"]
        environment[f"KITE_A{number}_ACCESS_TOKEN"] = account["access_token"]
    return address["rest"], environment


async def insert_subscriptions(
    database_url: str, address: str, environment: Mapping[str, str]
) -> None:
    """Derivatives of the dump, as a user would have subscribed to them."""
    token = f"token {environment['KITE_A0_API_KEY']}:{environment['KITE_A0_ACCESS_TOKEN']}"
    async with httpx.AsyncClient(timeout=60) as client:
        dump = await client.get(f"{address}/instruments/NFO", headers={"Authorization": token})
    listed = (row for row in parse_instruments(dump.text.splitlines()) if row is not None)
    rows = [
        NewSubscription(
            instrument_token=row.instrument_token,
            exchange=row.exchange,
            tradingsymbol=row.tradingsymbol,
            segment=row.segment,
            expiry=row.expiry,
        )
        for row in listed
    ][:SUBSCRIPTIONS]
    async with open_database(database_url, DatabasePolicy(), wall_clock=time.time) as database:
        await migrate(database)
        stored = await SubscriptionStore(database).upsert(rows, origin="user")
    if len(stored) < SUBSCRIPTIONS:
        raise ValueError(f"the dump has only {len(stored)} derivatives")


def measure_start(environment: Mapping[str, str]) -> dict[str, float]:
    """Seconds from the start of the process, and what flows in the ten seconds after."""
    started_at = time.monotonic()
    with open_process(["-m", "ticker", "run", "--port", "0"], environment) as output:
        url = wait_line(output, "API").split()[1]
        figures = {"api_s": time.monotonic() - started_at}
        with httpx.Client(base_url=url, timeout=30) as client:
            for name, metric, wanted in (
                ("first_tick_s", "feed_ticks_published_total", 1),
                ("all_subscribed_s", "websocket_pool_subscribed_tokens", SUBSCRIPTIONS),
            ):
                while read_metrics(client).get(metric, 0.0) < wanted:
                    if time.monotonic() - started_at > PATIENCE_S:
                        raise TimeoutError(f"{metric} does not reach {wanted}")
                    time.sleep(0.05)
                figures[name] = time.monotonic() - started_at
            before, since = read_metrics(client), time.monotonic()
            time.sleep(WINDOW_S)
            after, seconds = read_metrics(client), time.monotonic() - since
    for name in ("published", "conflated", "dropped"):
        metric = f"feed_ticks_{name}_total"
        grown = after.get(metric, 0.0) - before.get(metric, 0.0)
        figures[f"{name}_per_s"] = round(grown / seconds)
    figures["resident_max_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {name: round(value, 2) for name, value in figures.items()}


if __name__ == "__main__":
    trio.run(main)
