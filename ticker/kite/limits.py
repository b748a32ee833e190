"""The broker's rate limits, kept as the broker counts them: by calendar second of its own clock.

A call is counted in the second in which it arrives, which nobody tells us. What is known: it was
not before the call was sent, hardly more than ``ARRIVAL_MAX_S`` after, and not in a later second
than the one in the answer's ``Date``. A call takes a place in every second in which it may have
arrived, and another goes out only in a second that has a place for certain. So the limits hold
whatever the latency, and a broker that answers promptly is still asked at its full rate.
"""

import email.utils
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import trio

from ticker.errors import BrokerBusyError

CallClass = Literal["quote", "historical", "other"]

CALLS_PER_S: Final[Mapping[CallClass, int]] = MappingProxyType(
    {"quote": 1, "historical": 3, "other": 10}
)
"""Calls in a second, by api_key (Kite Connect v3, 2026)."""

ARRIVAL_MAX_S: Final = 1.0
"""A call has arrived, or has been lost, this long after it was sent."""

_GUARD_S: Final = 0.002
"""How far behind the beginning of a second the first call of it is sent."""


class BrokerClock:
    """The broker's clock as a range, in UNIX seconds above ``trio.current_time()``.

    It begins with this machine's clock, half a second to either side. Each ``Date`` narrows it;
    one that contradicts it starts it anew: one of the two clocks was set.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        offset_s = wall_clock() - trio.current_time()
        self.low_s = offset_s - 0.5
        self.high_s = offset_s + 0.5

    def observe(self, date_s: int, sent_at: float, answered_at: float) -> None:
        """Learn from an answer of the second ``date_s`` to a call between two Trio times."""
        low_s, high_s = date_s - answered_at, date_s + 1 - sent_at
        if max(low_s, self.low_s) <= min(high_s, self.high_s):
            low_s, high_s = max(low_s, self.low_s), min(high_s, self.high_s)
        self.low_s, self.high_s = low_s, high_s


def parse_date(header: str | None) -> int | None:
    """The UNIX second of a ``Date`` header; None if there is none that can be read."""
    if not header:
        return None
    try:
        return int(email.utils.parsedate_to_datetime(header).timestamp())
    except (ValueError, OverflowError):
        return None


@dataclass(slots=True, eq=False)
class Place:
    """One call's place: when it was sent and answered, Trio times, and in which second."""

    sent_at: float
    answered_at: float = math.inf
    second: int | None = None

    def seconds(self, clock: BrokerClock) -> tuple[int, int]:
        """First and last of the broker's seconds in which the call may have been counted."""
        first = math.floor(self.sent_at + clock.low_s)
        arrived_at = min(self.answered_at, self.sent_at + ARRIVAL_MAX_S)
        last = math.floor(arrived_at + clock.high_s)
        return first, max(first, last if self.second is None else min(last, self.second))


class RateLimit:
    """The limit of one class of calls of one api_key: first come, first served."""

    def __init__(self, calls_per_s: int, clock: BrokerClock) -> None:
        self._calls_per_s = calls_per_s
        self._clock = clock
        self._turn = trio.StrictFIFOLock()
        # some three seconds' worth of calls: older ones take no place, and are let go
        self._places: deque[Place] = deque()
        self._changed = trio.Event()
        self._held_until = -math.inf
        # at most as many as the limit lets through before their deadlines: the next is refused
        self._waiting = 0

    async def take(self, deadline: float) -> Place:
        """Wait for a turn and take a place: send the call at once, and ``settle`` it afterwards.

        Raises BrokerBusyError when the turn will not come, or has not come, before ``deadline``,
        a Trio time.
        """
        wait_s = self._expected_wait_s()
        if trio.current_time() + wait_s > deadline:
            raise _busy(wait_s)
        self._waiting += 1
        try:
            with trio.move_on_at(deadline):
                async with self._turn:
                    while (delay_s := self._delay_s(trio.current_time())) > 0:
                        self._changed = trio.Event()
                        with trio.move_on_after(delay_s):
                            await self._changed.wait()
                    self._places.append(place := Place(trio.current_time()))
                    return place
        finally:
            self._waiting -= 1
        raise _busy(self._expected_wait_s())

    def settle(self, place: Place, date_s: int | None = None) -> None:
        """The call has ended; ``date_s``: the broker's second in its answer, if there was one."""
        place.answered_at, place.second = trio.current_time(), date_s
        if date_s is not None:
            self._clock.observe(date_s, place.sent_at, place.answered_at)
        self._changed.set()

    def hold(self, delay_s: float) -> None:
        """Let nothing through for a while: the broker has said that it was too much."""
        self._held_until = max(self._held_until, trio.current_time() + delay_s)

    def _expected_wait_s(self) -> float:
        held_s = max(self._held_until - trio.current_time(), 0.0)
        return held_s + self._waiting // self._calls_per_s

    def _delay_s(self, now: float) -> float:
        """Seconds until it is worth looking again; 0 if there is a place now."""
        if now < self._held_until:
            return self._held_until - now
        first = math.floor(now + self._clock.low_s)
        last = math.floor(now + self._clock.high_s)
        while self._places and self._places[0].seconds(self._clock)[1] < first:
            self._places.popleft()
        spans = [place.seconds(self._clock) for place in self._places]
        for second in range(last, first - 1, -1):
            if sum(since <= second <= until for since, until in spans) >= self._calls_per_s:
                return second + 1 - self._clock.low_s - now + _GUARD_S
        return 0.0


class RateLimits:
    """The limits of one api_key, by class of calls."""

    def __init__(self, clock: BrokerClock) -> None:
        self._limits = {kind: RateLimit(calls, clock) for kind, calls in CALLS_PER_S.items()}

    def of(self, kind: CallClass) -> RateLimit:
        return self._limits[kind]


def _busy(retry_after_s: float) -> BrokerBusyError:
    return BrokerBusyError("calls to the broker wait for its rate limit", max(retry_after_s, 1.0))
