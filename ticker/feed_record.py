"""Where one market-data connection stands: its state, its counts, and the hole it may have left."""

from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from ticker.errors import (
    FeedClosedError,
    FeedSilentError,
    FeedThrottledError,
    FeedUnreachableError,
    HandshakeRejectedError,
    TokenRejectedError,
)
from ticker.kite.text import BrokerErrorMessage, ServerText, UnknownText
from ticker.messages import ConnectionId, FeedState, FeedStatus, Gap, GapReason
from ticker.metrics import Metrics

_REASONS: Final[dict[type[Exception], GapReason]] = {
    FeedSilentError: "silent",
    FeedClosedError: "closed",
    FeedUnreachableError: "unreachable",
    TokenRejectedError: "token_rejected",
    FeedThrottledError: "throttled",
    HandshakeRejectedError: "rejected",
}


class FeedRecord:
    """The memory of one connection across its reconnects; one shard's tasks write it.

    Each transition is reported at once, as a FeedStatus, a metric and a log line. A connection is
    live from the first binary message after everything planned was asked for, and until it fails.
    Between the two lies a gap; the methods that open and end one return it, to be sent on.
    """

    def __init__(
        self,
        connection: ConnectionId,
        *,
        count_target: Callable[[], int],
        report: Callable[[FeedStatus], None],
        metrics: Metrics,
        wall_clock: Callable[[], float],
    ) -> None:
        self.connection = connection
        self.subscribed = 0
        self._count_target = count_target
        self._report = report
        self._wall_clock = wall_clock
        self._log = structlog.get_logger().bind(
            account=connection.account_id, shard=connection.shard
        )
        self._state: FeedState = "idle"
        self._since = wall_clock()
        self._restored = False
        self._live_at: float | None = None
        self._message_at = 0.0
        self._failures = 0
        self._last_error: str | None = None
        self._gap: Gap | None = None
        names = (connection.account_id, str(connection.shard))
        self._frames = metrics.feed_frames.labels(*names)
        self._last_data = metrics.last_data.labels(*names)
        self._last_heartbeat = metrics.last_heartbeat.labels(*names)
        self._connected = metrics.connected
        self._reconnects = metrics.reconnects
        self._subscriptions = metrics.subscriptions.labels(connection.account_id)
        self._unsubscriptions = metrics.unsubscriptions.labels(connection.account_id)
        self._anomalies = metrics.wire_anomalies
        self._task_failures = metrics.task_failures.labels("stream_shard")

    @property
    def target(self) -> int:
        """How many instruments the plan wants here."""
        return self._count_target()

    def enter(self, state: FeedState) -> None:
        """Note a transition. In every state but ``live`` nothing is subscribed to begin with."""
        if state != "live":
            self.subscribed = 0
            self._restored = False
        if state != self._state:
            self._since = self._wall_clock()
            self._log.info("feed_state", state=state, was=self._state)
        self._state = state
        self._show_connected(state)
        self.report()

    def _show_connected(self, state: FeedState) -> None:
        """1 while live, 0 while it should be; no sample for a socket that the plan does not use."""
        names = (self.connection.account_id, str(self.connection.shard))
        if state == "idle":
            self._connected.remove(*names)
        else:
            self._connected.labels(*names).set(state == "live")

    def note_subscribed(self, tokens: int, *, added: int, removed: int) -> None:
        """The socket has been asked for everything planned: so many instruments."""
        self._subscriptions.inc(added)
        self._unsubscriptions.inc(removed)
        self.subscribed = tokens
        self._restored = True
        self.report()

    def note_message(self, received_at: float, *, is_heartbeat: bool) -> Gap | None:
        """A binary message arrived at this UNIX time; returns the gap that it ends, if any."""
        self._message_at = received_at
        self._frames.inc()
        (self._last_heartbeat if is_heartbeat else self._last_data).set(received_at)
        if self._state == "live" or not self._restored:
            return None
        self._live_at = received_at
        self._last_error = None
        self.enter("live")
        return self.end_gap(received_at)

    def note_text(self, text: ServerText) -> None:
        """The broker said something: count what means nothing to us, log what it complains of."""
        if isinstance(text, UnknownText):
            self._anomalies.labels(text.kind).inc()
        elif isinstance(text, BrokerErrorMessage):
            self._log.warning("broker_complains", text=text.text)

    def note_failure(self, error: Exception, state: FeedState, delay_s: float) -> Gap | None:
        """The connection failed, or could not be opened; returns the gap that begins, if any."""
        reason = _REASONS.get(type(error), "closed")
        begun = None
        if self._state == "live":
            begun = self._gap = Gap(
                reason=reason,
                from_ts=self._message_at,
                to_ts=self._wall_clock(),
                account_id=self.connection.account_id,
                shard=self.connection.shard,
                instruments=self.subscribed,
                ended=False,
            )
        self._failures += 1
        self._last_error = str(error)
        self._reconnects.labels(self.connection.account_id, reason).inc()
        self._task_failures.inc()
        self._log.warning("feed_failed", reason=reason, error=str(error), delay_s=round(delay_s, 2))
        self.enter(state)
        return begun

    def end_gap(self, ended_at: float) -> Gap | None:
        """The gap that is open, closed at this UNIX time; None if there is none."""
        gap, self._gap = self._gap, None
        return msgspec.structs.replace(gap, to_ts=ended_at, ended=True) if gap else None

    def report(self) -> None:
        """Hand the present status on."""
        self._report(
            FeedStatus(
                connection=self.connection,
                state=self._state,
                since=self._since,
                live_at=self._live_at,
                subscribed=self.subscribed,
                target=self.target,
                reconnects=self._failures,
                last_error=self._last_error,
            )
        )
