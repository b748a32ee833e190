"""The simulated market's days. Pure functions of UNIX seconds."""

import datetime as dt
from collections.abc import Iterator
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from ticker.calendar.market_hours import assumed_session

IST: Final = ZoneInfo("Asia/Kolkata")
OPEN: Final = dt.time(9, 15)
_DAY: Final = dt.timedelta(days=1)


class Session(NamedTuple):
    """The continuous trading of a day, which its candles cover: UNIX seconds, without the end."""

    day: dt.date
    opened_at: float
    closed_at: float


def session_open(now: float) -> float:
    """The newest 09:15 IST: the market itself never closes, but its day begins there."""
    moment = dt.datetime.fromtimestamp(now, IST)
    opening = dt.datetime.combine(moment.date(), OPEN, IST)
    if opening > moment:
        opening -= dt.timedelta(days=1)
    return opening.timestamp()


def sessions(exchange: str, first: dt.date, last: dt.date) -> Iterator[Session]:
    """Those of an exchange on these days, both included."""
    for ahead in range((last - first).days + 1):
        session = _session_of(exchange, first + ahead * _DAY)
        if session is not None:
            yield session


def previous_close(exchange: str, opened_at: float) -> float:
    """When the last trade was made before the day that opened at ``opened_at``: in the last second
    of the exchange's newest session, which is also the last look of its last candle.
    """
    day = dt.datetime.fromtimestamp(opened_at, IST).date() - _DAY
    while (session := _session_of(exchange, day)) is None:
        day -= _DAY
    return session.closed_at - 1


def _session_of(exchange: str, day: dt.date) -> Session | None:
    found = assumed_session(exchange, day)
    return found and Session(day, found[0].timestamp(), found[1].timestamp())
