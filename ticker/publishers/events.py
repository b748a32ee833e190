"""Events on their way out: feed gaps, and the publisher's own gap after an outage."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ticker.messages import Gap
from ticker.publishers.resp import SERVER_STATES, Replies

EVENTS_MAX: Final = 1024
"""Feed gaps that wait for Redis. When full the oldest goes: consumers have missed more than that
one, and the publisher's own gap covers all of them."""


@dataclass
class _Outage:
    """Since when Redis is away, the first message it missed, and the ticks conflated since."""

    from_ts: float
    from_seq: int | None
    conflated: int = 0


class PendingEvents:
    """The events that wait to be published; an outage's own comes before all others."""

    def __init__(self) -> None:
        self._gaps: deque[Gap] = deque(maxlen=EVENTS_MAX)
        self._outage: _Outage | None = None

    def __len__(self) -> int:
        return len(self._gaps) + self.is_outage

    @property
    def feed_gaps(self) -> int:
        """How many feed gaps wait."""
        return len(self._gaps)

    @property
    def is_outage(self) -> bool:
        """Whether an outage has begun that consumers were not told of yet."""
        return self._outage is not None

    def add(self, gap: Gap) -> None:
        """Append a feed gap."""
        self._gaps.append(gap)

    def begin_outage(self, from_ts: float, from_seq: int | None) -> None:
        """Redis is away: ``from_ts`` is when it last answered, UNIX seconds, ``from_seq`` the
        lowest sequence number that waits, if any does.
        """
        self._outage = _Outage(from_ts, from_seq)

    def miss(self, seq: int) -> None:
        """The message with this number arrived while Redis may be away."""
        if self._outage and self._outage.from_seq is None:
            self._outage.from_seq = seq

    def conflate(self, ticks: int) -> None:
        """So many ticks were replaced by newer ones; only those of an outage are told."""
        if self._outage:
            self._outage.conflated += ticks

    def to_send(self, now_ts: float, newest_seq: int | None) -> list[Gap]:
        """All events, first things first."""
        if self._outage is None:
            return [*self._gaps]
        # the wall clock may have leapt back
        to_ts = max(now_ts, self._outage.from_ts)
        outage = Gap(
            reason="redis",
            from_ts=self._outage.from_ts,
            to_ts=to_ts,
            from_seq=self._outage.from_seq,
            to_seq=newest_seq,
            conflated=self._outage.conflated,
        )
        return [outage, *self._gaps]

    def settle(self, sent: list[Gap], replies: Replies) -> Iterator[Gap]:
        """Forget what the first ``len(sent)`` replies answered; yields what was acknowledged.

        An event that is refused for itself goes too: it would be refused again.
        """
        refused = {position: code for position, code, _ in replies.refusals}
        for position, gap in enumerate(sent[: replies.answered]):
            if refused.get(position) in SERVER_STATES:
                return
            if gap.reason == "redis":
                self._outage = None
            elif self._gaps and self._gaps[0] is gap:
                self._gaps.popleft()
            if position not in refused:
                yield gap
