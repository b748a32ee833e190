import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from tests.postgres import open_test_database
from ticker.stores.minute_bars import MinuteBar, MinuteBarStore

pytestmark = pytest.mark.slow

OPEN_AT = dt.datetime(2026, 11, 20, 3, 45, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


def bar(minute: int, close: float = 1.5) -> MinuteBar:
    time = OPEN_AT + minute * MINUTE
    return MinuteBar(time=time, open=1.0, high=2.0, low=0.5, close=close, volume=10)


async def test_bars_come_back_as_they_were_in_order() -> None:
    async with open_test_database() as database:
        store = MinuteBarStore(database)
        await store.save("NIFTY", [bar(2), bar(0), bar(1)])
        await store.save("BANKNIFTY", [bar(0, 9.0)])
        loaded = await store.load("NIFTY", OPEN_AT, OPEN_AT + 3 * MINUTE)
        assert loaded == [bar(0), bar(1), bar(2)]
        assert all(row.time.utcoffset() == dt.timedelta() for row in loaded)
        assert await store.load("NIFTY", OPEN_AT + MINUTE, OPEN_AT + 2 * MINUTE) == [bar(1)]
        assert await store.load("SENSEX", OPEN_AT, OPEN_AT + 3 * MINUTE) == []


async def test_an_instant_is_the_same_in_every_zone() -> None:
    async with open_test_database() as database:
        store = MinuteBarStore(database)
        india = OPEN_AT.astimezone(ZoneInfo("Asia/Kolkata"))
        given = MinuteBar(time=india, open=1, high=1, low=1, close=1)
        await store.save("NIFTY", [given])
        (loaded,) = await store.load("NIFTY", india, india + MINUTE)
        assert loaded == given
        assert loaded.time.hour == 3


async def test_a_minute_has_one_bar_the_latest() -> None:
    async with open_test_database() as database:
        store = MinuteBarStore(database)
        await store.save("NIFTY", [bar(0), bar(1), bar(1, 3.0)])
        await store.save("NIFTY", [bar(0, 4.0)])
        loaded = await store.load("NIFTY", OPEN_AT, OPEN_AT + 3 * MINUTE)
        assert [row.close for row in loaded] == [4.0, 3.0]


async def test_no_bars_are_no_trouble() -> None:
    async with open_test_database() as database:
        await MinuteBarStore(database).save("NIFTY", [])


async def test_a_month_of_minutes_is_one_call() -> None:
    async with open_test_database() as database:
        store = MinuteBarStore(database)
        await store.save("NIFTY", [bar(minute) for minute in range(8000)])
        assert len(await store.load("NIFTY", OPEN_AT, OPEN_AT + 8000 * MINUTE)) == 8000
