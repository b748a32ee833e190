"""Which candles are asked for, and in which pieces: pure functions of times.

Times are aware; a time without a zone is India's, as the broker's own are. A candle belongs to a
span if it opens in it, both ends included.
"""

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ticker.errors import InvalidRequestError
from ticker.kite.models import Interval

INDIA_S: Final = 19_800
"""Seconds that India is ahead of UTC."""

INDIA: Final = dt.timezone(dt.timedelta(hours=5, minutes=30), "IST")

MINUTES: Final[Mapping[Interval, int]] = MappingProxyType(
    {
        "minute": 1,
        "3minute": 3,
        "5minute": 5,
        "10minute": 10,
        "15minute": 15,
        "30minute": 30,
        "60minute": 60,
        "day": 1440,
    }
)
"""Length of a candle."""

DAYS_MAX: Final[Mapping[Interval, int]] = MappingProxyType(
    {
        "minute": 60,
        "3minute": 100,
        "5minute": 100,
        "10minute": 100,
        "15minute": 200,
        "30minute": 200,
        "60minute": 400,
        "day": 2000,
    }
)
"""Days in one call (Kite Connect v3)."""

CALLS_MAX: Final = 4
"""Calls for one series of candles: 90,000 minutes of a share, one and a half seconds of turns."""

_MINUTE_S: Final = 60
_FIRST_YEAR: Final = 1990
_SECOND: Final = dt.timedelta(seconds=1)


class Span(NamedTuple):
    """Openings of candles, both ends included; aware."""

    since_at: dt.datetime
    until_at: dt.datetime


def parse_interval(text: str) -> Interval:
    """Raises InvalidRequestError for what is not one of the broker's intervals."""
    if text not in MINUTES:
        raise InvalidRequestError(f"an interval is one of {', '.join(MINUTES)}", field="interval")
    return cast("Interval", text)


def create_span(
    from_at: dt.datetime, to_at: dt.datetime, interval: Interval, now: dt.datetime
) -> Span:
    """The span in India's time, cut off at the end of the day of ``now``.

    Raises InvalidRequestError for times that are no range, or a range of more than ``CALLS_MAX``
    calls.
    """
    since_at, until_at = _in_india(from_at, "from_ts"), _in_india(to_at, "to_ts")
    if since_at > until_at:
        raise InvalidRequestError("from_ts has to be no later than to_ts", field="from_ts")
    today = now.astimezone(INDIA).date()
    span = Span(since_at, max(since_at, min(until_at, _midnight(today, 1) - _SECOND)))
    most = DAYS_MAX[interval] * CALLS_MAX
    if len(split(span, interval)) > CALLS_MAX:
        raise InvalidRequestError(
            f"a range of {interval} candles is of {most} days at most", field="from_ts"
        )
    return span


def split(span: Span, interval: Interval) -> list[Span]:
    """The span in pieces that the broker serves, without an overlap or a gap.

    Pieces end with a day in India: neither way of counting days exceeds the maximum.
    """
    pieces = []
    since_at = span.since_at
    while since_at <= span.until_at:
        next_at = _midnight(since_at.astimezone(INDIA).date(), DAYS_MAX[interval])
        pieces.append(Span(since_at, min(span.until_at, next_at - _SECOND)))
        since_at = next_at
    return pieces


class Session(NamedTuple):
    """What is to be known of a day: a minute each from ``begin`` to before ``end``, UNIX seconds.

    ``ask_until``: what the broker is asked for if the session's end is missing, which brings what
    there may be after it.
    """

    begin: float
    end: float
    ask_until: float


def missing_spans(known: npt.NDArray[np.int64], sessions: Iterable[Session]) -> list[Span]:
    """Where minutes are missing that trading should have brought.

    ``known``: UNIX seconds of the openings that are there, sorted; ``sessions`` in order.
    Neighbours are joined as long as one call serves them: to ask for something twice costs
    nothing, a call costs a third of a second.
    """
    gaps: list[tuple[int, int]] = []
    for session in sessions:
        begin = math.floor(session.begin / _MINUTE_S) * _MINUTE_S
        end = math.ceil(session.end / _MINUTE_S) * _MINUTE_S
        first, last = np.searchsorted(known, (begin, end))
        marks = np.concatenate(([begin - _MINUTE_S], known[first:last], [end]))
        for place in np.flatnonzero(np.diff(marks) > _MINUTE_S).tolist():
            is_last = place == len(marks) - 2
            until = int(session.ask_until) if is_last else int(marks[place + 1]) - _MINUTE_S
            gaps.append((int(marks[place]) + _MINUTE_S, until))
    return _joined(gaps)


def _joined(gaps: Sequence[tuple[int, int]]) -> list[Span]:
    most_s = (DAYS_MAX["minute"] - 1) * 86_400
    spans: list[tuple[int, int]] = []
    for since, until in gaps:
        if spans and until - spans[-1][0] <= most_s:
            spans[-1] = spans[-1][0], until
        else:
            spans.append((since, until))
    return [
        Span(dt.datetime.fromtimestamp(since, INDIA), dt.datetime.fromtimestamp(until, INDIA))
        for since, until in spans
    ]


def _in_india(at: dt.datetime, field: str) -> dt.datetime:
    if not _FIRST_YEAR <= at.year < dt.MAXYEAR:
        raise InvalidRequestError("there are no candles of that year", field=field)
    if at.utcoffset() is None:
        return at.replace(tzinfo=INDIA)
    return at.astimezone(INDIA)


def _midnight(day: dt.date, days: int) -> dt.datetime:
    return dt.datetime.combine(day + dt.timedelta(days=days), dt.time(), INDIA)
