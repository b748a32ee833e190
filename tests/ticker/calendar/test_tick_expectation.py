"""Silence means something only while a market of the connection is open."""

import datetime as dt

import pytest

from tests.ticker.synthetic import create_future, create_index
from ticker.calendar.tick_expectation import expects_ticks
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import ConnectionId
from ticker.planning.plan import Plan

CONNECTION = ConnectionId("a", 0)
IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
MCX = create_future(900, "CRUDEOIL", exchange="MCX", segment=7)
NFO = create_future(1000)
INDEX = create_index()
REGISTRY = InstrumentRegistry([INDEX, NFO, MCX])


@pytest.mark.parametrize(
    ("tokens", "clock", "expected"),
    [
        ([INDEX.instrument_token], "2026-11-20 10:00", True),
        ([INDEX.instrument_token], "2026-11-20 20:00", False),
        ([INDEX.instrument_token], "2026-11-21 10:00", False),  # a Saturday
        ([INDEX.instrument_token], "2026-11-20 09:10", False),  # the pre-open owes nobody a tick
        ([INDEX.instrument_token], "2026-11-20 09:15", False),  # the newest is of yesterday
        ([INDEX.instrument_token], "2026-11-20 09:16", True),
        ([INDEX.instrument_token], "2026-11-20 15:15", True),  # one phase after the other
        ([NFO.instrument_token], "2026-11-20 15:36", True),
        ([NFO.instrument_token], "2026-11-20 15:41", False),
        ([MCX.instrument_token], "2026-11-20 20:00", True),
        ([INDEX.instrument_token, MCX.instrument_token], "2026-11-20 20:00", True),
        ([], "2026-11-20 10:00", False),
        ([12345], "2026-11-20 10:00", False),  # not in the dump
        ([INDEX.instrument_token], "2031-11-20 10:00", False),  # not in the calendar
    ],
)
def test_expects_ticks(tokens: list[int], clock: str, expected: bool) -> None:
    plan = Plan({CONNECTION: dict.fromkeys(tokens, "full")})
    at = dt.datetime.fromisoformat(clock).replace(tzinfo=IST).timestamp()
    assert expects_ticks(CONNECTION, plan, REGISTRY, at) is expected


def test_how_long_a_silence_may_last_is_waited_after_the_opening() -> None:
    plan = Plan({CONNECTION: {INDEX.instrument_token: "full"}})
    at = dt.datetime(2026, 11, 20, 9, 15, tzinfo=IST).timestamp()
    told = [
        expects_ticks(CONNECTION, plan, REGISTRY, at + later, open_for_s=5.0)
        for later in (0, 4.9, 5.0)
    ]
    assert told == [False, False, True]
