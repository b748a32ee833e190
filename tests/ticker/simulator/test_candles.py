import datetime as dt
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from tests.ticker.simulator.memory_simulator import (
    ACCOUNTS,
    NIFTY_50,
    START,
    MemorySimulator,
    create_market,
    dump_of_start,
    position_of,
    token_of,
)
from ticker.simulator.candles import CandleRequestError, create_candles, parse_request
from ticker.simulator.days import IST
from ticker.simulator.simulation import SimulatorConfig
from ticker.ticks import Row

FUTURE = token_of("NIFTY26DECFUT")
OPTION = token_of("NIFTY26DEC26000CE")
CRUDE = next(r.instrument_token for r in dump_of_start().instruments if r.exchange == "MCX")
DOLLAR = next(r.instrument_token for r in dump_of_start().instruments if r.exchange == "CDS")


def candles(
    token: int, interval: str, start: str, end: str, until: float = START, **query: str
) -> list[Any]:
    given = {name: [value] for name, value in ({"from": start, "to": end} | query).items()}
    market = create_market()
    position = market.position(token)
    assert position is not None
    return create_candles(market, position, parse_request(f"{token}/{interval}", given), until)


def test_a_day_has_its_minutes_and_both_ends_count() -> None:
    rows = candles(FUTURE, "minute", "2026-11-19 09:15:00", "2026-11-19 15:39:00")
    assert rows[0][0] == "2026-11-19T09:15:00+0530"
    assert rows[-1][0] == "2026-11-19T15:39:00+0530"
    assert len(rows) == 385
    for _, opening, high, low, close, volume in rows:
        assert low <= min(opening, close) <= max(opening, close) <= high
        assert volume % 65 == 0


@pytest.mark.parametrize(
    ("token", "day", "first", "last"),
    [
        pytest.param(NIFTY_50, "2026-07-31", "09:15", "15:29", id="the last before the auction"),
        pytest.param(NIFTY_50, "2026-08-03", "09:15", "15:14", id="before the closing auction"),
        pytest.param(OPTION, "2026-07-31", "09:15", "15:29", id="the last of the short days"),
        pytest.param(OPTION, "2026-08-03", "09:15", "15:39", id="the first of the long days"),
        pytest.param(CRUDE, "2026-10-30", "09:00", "23:29", id="New York in summer"),
        pytest.param(CRUDE, "2026-11-03", "09:00", "23:54", id="New York in winter"),
        pytest.param(CRUDE, "2026-11-10", "17:00", "23:54", id="evening session"),
        pytest.param(CRUDE, "2026-02-01", "09:00", "16:59", id="the Budget's Sunday"),
        pytest.param(DOLLAR, "2026-11-19", "09:00", "16:59", id="currency"),
        pytest.param(NIFTY_50, "2025-10-21", "13:45", "14:44", id="Muhurat on a holiday"),
        pytest.param(OPTION, "2024-06-18", "09:15", "15:29", id="a year before the calendar's"),
    ],
)
def test_a_days_candles_are_those_of_continuous_trading(
    token: int, day: str, first: str, last: str
) -> None:
    span = (f"{day} 00:00:00", f"{day} 23:59:59")
    minutes = [row[0] for row in candles(token, "minute", *span)]
    assert minutes[0] == f"{day}T{first}:00+0530"
    assert minutes[-1] == f"{day}T{last}:00+0530"
    opened, closes = dt.datetime.fromisoformat(minutes[0]), dt.datetime.fromisoformat(minutes[-1])
    assert len(minutes) == (closes - opened).seconds // 60 + 1
    hours = candles(token, "60minute", *span)
    assert len(hours) == -(-len(minutes) // 60)
    assert hours[0][0] == minutes[0]


def test_a_day_without_known_hours_or_trading_has_no_candles() -> None:
    for day in ("2026-11-08", "2026-11-07", "2024-06-16"):
        assert candles(CRUDE, "minute", f"{day} 00:00:00", f"{day} 23:59:59") == []


@pytest.mark.parametrize("token", [NIFTY_50, FUTURE, OPTION, CRUDE, DOLLAR])
def test_yesterdays_candle_closes_where_todays_ticks_say(token: int) -> None:
    market = create_market()
    position = market.position(token)
    assert position is not None
    yesterday = dt.datetime.fromtimestamp(START, IST).date() - dt.timedelta(days=1)
    (day,) = candles(token, "day", f"{yesterday} 00:00:00", f"{yesterday} 23:59:59")
    previous_close = market.words[Row.CLOSE, position] / market.divisor[position]
    assert day[4] == pytest.approx(previous_close, abs=0.001)


@pytest.mark.parametrize("token", [NIFTY_50, FUTURE, OPTION])
@pytest.mark.parametrize("interval", ["5minute", "15minute", "60minute", "day"])
def test_longer_candles_are_made_of_the_minutes(token: int, interval: str) -> None:
    span = ("2026-11-19 00:00:00", "2026-11-19 23:59:59")
    minutes = candles(token, "minute", *span, oi="1")
    longer = candles(token, interval, *span, oi="1")
    assert longer[0][1] == minutes[0][1]
    assert longer[-1][4] == minutes[-1][4]
    assert max(row[2] for row in longer) == max(row[2] for row in minutes)
    assert min(row[3] for row in longer) == min(row[3] for row in minutes)
    assert sum(row[5] for row in longer) == sum(row[5] for row in minutes)
    assert longer[-1][6] == minutes[-1][6]


def test_the_live_price_is_the_close_of_the_candle_that_is_forming() -> None:
    until = START + 30
    rows = candles(OPTION, "minute", "2026-11-20 10:00:00", "2026-11-20 15:30:00", until)
    market = create_market()
    market.advance(until)
    place = position_of(market, "NIFTY26DEC26000CE")
    assert rows[-1][0] == "2026-11-20T11:00:00+0530"
    assert rows[-1][4] == market.words[Row.LAST_PRICE, place] / 100


def test_no_candles_on_days_without_trading() -> None:
    rows = candles(NIFTY_50, "day", "2026-11-06 00:00:00", "2026-11-20 00:00:00")
    days = [dt.datetime.fromisoformat(row[0]).date() for row in rows]
    assert dt.date(2026, 11, 7) not in days  # Saturday
    assert dt.date(2026, 11, 10) not in days  # holiday
    assert days[-1] == dt.date(2026, 11, 20)
    assert rows[0][0] == "2026-11-06T00:00:00+0530"


def test_previous_close_is_yesterdays_candles_close_up_to_its_last_second() -> None:
    row = candles(NIFTY_50, "day", "2026-11-19 00:00:00", "2026-11-19 00:00:00")[0]
    market = create_market()
    close = market.words[Row.CLOSE, position_of(market, "NIFTY 50")] / 100
    assert close == pytest.approx(row[4], rel=5e-4)


def test_history_is_the_same_whenever_it_is_asked_for() -> None:
    span = ("2026-11-18 10:00:00", "2026-11-18 11:00:00")
    early = candles(OPTION, "minute", *span, until=START)
    late = candles(OPTION, "minute", *span, until=START + 86_400)
    assert early == late
    assert len(np.unique([row[4] for row in early])) > 30


@pytest.mark.parametrize(
    ("interval", "days"), [("minute", 60), ("5minute", 100), ("60minute", 400), ("day", 2000)]
)
def test_a_request_has_a_longest_span(interval: str, days: int) -> None:
    end = dt.datetime(2026, 11, 20, 10, 0)  # noqa: DTZ001 - as the broker's API has it
    for extra in (0, 1):
        start = end - dt.timedelta(days=days, seconds=extra)
        query = {"from": [str(start)], "to": [str(end)]}
        if extra:
            with pytest.raises(CandleRequestError, match=f"exceeds max limit: {days} days"):
                parse_request(f"1/{interval}", query)
        else:
            parse_request(f"1/{interval}", query)


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        ("1/fortnight", "2026-11-19", "2026-11-20"),
        ("x/minute", "2026-11-19", "2026-11-20"),
        ("1/minute", "yesterday", "2026-11-20"),
        ("1/minute", "2026-11-20", "2026-11-19"),
    ],
)
async def test_bad_requests_end_in_an_input_exception(
    autojump_clock: MockClock, nursery: trio.Nursery, path: str, start: str, end: str
) -> None:
    simulator = MemorySimulator(nursery, SimulatorConfig(accounts=ACCOUNTS))
    query = urlencode({"from": start, "to": end})
    answer = await simulator.get(f"/instruments/historical/{path}?{query}")
    assert answer["error_type"] == "InputException"


@pytest.mark.parametrize(
    ("token", "interval", "is_served"),
    [
        (FUTURE, "day", True),
        (FUTURE, "minute", False),
        (OPTION, "day", False),
        (NIFTY_50, "day", False),
    ],
)
async def test_only_days_of_futures_can_be_continuous(
    autojump_clock: MockClock, nursery: trio.Nursery, token: int, interval: str, is_served: bool
) -> None:
    simulator = MemorySimulator(nursery, SimulatorConfig(accounts=ACCOUNTS))
    query = urlencode({"from": "2026-11-18", "to": "2026-11-20", "continuous": 1})
    answer = await simulator.get(f"/instruments/historical/{token}/{interval}?{query}")
    assert answer["status"] == ("success" if is_served else "error")
