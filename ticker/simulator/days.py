"""The simulated market's days. Pure functions of UNIX seconds."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Final
from zoneinfo import ZoneInfo

from ticker.calendar.market_hours import is_trading_day

IST: Final = ZoneInfo("Asia/Kolkata")
OPEN: Final = dt.time(9, 15)
CLOSE: Final = dt.time(15, 30)

_SESSIONS: Final[Mapping[str, tuple[dt.time, dt.time]]] = {
    "CDS": (dt.time(9), dt.time(17)),
    "BCD": (dt.time(9), dt.time(17)),
    "MCX": (dt.time(9), dt.time(23, 30)),
    "NCO": (dt.time(9), dt.time(23, 30)),
}


def session_open(now: float) -> float:
    """The newest 09:15 IST: the market itself never closes, but its day begins there."""
    moment = dt.datetime.fromtimestamp(now, IST)
    opening = dt.datetime.combine(moment.date(), OPEN, IST)
    if opening > moment:
        opening -= dt.timedelta(days=1)
    return opening.timestamp()


def previous_close(opened_at: float) -> float:
    """When the last trade was made on the trading day before the one that opened at ``opened_at``:
    in the last second of the session, which is also the last look of its last candle.
    """
    day = dt.datetime.fromtimestamp(opened_at, IST).date() - dt.timedelta(days=1)
    while not is_trading_day("NSE", day):
        day -= dt.timedelta(days=1)
    return dt.datetime.combine(day, CLOSE, IST).timestamp() - 1


def trading_days(exchange: str, first: dt.date, last: dt.date) -> Iterator[dt.date]:
    """Days on which an exchange trades, both ends included."""
    for ahead in range((last - first).days + 1):
        day = first + dt.timedelta(days=ahead)
        if is_trading_day(exchange, day):
            yield day


def session_of(exchange: str, day: dt.date) -> tuple[float, float]:
    """Opening and closing of the session that candles cover, UNIX seconds."""
    opening, closing = _SESSIONS.get(exchange, (OPEN, CLOSE))
    return (
        dt.datetime.combine(day, opening, IST).timestamp(),
        dt.datetime.combine(day, closing, IST).timestamp(),
    )
