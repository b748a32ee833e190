import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from ticker.__main__ import app
from ticker.calendar.report import calendar_lines, parse_day
from ticker.errors import ConfigurationError

IST = ZoneInfo("Asia/Kolkata")
NOW = dt.datetime(2026, 8, 3, 15, 20, tzinfo=IST)


def test_today_shows_the_phase_that_is_on() -> None:
    lines = list(calendar_lines(NOW))
    assert lines[0] == "Monday, 03 August 2026, Asia/Kolkata"
    assert lines[2].split("  ")[1:] == [
        "NSE, BSE",
        "pre_open 09:00-09:15",
        "continuous 09:15-15:15",
        "closing_auction 15:15-15:35",
        "post_close 15:40-16:00",
    ]
    assert "  NSE, BSE  open: closing_auction until 15:35" in lines
    assert "  NFO, BFO  open: continuous until 15:40" in lines
    assert lines[-1] == "known until 31 December 2026"
    assert list(calendar_lines(NOW.astimezone(dt.UTC))) == lines


def test_another_day_shows_its_hours_alone() -> None:
    lines = list(calendar_lines(NOW, dt.date(2026, 3, 3)))
    assert lines[2:-2] == [
        "  NSE, BSE, NFO, BFO, CDS, BCD  closed  (Holi)",
        "  MCX, NCO                      continuous 17:00-23:55  (evening session only)",
    ]


def test_a_closed_market_says_when_it_opens() -> None:
    lines = list(calendar_lines(dt.datetime(2026, 12, 31, 16, tzinfo=IST)))
    assert (
        "  NSE, BSE, NFO, BFO  closed until a year not covered; opens a year not covered" in lines
    )
    lines = list(calendar_lines(dt.datetime(2026, 8, 1, 12, tzinfo=IST)))
    assert (
        "  NSE, BSE, NFO, BFO  closed until Mon 03 Aug 2026 09:00; opens Mon 03 Aug 2026 09:15"
        in lines
    )


def test_a_year_not_covered_prints_nothing_but_the_error() -> None:
    with pytest.raises(ConfigurationError, match="do not cover 2027"):
        next(calendar_lines(NOW, dt.date(2027, 1, 1)))
    with pytest.raises(ConfigurationError, match="is not a day written"):
        parse_day("tomorrow")


def test_the_command_prints_the_day() -> None:
    result = CliRunner().invoke(app, ["calendar", "2025-10-21"])
    assert result.exit_code == 0
    assert result.output.startswith("Tuesday, 21 October 2025, Asia/Kolkata\n")
    assert "continuous 13:45-14:45  (Diwali Muhurat)" in result.output
    refused = CliRunner().invoke(app, ["calendar", "2027-01-01"])
    assert isinstance(refused.exception, ConfigurationError)
    assert refused.output == ""
