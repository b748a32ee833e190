"""What is kept of the candles that the broker sends for a range."""

import datetime as dt
import json

import httpx
import pytest

from tests.rest_brokers import Handler, open_memory_brokers
from ticker.history.candles import load_range
from ticker.history.range import INDIA, Span
from ticker.kite.models import Candles, Interval


def india(day: int, hour: int = 0, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 11, day, hour, minute, tzinfo=INDIA)


def broker_of(*openings: dt.datetime) -> Handler:
    """A broker that sends these, whatever it is asked."""

    def answer(request: httpx.Request) -> httpx.Response:
        numbers = 5 + int(request.url.params["oi"])
        rows = [
            [f"{at:%Y-%m-%dT%H:%M:%S%z}", *[place] * numbers] for place, at in enumerate(openings)
        ]
        return httpx.Response(200, text=json.dumps({"data": {"candles": rows}}))

    return answer


async def load(handler: Handler, interval: Interval, span: Span, *, oi: bool = False) -> Candles:
    async with open_memory_brokers(handler) as brokers:
        return await load_range(brokers, 1, interval, span, oi=oi)


@pytest.mark.parametrize("oi", [True, False])
async def test_what_lies_outside_the_range_is_left_out(oi: bool) -> None:
    old = dt.datetime(2017, 12, 15, 9, 15, tzinfo=INDIA)
    minutes = [india(20, 9, 14), india(20, 9, 15), india(20, 9, 20), india(20, 9, 21)]
    span = Span(india(20, 9, 15), india(20, 9, 20))
    found = await load(broker_of(old, *minutes), "minute", span, oi=oi)
    assert found.starts.tolist() == [int(at.timestamp()) for at in minutes[1:3]]
    assert found.close.tolist() == found.volume.tolist() == [2, 3]
    assert (None if found.oi is None else found.oi.tolist()) == ([2, 3] if oi else None)
    assert len(await load(broker_of(old), "minute", span)) == 0


async def test_a_day_that_is_asked_for_from_its_middle_counts() -> None:
    days = [india(18), india(19), india(20)]
    utc = Span(india(19, 9, 15).astimezone(dt.UTC), india(20).astimezone(dt.UTC))
    found = await load(broker_of(*days), "day", utc)
    assert found.starts.tolist() == [int(at.timestamp()) for at in days[1:]]
