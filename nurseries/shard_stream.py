"""One market-data socket, kept on plan: connected, subscribed, listened to.

::

    stream_shard
    ├── read_feed               socket → frames; silence is a failure
    ├── _leave_replaced         other credentials are a reason to reconnect
    └── reconcile               plan → socket, by difference
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from nurseries.supervise import RestartPolicy
from ticker.accounts.credentials import Credentials
from ticker.errors import (
    FeedClosedError,
    FeedError,
    FeedSilentError,
    FeedThrottledError,
    TokenRejectedError,
)
from ticker.feed_record import FeedRecord
from ticker.instruments.registry import TickMode
from ticker.kite.difference import subscription_difference
from ticker.kite.socket import FeedSocket
from ticker.kite.text import ServerText, parse_text
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedState, Frame, Gap
from ticker.planning.plan import Plan

OnText = Callable[[ConnectionId, ServerText], None]
ExpectsTicks = Callable[[ConnectionId], bool]
"""Whether the market is open for what a connection carries."""

HEARTBEAT_SIZE_MAX: Final = 1
"""A binary message too short for a packet count is a sign of life, whatever its value."""


def ignore_text(connection: ConnectionId, text: ServerText) -> None:
    """Do nothing about a text message; what is odd about it has been counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPolicy:
    """How an account's sockets behave; the defaults suit the broker.

    ``silence_s``: nothing at all for so long means a dead socket; heartbeats come each second.
    ``mute_s``: heartbeats without a tick for so long, while ticks are to be expected, likewise.
    ``connect_spacing_s``: the least time between two handshakes of the account.
    ``token_retry_s``: how long a refused token rests before it is tried again if no new one
    comes, because during nightly maintenance the broker refuses good tokens too; up to half is
    added at random.
    """

    sockets: int = 3
    tokens_per_message: int = 500
    silence_s: float = 5.0
    mute_s: float = 60.0
    connect_timeout_s: float = 10.0
    connect_spacing_s: float = 0.25
    token_retry_s: float = 60.0
    restart: RestartPolicy = field(
        default_factory=lambda: RestartPolicy(
            expected=(FeedError,), delay_floors_s={FeedThrottledError: 30.0}
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What the tasks of one shard share: where it stands, what steers it, and its ways out."""

    record: FeedRecord
    plans: Latest[Plan]
    credentials: Latest[Credentials]
    turnstile: "Turnstile"
    connect: Callable[[Credentials], AbstractAsyncContextManager[FeedSocket]]
    frames: trio.MemorySendChannel[Frame]
    gaps: trio.MemorySendChannel[Gap]
    on_text: OnText
    expects_ticks: ExpectsTicks
    wall_clock: Callable[[], float]
    policy: StreamPolicy

    def wanted(self) -> Mapping[int, TickMode]:
        """What this shard's socket should carry now."""
        return self.plans.value.shard(self.record.connection)

    def note_failure(self, error: Exception, delay_s: float) -> None:
        """What the supervisor calls before it waits and restarts the shard."""
        self.fail(error, "backing_off", delay_s)

    async def wait_retry(self, delay_s: float) -> None:
        """Return after the delay, or as soon as there is another token to try."""
        await _wait_replaced(self.credentials, self.credentials.value, delay_s)

    def fail(self, error: Exception, state: FeedState, delay_s: float) -> None:
        gap = self.record.note_failure(error, state, delay_s)
        if gap is not None:
            # A full channel must not hold the reconnect up: this event is then left out, and
            # the one that ends the gap, which is never left out, tells the whole of it.
            with suppress(trio.WouldBlock):
                self.gaps.send_nowait(gap)


class Turnstile:
    """Lets one connection attempt through at a time, with a pause between any two."""

    def __init__(self, spacing_s: float) -> None:
        self._spacing_s = spacing_s
        self._next_at = 0.0

    async def wait_turn(self) -> None:
        """Return when this caller may connect; first come, first served."""
        turn_at = max(trio.current_time(), self._next_at)
        self._next_at = turn_at + self._spacing_s
        await trio.sleep_until(turn_at)


async def stream_shard(shard: Shard) -> None:
    """Hold one socket on plan while the plan wants it and the token is good; wait otherwise.

    Runs until cancelled. Raises FeedError, bare or in a group, when the connection fails.
    """
    record = shard.record
    while True:
        await _wait_wanted(shard)
        await shard.turnstile.wait_turn()
        credentials = shard.credentials.value
        record.enter("connecting")
        try:
            async with shard.connect(credentials) as socket, trio.open_nursery() as nursery:
                nursery.start_soon(read_feed, shard, socket)
                nursery.start_soon(_leave_replaced, shard.credentials, credentials)
                await reconcile(shard, socket)
                nursery.cancel_scope.cancel()
        except TokenRejectedError as error:
            delay_s = shard.policy.token_retry_s * (1 + shard.policy.restart.jitter() / 2)
            shard.fail(error, "waiting_for_token", delay_s)
            await _wait_replaced(shard.credentials, credentials, delay_s)


async def _wait_wanted(shard: Shard) -> None:
    """Return once the plan wants this shard and there is an access token to open it with."""
    record = shard.record
    if not shard.wanted():
        record.enter("idle")
        await _send_gap(shard, record.end_gap(shard.wall_clock()))
        await shard.plans.wait_until(lambda plan: bool(plan.shard(record.connection)))
    if not shard.credentials.value.access_token:
        record.enter("waiting_for_token")
        await shard.credentials.wait_until(lambda newest: bool(newest.access_token))


async def _wait_replaced(
    newest: Latest[Credentials], rejected: Credentials, delay_max_s: float
) -> None:
    with trio.move_on_after(delay_max_s):
        await newest.wait_until(lambda credentials: credentials != rejected)


async def _leave_replaced(newest: Latest[Credentials], used: Credentials) -> None:
    """Raise as soon as there are others: sockets of a dead token may just go mute."""
    await newest.wait_until(lambda credentials: credentials != used)
    raise FeedClosedError("reconnecting with other credentials")


async def read_feed(shard: Shard, socket: FeedSocket) -> None:
    """Pass on what arrives until the socket fails; raise FeedSilentError when nothing does."""
    connection, policy = shard.record.connection, shard.policy
    silence_s, mute_s, data_at = policy.silence_s, policy.mute_s, trio.current_time()
    while True:
        try:
            # Around this await only: while the frames' reader is behind, we do not listen, and
            # what we do not hear is no silence of the broker's.
            with trio.fail_after(silence_s):
                message = await socket.receive()
        except trio.TooSlowError:
            raise FeedSilentError(f"nothing arrived for {silence_s:g} s") from None
        if isinstance(message, str):
            text = parse_text(message)
            shard.record.note_text(text)
            shard.on_text(connection, text)
            continue
        received_at = shard.wall_clock()
        is_heartbeat = len(message) <= HEARTBEAT_SIZE_MAX
        if not is_heartbeat:
            data_at = trio.current_time()
        elif trio.current_time() - data_at > mute_s and shard.expects_ticks(connection):
            raise FeedSilentError(f"only heartbeats arrived for {mute_s:g} s in market hours")
        await _send_gap(shard, shard.record.note_message(received_at, is_heartbeat=is_heartbeat))
        if is_heartbeat:
            continue
        frame = Frame(message, received_at, connection)
        try:
            shard.frames.send_nowait(frame)
        except trio.WouldBlock:
            # Backpressure: unread bytes fill the TCP window, and the broker sends less. No frame
            # is dropped here, and nothing piles up here.
            await shard.frames.send(frame)


async def reconcile(shard: Shard, socket: FeedSocket) -> None:
    """Keep what the socket carries equal to the plan; return when the plan wants nothing of it.

    A new socket carries nothing, so a reconnect restores everything, modes included.
    """
    current: Mapping[int, TickMode] = {}
    version = 0
    while True:
        version = await shard.plans.wait_newer(version)
        wanted = shard.wanted()
        if not wanted:
            return
        for message in subscription_difference(
            current, wanted, tokens_per_message=shard.policy.tokens_per_message
        ):
            await socket.send(message)
        shard.record.note_subscribed(
            len(wanted),
            added=len(wanted.keys() - current.keys()),
            removed=len(current.keys() - wanted.keys()),
        )
        current = wanted


async def _send_gap(shard: Shard, gap: Gap | None) -> None:
    if gap is not None:
        await shard.gaps.send(gap)  # when full, the feed waits: a gap is not to be lost
