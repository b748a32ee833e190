"""What the data file may say, and how it is extended without a release."""

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ticker.calendar.file import DEFAULT_FILE
from ticker.calendar.market_hours import day_name, last_covered_day, market_phase, require_year
from ticker.errors import ConfigurationError

IST = ZoneInfo("Asia/Kolkata")


def at(day: str, clock: str) -> dt.datetime:
    return dt.datetime.combine(dt.date.fromisoformat(day), dt.time.fromisoformat(clock), IST)


def test_a_file_without_years_covers_none(tmp_path: Path) -> None:
    path = tmp_path / "hours.toml"
    path.write_text('timezone = "Asia/Kolkata"\n[[calendars]]\nexchanges = ["NFO"]\nexpiry = []\n')
    now = at("2026-08-03", "10:00")
    assert last_covered_day(now, ["NFO"], path) is None
    with pytest.raises(ConfigurationError, match="do not cover 2026 for NFO") as caught:
        require_year(now, ["NFO"], path)
    assert caught.value.detail == f"{path} does not"
    with pytest.raises(ConfigurationError, match="do not know the exchange 'MCX'"):
        require_year(now, ["MCX"], path)
    path = tmp_path / "empty.toml"
    path.write_text('timezone = "Asia/Kolkata"\ncalendars = []\n')
    assert last_covered_day(now, [], path) is None


@pytest.mark.parametrize(
    ("year", "last"), [(2024, None), (2025, 2026), (2026, 2026), (2027, 2026), (2028, 2028)]
)
def test_what_is_known_ends_where_a_year_is_missing(
    tmp_path: Path, year: int, last: int | None
) -> None:
    path = tmp_path / "hours.toml"
    path.write_text(DEFAULT_FILE.read_text().replace("[2025, 2026]", "[2025, 2026, 2028]"))
    found = last_covered_day(at(f"{year}-06-01", "10:00"), ["NFO", "MCX"], path)
    assert found == (last and dt.date(last, 12, 31))


def test_a_year_can_be_added_without_a_release(tmp_path: Path) -> None:
    path = tmp_path / "hours.toml"
    text = DEFAULT_FILE.read_text().replace("[2025, 2026]", "[2025, 2026, 2027]")
    path.write_text(text.replace('[2026-12-25, "Christmas"]', '[2027-01-26, "Republic Day"]'))
    assert last_covered_day(at("2026-08-03", "10:00"), ["NSE"], path) == dt.date(2027, 12, 31)
    assert market_phase("NSE", at("2027-01-25", "10:00"), path).is_open
    assert day_name("NSE", dt.date(2027, 1, 26), path) == "Republic Day"
    assert market_phase("NSE", at("2026-12-31", "20:00"), path).until == at("2027-01-01", "09:00")
    # Daylight saving of 2027 begins on 14 March.
    assert market_phase("MCX", at("2027-03-12", "23:40"), path).is_open
    assert not market_phase("MCX", at("2027-03-15", "23:40"), path).is_open


HEAD = """timezone = "Asia/Kolkata"
[[calendars]]
exchanges = ["NFO"]
expiry = [{ from = 2000-01-01, at = 15:30:00 }]
years = [2026]
"""
EXPIRY = "expiry = [{ from = 2000-01-01, at = 15:30:00 }]"
HOURS = '[[calendars.hours]]\nexchanges = ["NFO"]\nfrom = 2025-01-01\n'
SPECIAL = '[[calendars.special]]\nname = "x"\ndays = [2026-11-08]\n'
DAY = 'phases = [{ name = "continuous", at = 09:15:00, until = 15:30:00 }]\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD, "NFO has no hours at the beginning of 2026"),
        (HEAD + HOURS.replace("2025", "2027") + DAY, "NFO has no hours at the beginning of 2026"),
        (HEAD + HOURS + DAY.replace("15:30", "09:15"), "continuous at 09:15:00 ends before"),
        (
            HEAD
            + HOURS
            + "phases = ["
            + '{ name = "pre_open", at = 09:00:00, until = 09:16:00 },'
            + '{ name = "continuous", at = 09:15:00, until = 15:30:00 }]',
            "continuous begins before pre_open has ended",
        ),
        (HEAD + HOURS + DAY.replace("continuous", "lunch"), "Invalid enum value 'lunch'"),
        (HEAD + 'holidays = [[2062-01-26, "Republic Day"]]\n' + HOURS + DAY, "2062 is not"),
        (HEAD + HOURS.replace("NFO", "NSE") + DAY, "NSE has hours, but is not in that calendar"),
        (HEAD.replace(EXPIRY, "expiry = []") + HOURS + DAY, "NFO has no expiry rules at the begin"),
        (
            HEAD.replace("2000-01-01", "2026-02-01") + HOURS + DAY,
            "has no expiry rules at the begin",
        ),
        (
            HEAD.replace(" }]", " }, { from = 2000-01-01, at = 12:30:00 }]") + HOURS + DAY,
            "NFO has two expiry rules from 2000-01-01",
        ),
        (HEAD + (HOURS + DAY) * 2, "NFO has two hours from 2025-01-01"),
        (HEAD + HOURS + DAY + (SPECIAL + DAY) * 2, "NFO has two special sessions on 2026-11-08"),
        (
            HEAD + HOURS + DAY + SPECIAL + DAY + SPECIAL + 'exchanges = ["NFO"]\nphases = []\n',
            "NFO has two special sessions on 2026-11-08",
        ),
        (
            HEAD
            + 'holidays = [[2026-02-01, "a holiday"]]\nextra_days = [[2026-02-01, "a day"]]\n'
            + HOURS
            + DAY,
            "2026-02-01 is listed twice",
        ),
        (HEAD + HOURS + DAY + "[[calendars]]\nexchanges = ['NFO']\nexpiry = []", "more than one"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "hours.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        market_phase("NFO", at("2026-08-03", "10:00"), path)
