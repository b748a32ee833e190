"""``GET /market/status``: what each segment is doing, and when that changes."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from quart import Blueprint, Response

from api.problems import problem
from ticker.errors import ConfigurationError
from ticker.market_hours import (
    day_name,
    day_phases,
    last_covered_day,
    market_date,
    market_phase,
    next_open,
    segments,
)


def create_market_blueprint(
    wall_clock: Callable[[], float], market_hours_file: Path | None = None
) -> Blueprint:
    """The market's calendar at the moment of each request. ``wall_clock``: UNIX seconds."""
    blueprint = Blueprint("market", __name__)

    @blueprint.get("/market/status")
    async def market_status() -> Response:
        """Every segment's phase; 503 in a year that the market hours do not cover."""
        now = dt.datetime.fromtimestamp(wall_clock(), dt.UTC)
        try:
            body = market_summary(now, market_hours_file)
        except ConfigurationError as error:
            return problem(503, str(error))
        return Response(msgspec.json.encode(body), content_type="application/json")

    return blueprint


def market_summary(now: dt.datetime, path: Path | None = None) -> dict[str, Any]:
    """What ``/market/status`` says. Times are UTC, ``date`` is the exchanges' own.

    Raises ConfigurationError for a year that the file does not cover.
    """
    day, last = market_date(now, path), last_covered_day(path)
    return {
        "at": _iso(now),
        "date": day.isoformat(),
        "covered_until": last.isoformat() if last else None,
        "segments": {name: _segment_summary(name, day, now, path) for name in segments(path)},
    }


def _segment_summary(
    segment: str, day: dt.date, now: dt.datetime, path: Path | None
) -> dict[str, Any]:
    phase = market_phase(segment, now, path)
    return {
        "is_open": phase.is_open,
        "phase": phase.name,
        "since": _iso(phase.since),
        "next_change": _iso(phase.until),
        "next_open": _iso(next_open(segment, now, path)),
        "trading_day": any(span.is_open for span in day_phases(segment, day, path)),
        "day_name": day_name(segment, day, path),
    }


def _iso(at: dt.datetime | None) -> str | None:
    return at.isoformat(timespec="seconds") if at is not None else None
