"""The broker's own sample answers, and what is made of candles."""

import datetime as dt
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from tests.rest_brokers import open_memory_brokers
from ticker.kite.models import Candles, join_candles, parse_candles

MOCKS = Path(__file__).parents[4] / "shared" / "kite-mocks"
needs_mocks = pytest.mark.skipif(
    not MOCKS.is_dir(), reason="the broker's sample answers are not there"
)
NOON = dt.datetime(2017, 12, 15, 6, 30, tzinfo=dt.UTC)


async def answer(name: str, method: str, *args: Any) -> Any:
    """What a method makes of a sample answer."""
    body = (MOCKS / name).read_bytes()
    async with open_memory_brokers(lambda request: httpx.Response(200, content=body)) as brokers:
        return await getattr(brokers.of("first"), method)(*args)


@needs_mocks
async def test_a_profile() -> None:
    profile = await answer("profile.json", "load_profile")
    assert (profile.user_id, profile.broker) == ("AB1234", "ZERODHA")
    assert profile.products == ("CNC", "NRML", "MIS", "BO", "CO")
    full = await answer("full_profile.json", "load_profile")
    assert full.user_id == "AB1234"


@needs_mocks
async def test_a_session_and_its_end() -> None:
    session = await answer("generate_session.json", "create_session", "token", "secret")
    assert (session.user_id, session.access_token) == ("XX0000", "XXXXXX")
    assert session.login_time == "2021-01-01 16:15:14"
    await answer("session_logout.json", "delete_session")


@needs_mocks
async def test_quotes() -> None:
    assert await answer("ltp.json", "load_last_prices", ["NSE:INFY"]) == {"NSE:INFY": 1074.35}
    ohlc = (await answer("ohlc.json", "load_ohlc", ["NSE:INFY"]))["NSE:INFY"]
    assert (ohlc.last_price, ohlc.ohlc.high, ohlc.ohlc.close) == (1075.0, 1085.9, 1075.8)
    quote = (await answer("quote.json", "load_quotes", ["NSE:INFY"]))["NSE:INFY"]
    assert (quote.instrument_token, quote.last_price) == (408065, 1412.95)
    assert quote.depth.sell[0].quantity == quote.sell_quantity == 5191
    assert quote.last_trade_time == "2021-06-08 15:45:52"


@needs_mocks
async def test_candles() -> None:
    candles = await answer("historical_minute.json", "load_candles", 1, "minute", NOON, NOON)
    rows = msgspec.json.decode((MOCKS / "historical_minute.json").read_bytes())["data"]["candles"]
    assert len(candles) == len(rows)
    assert candles.prices[:, 0].tolist() == rows[0][1:5]
    assert candles.volume.tolist() == [row[5] for row in rows]
    first = dt.datetime.fromtimestamp(int(candles.starts[0]), dt.UTC)
    assert first == dt.datetime.fromisoformat(rows[0][0])


@needs_mocks
async def test_instruments() -> None:
    body = (MOCKS / "instruments_nse.csv").read_bytes()
    async with open_memory_brokers(lambda request: httpx.Response(200, content=body)) as brokers:
        pieces = [piece async for piece in brokers.of("first").load_instruments("NSE")]
    assert b"".join(pieces) == body


def body_of(*rows: list[object]) -> bytes:
    return msgspec.json.encode({"status": "success", "data": {"candles": rows}})


def row(time: str, price: float, *rest: int) -> list[object]:
    return [f"2026-11-20T{time}+0530", price, price + 2, price - 2, price + 1, *rest]


def test_candles_are_sorted_and_come_once() -> None:
    body = body_of(row("09:17:00", 30, 3, 7), row("09:15:00", 10, 1, 5), row("09:15:00", 11, 2, 6))
    candles = parse_candles(body, oi=True)
    assert np.diff(candles.starts).tolist() == [120]
    assert candles.close.tolist() == [12.0, 31.0]
    assert candles.volume.tolist() == [2, 3]
    assert candles.oi is not None
    assert candles.oi.tolist() == [6, 7]


def test_no_candles_are_candles_too() -> None:
    candles = parse_candles(body_of(), oi=False)
    assert len(candles) == 0
    assert candles.prices.shape == (4, 0)
    assert len(join_candles([candles, candles])) == 0


@pytest.mark.parametrize(
    "rows",
    [
        [["2026-11-20T09:15:00Z", 1, 1, 1, 1, 1]],
        [["2026-11-20T09:15:00", 1, 1, 1, 1, 1]],
        [["yesterday", 1, 1, 1, 1, 1]],
        [["2026-11-20T09:15:00+0530", 1, 1, 1, 1]],
        [["2026-11-20T09:15:00+0530", 1, 1, 1, 1, 1, 1]],
        [["2026-11-20T09:15:00+0530", 1, None, 1, 1, 1]],
        [["2026-99-20T09:15:00+0530", 1, 1, 1, 1, 1]],
        [[]],
        [7],
    ],
)
def test_what_is_no_candle_is_refused(rows: list[list[object]]) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        parse_candles(body_of(*rows), oi=False)


def test_many_candles_are_as_few() -> None:
    start = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - as the broker writes it
    rows = [
        [f"{start + dt.timedelta(minutes=n):%Y-%m-%dT%H:%M:%S}+0530", n, n, n, n, n, n]
        for n in range(10_000)
    ]
    candles = parse_candles(body_of(*rows), oi=True)
    assert candles.prices[2].tolist() == list(range(10_000))
    assert set(np.diff(candles.starts).tolist()) == {60}


def part(starts: list[int], price: float) -> Candles:
    return Candles(
        np.array(starts), np.full((4, len(starts)), price), np.ones(len(starts), np.int64)
    )


def test_joined_candles_come_once_and_the_later_part_counts() -> None:
    joined = join_candles([part([60, 120], 1.0), part([0, 120, 180], 2.0)])
    assert joined.starts.tolist() == [0, 60, 120, 180]
    assert joined.close.tolist() == [2.0, 1.0, 2.0, 2.0]
    assert joined.oi is None
