"""Subscriptions from the API's calls to the broker's tables: PostgreSQL, simulator, sockets."""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from nurseries.account_stream import stream_account
from nurseries.reload import ReloadPolicy, reload
from nurseries.shard_stream import StreamPolicy
from tests.integration.live import Simulator, open_simulator
from tests.postgres import open_test_database
from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.control_metrics import ControlMetrics
from ticker.instruments.registry import InstrumentRegistry, TickMode, parse_instruments
from ticker.kite.wire import decode_frames
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedStatus, Frame, Gap
from ticker.metrics import Metrics
from ticker.planning.plan import EMPTY_PLAN, Plan
from ticker.planning.reloads import Reloads, ReloadState
from ticker.planning.status import PlanStatus
from ticker.planning.subscriptions import SubscriptionRequest, Subscriptions
from ticker.planning.wishes import TICK_MODES
from ticker.simulator.server import SimulatorAddress
from ticker.stores.database import Database
from ticker.stores.origin import StoreOrigin
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import Mode, SubscriptionStore

pytestmark = pytest.mark.slow

REFERENCE = "reference"
"""An account that streams what a test tells it to, beside the plan."""
ROOM = 40
"""Instruments a socket: few, so that the tests fill them."""
PACKETS = 12
"""Of each token, to compare: so many that a lost one would show."""
FAST = ReloadPolicy(debounce_s=0.0, interval_s=0.0, look_s=0.1, instruments_per_socket=ROOM)
MODES: tuple[Mode, ...] = ("FULL", "QUOTE", "LTP")


class Ticks:
    """What arrived, by account: how many packets, and those of each token in order."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.packets: dict[tuple[str, int], list[bytes]] = {}
        self.arrived_at: dict[int, float] = {}

    def add(self, frame: Frame) -> None:
        ticks = decode_frames([frame.data]).ticks
        account_id = frame.connection.account_id
        self.counts[account_id] += len(ticks)
        for token, words in zip(ticks.token.tolist(), ticks.words.T, strict=True):
            self.packets.setdefault((account_id, token), []).append(words.tobytes())
            if account_id != REFERENCE:
                self.arrived_at[token] = frame.received_at

    def read_arrivals(self, tokens: Sequence[int]) -> Mapping[int, float]:
        return {token: self.arrived_at[token] for token in tokens if token in self.arrived_at}


class Tree:
    """Reload and streams, without what comes behind the sockets; it can be run again."""

    def __init__(
        self,
        database: Database,
        simulator: Simulator,
        address: SimulatorAddress,
        registry: InstrumentRegistry,
        policy: ReloadPolicy,
    ) -> None:
        self.simulator, self.address, self.policy = simulator, address, policy
        self.store, self.index = SubscriptionStore(database), SubscriptionIndex(database)
        self.origin = StoreOrigin(database)
        self.registry = Latest(registry)
        *accounts, last = simulator.accounts
        self.sessions: Latest[Sessions] = Latest(
            {
                f"a{number}": Session(
                    f"a{number}", Latest(Credentials(account.api_key, account.access_token))
                )
                for number, account in enumerate(accounts)
            }
        )
        self.reference = Session(REFERENCE, Latest(Credentials(last.api_key, last.access_token)))
        self.reference_plan = Latest(EMPTY_PLAN)
        self.plans = Latest(EMPTY_PLAN)
        self.ticks = Ticks()
        self.feeds: dict[ConnectionId, FeedStatus] = {}
        self.statuses: list[PlanStatus] = []
        self.reloads = Reloads(time.time)
        self.subscriptions = Subscriptions(
            self.store,
            self.index,
            registry=self.registry,
            sessions=self.sessions,
            reloads=self.reloads,
            account_capacity=3 * ROOM,
            wall_clock=time.time,
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        send_frames, frames = trio.open_memory_channel[Frame](1000)
        send_gaps, gaps = trio.open_memory_channel[Gap](1000)
        stream = partial(
            stream_account,
            frames=send_frames,
            gaps=send_gaps,
            policy=StreamPolicy(connect_spacing_s=0.0),
            metrics=Metrics(),
            report=lambda status: self.feeds.update({status.connection: status}),
            wall_clock=time.time,
            ws_root=self.address.ws_url,
            expects_ticks=lambda connection: False,
        )

        async def collect() -> None:
            async for frame in frames:
                self.ticks.add(frame)

        async with send_frames, send_gaps, gaps, trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            nursery.start_soon(self._reload)
            for session in self.sessions.value.values():
                nursery.start_soon(partial(stream, session, self.plans))
            nursery.start_soon(partial(stream, self.reference, self.reference_plan))
            yield
            nursery.cancel_scope.cancel()

    async def _reload(self) -> None:
        await reload(
            self.store,
            self.index,
            self.registry,
            self.sessions,
            self.plans,
            self.reloads,
            require_same_store=self.origin.require_same,
            feeds=lambda: self.feeds,
            read_arrivals=self.ticks.read_arrivals,
            policy=self.policy,
            metrics=ControlMetrics(CollectorRegistry()),
            report=self.statuses.append,
            wall_clock=time.time,
        )

    async def tables(self) -> list[dict[int, str]]:
        """What the simulator has for each open socket, without the reference's."""
        reference = self.reference.credentials.value.api_key
        tables = await self.simulator.tables()
        return [
            {int(token): mode for token, mode in table.items()}
            for api_key, found in tables.items()
            if api_key != reference
            for table in found
        ]

    async def wait_table(self, model: Mapping[int, Mode], timeout_s: float = 10.0) -> float:
        """Return, once the simulator's table is the model exactly, how many seconds that took."""
        wanted = sorted((token, TICK_MODES[mode]) for token, mode in model.items())
        started_at = trio.current_time()
        with trio.fail_after(timeout_s):
            while (  # noqa: ASYNC110 - asks the simulator
                sorted(item for table in await self.tables() for item in table.items()) != wanted
            ):
                await trio.sleep(0.05)
        return trio.current_time() - started_at

    async def subscribe(self, mode: Mode, *tokens: int) -> str:
        requests = [SubscriptionRequest(token, mode) for token in tokens]
        return (await self.subscriptions.subscribe(requests)).reload_id

    async def wait_complete(self, reload_id: str, timeout_s: float = 10.0) -> ReloadState:
        state = await self.reloads.wait(reload_id, timeout_s)
        assert state is not None
        assert state.is_complete, state
        return state


@asynccontextmanager
async def open_tree(policy: ReloadPolicy = FAST, rate: float = 4.0) -> AsyncIterator[Tree]:
    async with open_test_database() as database, open_simulator(3, rate) as (address, simulator):
        registry = await load_registry(simulator)
        yield Tree(database, simulator, address, registry, policy)


async def load_registry(simulator: Simulator) -> InstrumentRegistry:
    account = simulator.accounts[0]
    token = f"token {account.api_key}:{account.access_token}"
    response = await simulator.client.get("/instruments", headers={"Authorization": token})
    lines = response.raise_for_status().text.splitlines()
    return InstrumentRegistry(row for row in parse_instruments(lines) if row is not None)


def options(registry: InstrumentRegistry, count: int) -> list[int]:
    """Options of NIFTY near the money, which is in the middle of what is listed: they tick."""
    rows = [row for row in registry.of_underlying("NIFTY") if row.is_option]
    nearest = min(row.expiry for row in rows if row.expiry)
    strikes = sorted({row.strike for row in rows if row.expiry == nearest})
    money = strikes[len(strikes) // 2]
    rows = sorted(
        (row for row in rows if row.expiry == nearest), key=lambda row: abs(row.strike - money)
    )
    return [row.instrument_token for row in rows][:count]


async def test_a_subscription_ticks_within_three_seconds_with_the_default_debounce() -> None:
    async with open_tree(ReloadPolicy(instruments_per_socket=ROOM)) as tree, tree.run():
        token, other = options(tree.registry.value, 2)
        await tree.wait_complete((await tree.subscriptions.subscribe([])).reload_id)
        started_at = time.time()
        state = await tree.wait_complete(await tree.subscribe("FULL", token))
        took_s = state.first_tick_at[token] - started_at
        print(f"first tick {took_s:.2f} s after the call")  # noqa: T201
        assert took_s <= 3.0
        await tree.wait_table({token: "FULL"})
        await tree.wait_complete(await tree.subscribe("LTP", other), 20.0)
        await tree.wait_table({token: "FULL", other: "LTP"})


async def test_edits_while_the_service_is_down_take_effect_when_it_is_up() -> None:
    async with open_tree() as tree:
        tokens = options(tree.registry.value, 60)
        await tree.subscribe("FULL", *tokens[:50])
        async with tree.run():
            await tree.wait_table(dict.fromkeys(tokens[:50], "FULL"))
        await tree.subscriptions.unsubscribe(tokens[:10])
        await tree.subscribe("QUOTE", *tokens[45:])
        async with tree.run():
            model: dict[int, Mode] = dict.fromkeys(tokens[10:45], "FULL")
            took_s = await tree.wait_table(model | dict.fromkeys(tokens[45:], "QUOTE"))
            print(f"converged {took_s:.2f} s after the start")  # noqa: T201


@settings(
    max_examples=1,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.integers(0, 2**32))
async def test_a_thousand_random_calls_end_in_exactly_the_brokers_table(seed: int) -> None:
    """Four callers at once, each with instruments of its own: what each did last is the model."""
    draw = random.Random(seed)
    async with open_tree() as tree, tree.run():
        tokens = options(tree.registry.value, 160)
        models: list[dict[int, Mode]] = [{} for _ in range(4)]

        async def call(model: dict[int, Mode], own: list[int], seed: int) -> None:
            choose = random.Random(seed)
            known: set[int] = set()
            for _ in range(250):
                some = choose.sample(own, choose.choice([1, 1, 1, 5, 20]))
                if known and choose.random() < 0.45:
                    gone = [token for token in some if token in known]
                    await tree.subscriptions.unsubscribe(gone)
                    for token in gone:
                        model.pop(token, None)
                else:
                    mode = choose.choice(MODES)
                    await tree.subscribe(mode, *some)
                    model.update(dict.fromkeys(some, mode))
                    known.update(some)

        async def watch() -> None:
            while True:
                assert all(len(table) <= ROOM for table in await tree.tables())
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            started_at = trio.current_time()
            async with trio.open_nursery() as callers:
                for number, model in enumerate(models):
                    own = tokens[number::4]
                    callers.start_soon(call, model, own, draw.getrandbits(32))
            called_s = trio.current_time() - started_at
            expected = {token: mode for model in models for token, mode in model.items()}
            took_s = await tree.wait_table(expected)
            nursery.cancel_scope.cancel()
        print(f"1,000 calls in {called_s:.1f} s, converged {took_s:.2f} s later")  # noqa: T201


async def test_unchanged_tokens_lose_no_tick_during_a_hundred_changes() -> None:
    async with open_tree() as tree:
        tokens = options(tree.registry.value, 60)
        steady, changing = tokens[:30], tokens[30:]
        await tree.subscribe("FULL", *steady)
        modes: dict[int, TickMode] = dict.fromkeys(steady, "full")
        tree.reference_plan.set(Plan({ConnectionId(REFERENCE, 0): modes}))
        async with tree.run():
            await tree.wait_table(dict.fromkeys(steady, "FULL"))
            await wait_flowing(tree, steady)
            handshakes = (await tree.simulator.get("ledger"))["handshakes"]
            choose = random.Random(1)
            changes = 0
            with trio.fail_after(30):
                while changes < 100 or fewest_packets(tree, steady) < PACKETS:
                    some = choose.sample(changing, 8)
                    await tree.subscribe(choose.choice(MODES), *some)
                    await trio.sleep(0.03)
                    await tree.subscriptions.unsubscribe(some)
                    await trio.sleep(0.03)
                    changes += 2
            assert len(tree.statuses) > 20, "they were rapid, but more than one reload"
            await tree.wait_table(dict.fromkeys(steady, "FULL"))
            ledger = await wait_quiet(tree)
        assert ledger["handshakes"] - handshakes <= 1, "only another socket may have been opened"
        sent = sum(socket["packets"] for socket in ledger["sockets"])
        assert sum(tree.ticks.counts.values()) == sent
        for token in steady:
            (account_id,) = {name for name, of in tree.ticks.packets if of == token} - {REFERENCE}
            seen = tree.ticks.packets[account_id, token]
            reference = tree.ticks.packets[REFERENCE, token]
            # The two sockets were not opened at the same moment: the first steps may differ.
            common = min(len(seen), len(reference)) - 4
            assert common >= PACKETS - 4
            assert seen[-common:] == reference[-common:]


def fewest_packets(tree: Tree, tokens: Sequence[int]) -> int:
    """Of each of these tokens, over the plan's sockets as well as over the reference's."""
    counts = Counter(dict.fromkeys(tokens, 0))
    for (account_id, token), packets in tree.ticks.packets.items():
        if account_id != REFERENCE and token in counts:
            counts[token] = len(packets)
    reference = (len(tree.ticks.packets.get((REFERENCE, token), ())) for token in tokens)
    return min(*counts.values(), *reference)


async def wait_flowing(tree: Tree, tokens: Sequence[int]) -> None:
    with trio.fail_after(10):
        while not all((REFERENCE, token) in tree.ticks.packets for token in tokens):  # noqa: ASYNC110
            await trio.sleep(0.05)


async def wait_quiet(tree: Tree) -> Mapping[str, Sequence[Mapping[str, int]]]:
    """Freeze the market; the ledger once nothing arrives any more."""
    await tree.simulator.freeze()
    with trio.fail_after(10):
        before = -1
        while before != (before := tree.ticks.counts.total()):  # noqa: ASYNC110
            await trio.sleep(0.5)
    ledger: Mapping[str, Sequence[Mapping[str, int]]] = await tree.simulator.get("ledger")
    return ledger
