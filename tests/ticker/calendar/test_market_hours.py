import datetime as dt
from pathlib import Path

import pytest

from ticker.calendar.file import DEFAULT_FILE
from ticker.calendar.market_hours import (
    assumed_session,
    expiry_at,
    is_trading_day,
    year_fraction,
)
from ticker.errors import ConfigurationError


@pytest.mark.parametrize(
    ("exchange", "day", "expected"),
    [
        ("NFO", "2026-07-31", "2026-07-31T10:00:00+00:00"),
        ("NFO", "2026-08-02", "2026-08-02T10:00:00+00:00"),
        ("NFO", "2026-08-03", "2026-08-03T10:10:00+00:00"),
        ("BFO", "2026-07-30", "2026-07-30T10:00:00+00:00"),
        ("BFO", "2030-01-03", "2030-01-03T10:10:00+00:00"),
        ("CDS", "2026-08-27", "2026-08-27T07:00:00+00:00"),
        ("BCD", "2026-08-27", "2026-08-27T07:00:00+00:00"),
        ("MCX", "2026-08-27", "2026-08-27T18:00:00+00:00"),
    ],
)
def test_expiry_is_the_exchanges_closing_time_of_that_date_in_utc(
    exchange: str, day: str, expected: str
) -> None:
    expiry = expiry_at(exchange, dt.date.fromisoformat(day))
    assert expiry.isoformat() == expected
    assert expiry.tzinfo is dt.UTC


def test_another_file_replaces_the_one_that_comes_with_the_package(tmp_path: Path) -> None:
    path = tmp_path / "hours.toml"
    text = DEFAULT_FILE.read_text().replace("at = 15:40:00", "at = 15:35:00")
    path.write_text(text.replace("2026-08-03", "2026-09-01"))
    assert expiry_at("NFO", dt.date(2026, 8, 31), path).time() == dt.time(10, 0)
    assert expiry_at("NFO", dt.date(2026, 9, 1), path).time() == dt.time(10, 5)
    assert expiry_at("NFO", dt.date(2026, 8, 31)).time() == dt.time(10, 10)


def test_rules_may_stand_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "hours.toml"
    path.write_text(
        'timezone = "Asia/Kolkata"\n[[calendars]]\nexchanges = ["NFO"]\n'
        "expiry = [{ from = 2026-08-03, at = 15:40:00 }, { from = 2026-01-01, at = 15:30:00 }]\n"
    )
    assert expiry_at("NFO", dt.date(2026, 8, 3), path).time() == dt.time(10, 10)
    assert expiry_at("NFO", dt.date(2026, 8, 2), path).time() == dt.time(10, 0)
    with pytest.raises(ConfigurationError, match="do not say when NFO contracts of 2025-12-31"):
        expiry_at("NFO", dt.date(2025, 12, 31), path)


@pytest.mark.parametrize(
    ("exchange", "day", "expected"),
    [
        ("NSE", "2026-08-03", True),
        ("NSE", "2026-08-01", False),  # a Saturday
        ("NSE", "2026-02-01", True),  # the Budget's Sunday
        ("NSE", "2026-11-08", False),  # Muhurat: one evening hour of a Sunday
        ("NFO", "2026-03-03", False),
        ("BFO", "2026-12-25", False),
        ("NSE", "2025-02-01", True),  # the Budget's Saturday
        ("NSE", "2025-10-21", False),  # Muhurat on a holiday
        ("NSE", "2030-12-25", True),  # nothing is known of 2030
        ("MCX", "2026-03-03", True),  # evening session
        ("MCX", "2026-12-25", False),
    ],
)
def test_trading_days(exchange: str, day: str, *, expected: bool) -> None:
    assert is_trading_day(exchange, dt.date.fromisoformat(day)) is expected


@pytest.mark.parametrize(
    ("exchange", "day", "expected"),
    [
        ("NSE", "2026-08-03", ("03:45", "09:45")),
        ("NFO", "2026-08-03", ("03:45", "10:10")),
        ("NFO", "2026-07-31", ("03:45", "10:00")),
        ("NFO", "2030-01-03", ("03:45", "10:10")),  # as at the end of what is known
        ("NSE", "2019-01-03", ("03:45", "10:00")),  # as at its beginning
        ("MCX", "2030-01-03", ("03:30", "18:25")),
        ("MCX", "2030-07-03", ("03:30", "18:00")),
        ("MCX", "2026-03-03", ("11:30", "18:25")),
        ("NSE", "2025-10-21", ("08:15", "09:15")),
        ("NSE", "2026-11-08", None),
        ("NSE", "2026-12-25", None),
        ("NSE", "2030-01-05", None),
    ],
)
def test_the_session_of_a_day(exchange: str, day: str, expected: tuple[str, str] | None) -> None:
    session = assumed_session(exchange, dt.date.fromisoformat(day))
    if expected is None:
        assert session is None
        return
    assert session is not None
    assert tuple(f"{at:%H:%M}" for at in session) == expected
    assert {at.tzinfo for at in session} == {dt.UTC}


def test_unknown_exchanges_are_told() -> None:
    with pytest.raises(ConfigurationError, match="do not know the exchange 'XYZ'"):
        expiry_at("XYZ", dt.date(2026, 8, 3))
    with pytest.raises(ConfigurationError, match="do not know the exchange 'XYZ'"):
        is_trading_day("XYZ", dt.date(2026, 8, 3))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("timezone = ", "cannot use the market hours"),
        ("timezone = 5\ncalendars = []", "Expected `str`"),
        ('timezone = "Asia/Nowhere"\ncalendars = []', "Asia/Nowhere"),
        ('timezone = "Asia/Kolkata"\ncalendars = []\nholiday = []', "unknown field `holiday`"),
        (
            'timezone = "Asia/Kolkata"\n[[calendars]]\nexchanges = ["NFO"]\nexpiry = "15:30"',
            "Expected `array`",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "hours.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        expiry_at("NFO", dt.date(2026, 8, 3), path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the market hours"):
        expiry_at("NFO", dt.date(2026, 8, 3), tmp_path / "absent.toml")


def test_a_year_is_365_days_of_calendar_seconds() -> None:
    assert year_fraction(1_000.0, 1_000.0 + 365 * 86_400) == 1.0
    assert year_fraction(1_000.0, 1_000.0) == 0.0
    assert year_fraction(1_000.0, 1_000.0 - 86_400) == -1 / 365
