"""Events on their way out: what others tell, and the publisher's own gap after an outage."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from ticker.messages import Event, Gap
from ticker.publishers.accounting import PublishAccounting
from ticker.publishers.resp import SERVER_STATES, Replies

EVENTS_MAX: Final = 1024
"""Events that wait for Redis. When full the oldest goes, and is counted: consumers have missed
more than that one, and the publisher's own gap covers all of them."""


@dataclass
class _Outage:
    """Since when Redis is away, the first message it missed, and the ticks conflated since."""

    from_ts: float
    from_seq: int | None
    conflated: int = 0
    waiting_seq: int | None = None
    """The lowest that waited when consumers were last told: what is conflated later is above."""


class PendingEvents:
    """The events that wait to be published; an outage's own comes before all others."""

    def __init__(self, accounting: PublishAccounting) -> None:
        self._accounting = accounting
        self._events: deque[Event] = deque()
        self._outage: _Outage | None = None

    def __len__(self) -> int:
        return len(self._events) + self.is_outage

    @property
    def waiting(self) -> int:
        """How many events of others wait."""
        return len(self._events)

    @property
    def is_outage(self) -> bool:
        """Whether an outage has begun that consumers were not told of yet."""
        return self._outage is not None

    def add(self, event: Event) -> None:
        """Append what another task has to tell."""
        self._events.append(event)
        self._trim(EVENTS_MAX, "overflow")

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

    def take(self, now_ts: float, waiting: tuple[int, int] | None) -> list[Event]:
        """Remove and return all events, first things first; to be given back by ``settle``.

        ``waiting``: lowest and highest sequence number that wait, if any do.
        """
        taken: list[Event] = [*self._events]
        self._events.clear()
        if self._outage:
            lowest, highest = waiting or (None, None)
            self._outage.waiting_seq = lowest
            outage = Gap(
                reason="redis",
                from_ts=self._outage.from_ts,
                # the wall clock may have leapt back
                to_ts=max(now_ts, self._outage.from_ts),
                from_seq=self._outage.from_seq,
                to_seq=highest,
                conflated=self._outage.conflated,
            )
            taken.insert(0, outage)
        return taken

    def settle(self, sent: list[Event], replies: Replies) -> None:
        """Account for what the first ``len(sent)`` replies answered; the others wait again.

        An event that is refused for itself goes too: it would be refused again.
        """
        refused = {position: code for position, code, _ in replies.refusals}
        back: list[Event] = []
        for position, event in enumerate(sent):
            is_own = isinstance(event, Gap) and event.reason == "redis"
            if position >= replies.answered or refused.get(position) in SERVER_STATES:
                if not is_own:
                    back.append(event)
                continue
            if isinstance(event, Gap) and is_own:
                self._told(event)
            if position in refused:
                self._accounting.events_dropped(1, "refused")
            else:
                self._accounting.event(event)
        self._events.extendleft(reversed(back))
        self._trim(EVENTS_MAX, "overflow")

    def drop_rest(self) -> None:
        """Count the events that are left as dropped."""
        self._trim(0, "shutdown")

    def _told(self, gap: Gap) -> None:
        """Consumers know of the outage; ticks conflated since the gap was sent are yet to tell."""
        if self._outage:
            untold = self._outage.conflated - gap.conflated
            follow_up = _Outage(gap.to_ts, self._outage.waiting_seq, untold)
            self._outage = follow_up if untold else None

    def _trim(self, count: int, reason: str) -> None:
        excess = max(len(self._events) - count, 0)
        for _ in range(excess):
            self._events.popleft()
        self._accounting.events_dropped(excess, reason)
