"""``GET /market/status``: what each segment is doing, and when that changes."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import msgspec
from quart import Blueprint

from api.auth import requires
from api.operations import Time, operation
from ticker.calendar.market_hours import (
    day_name,
    day_phases,
    last_covered_day,
    market_date,
    market_phase,
    next_open,
    segments,
)


class SegmentStatus(msgspec.Struct, frozen=True):
    """``day_name``: of a holiday or special session. ``next_change``: of the phase."""

    is_open: bool
    phase: str
    since: Time | None
    next_change: Time | None
    next_open: Time | None
    trading_day: bool
    day_name: str | None


class MarketStatus(msgspec.Struct, frozen=True):
    """Times are UTC, ``date`` is the exchanges' own."""

    at: Time
    date: dt.date
    covered_until: dt.date | None
    segments: dict[str, SegmentStatus]


class CalendarHealth(msgspec.Struct, frozen=True):
    """``status``: ``ok``, or ``ended``: from ``known_until`` on nobody knows when the markets of
    what is carried trade, and the mock market is silent.
    """

    status: str
    known_until: Time | None


def create_market_blueprint(
    wall_clock: Callable[[], float], market_hours_file: Path | None = None
) -> Blueprint:
    """The market's calendar at the moment of each request. ``wall_clock``: UNIX seconds."""
    blueprint = Blueprint("market", __name__)

    @blueprint.get("/market/status")
    @requires("read")
    @operation()
    async def market_status() -> MarketStatus:
        """Every segment's phase; 503 in a year that the market hours do not cover."""
        return market_summary(dt.datetime.fromtimestamp(wall_clock(), dt.UTC), market_hours_file)

    return blueprint


def market_summary(now: dt.datetime, path: Path | None = None) -> MarketStatus:
    """What ``/market/status`` says.

    Raises ConfigurationError for a year that the file does not cover.
    """
    day = market_date(now, path)
    return MarketStatus(
        at=now.isoformat(timespec="seconds"),
        date=day,
        covered_until=last_covered_day(now, segments(path), path),
        segments={name: _segment_status(name, day, now, path) for name in segments(path)},
    )


def calendar_health(ends_at: float | None, now: float) -> CalendarHealth:
    """What ``/health`` says of the calendar. ``ends_at``: see ``MockMarketStatus``."""
    if ends_at is None:
        return CalendarHealth("ok", None)
    known_until = dt.datetime.fromtimestamp(ends_at, dt.UTC)
    return CalendarHealth("ended" if ends_at <= now else "ok", _iso(known_until))


def _segment_status(
    segment: str, day: dt.date, now: dt.datetime, path: Path | None
) -> SegmentStatus:
    phase = market_phase(segment, now, path)
    return SegmentStatus(
        is_open=phase.is_open,
        phase=phase.name,
        since=_iso(phase.since),
        next_change=_iso(phase.until),
        next_open=_iso(next_open(segment, now, path)),
        trading_day=any(span.is_open for span in day_phases(segment, day, path)),
        day_name=day_name(segment, day, path),
    )


def _iso(at: dt.datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at is not None else None
