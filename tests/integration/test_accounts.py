"""Accounts that come, go, die and log in: the simulator, real sockets and a real PostgreSQL."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import SecretStr

from nurseries.account_stream import stream_account
from nurseries.account_streams import stream_accounts
from nurseries.keep_accounts import keep_accounts
from nurseries.login import exchange_once
from nurseries.shard_stream import StreamPolicy
from tests.integration.live import Simulator, open_simulator
from tests.postgres import open_postgres_server, open_test_url
from ticker.accounts.desk import AccountDesk, NewAccount
from ticker.accounts.logins import LoggedIn, Logins
from ticker.accounts.secrets_box import SecretBox, create_encryption_key
from ticker.accounts.sessions import AccountStatus, Sessions
from ticker.control_metrics import ControlMetrics
from ticker.errors import ConflictError, StoreUnavailableError
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedStatus, Frame, Gap
from ticker.metrics import Metrics
from ticker.planning.plan import Plan
from ticker.settings import AccountSettings
from ticker.simulator.server import SimulatorAddress
from ticker.stores.accounts import AccountStore
from ticker.stores.database import Database, open_database
from ticker.stores.migrate import migrate

pytestmark = pytest.mark.slow

TOKENS: Final[dict[int, Literal["full", "quote"]]] = {256265: "full", 260105: "quote"}
KEY: Final = create_encryption_key()


@dataclass
class Tree:
    """The accounts' part of the service at work, and what came out of it."""

    simulator: Simulator
    address: SimulatorAddress
    database: Database
    desk: AccountDesk
    logins: Logins
    sessions: Latest[Sessions]
    metrics: Metrics
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    feeds: dict[ConnectionId, FeedStatus] = field(default_factory=dict)
    frames: list[tuple[str, float, int]] = field(default_factory=list)
    """Account, time of arrival and size of every frame."""
    accounts: tuple[AccountStatus, ...] = ()

    def state(self, account_id: str) -> str:
        feed = self.feeds.get(ConnectionId(account_id, 0))
        return feed.state if feed else "none"

    def reconnects(self, account_id: str) -> int:
        return self.feeds[ConnectionId(account_id, 0)].reconnects

    async def wait_state(self, account_id: str, state: str, within_s: float) -> float:
        started_at = trio.current_time()
        with trio.fail_after(within_s):
            while self.state(account_id) != state:  # noqa: ASYNC110 - of a dictionary
                await trio.sleep(0.01)
        return trio.current_time() - started_at

    async def log_in(self, account_id: str) -> LoggedIn:
        """What a person does, and the route that the broker redirects the browser to."""
        page = self.logins.create_page(account_id)
        async with httpx.AsyncClient() as browser:
            url = httpx.URL(page.url).copy_merge_params({"redirect": "http://us.example/"})
            answer = (await browser.get(url)).headers["Location"]
        query = parse_qs(urlsplit(answer).query)
        return await self.logins.complete(
            self.logins.take_state(query["state"][0]), query["request_token"][0]
        )

    def gaps_of(self, account_id: str, since: float) -> list[float]:
        """Seconds between one frame of the account and the next."""
        times = [at for name, at, _ in self.frames if name == account_id and at >= since]
        return [later - earlier for earlier, later in pairwise(times)]


@asynccontextmanager
async def open_tree(
    simulator: Simulator,
    address: SimulatorAddress,
    database: Database,
    configured: Sequence[AccountSettings] = (),
) -> AsyncIterator[Tree]:
    metrics, changes, migrated = Metrics(), Latest(0), trio.Event()
    sessions: Latest[Sessions] = Latest({})
    store = AccountStore(database, SecretBox([KEY]))
    exchange = partial(exchange_once, address.rest_url)
    tree = Tree(
        simulator,
        address,
        database,
        AccountDesk(sessions, store, changes, wall_clock=time.time),
        Logins(sessions, store, exchange, login_root=address.rest_url, wall_clock=time.time),
        sessions,
        metrics,
    )
    send_frames, frames = trio.open_memory_channel[Frame](1000)
    send_gaps, gaps = trio.open_memory_channel[Gap](1000)
    names = [account.account_id for account in configured] + ["d0", "d1"]
    stream = partial(
        stream_account,
        plans=Latest(Plan({ConnectionId(name, 0): TOKENS for name in names})),
        frames=send_frames,
        gaps=send_gaps,
        policy=StreamPolicy(),
        metrics=metrics,
        report=lambda status: tree.feeds.update({status.connection: status}),
        wall_clock=time.time,
        ws_root=address.ws_url,
        expects_ticks=lambda connection: False,
    )

    async def collect() -> None:
        async for frame in frames:
            tree.frames.append((frame.connection.account_id, frame.received_at, len(frame.data)))

    async def migrate_when_there() -> None:
        while not migrated.is_set():
            try:
                await migrate(database)
                migrated.set()
            except StoreUnavailableError:
                await trio.sleep(0.2)

    def forget(account_id: str) -> None:
        del tree.feeds[ConnectionId(account_id, 0)]

    async with send_frames, send_gaps, gaps, trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        nursery.start_soon(migrate_when_there)
        await nursery.start(
            partial(
                keep_accounts,
                configured,
                sessions,
                store=store,
                migrated=migrated,
                changes=changes,
                report=lambda statuses: setattr(tree, "accounts", statuses),
                metrics=ControlMetrics(tree.registry),
                wall_clock=time.time,
            )
        )
        nursery.start_soon(partial(stream_accounts, sessions, stream, forget=forget))
        yield tree
        nursery.cancel_scope.cancel()


def configure(simulator: Simulator) -> list[AccountSettings]:
    """The simulator's accounts as ``a0``, ``a1``, ..., with their first token in the settings."""
    return [
        AccountSettings(
            account_id=f"a{number}",
            api_key=SecretStr(account.api_key),
            api_secret=SecretStr(account.api_secret),
            access_token=SecretStr(account.access_token),
        )
        for number, account in enumerate(simulator.accounts)
    ]


@asynccontextmanager
async def open_parts(accounts: int) -> AsyncIterator[tuple[Simulator, SimulatorAddress, Database]]:
    async with (
        open_simulator(accounts, 10.0) as (address, simulator),
        open_test_url() as url,
        open_database(url, wall_clock=time.time) as database,
    ):
        yield simulator, address, database


@pytest.mark.parametrize("sockets", ["close", "mute", "keep"])
async def test_dead_token_pauses_one_account_until_it_logs_in(sockets: str) -> None:
    async with open_parts(2) as (simulator, address, database):
        accounts = configure(simulator)
        async with open_tree(simulator, address, database, accounts) as tree:
            for account in accounts:
                await tree.wait_state(account.account_id, "live", 5)
            await trio.sleep(1.5)
            quiet_since = time.time()
            await trio.sleep(2)
            before = tree.gaps_of("a1", quiet_since)

            faulty_since = time.time()
            key = simulator.accounts[0].api_key
            await simulator.inject("kill_token", api_key=key, sockets=sockets)
            if sockets == "close":
                assert await tree.wait_state("a0", "waiting_for_token", 5) <= 1
            await trio.sleep(2)
            done = await tree.log_in("a0")
            assert done.is_kept
            await wait_reconnected(tree, "a0", key, within_s=5)

            during = tree.gaps_of("a1", faulty_since)
            assert tree.reconnects("a1") == 0
            assert len(during) > 10
            assert median(during) <= 1.1 * median(before), "ten a second"
            assert max(during) < 1, "simulator, browser and streams share this thread"
            rows = await simulator.get("sockets")
            tables = {row["api_key"]: row["subscriptions"] for row in rows}
            wanted = {str(token): mode for token, mode in TOKENS.items()}
            assert tables == {account.api_key: wanted for account in simulator.accounts}
            assert len(rows) == 2, "the dead one's socket is closed"

        async with open_tree(simulator, address, database, accounts) as tree:
            await tree.wait_state("a0", "live", 8)
            assert tree.sessions.value["a0"].source == "settings"


async def wait_reconnected(tree: Tree, account_id: str, api_key: str, *, within_s: float) -> None:
    """Return when the account is live on one socket that is not the one it had."""
    with trio.fail_after(within_s):
        while tree.state(account_id) != "live" or tree.reconnects(account_id) == 0:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_accounts_are_added_and_removed_while_others_stream() -> None:
    async with open_parts(2) as (simulator, address, database):
        configured = configure(simulator)[:1]
        second = simulator.accounts[1]
        async with open_tree(simulator, address, database, configured) as tree:
            await tree.wait_state("a0", "live", 5)
            await wait_migrated(tree)
            with pytest.raises(ConflictError):
                await tree.desk.create(NewAccount("d0", simulator.accounts[0].api_key))
            await tree.desk.create(
                NewAccount("d0", second.api_key, second.api_secret, second.access_token)
            )
            assert await tree.wait_state("d0", "live", 5) <= 3
            assert gauge(tree, "kite_access_token_expiry_seconds", "d0") > 0
            assert len(await simulator.get("sockets")) == 2

            await tree.desk.delete("d0", hard=True)
            await tree.wait_state("d0", "none", 2)
            assert [row["api_key"] for row in await simulator.get("sockets")] == [
                simulator.accounts[0].api_key
            ]
            assert 'account_id="d0"' not in live_gauges(tree)

            await tree.desk.create(NewAccount("d1", second.api_key, second.api_secret))
            await tree.wait_state("d1", "waiting_for_token", 3)
            assert [status.token_state for status in tree.accounts] == ["valid", "missing"]
            await tree.log_in("d1")
            assert await tree.wait_state("d1", "live", 5) <= 2
            assert tree.reconnects("a0") == 0


async def wait_migrated(tree: Tree) -> None:
    with trio.fail_after(10):
        while True:
            try:
                await tree.desk.load_all()
            except StoreUnavailableError:
                await trio.sleep(0.05)
            else:
                return


def gauge(tree: Tree, name: str, account_id: str) -> float:
    value = tree.registry.get_sample_value(name, {"account_id": account_id})
    assert value is not None
    return value


def live_gauges(tree: Tree) -> str:
    """The exposition without its counters, which outlive their account."""
    lines = (tree.metrics.render() + generate_latest(tree.registry)).decode().splitlines()
    return "\n".join(line for line in lines if "_total{" not in line and "_created{" not in line)


async def test_database_that_is_away_stops_no_stream() -> None:
    async with (
        open_simulator(2, 10.0) as (address, simulator),
        open_postgres_server() as server,
        open_database(server.url, wall_clock=time.time) as database,
    ):
        configured, second = configure(simulator)[:1], simulator.accounts[1]
        async with open_tree(simulator, address, database, configured) as tree:
            await wait_migrated(tree)
            await tree.desk.create(NewAccount("d0", second.api_key, None, second.access_token))
            await tree.wait_state("d0", "live", 5)
            await server.stop()
            await trio.sleep(3)
            assert (tree.state("a0"), tree.state("d0")) == ("live", "live")
            with pytest.raises(StoreUnavailableError):
                await tree.desk.delete("d0")
            done = await tree.log_in("a0")
            assert not done.is_kept, "the token works, and is lost with the process"
            await wait_reconnected(tree, "a0", simulator.accounts[0].api_key, within_s=5)
            assert tree.reconnects("d0") == 0

        async with open_tree(simulator, address, database, configured) as tree:
            await tree.wait_state("a0", "live", 5)
            assert set(tree.sessions.value) == {"a0"}
            await server.start()
            await tree.wait_state("d0", "live", 8)
            assert tree.reconnects("a0") == 0


async def test_secrets_are_nowhere_to_be_seen(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_parts(2) as (simulator, address, database):
        configured = configure(simulator)[:1]
        second = simulator.accounts[1]
        async with open_tree(simulator, address, database, configured) as tree:
            await wait_migrated(tree)
            created = await tree.desk.create(
                NewAccount("d0", second.api_key, second.api_secret, second.access_token)
            )
            await tree.wait_state("d0", "live", 5)
            await simulator.inject("kill_token")
            await tree.wait_state("d0", "waiting_for_token", 5)
            tokens = []
            for account_id in ("a0", "d0"):
                await tree.log_in(account_id)
                tokens.append(tree.sessions.value[account_id].credentials.value.access_token)
                await tree.wait_state(account_id, "live", 5)
            with pytest.raises(ConflictError) as refused:
                await tree.desk.create(NewAccount("d1", second.api_key))
            views = await tree.desk.load_all()

            def dump(connection: psycopg.Connection[Any]) -> str:
                rows = connection.execute("SELECT t::text FROM trading_accounts t").fetchall()
                return str(rows)

            seen = [
                await database.run(dump),
                (tree.metrics.render() + generate_latest(tree.registry)).decode(),
                *(repr(thing) for thing in (refused.value, views, created, tree.accounts)),
                *(repr(thing) for thing in (tree.sessions.value, tree.feeds, configured)),
                *(repr(session.credentials.value) for session in tree.sessions.value.values()),
                *capfd.readouterr(),
            ]
        assert "logged_in" in str(seen)
        secrets = [*tokens, KEY]
        for account in simulator.accounts:
            secrets += [account.api_secret, account.access_token, account.api_key]
        assert [text[:200] for text in seen for secret in secrets if secret in text] == []
