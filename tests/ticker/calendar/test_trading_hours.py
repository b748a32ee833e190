"""An underlying is closed when all that is listed on it is, and never where nobody knows."""

import datetime as dt

import pytest

from tests.ticker.synthetic import create_future, create_index, create_option
from ticker.calendar.trading_hours import TradingHours
from ticker.instruments.registry import InstrumentRegistry

IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
NIFTY = [create_index(), create_future(1), create_option(2, 25_000.0, "CE")]
CRUDE = create_future(900, "CRUDEOIL", exchange="MCX", segment=7)
STRANGE = create_future(901, "MOON", exchange="LUNAR", segment=7)
REGISTRY = InstrumentRegistry([*NIFTY, CRUDE, STRANGE])
HOURS = TradingHours(lambda: REGISTRY)


def clock(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=IST).timestamp()


@pytest.mark.parametrize(
    ("underlying", "now", "since"),
    [
        ("NIFTY", "2026-01-27 08:59:59", "2026-01-23 16:00"),  # over a weekend and a holiday
        ("NIFTY", "2026-01-27 09:00:00", None),  # pre-open
        ("NIFTY", "2026-01-27 12:00:00", None),
        ("NIFTY", "2026-01-27 15:35:00", None),  # a break: post-close is to come
        ("NIFTY", "2026-01-27 15:50:00", None),
        ("NIFTY", "2026-01-27 16:00:00", "2026-01-27 16:00"),
        ("NIFTY", "2026-02-01 12:00:00", None),  # the Budget's Sunday
        ("CRUDEOIL", "2026-02-01 16:59:59", None),
        ("CRUDEOIL", "2026-02-01 17:00:00", "2026-02-01 17:00"),
        ("CRUDEOIL", "2026-03-03 12:00:00", "2026-03-02 23:55"),  # evening session only
        ("CRUDEOIL", "2026-03-03 18:00:00", None),
        ("NIFTY", "2026-11-07 23:59:59", "2026-11-06 16:00"),
        ("NIFTY", "2026-11-08 00:00:00", None),  # a session whose hours nobody knows
        ("NIFTY", "2026-11-08 18:30:00", None),
        ("CRUDEOIL", "2026-11-08 18:30:00", None),
        ("NIFTY", "2026-11-09 00:00:00", "2026-11-06 16:00"),
        ("MOON", "2026-01-27 03:00:00", None),  # an exchange that the calendar does not know
        ("NIFTY", "2027-01-09 03:00:00", None),  # a year
        ("NOTHING", "2026-01-27 03:00:00", None),
    ],
)
def test_closed_since(underlying: str, now: str, since: str | None) -> None:
    closed_since = HOURS.closed_since(underlying, clock(now))
    assert closed_since == (since and clock(since))
    assert HOURS.is_closed(underlying, clock(now)) is (since is not None)


@pytest.mark.parametrize(
    ("underlying", "now", "until"),
    [
        ("NIFTY", "2026-01-23 08:00:00", "2026-01-23 09:00"),
        ("NIFTY", "2025-11-20 08:00:00", "2025-11-20 09:00"),  # the cash market is first
        ("NIFTY", "2026-01-23 23:59:59", "2026-01-24 00:00"),  # the day is all that is known of
        ("CRUDEOIL", "2026-03-03 12:00:00", "2026-03-03 17:00"),
        ("NIFTY", "2026-11-07 23:00:00", "2026-11-08 00:00"),  # a session at an unknown hour
        ("NIFTY", "2026-12-31 23:59:59", "2027-01-01 00:00"),  # then nobody knows
    ],
)
def test_closed_until(underlying: str, now: str, until: str) -> None:
    assert HOURS.is_closed(underlying, clock(now))
    assert HOURS.closed_until(underlying, clock(now)) == clock(until)


@pytest.mark.parametrize(
    ("segment", "now", "session"),
    [
        ("NSE", "2026-01-24 12:00", "2026-01-23 09:15/2026-01-23 15:30"),  # a Saturday
        ("NSE", "2026-01-27 08:59", "2026-01-23 09:15/2026-01-23 15:30"),  # after a holiday
        ("NSE", "2026-01-27 15:29", "2026-01-23 09:15/2026-01-23 15:30"),  # not over yet
        ("NSE", "2026-01-27 15:30", "2026-01-27 09:15/2026-01-27 15:30"),
        ("NSE", "2026-01-27 16:00", "2026-01-27 09:15/2026-01-27 15:30"),
        ("NSE", "2026-11-20 20:00", "2026-11-20 09:15/2026-11-20 15:15"),  # not the auction
        ("NFO", "2026-11-20 20:00", "2026-11-20 09:15/2026-11-20 15:40"),
        ("NFO", "2026-02-02 08:00", "2026-02-01 09:15/2026-02-01 15:30"),  # the Budget's Sunday
        ("MCX", "2026-02-02 08:00", "2026-02-01 09:00/2026-02-01 17:00"),
        ("NFO", "2025-10-22 08:00", "2025-10-21 13:45/2025-10-21 14:45"),  # Muhurat
        ("MCX", "2026-06-17 00:10", "2026-06-16 09:00/2026-06-16 23:30"),
        ("MCX", "2026-11-20 23:54", "2026-11-19 09:00/2026-11-19 23:55"),
        ("MCX", "2026-11-20 23:55", "2026-11-20 09:00/2026-11-20 23:55"),
        ("MCX", "2026-03-04 01:00", "2026-03-03 17:00/2026-03-03 23:55"),  # the evening only
        ("NSE", "2026-11-09 08:00", None),  # after a session whose hours nobody knows
        ("NSE", "2026-11-09 16:00", "2026-11-09 09:15/2026-11-09 15:15"),
        ("NSE", "2025-01-01 08:00", None),  # of a year that the calendar does not know
        ("NSE", "2027-01-09 03:00", None),
        ("LUNAR", "2026-01-27 16:00", None),
    ],
)
def test_the_last_session(segment: str, now: str, session: str | None) -> None:
    found = HOURS.last_session(segment, clock(now))
    assert found == (session and tuple(clock(each) for each in session.split("/")))


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    days = [f"2026-01-2{day}" for day in range(3, 9)] + [f"2026-11-0{day}" for day in (7, 8, 9)]
    moments = [clock(f"{day} {hour:02}:20") for day in days for hour in range(24)]
    for now in (*moments, *reversed(moments)):
        fresh = TradingHours(lambda: InstrumentRegistry(NIFTY))
        assert HOURS.closed_since("NIFTY", now) == fresh.closed_since("NIFTY", now)
        assert HOURS.phase("NFO", now) == fresh.phase("NFO", now)


def test_a_new_dump_is_followed() -> None:
    registries = [InstrumentRegistry([CRUDE])]
    hours = TradingHours(lambda: registries[-1])
    assert hours.segments("CRUDEOIL") == {"MCX"}
    assert hours.segments("NIFTY") == frozenset()
    registries.append(InstrumentRegistry([*NIFTY, CRUDE]))
    assert hours.segments("NIFTY") == {"NSE", "NFO"}
