"""When the exchanges trade, what they are doing now, and when contracts expire.

Pure functions of an aware ``now`` over a dated data file. A segment is the broker's word for an
exchange: NSE, BSE, NFO, BFO, CDS, BCD, MCX, NCO. Everywhere ``path`` replaces the file that comes
with the package; a file is read once per process. Every function raises ConfigurationError for a
file that cannot be used, a segment it does not name and, unless it says otherwise, a year it does
not cover: what is not known is never "open".
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from ticker.calendar.file import (
    DEFAULT_FILE,
    Calendar,
    MarketCalendars,
    SessionName,
    load_calendars,
)
from ticker.errors import ConfigurationError

YEAR_S: Final = 365.0 * 86_400.0
"""Seconds of the year that volatilities and Greeks are quoted for."""

PhaseName = Literal["closed", SessionName]

_OPEN: Final = frozenset({"continuous", "closing_auction"})
_DAY: Final = dt.timedelta(days=1)


class Phase(msgspec.Struct, frozen=True):
    """What a segment does from ``since`` until just before ``until``, both in UTC.

    ``is_open``: instruments trade at prices of their own, continuously or in the closing auction.
    The exchange also sends in ``pre_open``, where orders gather, and in ``post_close``, where
    trades are made at the closing price; in ``closed`` it is silent. Only in ``closed`` may an end
    be None: it lies in a year that the file does not cover.
    """

    name: PhaseName
    is_open: bool
    since: dt.datetime | None
    until: dt.datetime | None


class _Span(NamedTuple):
    name: SessionName
    since: dt.datetime
    until: dt.datetime

    def to_phase(self) -> Phase:
        return Phase(self.name, self.name in _OPEN, self.since, self.until)


class _Segment(NamedTuple):
    name: str
    calendar: Calendar
    file: MarketCalendars

    def require(self, day: dt.date) -> None:
        if not self.calendar.covers(day):
            raise ConfigurationError(
                f"the market hours do not cover {day.year} for {self.name}: MARKET_HOURS_FILE may "
                "name a file that does",
                detail=f"{self.file.path} does not",
            )

    def instant(self, day: dt.date, time: dt.time) -> dt.datetime:
        return dt.datetime.combine(day, time, self.file.zone).astimezone(dt.UTC)

    def spans(self, day: dt.date) -> list[_Span]:
        return [
            _Span(phase.name, self.instant(day, phase.at), self.instant(day, phase.ends(day)))
            for phase in self.calendar.phases(self.name, day)
        ]

    def spans_after(self, day: dt.date) -> Iterator[_Span]:
        """From this day on, in order, as far as the calendar reaches."""
        while self.calendar.covers(day):
            yield from self.spans(day)
            day += _DAY

    def spans_before(self, day: dt.date) -> Iterator[_Span]:
        """From this day back, newest first, as far as the calendar reaches."""
        while self.calendar.covers(day):
            yield from reversed(self.spans(day))
            day -= _DAY


def market_phase(segment: str, now: dt.datetime, path: Path | None = None) -> Phase:
    """What the segment is doing at ``now``, since when and until when.

    Raises ValueError if ``now`` is naive.
    """
    known, day = _segment(segment, path), market_date(now, path)
    known.require(day)
    for span in known.spans(day):
        if span.since <= now < span.until:
            return span.to_phase()
    return Phase(
        "closed",
        is_open=False,
        since=next((span.until for span in known.spans_before(day) if span.until <= now), None),
        until=next((span.since for span in known.spans_after(day) if span.since > now), None),
    )


def next_open(segment: str, now: dt.datetime, path: Path | None = None) -> dt.datetime | None:
    """The first instant after ``now``, in UTC, at which the segment turns from not open to open.

    None if that is not in a year the file covers.
    """
    known, day = _segment(segment, path), market_date(now, path)
    known.require(day)
    open_until = None
    for span in known.spans_after(day):
        if span.name in _OPEN:
            if span.since > now and span.since != open_until:
                return span.since
            open_until = span.until
    return None


def last_session(
    segment: str, now: dt.datetime, path: Path | None = None
) -> tuple[dt.datetime, dt.datetime] | None:
    """When the newest continuous trading that is over at ``now`` began and ended, in UTC.

    None if it lies in a year that the file does not cover, or may have been on a later day, whose
    hours the file does not tell.
    """
    known, day = _segment(segment, path), market_date(now, path)
    known.require(day)
    while known.calendar.tells_hours(segment, day):
        for span in reversed(known.spans(day)):
            if span.name == "continuous" and span.until <= now:
                return span.since, span.until
        day -= _DAY
    return None


def day_phases(segment: str, day: dt.date, path: Path | None = None) -> tuple[Phase, ...]:
    """The phases of one day in order, without those in which the segment is closed."""
    known = _segment(segment, path)
    known.require(day)
    return tuple(span.to_phase() for span in known.spans(day))


def day_name(segment: str, day: dt.date, path: Path | None = None) -> str | None:
    """The holiday or special session of a day; None for any other day."""
    known = _segment(segment, path)
    known.require(day)
    return known.calendar.day_name(segment, day)


def tells_hours(segment: str, day: dt.date, path: Path | None = None) -> bool:
    """Whether the file knows when the segment trades on that day. Of a year that it does not cover
    it does not, nor of a special session that has been announced without its hours.
    """
    return _segment(segment, path).calendar.tells_hours(segment, day)


def market_date(now: dt.datetime, path: Path | None = None) -> dt.date:
    """The date at the exchanges, whatever the host's time zone and that of ``now``.

    Raises ValueError if ``now`` is naive.
    """
    if now.utcoffset() is None:
        raise ValueError(f"a time without a zone: {now}")
    return now.astimezone(load_calendars(path or DEFAULT_FILE).zone).date()


def day_start(now: dt.datetime, days_later: int = 0, path: Path | None = None) -> dt.datetime:
    """When the day of ``now`` began at the exchanges, or the one so many days later begins; UTC."""
    day = market_date(now, path) + days_later * _DAY
    zone = load_calendars(path or DEFAULT_FILE).zone
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def day_end(day: dt.date, path: Path | None = None) -> dt.datetime:
    """When the day is over at the exchanges; UTC."""
    zone = load_calendars(path or DEFAULT_FILE).zone
    return dt.datetime.combine(day + _DAY, dt.time(), zone).astimezone(dt.UTC)


def segments(path: Path | None = None) -> tuple[str, ...]:
    """The segments the file names, in its order."""
    return tuple(load_calendars(path or DEFAULT_FILE).by_exchange)


def require_year(now: dt.datetime, names: Iterable[str], path: Path | None = None) -> None:
    """Raise ConfigurationError unless the file covers the year of ``now`` for these segments."""
    day = market_date(now, path)
    for segment in names:
        _segment(segment, path).require(day)


def last_covered_day(
    now: dt.datetime, names: Iterable[str], path: Path | None = None
) -> dt.date | None:
    """The last day of the years that the file covers for these segments: without a break from that
    of ``now`` on, or if that is none of them, before it. None if there is none before it either.
    """
    covered = [_segment(segment, path).calendar.years for segment in names]
    years = frozenset[int].intersection(*covered) if covered else frozenset[int]()
    last = max((year for year in years if year <= market_date(now, path).year), default=None)
    if last is None:
        return None
    while last + 1 in years:
        last += 1
    return dt.date(last, 12, 31)


def expiry_at(exchange: str, expiry_date: dt.date, path: Path | None = None) -> dt.datetime:
    """The instant, in UTC, at which a contract of this expiry date ends; of any year.

    Raises ConfigurationError when the file does not tell.
    """
    known = _segment(exchange, path)
    applying = [rule for rule in known.calendar.expiry if rule.first <= expiry_date]
    if not applying:
        raise ConfigurationError(
            f"the market hours do not say when {exchange} contracts of {expiry_date} expire"
        )
    return known.instant(expiry_date, max(applying, key=lambda rule: rule.first).at)


def is_trading_day(exchange: str, day: dt.date, path: Path | None = None) -> bool:
    """Whether the exchange is taken to trade on this day; the Muhurat hour alone does not count.

    An assumption for simulated markets: of a year that the file does not cover, every Monday to
    Friday is taken to be one. What is to be known of a real market, ``market_phase`` and
    ``day_phases`` know.
    """
    return _segment(exchange, path).calendar.is_full_day(day)


def assumed_session(
    exchange: str, day: dt.date, path: Path | None = None
) -> tuple[dt.datetime, dt.datetime] | None:
    """When the exchange's continuous trading of a day begins and ends, in UTC; None without any.

    An assumption for simulated markets, as far as the file does not cover the year: a Monday to
    Friday then has the ordinary hours of the day, or the earliest that the file tells.
    """
    return next(
        (
            (span.since, span.until)
            for span in _segment(exchange, path).spans(day)
            if span.name == "continuous"
        ),
        None,
    )


def year_fraction(now_s: float, expiry_s: float) -> float:
    """Years of 365 days between two UNIX times; negative after the expiry."""
    return (expiry_s - now_s) / YEAR_S


def _segment(name: str, path: Path | None) -> _Segment:
    file = load_calendars(path or DEFAULT_FILE)
    calendar = file.by_exchange.get(name)
    if calendar is None:
        raise ConfigurationError(f"the market hours do not know the exchange {name!r}")
    return _Segment(name, calendar, file)
