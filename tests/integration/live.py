"""The whole service in one process with its test: simulator, Valkey, the tree, a subscriber."""

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis
import trio
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from nurseries.service import run_service
from tests.postgres import open_test_url
from ticker.accounts.secrets_box import create_encryption_key
from ticker.local.valkey import valkey_program
from ticker.metrics import Metrics
from ticker.settings import AccountSettings, Settings
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.sessions import SimulatedAccount, create_accounts
from ticker.simulator.simulation import SimulatorConfig
from ticker.status import ServiceStatus

Payload = Mapping[str, Any]

API_KEY = "key-of-the-tests"
ENCRYPTION_KEY = create_encryption_key()

STOP_TIMEOUT_S = 10.0
"""A stopped service ends within this."""


class Simulator:
    """A running simulator, steered over its admin routes."""

    def __init__(self, client: httpx.AsyncClient, accounts: tuple[SimulatedAccount, ...]) -> None:
        self.client = client
        self.accounts = accounts

    async def inject(self, fault: str, **details: object) -> Any:
        """Break something; see ``ticker.simulator.faults``."""
        return await self._post("faults", {"fault": fault, **details})

    async def heal(self) -> None:
        (await self.client.delete("/_simulator/faults")).raise_for_status()

    async def freeze(self, frozen: bool = True) -> None:
        """Stop or resume the market; heartbeats go on."""
        await self._post("market", {"frozen": frozen})

    async def get(self, path: str, **query: str) -> Any:
        response = await self.client.get(f"/_simulator/{path}", params=query)
        return response.raise_for_status().json()

    async def tables(self) -> dict[str, list[dict[str, str]]]:
        """What each open socket is subscribed to, by api_key: token to mode."""
        tables: dict[str, list[dict[str, str]]] = {}
        for row in await self.get("sockets"):
            tables.setdefault(row["api_key"], []).append(row["subscriptions"])
        return tables

    async def _post(self, path: str, body: Mapping[str, object]) -> Any:
        response = await self.client.post(f"/_simulator/{path}", json=body)
        return response.raise_for_status().json()


class RealMarketSettings(Settings):
    """As with the real broker: a simulator's loopback address alone makes nothing mock."""

    @property
    def is_mock(self) -> bool:
        return False


@dataclass
class Live:
    """A service under test, and everything around it."""

    simulator: Simulator
    status: ServiceStatus
    metrics: Metrics
    redis: "RedisServer"
    api_url: str
    api: httpx.AsyncClient
    """A client of the API with the key that may do everything."""
    payloads: list[Payload]
    """What an independent redis-py subscriber has received so far."""
    events: list[Payload]

    def counted(self, name: str, **labels: str) -> float:
        """A metric, summed over the label sets that contain ``labels``."""
        total = 0.0
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    async def wait_for(self, condition: Callable[[], bool], timeout_s: float = 15.0) -> float:
        """Return, once the condition holds, how many seconds that took."""
        started_at = trio.current_time()
        with trio.fail_after(timeout_s):
            while not condition():  # noqa: ASYNC110 - a condition of many parts
                await trio.sleep(0.02)
        return trio.current_time() - started_at

    @property
    def gaps(self) -> list[Payload]:
        """The events that tell of holes."""
        return [event for event in self.events if event["type"] == "gap"]

    def is_live(self) -> bool:
        return all(self.status.account_is_live(name) for name in self.status.account_ids)

    def failures(self, account_id: str | None = None) -> int:
        """How often the connections of one account, or of all, have failed so far."""
        return sum(
            feed.reconnects
            for feed in self.status.feeds.values()
            if account_id in (None, feed.connection.account_id)
        )

    async def wait_failures(self, count: int, account_id: str | None = None) -> float:
        """Return, once that many connections have failed since the start, how long that took.

        The first reconnect is immediate: the time in which a connection is not live may be too
        short for `wait_for` to see.
        """
        return await self.wait_for(lambda: self.failures(account_id) >= count)

    async def wait_ticks(self, count: int = 50) -> None:
        """Return when the subscriber has received ``count`` payloads more."""
        wanted = len(self.payloads) + count
        await self.wait_for(lambda: len(self.payloads) >= wanted)

    async def wait_quiet(self) -> None:
        """Freeze the market and return when every tick has reached its end."""
        await self.simulator.freeze()
        with trio.fail_after(20):
            before = -1.0
            while before != (before := self.counted("feed_ticks_decoded_total")) or any(  # noqa: ASYNC110
                self.unaccounted(connection) for connection in self.connections()
            ):
                await trio.sleep(0.3)

    def connections(self) -> list[tuple[str, str]]:
        return [
            (str(feed.connection.account_id), str(feed.connection.shard))
            for feed in self.status.feeds.values()
        ]

    def unaccounted(self, connection: tuple[str, str]) -> float:
        """decoded - published - conflated - dropped; 0 when all is quiet."""
        labels = {"account_id": connection[0], "shard": connection[1]}
        ends = ("published", "conflated", "dropped")
        decoded = self.counted("feed_ticks_decoded_total", **labels)
        return decoded - sum(self.counted(f"feed_ticks_{end}_total", **labels) for end in ends)


@asynccontextmanager
async def open_live(
    *,
    accounts: int = 2,
    configured: int | None = None,
    token_files: tuple[Path, ...] = (),
    rate: float = 4.0,
    wall_clock: Callable[[], float] = time.time,
    settings_type: type[Settings] = Settings,
    **changes: object,
) -> AsyncIterator[Live]:
    """Start everything, yield once every account is live and payloads arrive, stop in order.

    ``configured``: how many of the simulator's accounts are in the settings; None: all.
    """
    async with (
        open_redis_server() as server,
        open_test_url(is_migrated=False) as database_url,
        open_simulator(accounts, rate) as (address, simulator),
    ):
        settings = create_settings(simulator, address, token_files)
        known: dict[str, object] = {"redis_url": server.url, "database_url": database_url}
        known["accounts"] = settings.accounts[:configured]
        settings = settings_type(**dict(settings.model_copy(update=known | changes)))
        status = ServiceStatus(
            started_at=0.0,
            environment="test",
            account_ids=tuple(account.account_id for account in settings.accounts),
        )
        metrics, stop = Metrics(), trio.Event()
        payloads: list[Payload] = []
        events: list[Payload] = []
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[str]) -> None:
                await run_service(
                    settings,
                    status,
                    metrics,
                    stop=stop,
                    wall_clock=wall_clock,
                    task_status=task_status,
                )
                nursery.cancel_scope.cancel()

            nursery.start_soon(subscribe, server.url, payloads, events)
            url: str = await nursery.start(serve)
            headers = {"X-API-Key": API_KEY}
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as api:
                live = Live(simulator, status, metrics, server, url, api, payloads, events)
                await live.wait_for(live.is_live, 30)
                await live.wait_ticks(1)
                yield live
            stop.set()
            with trio.fail_after(STOP_TIMEOUT_S):
                await trio.sleep_forever()


class RedisServer:
    """A Valkey on a port of its own, to be killed, frozen and started again."""

    def __init__(self, port: int, directory: str) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        options = {"port": str(port), "bind": "127.0.0.1", "save": "", "dir": directory}
        self._command = [str(valkey_program())]
        self._command += [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def open_redis_server() -> AsyncIterator[RedisServer]:
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.create_server(("127.0.0.1", 0)) as probe,
    ):
        server = RedisServer(probe.getsockname()[1], directory)
        probe.close()
        server.start()
        try:
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def open_simulator(
    accounts: int, rate: float
) -> AsyncIterator[tuple[SimulatorAddress, Simulator]]:
    config = SimulatorConfig(port=0, rate=rate, accounts=create_accounts(1, accounts))
    async with trio.open_nursery() as nursery:
        address: SimulatorAddress = await nursery.start(partial(serve_simulator, config))
        async with httpx.AsyncClient(base_url=address.rest_url, timeout=10) as client:
            yield address, Simulator(client, config.accounts)
        nursery.cancel_scope.cancel()


def create_settings(
    simulator: Simulator, address: SimulatorAddress, token_files: tuple[Path, ...] = ()
) -> Settings:
    """Settings for a small chain on the simulator's accounts ``a0``, ``a1``, ..."""
    return Settings(
        port=0,
        kite_api_root=address.rest_url,
        kite_ws_root=address.ws_url,
        kite_login_root=address.rest_url,
        account_encryption_key=SecretStr(ENCRYPTION_KEY),
        otm_levels=5,
        option_expiry_window=2,
        historical_days=0,
        enable_mock_data=False,
        api_key=SecretStr(API_KEY),
        api_rate_limit_per_minute=100_000,
        accounts=tuple(
            AccountSettings(
                account_id=f"a{number}",
                api_key=SecretStr(account.api_key),
                api_secret=SecretStr(account.api_secret),
                access_token=None if token_files else SecretStr(account.access_token),
                access_token_file=token_files[number] if token_files else None,
            )
            for number, account in enumerate(simulator.accounts)
        ),
    )


async def subscribe(url: str, payloads: list[Payload], events: list[Payload]) -> None:
    """Collect what the channels carry, with redis-py in a thread, across restarts of Redis."""
    while True:
        await trio.to_thread.run_sync(_collect, url, payloads, events, abandon_on_cancel=True)
        await trio.sleep(0.05)


def _collect(url: str, payloads: list[Payload], events: list[Payload]) -> None:
    try:
        with (
            redis.Redis.from_url(url, socket_connect_timeout=1) as client,
            client.pubsub(ignore_subscribe_messages=True) as subscriber,
        ):
            subscriber.psubscribe("ticker:nifty:*")
            while True:
                trio.from_thread.check_cancelled()
                message = subscriber.get_message(timeout=0.1)
                if message is not None:
                    is_event = message["channel"].endswith(b":events")
                    (events if is_event else payloads).append(msgspec.json.decode(message["data"]))
    except redis.RedisError:
        return
