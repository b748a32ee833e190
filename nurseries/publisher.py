"""Snapshots to Redis. Ticks never wait for it: what it cannot take is replaced by newer values."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
import structlog
import trio

from ticker.circuit_breaker import BreakerPolicy, CircuitBreaker
from ticker.errors import PublishError, RedisReplyError, RedisTimeoutError
from ticker.messages import Event, SnapshotBatch
from ticker.metrics import Metrics
from ticker.publishers.accounting import PublishAccounting, error_kind
from ticker.publishers.events import PendingEvents
from ticker.publishers.outbox import Outbox, Parcel
from ticker.publishers.outputs import Outputs
from ticker.publishers.pace import Pace
from ticker.publishers.redis import RedisConnection, load_tls, open_redis, parse_redis_url
from ticker.publishers.resp import SERVER_STATES, Replies, pack
from ticker.publishers.status import PublisherStatus

T = TypeVar("T")


class PublishPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How to publish; times in seconds.

    ``batch_max``: messages in one batch (1: no batching), and no more than Redis lately took
    within ``window_s``. ``timeout_s``: deadline of a batch and of a connection attempt.
    ``retry_s`` passes after a failure, ``probe_interval_s`` between probes of an open circuit;
    a connection that is idle for ``idle_ping_s`` is asked whether it is alive.

    More than ``pending_max`` messages, or one older than ``pending_age_max_s``, are conflated.
    ``drain_timeout_s``: how long the last messages may take once the input has ended.
    ``last_values``, ``stream_max_length``, ``mock_suffix``: see ``Outputs``.
    """

    batch_max: int = 1000
    window_s: float = 0.1
    timeout_s: float = 1.0
    breaker: BreakerPolicy = BreakerPolicy()
    retry_s: float = 0.1
    probe_interval_s: float = 0.5
    idle_ping_s: float = 0.5
    pending_max: int = 20_000
    pending_age_max_s: float = 0.25
    drain_timeout_s: float = 5.0
    last_values: bool = False
    stream_max_length: int = 0
    mock_suffix: str = ""


async def publish(
    snapshots: trio.MemoryReceiveChannel[SnapshotBatch],
    events: trio.MemoryReceiveChannel[Event],
    *,
    url: str,
    prefix: str,
    policy: PublishPolicy,
    metrics: Metrics,
    report: Callable[[PublisherStatus], None],
    wall_clock: Callable[[], float],
) -> None:
    """Publish every batch, and every event on ``{prefix}:events``, until ``snapshots`` is closed.

    Both channels are read at once, whatever Redis does. While it keeps up, messages go out in
    order and none is left out; while it is slow or away, the newest per instrument is kept and
    the others are counted as conflated. What is not valid any more when its turn comes is counted
    as dropped, reason ``market_open``. After it was away a gap event comes first. A message
    whose acknowledgement was lost with its connection is sent again: ``seq`` tells.

    Returns when ``snapshots`` is closed and all is acknowledged, or ``drain_timeout_s`` later;
    what is left then, or when it is cancelled, in the channels too, is counted as dropped, reason
    ``shutdown``. No failure of Redis ends it. Raises ConfigurationError for a bad URL.
    ``wall_clock``: UNIX seconds.
    """
    parse_redis_url(url)
    sender = _Sender(
        prefix, policy, PublishAccounting(metrics, policy.batch_max), report, wall_clock
    )
    # closed without a checkpoint after the last look into them, or a sender might slip in between
    with snapshots, events:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.run, url)
                nursery.start_soon(_receive_events, events, sender)
                async for batch in snapshots:
                    sender.add(batch)
                _receive_rest(events, sender.add_event)
                with trio.move_on_after(policy.drain_timeout_s):
                    await sender.wait_empty()
                nursery.cancel_scope.cancel()
        finally:
            _receive_rest(snapshots, sender.add)
            _receive_rest(events, sender.add_event)
            sender.drop_rest()


def _receive_rest(channel: trio.MemoryReceiveChannel[T], take: Callable[[T], None]) -> None:
    with suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            take(channel.receive_nowait())


async def _receive_events(events: trio.MemoryReceiveChannel[Event], sender: "_Sender") -> None:
    async for event in events:
        sender.add_event(event)


class _Sender:
    """What waits to be published, and the one task that sends it."""

    def __init__(
        self,
        prefix: str,
        policy: PublishPolicy,
        accounting: PublishAccounting,
        report: Callable[[PublisherStatus], None],
        wall_clock: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._accounting = accounting
        self._report = report
        self._wall_clock = wall_clock
        self._events_channel = f"{prefix}:events"
        self._outputs = Outputs(
            prefix, policy.last_values, policy.stream_max_length, policy.mock_suffix
        )
        self._log = structlog.get_logger().bind(task="publish")

        self._outbox = Outbox(policy.pending_max)
        self._events = PendingEvents(accounting)
        self._in_flight = 0
        self._arrived = trio.Event()
        self._settled = trio.Event()

        self._circuit = CircuitBreaker(policy.breaker)
        self._pace = Pace(policy.batch_max, policy.batch_max, policy.window_s)
        self._answered_ts = wall_clock()
        self._status = PublisherStatus()

    def add(self, batch: SnapshotBatch) -> None:
        """Take a batch; never waits."""
        self._outbox.add(batch, trio.current_time())
        if self._events.is_outage and len(batch):
            self._events.miss(int(batch.seqs[0]))
        if self._outbox.is_full:
            self._conflate()
        self._arrived.set()

    def add_event(self, event: Event) -> None:
        """Take an event; never waits."""
        self._events.add(event)
        self._arrived.set()

    async def wait_empty(self) -> None:
        """Return when nothing waits and nothing is under way."""
        while self._outbox or self._events.waiting or self._in_flight:
            self._settled = trio.Event()
            await self._settled.wait()

    def drop_rest(self) -> None:
        """Count what is left as dropped."""
        self._events.drop_rest()
        tally = self._outbox.take(len(self._outbox)).tally()
        self._accounting.dropped(tally, "shutdown")
        self._stand(connected=False)
        if tally.messages:
            self._log.warning("messages_dropped", reason="shutdown", messages=tally.messages)

    async def run(self, url: str) -> None:
        """Send what there is, over as many connections as it takes; until cancelled."""
        policy = self._policy
        tls = await load_tls(url)  # once: not for each attempt
        while True:
            self._circuit = self._circuit.at(trio.current_time())
            try:
                async with open_redis(url, tls=tls, timeout_s=policy.timeout_s) as connection:
                    self._connected()
                    while True:
                        await self._serve(connection)
            except PublishError as error:
                self._failed(error)
            is_open = self._circuit.state == "open"
            await trio.sleep(policy.probe_interval_s if is_open else policy.retry_s)

    async def _serve(self, connection: RedisConnection) -> None:
        """Send one batch of whatever waits; if nothing does, see that Redis is there."""
        if self._outbox or self._events:
            await self._send_batch(connection)
            return
        self._arrived = trio.Event()
        with trio.move_on_after(self._policy.idle_ping_s) as idle:
            await self._arrived.wait()
        if idle.cancelled_caught:
            await connection.ping()
            self._succeeded()

    async def _send_batch(self, connection: RedisConnection) -> None:
        oldest_at, began_at = self._outbox.oldest_at, trio.current_time()
        if oldest_at is not None and began_at - oldest_at > self._policy.pending_age_max_s:
            self._conflate()
        seqs = self._outbox.seq_range() if self._events.is_outage else None
        told = self._events.take(self._wall_clock(), seqs)
        parcel, over = self._outbox.take(self._pace.limit).valid(self._wall_clock())
        self._accounting.dropped(over.tally(), "market_open")
        self._in_flight = len(told) + parcel.size
        if not self._in_flight:
            self._stand(connected=True, last_error=self._status.last_error)
            self._settled.set()
            await trio.lowlevel.checkpoint()  # there may be many such batches
            return
        extras, extra_count = self._outputs.pack(parcel)
        events = b"".join(
            pack("PUBLISH", self._events_channel, msgspec.json.encode(event)) for event in told
        )
        commands = parcel.commands()
        if events or extras:
            commands = b"".join((events, commands, extras))
        replies = Replies(len(told) + parcel.size + extra_count)
        try:
            await connection.send(commands, replies)
        except RedisTimeoutError:
            self._pace = self._pace.timed_out(replies)
            raise
        finally:
            self._settle(told, parcel, replies, trio.current_time() - began_at)
        if error := replies.state_error():
            raise error
        if len(replies.refusals) == replies.expected:
            raise RedisReplyError(replies.refusals[0].code, replies.refusals[0].text)
        if parcel:
            self._pace = self._pace.succeeded(parcel.size, replies)
        self._succeeded()

    def _settle(
        self, told: list[Event], parcel: Parcel, replies: Replies, elapsed_s: float
    ) -> None:
        """Account for each message of a batch; what has no answer goes back."""
        self._events.settle(told, replies)
        first = len(told)
        answered, back = parcel.split(max(replies.answered - first, 0))
        acknowledged = answered
        if replies.refusals:
            own = {
                position - first: code
                for position, code, _ in replies.refusals
                if first <= position < first + parcel.size
            }
            later = [position for position, code in own.items() if code in SERVER_STATES]
            _, acknowledged = answered.sift(own)
            for code, commands in Counter(code for _, code, _ in replies.refusals).items():
                self._accounting.refused(code, commands)
            self._accounting.dropped(answered.sift(own.keys() - later)[0].tally(), "refused")
            back = Parcel([*answered.sift(later)[0], *back])
        self._outbox.put_back(back)
        self._in_flight = 0
        if acknowledged:
            self._published(acknowledged, elapsed_s)
        self._settled.set()

    def _published(self, parcel: Parcel, elapsed_s: float) -> None:
        now = self._wall_clock()
        # the wall clock may have leapt back
        age_s = max(now - parcel.oldest_received_at(), 0.0)
        tally = parcel.tally()
        self._accounting.published(tally, elapsed_s=elapsed_s, age_s=age_s)
        self._status = msgspec.structs.replace(
            self._status,
            published=self._status.published + tally.messages,
            age_s=age_s,
            last_acknowledged_at=now,
        )

    def _conflate(self) -> None:
        tally = self._outbox.conflate()
        self._accounting.conflated(tally, self._circuit.state)
        self._events.conflate(tally.ticks.total())

    def _connected(self) -> None:
        if self._events.is_outage:
            self._conflate()  # while the circuit is still what it was when these arrived
        self._circuit = self._circuit.probed()
        self._stand(connected=True, last_error=self._status.last_error)

    def _succeeded(self) -> None:
        before, self._circuit = self._circuit.state, self._circuit.succeeded()
        self._answered_ts = self._wall_clock()
        if self._status.last_error is not None or self._circuit.state != before:
            self._log.info("redis_back", circuit=self._circuit.state)
        self._stand(connected=True)

    def _failed(self, error: PublishError) -> None:
        if not self._events.is_outage:
            seqs = self._outbox.seq_range()
            self._events.begin_outage(self._answered_ts, seqs[0] if seqs else None)
        self._conflate()
        kind, before = error_kind(error), self._circuit.state
        self._accounting.failed(kind, before)
        self._circuit = self._circuit.failed(trio.current_time())
        if kind != self._status.last_error or self._circuit.state != before:
            self._log.warning(
                "redis_away", kind=kind, error=str(error), circuit=self._circuit.state
            )
        self._stand(connected=False, last_error=kind)

    def _stand(self, *, connected: bool, last_error: str | None = None) -> None:
        pending = len(self._outbox)
        self._accounting.stands(self._circuit.state, pending)
        self._status = msgspec.structs.replace(
            self._status,
            circuit=self._circuit.state,
            connected=connected,
            pending=pending,
            last_error=last_error,
        )
        self._report(self._status)
