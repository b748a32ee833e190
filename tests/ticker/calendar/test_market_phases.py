"""Every day of the years the file covers, and the properties any day must have."""

import datetime as dt
from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ticker.calendar.market_hours import (
    Phase,
    day_name,
    day_phases,
    last_covered_day,
    market_date,
    market_phase,
    next_open,
    require_year,
    segments,
)
from ticker.errors import ConfigurationError

IST = ZoneInfo("Asia/Kolkata")
FIRST, LAST = dt.date(2025, 1, 1), dt.date(2026, 12, 31)
CASH, DERIVATIVES, CURRENCY, COMMODITIES = (
    ("NSE", "BSE"),
    ("NFO", "BFO"),
    ("CDS", "BCD"),
    ("MCX", "NCO"),
)
ALL = (*CASH, *DERIVATIVES, *CURRENCY, *COMMODITIES)

# The exchanges' lists, written down apart from the file. Equity: NSE/CMTR/65587 and 71775, and the
# circulars of January 2026 on the municipal elections.
EQUITY_HOLIDAYS = {
    2025: "02-26 03-14 03-31 04-10 04-14 04-18 05-01 08-15 08-27 10-02 10-22 11-05 12-25",
    2026: "01-15 01-26 03-03 03-26 03-31 04-03 04-14 05-01 05-28 06-26 09-14 10-02 10-20 11-10 "
    "11-24 12-25",
}
# What the money market adds: NSE/CD/65903 with 70033, and 71962.
MONEY_MARKET_HOLIDAYS = {2025: "02-19 04-01 05-12 09-08", 2026: "02-19 03-19 04-01 08-26"}
# Commodities: neither session on these days, the evening session on the equity market's others.
COMMODITY_HOLIDAYS = {2025: "04-18 08-15 10-02 12-25", 2026: "01-26 04-03 10-02 12-25"}
MUHURAT = dt.date(2025, 10, 21)
MUHURAT_WITHOUT_HOURS = dt.date(2026, 11, 8)
BUDGET = {dt.date(2025, 2, 1), dt.date(2026, 2, 1)}
NEW_YEAR = {dt.date(2025, 1, 1), dt.date(2026, 1, 1)}
AUCTION_FROM = dt.date(2026, 8, 3)
PRE_OPEN_OF_FUTURES_FROM = dt.date(2025, 12, 8)
# MCX keeps 23:55 between the Mondays after the United States change their clocks.
WINTERS = [
    (dt.date(2024, 11, 4), dt.date(2025, 3, 9)),
    (dt.date(2025, 11, 3), dt.date(2026, 3, 8)),
    (dt.date(2026, 11, 2), dt.date(2027, 3, 14)),
]


def dates(by_year: dict[int, str]) -> set[dt.date]:
    return {
        dt.date.fromisoformat(f"{year}-{day}")
        for year, days in by_year.items()
        for day in days.split()
    }


def all_days() -> Iterator[dt.date]:
    for ahead in range((LAST - FIRST).days + 1):
        yield FIRST + dt.timedelta(days=ahead)


def at(day: dt.date | str, clock: str) -> dt.datetime:
    date = dt.date.fromisoformat(day) if isinstance(day, str) else day
    return dt.datetime.combine(date, dt.time.fromisoformat(clock), IST)


def describe(segment: str, day: dt.date) -> str:
    return " ".join(
        f"{phase.name}={phase.since.astimezone(IST):%H:%M}-{phase.until.astimezone(IST):%H:%M}"
        for phase in day_phases(segment, day)
        if phase.since is not None and phase.until is not None
    )


def expected_cash(day: dt.date) -> str:
    if day == MUHURAT:
        return "pre_open=13:30-13:45 continuous=13:45-14:45 post_close=14:55-15:05"
    if (day.weekday() > 4 and day not in BUDGET) or day in dates(EQUITY_HOLIDAYS):
        return ""
    if day >= AUCTION_FROM:
        trading = "continuous=09:15-15:15 closing_auction=15:15-15:35"
    else:
        trading = "continuous=09:15-15:30"
    return f"pre_open=09:00-09:15 {trading} post_close=15:40-16:00"


def expected_derivatives(day: dt.date) -> str:
    if day == MUHURAT:
        return "continuous=13:45-14:45"
    if not expected_cash(day):
        return ""
    trading = f"continuous=09:15-{'15:40' if day >= AUCTION_FROM else '15:30'}"
    return trading if day < PRE_OPEN_OF_FUTURES_FROM else f"pre_open=09:00-09:15 {trading}"


def expected_currency(day: dt.date) -> str:
    if day == MUHURAT:
        return "continuous=13:45-14:45"
    holidays = dates(EQUITY_HOLIDAYS) | dates(MONEY_MARKET_HOLIDAYS)
    return "" if day.weekday() > 4 or day in holidays else "continuous=09:00-17:00"


def expected_commodities(day: dt.date) -> str:
    if day == MUHURAT:
        return "continuous=13:45-14:45"
    if day in BUDGET | NEW_YEAR:
        return "continuous=09:00-17:00"
    if day.weekday() > 4 or day in dates(COMMODITY_HOLIDAYS):
        return ""
    winter = any(first <= day <= last for first, last in WINTERS)
    opening = "17:00" if day in dates(EQUITY_HOLIDAYS) else "09:00"
    return f"continuous={opening}-{'23:55' if winter else '23:30'}"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (CASH, expected_cash),
        (DERIVATIVES, expected_derivatives),
        (CURRENCY, expected_currency),
        (COMMODITIES, expected_commodities),
    ],
    ids=["cash", "derivatives", "currency", "commodities"],
)
def test_every_day_of_both_years(
    names: tuple[str, ...], expected: Callable[[dt.date], str]
) -> None:
    for day in all_days():
        for name in names:
            assert (day, describe(name, day)) == (day, expected(day))


def test_so_many_sessions_a_year() -> None:
    sessions = [
        sum(bool(day_phases("NSE", day)) for day in all_days() if day.year == year)
        for year in (2025, 2026)
    ]
    # 261 weekdays each; 14 and 16 holidays; a Budget session each; Muhurat of 2025.
    assert sessions == [249, 246]


def test_days_have_names() -> None:
    assert day_name("NSE", dt.date(2026, 3, 3)) == "Holi"
    assert day_name("MCX", dt.date(2026, 3, 3)) == "evening session only"
    assert day_name("NFO", dt.date(2026, 2, 1)) == "Union Budget"
    assert day_name("CDS", dt.date(2026, 2, 1)) is None
    assert day_name("NSE", MUHURAT_WITHOUT_HOURS) == "Diwali Muhurat, hours not known here"
    assert day_name("NSE", dt.date(2026, 3, 4)) is None


def test_a_session_without_known_hours_is_closed_all_day() -> None:
    for segment in ALL:
        assert day_phases(segment, MUHURAT_WITHOUT_HOURS) == ()


INSTANTS = st.integers(int(at(FIRST, "00:00").timestamp()), int(at(LAST, "23:59").timestamp())).map(
    lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC)
)
SECOND = dt.timedelta(seconds=1)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ALL), INSTANTS, st.floats(0, 0.99))
def test_phases_partition_time_and_the_next_change_is_the_next(
    segment: str, now: dt.datetime, part: float
) -> None:
    phase = market_phase(segment, now)
    assert phase.since is None or phase.since <= now
    assert phase.until is None or now < phase.until
    if phase.since is not None:
        before = market_phase(segment, phase.since - SECOND)
        assert before.until == phase.since
        assert before.name != phase.name
        elsewhere = phase.since + ((phase.until or now) - phase.since) * part
        assert market_phase(segment, elsewhere) == phase
    else:
        assert market_phase(segment, at(FIRST, "00:00")) == phase
    if phase.until is not None:
        after = market_phase(segment, phase.until)
        assert after.since == phase.until
        assert after.name != phase.name
    else:
        assert market_phase(segment, at(LAST, "23:59")) == phase
    assert phase.is_open is (phase.name in {"continuous", "closing_auction"})


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ALL), INSTANTS)
def test_the_next_open_is_the_first_change_to_open(segment: str, now: dt.datetime) -> None:
    phase: Phase | None = market_phase(segment, now)
    was_open, found = phase is not None and phase.is_open, None
    while phase is not None and found is None:
        if phase.until is None:
            break
        phase = market_phase(segment, phase.until)
        if phase.is_open and not was_open:
            found = phase.since
        was_open = phase.is_open
    assert next_open(segment, now) == found


@pytest.mark.parametrize(
    ("segment", "clock", "name", "until"),
    [
        ("NSE", "08:59:59", "closed", "09:00"),
        ("NSE", "09:00", "pre_open", "09:15"),
        ("NSE", "09:15", "continuous", "15:15"),
        ("NSE", "15:15", "closing_auction", "15:35"),
        ("NSE", "15:35", "closed", "15:40"),
        ("NSE", "15:40", "post_close", "16:00"),
        ("NFO", "15:39:59", "continuous", "15:40"),
        ("MCX", "23:29", "continuous", "23:30"),
    ],
)
def test_a_day_with_the_closing_auction(segment: str, clock: str, name: str, until: str) -> None:
    phase = market_phase(segment, at("2026-08-03", clock))
    assert (phase.name, phase.until) == (name, at("2026-08-03", until))
    assert phase.until is not None
    assert phase.until.tzinfo is dt.UTC


def test_the_auction_is_no_opening_of_its_own() -> None:
    assert next_open("NSE", at("2026-08-03", "10:00")) == at("2026-08-04", "09:15")
    assert next_open("NSE", at("2026-08-03", "09:14:59")) == at("2026-08-03", "09:15")
    # A long weekend: Friday is a holiday.
    assert next_open("NSE", at("2026-10-01", "15:30")) == at("2026-10-05", "09:15")


def test_hosts_anywhere_see_the_same_day(host_zone: ZoneInfo) -> None:
    # 20:00 UTC of Sunday is Monday 01:30 in Mumbai and Sunday afternoon in New York.
    sunday = dt.datetime(2026, 8, 2, 20, tzinfo=dt.UTC)
    for now in (sunday, sunday.astimezone(host_zone), sunday.astimezone()):
        assert market_date(now) == dt.date(2026, 8, 3)
        assert market_phase("NSE", now).until == at("2026-08-03", "09:00")
    during = at("2026-08-03", "15:36").astimezone(host_zone)
    assert [market_phase(name, during).is_open for name in ("NSE", "NFO", "MCX")] == [
        False,
        True,
        True,
    ]
    # The year ends in Mumbai while it is still afternoon in New York.
    with pytest.raises(ConfigurationError):
        market_phase("NSE", dt.datetime(2026, 12, 31, 18, 30, tzinfo=dt.UTC).astimezone(host_zone))
    assert not market_phase("NSE", at("2026-12-31", "23:59").astimezone(host_zone)).is_open


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        market_phase("NSE", dt.datetime(2026, 8, 3, 10))  # noqa: DTZ001


@pytest.mark.parametrize("segment", ALL)
def test_a_year_that_is_not_covered_is_an_error_and_never_open(segment: str) -> None:
    complaint = f"do not cover 2027 for {segment}: MARKET_HOURS_FILE"
    now = at("2027-01-04", "10:00")
    with pytest.raises(ConfigurationError, match=complaint):
        market_phase(segment, now)
    with pytest.raises(ConfigurationError, match=complaint):
        next_open(segment, now)
    with pytest.raises(ConfigurationError, match=complaint):
        day_phases(segment, now.date())
    with pytest.raises(ConfigurationError, match=complaint):
        day_name(segment, now.date())
    with pytest.raises(ConfigurationError, match="do not cover 2024"):
        market_phase(segment, at("2024-12-31", "23:59"))
    with pytest.raises(ConfigurationError, match="do not know the exchange 'XYZ'"):
        market_phase("XYZ", now)


def test_what_lies_beyond_the_years_is_unknown_not_guessed() -> None:
    assert market_phase("NSE", at(FIRST, "00:00")).since is None
    evening = market_phase("NSE", at(LAST, "20:00"))
    assert (evening.name, evening.until) == ("closed", None)
    assert next_open("NSE", at(LAST, "20:00")) is None


def test_a_service_can_ask_at_its_start() -> None:
    require_year(at("2025-01-01", "00:00"), ALL)
    require_year(at("2026-12-31", "23:59"), ALL)
    with pytest.raises(ConfigurationError, match="do not cover 2027"):
        require_year(at("2027-01-01", "00:00"), ALL)
    with pytest.raises(ConfigurationError, match="do not know the exchange 'LUNAR'"):
        require_year(at("2026-12-31", "23:59"), ["NSE", "LUNAR"])
    for now in ("2025-01-01", "2026-12-31", "2027-01-01", "2099-01-01"):
        assert last_covered_day(at(now, "00:00"), ALL) == LAST
    assert last_covered_day(at("2024-12-31", "23:59"), ALL) is None
    assert segments() == ALL
