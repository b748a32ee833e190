"""When an underlying trades: the market hours of all its instruments together.

An index, its options and its futures are of different segments with different hours. They are
priced from each other, so they are open or closed as one: closed when every segment is, for the
night at least. A break between two phases of one day, such as the ten minutes before the
post-close session, closes nothing.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from pathlib import Path

from ticker.calendar.market_hours import (
    Phase,
    day_end,
    day_start,
    last_covered_day,
    last_session,
    market_date,
    market_phase,
    tells_hours,
)
from ticker.errors import ConfigurationError
from ticker.instruments.registry import InstrumentRegistry


class TradingHours:
    """The calendar by underlying. Remembers the newest answers: for one thread, or under a lock.

    ``registry`` returns the instruments of now: they tell the segments of an underlying. ``path``
    replaces the calendar's file. Times are UNIX seconds.
    """

    def __init__(
        self, registry: Callable[[], InstrumentRegistry], path: Path | None = None
    ) -> None:
        self._load_registry = registry
        self._registry = registry()
        self._path = path
        self._segments: dict[str, frozenset[str]] = {}
        self._phases: dict[str, tuple[float, float, Phase | None]] = {}  # since, until
        self._breaks: dict[str, tuple[Phase, bool]] = {}  # is it a break within a day

    def segments(self, underlying: str) -> frozenset[str]:
        """Where anything of this underlying is listed; empty if nothing is."""
        registry = self._load_registry()
        if registry is not self._registry:
            self._registry = registry
            self._segments.clear()
        found = self._segments.get(underlying)
        if found is None:
            rows = registry.of_underlying(underlying)
            found = self._segments[underlying] = frozenset(row.exchange for row in rows)
        return found

    def phase(self, segment: str, now: float) -> Phase | None:
        """What the segment does at ``now``; None where the calendar does not tell."""
        since, until, phase = self._phases.get(segment, (0.0, 0.0, None))
        if not since <= now < until:
            since, until, phase = self._look_up(segment, now)
            self._phases[segment] = since, until, phase
        return phase

    def closed_since(self, underlying: str, now: float) -> float | None:
        """When the last of its segments closed; None while one of them is not closed.

        A segment, a year or a session's hours that the calendar does not know are not closed:
        whoever speaks in the market's stead must know that it is silent. ``now`` where the
        closing lies in a year that the calendar does not know.
        """
        segments = self.segments(underlying)
        closings = [self._closed_since(segment, now) for segment in segments]
        told = [closing for closing in closings if closing is not None]
        return max(told) if segments and len(told) == len(segments) else None

    def is_closed(self, underlying: str, now: float) -> bool:
        """Whether all of its segments are closed."""
        return self.closed_since(underlying, now) is not None

    def closed_until(self, underlying: str, now: float) -> float:
        """Until when it stays closed, at least, if it is closed at ``now``: a segment may open
        then, or what the calendar knows of the day ends.
        """
        segments = self.segments(underlying)
        for segment in segments:
            self.phase(segment, now)
        return min((self._phases[segment][1] for segment in segments), default=now)

    def known_until(self, segments: Iterable[str], now: float) -> float | None:
        """When the first day begins that the calendar does not know of all these segments; it lies
        in the past if that is today or earlier. None if it knows none, or not the segments.
        """
        try:
            last = last_covered_day(dt.datetime.fromtimestamp(now, dt.UTC), segments, self._path)
        except ConfigurationError:
            return None
        return day_end(last, self._path).timestamp() if last else None

    def last_session(self, segment: str, now: float) -> tuple[float, float] | None:
        """When the segment's newest continuous trading began and ended; None where the calendar
        does not tell.
        """
        try:
            session = last_session(segment, dt.datetime.fromtimestamp(now, dt.UTC), self._path)
        except ConfigurationError:
            return None
        return session and (session[0].timestamp(), session[1].timestamp())

    def _closed_since(self, segment: str, now: float) -> float | None:
        phase = self.phase(segment, now)
        if phase is None or phase.name != "closed":
            return None
        if phase.since is None:
            return now
        return None if self._is_break(segment, phase) else phase.since.timestamp()

    def _is_break(self, segment: str, phase: Phase) -> bool:
        known = self._breaks.get(segment)
        if (
            known is None or known[0] is not phase
        ):  # asked for each underlying, several times a second
            ends = (phase.since, phase.until)
            days = {self._date(at) for at in ends if at is not None}
            known = self._breaks[segment] = phase, None not in ends and len(days) == 1
        return known[1]

    def _date(self, at: dt.datetime) -> dt.date:
        return market_date(at, self._path)

    def _look_up(self, segment: str, now: float) -> tuple[float, float, Phase | None]:
        """The phase, and between which times that answer stands."""
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        try:
            if not tells_hours(segment, self._date(at), self._path):
                return now, now + 1.0, None
            phase = market_phase(segment, at, self._path)
        except ConfigurationError:
            return now, now + 1.0, None
        since = phase.since.timestamp() if phase.since else now
        until = phase.until.timestamp() if phase.until else now + 60.0
        # Of another day within a long closing it may be all that is known that there is a session.
        morning, evening = (day_start(at, later, self._path).timestamp() for later in (0, 1))
        return max(since, morning), min(until, evening), phase
