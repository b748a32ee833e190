import math
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import hypothesis
import hypothesis.strategies as st
import pytest
import trio
import trio.testing

from nurseries.account_stream import stream_account
from nurseries.shard_stream import StreamPolicy, Turnstile
from tests.memory_broker import (
    CREDENTIALS,
    TICK,
    BrokerSocket,
    MemoryBroker,
    open_memory_broker,
)
from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session
from ticker.instruments.registry import TickMode
from ticker.kite.text import BrokerErrorMessage, UnknownText
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedStatus, Frame, Gap
from ticker.metrics import Metrics
from ticker.planning.plan import Plan

EPOCH: Final = 1_700_000_000.0
"""UNIX time at the start of each test; wall time follows the virtual clock."""

Tokens = Mapping[int, TickMode]
NIFTY: Final[Tokens] = {256265: "full", 408065: "quote", 884737: "ltp"}
FIRST: Final = ConnectionId("primary", 0)


def plan_of(*shards: Tokens, account_id: str = "primary") -> Plan:
    return Plan(
        MappingProxyType(
            {ConnectionId(account_id, number): tokens for number, tokens in enumerate(shards)}
        )
    )


def session_of(credentials: Credentials = CREDENTIALS, account_id: str = "primary") -> Session:
    return Session(account_id, Latest(credentials))


def create_policy(**changes: Any) -> StreamPolicy:
    policy = StreamPolicy(**changes)
    return replace(policy, restart=replace(policy.restart, jitter=random.Random(5).random))


def wall_clock() -> float:
    return EPOCH + trio.current_time()


@dataclass
class Streams:
    """One account under test: what steers it and what came out of it."""

    plans: Latest[Plan]
    frames: trio.MemoryReceiveChannel[Frame]
    gaps: trio.MemoryReceiveChannel[Gap]
    statuses: list[FeedStatus] = field(default_factory=list)
    reported: Latest[FeedStatus | None] = field(default_factory=lambda: Latest(None))
    texts: list[object] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)

    def report(self, status: FeedStatus) -> None:
        self.statuses.append(status)
        self.reported.set(status)

    def status(self, connection: ConnectionId = FIRST) -> FeedStatus:
        statuses = [status for status in self.statuses if status.connection == connection]
        return statuses[-1] if statuses else FeedStatus(connection, "idle", EPOCH)

    def states(self, connection: ConnectionId = FIRST) -> list[str]:
        """The states in order, repetitions left out."""
        states = [status.state for status in self.statuses if status.connection == connection]
        return [state for i, state in enumerate(states) if i == 0 or state != states[i - 1]]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def wait_gap(self) -> Gap:
        with trio.fail_after(120):
            return await self.gaps.receive()

    async def wait_state(
        self, state: str, *, within_s: float, connection: ConnectionId = FIRST
    ) -> None:
        with trio.fail_after(within_s):
            await self.reported.wait_until(lambda _: self.status(connection).state == state)
            # Nothing is acknowledged: until then the broker may not have read all that was sent.
            await trio.testing.wait_all_tasks_blocked()


def create_streams(
    plan: Plan, frames_max: float, gaps_max: float
) -> tuple[Streams, dict[str, Any]]:
    """An account's surroundings, and the arguments of ``stream_account`` that lead there."""
    send_frames, frames = trio.open_memory_channel[Frame](frames_max)
    send_gaps, gaps = trio.open_memory_channel[Gap](gaps_max)
    streams = Streams(Latest(plan), frames, gaps)
    arguments: dict[str, Any] = {
        "plans": streams.plans,
        "frames": send_frames,
        "gaps": send_gaps,
        "policy": create_policy(),
        "metrics": streams.metrics,
        "report": streams.report,
        "wall_clock": wall_clock,
        "ws_root": "ws://localhost",
        "expects_ticks": lambda connection: False,
        "on_text": lambda connection, message: streams.texts.append(message),
    }
    return streams, arguments


@asynccontextmanager
async def open_streams(
    broker: MemoryBroker,
    plan: Plan,
    *,
    session: Session | None = None,
    frames_max: float = math.inf,
    gaps_max: float = math.inf,
    **changes: Any,
) -> AsyncIterator[Streams]:
    """``stream_account`` at work for the length of the block, a day at most."""
    streams, arguments = create_streams(plan, frames_max, gaps_max)
    arguments |= {"open_stream": broker.network.open_stream} | changes
    # Heartbeats keep a virtual clock running for ever: without a limit, a failure would hang.
    with trio.fail_after(24 * 3600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(stream_account, session or session_of(), **arguments))
            yield streams
            nursery.cancel_scope.cancel()


# On plan


async def test_planned_instruments_are_streamed_in_their_modes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
        (socket,) = broker.sockets
        assert socket.table == NIFTY
        assert await streams.frames.receive() == Frame(TICK, EPOCH, FIRST)
        status = streams.status()
        assert (status.subscribed, status.target, status.live_at) == (3, 3, EPOCH)
        assert streams.states() == ["connecting", "live"]
        assert streams.metric("websocket_pool_subscribed_tokens", account_id="primary") == 3
        assert streams.metric("websocket_pool_target_tokens", account_id="primary") == 3
        connected = partial(streams.metric, "websocket_pool_connected_status", account_id="primary")
        unused = None  # no sample: an alert on 0 is about sockets that should be live
        assert [connected(connection_id=shard) for shard in "012"] == [1, unused, unused]


async def test_heartbeats_keep_it_live_but_are_not_frames(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await trio.sleep(900)
        assert broker.accepted == 1
        # One per request: a subscription and three modes. The rest were heartbeats.
        assert streams.frames.statistics().current_buffer_used == 4
        frames = streams.metric("feed_frames_total", account_id="primary", shard="0")
        assert frames is not None
        assert 900 <= frames - 4 <= 902
        last = partial(streams.metric, account_id="primary", shard="0")
        assert last("feed_last_data_timestamp_seconds") == EPOCH
        heartbeat = last("feed_last_heartbeat_timestamp_seconds")
        assert heartbeat is not None
        assert heartbeat >= EPOCH + 899


async def test_shard_without_instruments_has_no_socket(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of()) as streams:
        await trio.sleep(600)
        assert broker.network.attempts == []
        streams.plans.set(plan_of({}, {1: "full"}))
        second = ConnectionId("primary", 1)
        await streams.wait_state("live", within_s=1, connection=second)
        assert [socket.table for socket in broker.sockets] == [{1: "full"}]
        assert streams.states() == ["idle"]

        streams.plans.set(plan_of())
        await streams.wait_state("idle", within_s=1.5, connection=second)
        assert broker.sockets == []
        assert streams.status(second).subscribed == 0
        assert streams.gaps.statistics().current_buffer_used == 0


async def test_requests_are_batched(autojump_clock: trio.testing.MockClock) -> None:
    tokens: Tokens = {token: "full" if token % 2 else "quote" for token in range(1200)}
    async with open_memory_broker() as broker, open_streams(broker, plan_of(tokens)) as streams:
        await streams.wait_state("live", within_s=1)
        (socket,) = broker.sockets
        assert socket.table == tokens
        subscribed = [len(m["v"]) for m in socket.messages if m["a"] == "subscribe"]
        modes = [(m["v"][0], len(m["v"][1])) for m in socket.messages if m["a"] == "mode"]
        assert subscribed == [500, 500, 200]
        assert modes == [("full", 500), ("full", 100), ("quote", 500), ("quote", 100)]
        assert [m["a"] for m in socket.messages] == ["subscribe"] * 3 + ["mode"] * 4


async def test_changed_plan_is_applied_by_difference(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
        (socket,) = broker.sockets
        socket.messages.clear()
        streams.plans.set(plan_of({256265: "ltp", 408065: "quote", 5: "full"}))
        await trio.sleep(1)
        assert socket.messages == [
            {"a": "unsubscribe", "v": [884737]},
            {"a": "subscribe", "v": [5]},
            {"a": "mode", "v": ["full", [5]]},
            {"a": "mode", "v": ["ltp", [256265]]},
        ]
        socket.messages.clear()
        # Another account's change is none of ours.
        streams.plans.set(plan_of({256265: "ltp", 408065: "quote", 5: "full"}, {}))
        await trio.sleep(1)
        assert socket.messages == []
        assert broker.accepted == 1


modes = st.sampled_from(["ltp", "quote", "full"])
plans = st.lists(
    st.lists(st.dictionaries(st.integers(1, 12), modes, max_size=6), max_size=3), max_size=8
)
pauses = st.lists(st.sampled_from([0.0, 0.001, 0.4, 30.0]), min_size=8, max_size=8)


@pytest.mark.slow
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(plans=plans, pauses=pauses, resets=st.sets(st.integers(0, 7)))
def test_any_history_of_plans_ends_on_the_last(
    plans: list[list[Tokens]], pauses: list[float], resets: set[int]
) -> None:
    async def run() -> None:
        async with (
            open_memory_broker(limit=6) as broker,
            open_streams(broker, plan_of(), policy=create_policy(tokens_per_message=2)) as streams,
        ):
            for number, (shards, pause_s) in enumerate(zip(plans, pauses, strict=False)):
                streams.plans.set(plan_of(*shards))
                await trio.sleep(pause_s)
                if number in resets:
                    for socket in broker.sockets:
                        socket.reset()
            await trio.sleep(120)
            wanted = [tokens for tokens in plans[-1] if tokens] if plans else []
            tables = [socket.table for socket in broker.sockets]
            assert sorted(map(sorted, map(dict.items, tables))) == sorted(
                sorted(tokens.items()) for tokens in wanted
            )

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


# Broken, and whole again


async def test_half_open_socket_is_noticed_and_everything_restored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
        await trio.sleep(100.5)
        (dead,) = broker.sockets
        heard_at = EPOCH + 100
        dead.mute = True
        muted_at = wall_clock()
        opening = await streams.wait_gap()
        assert wall_clock() - muted_at <= 6
        assert opening == Gap(
            reason="silent",
            from_ts=heard_at,
            to_ts=wall_clock(),
            account_id="primary",
            shard=0,
            instruments=3,
            ended=False,
        )
        assert streams.status().state == "backing_off"
        assert streams.status().last_error == "nothing arrived for 5 s"
        assert streams.metric("websocket_pool_subscribed_tokens", account_id="primary") == 0

        closing = await streams.wait_gap()
        assert wall_clock() - muted_at <= 10
        await streams.wait_state("live", within_s=0.1)
        live: list[BrokerSocket] = [socket for socket in broker.sockets if socket is not dead]
        assert [socket.table for socket in live] == [NIFTY]
        assert (closing.reason, closing.from_ts, closing.ended) == ("silent", heard_at, True)
        assert closing.to_ts == streams.status().live_at
        assert streams.status().state == "live"
        assert streams.status().reconnects == 1
        labels = {"account_id": "primary", "reason": "silent"}
        assert streams.metric("feed_reconnects_total", **labels) == 1
        assert streams.gaps.statistics().current_buffer_used == 0


@pytest.mark.parametrize("code", [1000, 1001, 1011])
async def test_closed_socket_is_opened_again(
    code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
        broker.sockets[0].close(code)
        assert (await streams.wait_gap()).reason == "closed"
        await streams.wait_state("live", within_s=1)
        assert [socket.table for socket in broker.sockets] == [NIFTY]


async def test_plan_of_the_moment_is_what_is_restored(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
        broker.status = 503
        broker.sockets[0].reset()
        await streams.wait_state("backing_off", within_s=1)
        streams.plans.set(plan_of({7: "quote"}))
        await trio.sleep(20)
        broker.status = None
        await streams.wait_state("live", within_s=60)
        assert [socket.table for socket in broker.sockets] == [{7: "quote"}]


async def test_gap_ends_when_nobody_wants_the_shard_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
        broker.status = 503
        broker.sockets[0].reset()
        assert not (await streams.wait_gap()).ended
        streams.plans.set(plan_of())
        ending = await streams.wait_gap()
        assert ending.ended
        assert ending.to_ts == wall_clock()
        assert streams.status().state == "idle"


@pytest.mark.parametrize("gaps_max", [0, 1])
async def test_gap_that_found_no_room_is_told_when_it_ends(
    gaps_max: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_memory_broker() as broker,
        open_streams(broker, plan_of(NIFTY), gaps_max=gaps_max) as streams,
    ):
        await streams.wait_state("live", within_s=1)
        for _ in range(3):
            broker.sockets[0].reset()
            await trio.sleep(100)  # nobody reads for a while
            gaps = [await streams.wait_gap() for _ in range(1 + gaps_max)]
            assert [gap.ended for gap in gaps] == [False, True][1 - gaps_max :]
            assert gaps[-1].to_ts > gaps[-1].from_ts
            await trio.sleep(100)
            assert streams.status().state == "live"
        assert broker.accepted == 4


@pytest.mark.slow
async def test_thousand_resets_are_survived_without_a_storm(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A broker that accepts, and soon resets, is asked at a bounded rate and never given up."""
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        broker.lifetime_s = 0.1
        await trio.sleep(600)
        assert broker.accepted < 50
        await trio.sleep(35_000)
        assert broker.accepted > 1000
        broker.lifetime_s = math.inf
        attempts = broker.network.attempts
        waits = [later - earlier for earlier, later in pairwise(attempts)]
        assert waits[0] < 0.6 + 0.1
        assert max(waits) < 60 + 0.2
        # Full jitter below a cap of 60 s: half a minute on average.
        assert 27 < sum(waits) / len(waits) < 33
        await trio.sleep(61)
        assert streams.status().state == "live"
        assert [socket.table for socket in broker.sockets] == [NIFTY]


async def test_flapping_socket_backs_off_and_a_healthy_spell_forgives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = create_policy()
    policy = replace(policy, restart=replace(policy.restart, jitter=lambda: 1.0))
    async with (
        open_memory_broker() as broker,
        open_streams(broker, plan_of(NIFTY), policy=policy) as streams,
    ):
        for lived_s in (5, 5, 5, 61, 5):
            await streams.wait_state("live", within_s=5)
            await trio.sleep(lived_s)
            broker.sockets[0].reset()
            await streams.wait_state("backing_off", within_s=1)
        await streams.wait_state("live", within_s=5)
        attempts = broker.network.attempts
        waits = [later - earlier for earlier, later in pairwise(attempts)]
        # Lived 5 s and waited 0.5, 1 and 2 s; lived 61 s and waited 0.5 s; 5 s and 1 s.
        assert waits == pytest.approx([5.5, 6, 7, 61.5, 6], abs=0.1)


async def test_throttled_shards_keep_quiet_for_half_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker:
        broker.status = 429
        async with open_streams(broker, plan_of(NIFTY)) as streams:
            await trio.sleep(300)
            attempts = broker.network.attempts
            assert len(attempts) >= 4
            assert min(later - earlier for earlier, later in pairwise(attempts)) >= 30
            assert streams.status().state == "backing_off"
            assert "429" in (streams.status().last_error or "")


async def test_unreachable_broker_is_tried_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts: list[float] = []

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise OSError("network is down")

    async with (
        open_memory_broker() as broker,
        open_streams(broker, plan_of(NIFTY), open_stream=open_stream) as streams,
    ):
        await trio.sleep(2 * 3600)
        # Every 30 s on average.
        assert 180 < len(attempts) < 320
        assert streams.status().last_error == "cannot connect to the broker: network is down"
        assert streams.status().live_at is None
        assert streams.gaps.statistics().current_buffer_used == 0


# Tokens


async def test_rejected_token_is_tried_slowly(autojump_clock: trio.testing.MockClock) -> None:
    """Nightly maintenance answers 403 to good tokens: no storm, and live again without help."""
    async with open_memory_broker() as broker:
        broker.status = 403
        async with open_streams(broker, plan_of(NIFTY)) as streams:
            await trio.sleep(1800)
            assert streams.states() == ["connecting", "waiting_for_token"] * len(
                broker.network.attempts
            )
            # Every 60 to 90 s.
            assert 20 <= len(broker.network.attempts) <= 31
            broker.status = None
            await streams.wait_state("live", within_s=91)


async def test_new_token_revives_a_dead_account_and_no_other_is_touched(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dying = session_of(account_id="dying")
    healthy = Credentials("key", "healthy")
    plan = Plan(
        {
            ConnectionId("dying", 0): NIFTY,
            ConnectionId("dying", 1): {1: "full"},
            ConnectionId("primary", 0): {2: "full"},
        }
    )
    async with open_memory_broker() as broker:
        broker.good_tokens.add(healthy.access_token)
        async with (
            open_streams(broker, plan, session=session_of(healthy)) as other,
            open_streams(broker, plan, session=dying) as streams,
        ):
            shards = [ConnectionId("dying", 0), ConnectionId("dying", 1)]
            for connection in shards:
                await streams.wait_state("live", within_s=1, connection=connection)
            await other.wait_state("live", within_s=1)

            broker.good_tokens.remove(CREDENTIALS.access_token)
            for socket in broker.sockets:
                if socket.credentials == CREDENTIALS:
                    socket.reset()
            for connection in shards:
                await streams.wait_state("waiting_for_token", within_s=1, connection=connection)

            broker.good_tokens.add("fresh")
            dying.credentials.set(replace(CREDENTIALS, access_token="fresh"))
            for connection in shards:
                await streams.wait_state("live", within_s=1, connection=connection)
            tables = [s.table for s in broker.sockets if s.credentials.access_token == "fresh"]
            assert sorted(map(len, tables)) == [1, 3]
            assert other.states() == ["connecting", "live"]
            assert other.status().reconnects == 0


async def test_new_token_ends_the_wait_of_a_shard_that_backs_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """At night the broker answers 5xx, which grows the delay; in the morning the token comes."""
    session = session_of(replace(CREDENTIALS, access_token="of yesterday"))
    policy = create_policy()
    patient = replace(policy.restart, delay_first_s=600.0, delay_max_s=600.0, jitter=lambda: 1.0)
    async with open_memory_broker() as broker:
        broker.status = 503
        async with open_streams(
            broker, plan_of(NIFTY), session=session, policy=replace(policy, restart=patient)
        ) as streams:
            await streams.wait_state("backing_off", within_s=1)
            broker.status = None
            session.credentials.set(CREDENTIALS)
            await streams.wait_state("live", within_s=1)


async def test_new_token_replaces_an_open_socket(autojump_clock: trio.testing.MockClock) -> None:
    """The old token may have died without a word: its socket is open, and mute."""
    session = session_of()
    async with (
        open_memory_broker() as broker,
        open_streams(broker, plan_of(NIFTY), session=session) as streams,
    ):
        await streams.wait_state("live", within_s=1)
        broker.good_tokens = {"fresh"}
        session.credentials.set(replace(CREDENTIALS, access_token="fresh"))
        await streams.wait_state("backing_off", within_s=1)
        await streams.wait_state("live", within_s=2)
        (socket,) = broker.sockets
        assert socket.credentials.access_token == "fresh"
        assert socket.table == NIFTY


@pytest.mark.parametrize("still_good", [True, False])
async def test_token_whose_day_is_over_has_to_show_that_it_still_holds(
    still_good: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A socket may outlive its token and go mute: the broker is asked, and has the last word."""
    session = session_of()
    async with (
        open_memory_broker() as broker,
        open_streams(broker, plan_of(NIFTY), session=session) as streams,
    ):
        await streams.wait_state("live", within_s=1)
        if not still_good:
            broker.good_tokens.clear()
        session.credentials.set(replace(CREDENTIALS, is_expired=True))
        await streams.wait_state("backing_off", within_s=1)
        await streams.wait_state("live" if still_good else "waiting_for_token", within_s=1)
        broker.good_tokens = {"fresh"}
        session.credentials.set(replace(CREDENTIALS, access_token="fresh"))
        await trio.sleep(2)
        assert streams.status().state == "live"


async def test_account_without_a_token_waits_for_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    session = session_of(replace(CREDENTIALS, access_token=""))
    async with (
        open_memory_broker() as broker,
        open_streams(broker, plan_of(NIFTY), session=session) as streams,
    ):
        await streams.wait_state("waiting_for_token", within_s=1)
        await trio.sleep(600)
        assert broker.network.attempts == []
        session.credentials.set(CREDENTIALS)
        await streams.wait_state("live", within_s=1)


async def test_gauges_of_an_account_end_with_it_and_its_counters_stay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
    text = streams.metrics.render().decode()
    gauges = (
        *("websocket_pool_subscribed_tokens", "websocket_pool_target_tokens"),
        *("websocket_pool_connected_status", "feed_last_data_timestamp_seconds"),
        "feed_last_heartbeat_timestamp_seconds",
    )
    assert not any(f'{name}{{account_id="primary"' in text for name in gauges)
    assert 'feed_frames_total{account_id="primary"' in text


async def test_handshakes_of_an_account_never_coincide(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plan = plan_of({1: "full"}, {2: "full"}, {3: "full"})
    async with open_memory_broker() as broker, open_streams(broker, plan):
        for _ in range(3):
            await trio.sleep(61)
            assert len(broker.sockets) == 3
            for socket in broker.sockets:
                socket.reset()
        attempts = broker.network.attempts
        assert len(attempts) == 9
        assert min(later - earlier for earlier, later in pairwise(attempts)) >= 0.25


async def test_turnstile_lets_the_first_through_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    turnstile = Turnstile(2)
    await trio.sleep(10)
    began = trio.current_time()
    passed: list[float] = []
    for _ in range(3):
        await turnstile.wait_turn()
        passed.append(trio.current_time() - began)
    await trio.sleep(10)
    await turnstile.wait_turn()
    passed.append(trio.current_time() - began)
    assert passed == [0, 2, 4, 14]


# Slow readers, odd texts, bugs, cancellation


async def test_full_channel_is_no_silence_and_loses_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_memory_broker() as broker,
        open_streams(broker, plan_of(NIFTY), frames_max=2) as streams,
    ):
        await trio.sleep(0.1)
        sent = [TICK + bytes([number]) for number in range(100)]
        for data in sent:
            await broker.sockets[0].send(data)
        await trio.sleep(300)
        assert broker.accepted == 1
        received = [(await streams.frames.receive()).data for _ in range(104)]
        assert [data for data in received if data != TICK] == sent
        await trio.sleep(60)
        assert broker.accepted == 1
        assert streams.status().state == "live"


async def test_texts_are_handed_on_and_junk_is_not_fatal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_broker() as broker, open_streams(broker, plan_of(NIFTY)) as streams:
        await streams.wait_state("live", within_s=1)
        for text in ('{"type":"error","data":"no"}', "{", '{"type":"new"}', "\x00\U0001f600"):
            await broker.sockets[0].send(text)
        await trio.sleep(1)
        assert streams.texts[0] == BrokerErrorMessage("no")
        assert [type(message) for message in streams.texts[1:]] == [UnknownText] * 3
        assert streams.metric("feed_wire_anomalies_total", kind="invalid_json") == 2
        assert streams.metric("feed_wire_anomalies_total", kind="unknown_text") == 1
        assert broker.accepted == 1


class InjectedError(Exception):
    """A bug, put into one of the callables that the streams are given."""


def fail(*args: object) -> float:
    raise InjectedError


class FailingChannel:
    """A channel whose other side has a bug."""

    def send_nowait(self, value: object) -> None:
        fail()

    async def send(self, value: object) -> None:
        fail()


@pytest.mark.parametrize(
    ("argument", "bug"),
    [
        ("on_text", fail),
        ("report", fail),
        ("wall_clock", fail),
        ("open_stream", fail),
        ("frames", FailingChannel()),
        ("gaps", FailingChannel()),
    ],
)
async def test_bug_ends_the_account_and_is_not_retried(
    argument: str, bug: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory_broker() as broker:

        async def run() -> None:
            policy = create_policy(sockets=1)
            async with open_streams(broker, plan_of(NIFTY), policy=policy, **{argument: bug}):
                await trio.sleep(1)
                await broker.sockets[0].send('{"type":"app_code"}')
                await trio.sleep(1)
                broker.sockets[0].reset()
                await trio.sleep(60)

        with pytest.RaisesGroup(InjectedError, flatten_subgroups=True):
            await run()
        assert broker.accepted <= 1
        assert not broker.network.open


async def test_bug_beside_a_broken_connection_is_not_retried(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The socket breaks in one task while the other one's bug shows."""

    async with open_memory_broker() as broker:

        def break_and_fail(connection: ConnectionId, message: object) -> None:
            broker.sockets[0].reset()
            raise InjectedError

        async def run() -> None:
            async with open_streams(broker, plan_of(NIFTY), on_text=break_and_fail):
                await trio.sleep(1)
                await broker.sockets[0].send("{}")
                await trio.sleep(60)

        with pytest.RaisesGroup(InjectedError, flatten_subgroups=True):
            await run()
        assert broker.accepted == 1


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when tasks below it have been scheduled so many times."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self._left, self._scope = steps, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if "shard" in task.name or "stream" in task.name or "read_feed" in task.name:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


@pytest.mark.slow
async def test_cancelled_at_any_checkpoint_nothing_stays_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = create_policy(sockets=2, silence_s=1.5, token_retry_s=1)
    steps, finished = 0, False
    while not finished:
        steps += 1
        async with open_memory_broker() as broker:
            with trio.CancelScope() as scope:
                instrument = CancelAfter(steps, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with open_streams(broker, plan_of(NIFTY), policy=policy) as streams:
                        await _live_through_everything(broker, streams)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert not broker.network.open
            finished = not scope.cancel_called
    assert steps > 100


async def _live_through_everything(broker: MemoryBroker, streams: Streams) -> None:
    """A start, a change of plan, a reset, a refused token, a mute socket, an empty plan."""
    await streams.wait_state("live", within_s=1)
    streams.plans.set(plan_of({1: "full"}, {2: "ltp"}))
    await trio.sleep(0.5)
    broker.sockets[0].reset()
    broker.status = 403
    await trio.sleep(1)
    broker.status = None
    await streams.wait_state("live", within_s=5)
    for socket in broker.sockets:
        socket.mute = True
    await streams.wait_state("backing_off", within_s=5)
    await streams.wait_state("live", within_s=5)
    streams.plans.set(plan_of())
    await streams.wait_state("idle", within_s=2)
    assert streams.states() == [
        *("connecting", "live", "backing_off", "connecting", "waiting_for_token"),
        *("connecting", "live", "backing_off", "connecting", "live", "idle"),
    ]
