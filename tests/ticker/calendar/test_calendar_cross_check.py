"""Our file of market hours beside the two calendar packages, which know shares only.

They are no source: neither knows special sessions or the closing auction, and one of them takes
every weekday of a year that it does not know for a session. Every day on which they differ from us
is listed here with what is right, and why. A difference that is not listed is an error of theirs
or of ours, to be looked up in the exchange's circulars.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import exchange_calendars  # type: ignore[import-untyped]
import pandas_market_calendars  # type: ignore[import-untyped]
import pytest

from ticker.calendar.market_hours import day_name, day_phases, market_phase, segments
from ticker.errors import ConfigurationError

# exchange_calendars uses what pandas is about to change; the answers are the same
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning:DeprecationWarning")

FIRST, LAST = dt.date(2025, 1, 1), dt.date(2026, 12, 31)
DAYS = [FIRST + dt.timedelta(days=ahead) for ahead in range((LAST - FIRST).days + 1)]

Hours = tuple[dt.datetime, dt.datetime]
"""First opening and last close of a day, in UTC."""

BUDGET = {
    dt.date(2025, 2, 1): "a Saturday, open for the Union Budget",
    dt.date(2026, 2, 1): "a Sunday, open for the Union Budget",
}
MUHURAT = {dt.date(2025, 10, 21): "a holiday with the Muhurat hour, 13:45 to 14:45"}
SESSIONS_THEY_LACK: Mapping[str, Mapping[dt.date, str]] = {
    "exchange_calendars XBOM": BUDGET | MUHURAT,
    "pandas_market_calendars BSE": BUDGET | MUHURAT,
    "pandas_market_calendars NSE": BUDGET,
}
"""Nobody has a session that we lack."""

SESSION_NOBODY_HAS = dt.date(2026, 11, 8)
"""Muhurat of 2026, a Sunday: they do not know of it, we do not know its hours and say so."""

AUCTION_FROM = dt.date(2026, 8, 3)
"""Since then the closing auction ends the day of shares at 15:35. They still say 15:30."""
AUCTION_LATER = dt.timedelta(minutes=5)


def load_xbom() -> dict[dt.date, Hours]:
    calendar = exchange_calendars.get_calendar("XBOM")
    return _rows(calendar.schedule.loc[str(FIRST) : str(LAST)], "open", "close")


def load_pandas(name: str) -> dict[dt.date, Hours]:
    calendar = pandas_market_calendars.get_calendar(name)
    return _rows(calendar.schedule(str(FIRST), str(LAST)), "market_open", "market_close")


def _rows(schedule: Any, opens: str, closes: str) -> dict[dt.date, Hours]:
    return {
        row.Index.date(): (
            getattr(row, opens).to_pydatetime().astimezone(dt.UTC),
            getattr(row, closes).to_pydatetime().astimezone(dt.UTC),
        )
        for row in schedule.itertuples()
    }


CALENDARS: Mapping[str, tuple[str, Callable[[], dict[dt.date, Hours]]]] = {
    "exchange_calendars XBOM": ("BSE", load_xbom),
    "pandas_market_calendars BSE": ("BSE", lambda: load_pandas("BSE")),
    "pandas_market_calendars NSE": ("NSE", lambda: load_pandas("NSE")),
}


def our_hours(segment: str, day: dt.date) -> Hours | None:
    opened = [phase for phase in day_phases(segment, day) if phase.is_open]
    if not opened:
        return None
    since, until = opened[0].since, opened[-1].until
    assert since is not None
    assert until is not None
    return since, until


@pytest.mark.parametrize("name", CALENDARS)
def test_every_day_is_a_session_for_both_or_a_known_difference(name: str) -> None:
    segment, load = CALENDARS[name]
    theirs = load()
    ours = {day for day in DAYS if our_hours(segment, day)}
    assert len(DAYS) == 730
    assert theirs.keys() - ours == set()
    assert ours - theirs.keys() == SESSIONS_THEY_LACK[name].keys()


@pytest.mark.parametrize("name", CALENDARS)
def test_sessions_have_the_same_hours_but_for_the_closing_auction(name: str) -> None:
    segment, load = CALENDARS[name]
    for day, (opens, closes) in load().items():
        later = AUCTION_LATER if day >= AUCTION_FROM else dt.timedelta()
        assert (day, our_hours(segment, day)) == (day, (opens, closes + later))


def test_the_muhurat_hour_that_one_of_them_knows_is_ours() -> None:
    [day] = MUHURAT
    assert load_pandas("NSE")[day] == our_hours("NSE", day)


def test_a_session_that_nobody_has_hours_of_is_said_to_be_one() -> None:
    for name, (segment, load) in CALENDARS.items():
        assert (name, SESSION_NOBODY_HAS in load()) == (name, False)
        assert our_hours(segment, SESSION_NOBODY_HAS) is None
        assert day_name(segment, SESSION_NOBODY_HAS) == "Diwali Muhurat, hours not known here"


def test_of_a_year_that_nobody_knows_only_we_and_one_of_them_say_so() -> None:
    """Why they can be no source: 2027 with a session on every weekday, Republic Day included."""
    day = dt.date(2027, 1, 26)
    for segment in segments():
        with pytest.raises(ConfigurationError, match="do not cover 2027"):
            day_phases(segment, day)
    with pytest.raises(exchange_calendars.errors.DateOutOfBounds):
        exchange_calendars.get_calendar("XBOM").is_session(str(day))
    schedule = pandas_market_calendars.get_calendar("NSE").schedule("2027-01-01", "2027-12-31")
    assert len(schedule) == 261


def test_every_day_opens_and_closes_when_they_say_on_hosts_anywhere(host_zone: ZoneInfo) -> None:
    second = dt.timedelta(seconds=1)
    for day, (opens, closes) in load_pandas("NSE").items():
        later = AUCTION_LATER if day >= AUCTION_FROM else dt.timedelta()
        around = [opens - second, opens, closes + later - second, closes + later]
        told = [market_phase("NSE", now.astimezone(host_zone)).is_open for now in around]
        assert (day, told) == (day, [False, True, True, False])
