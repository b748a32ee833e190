"""One day of the market's calendar, as lines of text."""

import datetime as dt
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ticker.calendar.file import DEFAULT_FILE, load_calendars
from ticker.calendar.market_hours import (
    Phase,
    day_name,
    day_phases,
    last_covered_day,
    market_date,
    market_phase,
    next_open,
    segments,
)
from ticker.errors import ConfigurationError


def parse_day(text: str) -> dt.date:
    """A date written YYYY-MM-DD. Raises ConfigurationError for anything else."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not a day written YYYY-MM-DD") from None


def calendar_lines(
    now: dt.datetime, day: dt.date | None = None, path: Path | None = None
) -> Iterator[str]:
    """The phases of ``day`` by segment, in the exchanges' time; today if no day is given.

    Of today, also what each segment is doing at ``now``. ``path`` as in ``market_hours``.

    Raises ConfigurationError for a year that the file does not cover.
    """
    zone = load_calendars(path or DEFAULT_FILE).zone
    today = market_date(now, path)
    shown = day or today
    rows = [(name, _describe(name, shown, zone, path)) for name in segments(path)]
    yield f"{shown:%A, %d %B %Y}, {zone.key}"
    yield ""
    yield from _table(rows)
    if shown == today:
        yield ""
        yield f"now, {now.astimezone(zone):%H:%M}"
        yield from _table([(name, _state(name, now, zone, path)) for name in segments(path)])
    last = last_covered_day(now, segments(path), path)
    if last is not None:
        yield ""
        yield f"known until {last:%d %B %Y}"


def _describe(segment: str, day: dt.date, zone: dt.tzinfo, path: Path | None) -> str:
    phases = day_phases(segment, day, path)
    text = "  ".join(_hours(phase, zone) for phase in phases) or "closed"
    name = day_name(segment, day, path)
    return f"{text}  ({name})" if name else text


def _hours(phase: Phase, zone: dt.tzinfo) -> str:
    ends = (f"{end.astimezone(zone):%H:%M}" for end in (phase.since, phase.until) if end)
    return f"{phase.name} {'-'.join(ends)}"


def _state(segment: str, now: dt.datetime, zone: dt.tzinfo, path: Path | None) -> str:
    phase = market_phase(segment, now, path)
    text = f"{phase.name} until {_moment(phase.until, now, zone)}"
    if phase.is_open:
        return f"open: {text}"
    return f"{text}; opens {_moment(next_open(segment, now, path), now, zone)}"


def _moment(at: dt.datetime | None, now: dt.datetime, zone: dt.tzinfo) -> str:
    if at is None:
        return "a year not covered"
    there = at.astimezone(zone)
    same_day = there.date() == now.astimezone(zone).date()
    return f"{there:%H:%M}" if same_day else f"{there:%a %d %b %Y %H:%M}"


def _table(rows: list[tuple[str, str]]) -> Iterator[str]:
    """Neighbours that say the same share a line."""
    joined = [
        (", ".join(name for name, _ in group), text)
        for text, group in groupby(rows, key=lambda row: row[1])
    ]
    width = max((len(names) for names, _ in joined), default=0)
    yield from (f"  {names:<{width}}  {text}" for names, text in joined)
