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
