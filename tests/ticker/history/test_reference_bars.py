"""Minutes of underlyings: asked of the broker once, with a real PostgreSQL between."""

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import numpy as np
import pytest
import trio

from tests.postgres import open_test_database
from tests.rest_brokers import open_memory_brokers
from ticker.errors import BrokerUnreachableError
from ticker.history.range import INDIA, Span
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.registry import Instrument
from ticker.kite.calls import RestPolicy
from ticker.stores.database import Database, DatabasePolicy, open_database
from ticker.stores.minute_bars import MinuteBarStore

pytestmark = pytest.mark.slow

NIFTY = Instrument(256265, 1001, "NIFTY 50", "NIFTY 50", None, 0, 0, 0, "EQ", "INDICES", "NSE")
NOW = dt.datetime(2026, 11, 20, 14, 0, 30, tzinfo=INDIA).timestamp()


def india(day: int, hour: int, minute: int) -> dt.datetime:
    return dt.datetime(2026, 11, day, hour, minute, tzinfo=INDIA)


class CandleBroker:
    """Has a candle for each minute from 09:15 to 15:29 of a weekday, and counts what is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.is_well = True
        self.now = NOW

    def answer(self, request: httpx.Request) -> httpx.Response:
        if not self.is_well:
            return httpx.Response(503)
        query = request.url.params
        self.asked.append((query["from"][8:16], query["to"][8:16]))
        since, until = (
            dt.datetime.fromisoformat(query[name]).replace(tzinfo=INDIA) for name in ("from", "to")
        )
        until = min(until, dt.datetime.fromtimestamp(self.now, INDIA))
        rows = []
        at = since.replace(second=0)
        while at <= until:
            if at.weekday() < 5 and dt.time(9, 15) <= at.time() < dt.time(15, 30):
                price = at.timestamp() % 86_400
                rows.append([f"{at:%Y-%m-%dT%H:%M:%S%z}", *[price] * 4, 5])
            at += dt.timedelta(minutes=1)
        body = msgspec.json.encode({"data": {"candles": rows}})
        return httpx.Response(200, content=body)


@asynccontextmanager
async def references(
    broker: CandleBroker, database: Database | None, now: dt.datetime | None = None
) -> AsyncIterator[ReferenceBars]:
    at = NOW if now is None else now.timestamp()
    async with open_memory_brokers(broker.answer, policy=RestPolicy(attempts=1)) as brokers:
        store = MinuteBarStore(database) if database is not None else None
        yield ReferenceBars(brokers, store, wall_clock=lambda: at)


TWO_DAYS = Span(india(18, 9, 15), india(19, 15, 29))


async def test_minutes_that_are_kept_are_not_asked_for_again() -> None:
    broker = CandleBroker()
    async with open_test_database() as database, references(broker, database) as bars:
        first = await bars.load(NIFTY, "minute", TWO_DAYS)
        again = await bars.load(NIFTY, "minute", TWO_DAYS)
        assert broker.asked == [("18 09:15", "19 23:59")]
        assert len(first) == len(again) == 750
        assert np.array_equal(first.starts, again.starts)
        assert np.array_equal(first.prices, again.prices)
        assert again.volume.tolist() == [5] * 750


async def test_only_what_is_missing_is_asked_for() -> None:
    broker = CandleBroker()
    async with open_test_database() as database, references(broker, database) as bars:
        await bars.load(NIFTY, "minute", Span(india(18, 9, 15), india(18, 15, 29)))
        await bars.load(NIFTY, "minute", Span(india(19, 10, 0), india(19, 10, 59)))
        broker.asked.clear()
        found = await bars.load(NIFTY, "minute", TWO_DAYS)
        assert len(found) == 750
        assert broker.asked == [("19 09:15", "19 23:59")]
        broker.asked.clear()
        whole = Span(india(18, 0, 0), india(19, 23, 59))
        assert len(await bars.load(NIFTY, "minute", whole)) == 750
        assert broker.asked == []


async def test_the_minute_that_is_forming_is_asked_for_each_time_and_not_kept() -> None:
    broker = CandleBroker()
    today = Span(india(20, 9, 15), india(20, 15, 30))
    async with open_test_database() as database, references(broker, database) as bars:
        assert len(await bars.load(NIFTY, "minute", today)) == 286
        kept = await MinuteBarStore(database).load("NIFTY", india(20, 0, 0), india(21, 0, 0))
        assert kept[-1].time == india(20, 13, 57)
        broker.asked.clear()
        assert len(await bars.load(NIFTY, "minute", today)) == 286
        assert broker.asked == [("20 13:58", "20 15:30")]


async def test_minutes_after_continuous_trading_are_not_lost_to_who_asked_too_early() -> None:
    broker, now = CandleBroker(), india(20, 15, 21)
    broker.now = now.timestamp()
    today = Span(india(20, 9, 15), india(20, 23, 59))
    async with open_test_database() as database:
        async with references(broker, database, now) as bars:
            assert len(await bars.load(NIFTY, "minute", today)) == 367
        broker.now = india(20, 20, 0).timestamp()
        for _ in range(2):
            async with references(broker, database, india(20, 20, 0)) as bars:
                assert len(await bars.load(NIFTY, "minute", today)) == 375
    assert broker.asked == [("20 09:15", "20 23:59"), ("20 15:14", "20 23:59")]


async def test_days_without_trading_are_not_asked_for() -> None:
    broker = CandleBroker()
    async with open_test_database() as database, references(broker, database) as bars:
        assert len(await bars.load(NIFTY, "minute", Span(india(14, 0, 0), india(15, 23, 59)))) == 0
    assert broker.asked == []


async def test_a_year_outside_the_calendar_is_asked_for() -> None:
    broker = CandleBroker()
    span = Span(
        dt.datetime(2019, 11, 20, 9, 15, tzinfo=INDIA),
        dt.datetime(2019, 11, 20, 15, 29, tzinfo=INDIA),
    )
    async with open_test_database() as database, references(broker, database) as bars:
        assert len(await bars.load(NIFTY, "minute", span)) == 375


async def test_without_postgresql_the_broker_is_asked() -> None:
    broker = CandleBroker()
    async with references(broker, None) as bars:
        assert len(await bars.load(NIFTY, "minute", TWO_DAYS)) == 750
    policy = DatabasePolicy(connect_timeout_s=0.2)
    url = "postgresql://127.0.0.1:1/none"
    async with (
        open_database(url, policy, wall_clock=lambda: NOW) as database,
        references(broker, database) as bars,
    ):
        with trio.fail_after(5):
            assert len(await bars.load(NIFTY, "minute", TWO_DAYS)) == 750


async def test_without_the_broker_what_is_kept_serves() -> None:
    broker = CandleBroker()
    async with open_test_database() as database, references(broker, database) as bars:
        await bars.load(NIFTY, "minute", TWO_DAYS)
        broker.is_well = False
        assert len(await bars.load(NIFTY, "minute", TWO_DAYS)) == 750
        with pytest.raises(BrokerUnreachableError):
            await bars.load(NIFTY, "minute", Span(india(17, 9, 15), india(19, 15, 29)))
