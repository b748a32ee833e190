"""The mock market's first prices by the candles of the broker's simulator, at several hours."""

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.integration.market_clock import MarketClock
from tests.rest_brokers import SimulatedBrokers, open_simulated_brokers
from tests.ticker.mock_market.rig import create_market
from ticker.calendar.trading_hours import TradingHours
from ticker.engine import Newest
from ticker.history.candles import load_last_close
from ticker.instruments.registry import Instrument, InstrumentRegistry, parse_instruments
from ticker.mock_market.seeder import Seeder
from ticker.simulator.days import IST

pytestmark = pytest.mark.slow

HISTORY_S = 600.0


def clock(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=IST).timestamp()


@asynccontextmanager
async def open_market(now: float) -> AsyncIterator[tuple[SimulatedBrokers, InstrumentRegistry]]:
    async with open_simulated_brokers(
        wall_clock=MarketClock(now, speed=1.0), market_hours=True
    ) as simulated:
        text = bytearray()
        async for part in simulated.brokers.of("first").load_instruments():
            text += part
        rows = parse_instruments(text.decode().splitlines(keepends=True))
        yield simulated, InstrumentRegistry(row for row in rows if row is not None)


def chosen(registry: InstrumentRegistry, exchange: str) -> Instrument:
    """An index, an option or a future: whatever is NIFTY's there, or crude oil's."""
    rows = [*registry.of_underlying("NIFTY"), *registry.of_underlying("CRUDEOIL")]
    return next(
        row for row in rows if row.exchange == exchange and row.is_option is (exchange == "NFO")
    )


async def candle_at(simulated: SimulatedBrokers, token: int, opens: str) -> Any:
    """The row of the minute that opens then, asked of the simulator by nobody but this test."""
    account = simulated.accounts[0]
    ask = partial(
        simulated.simulator.get,
        f"/instruments/historical/{token}/minute",
        params={"from": f"{opens}:00", "to": f"{opens}:00"},
        headers={"Authorization": f"token {account.api_key}:{account.access_token}"},
    )
    while (answer := await ask()).status_code == 429:  # noqa: ASYNC110 - three calls a second
        await trio.sleep(0.5)
    (row,) = answer.raise_for_status().json()["data"]["candles"]
    return row


def load_nothing(tokens: Sequence[int]) -> Mapping[int, Newest]:
    del tokens
    return {}


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        pytest.param(
            "2026-01-24 12:00",
            {"NSE": "2026-01-23 15:29", "NFO": "2026-01-23 15:29"},
            id="Saturday",
        ),
        pytest.param(
            "2026-06-16 18:00",
            {"NSE": "2026-06-16 15:29", "NFO": "2026-06-16 15:29"},
            id="evening",
        ),
        pytest.param(
            "2026-06-16 23:45",
            {"NSE": "2026-06-16 15:29", "NFO": "2026-06-16 15:29", "MCX": "2026-06-16 23:29"},
            id="late evening, commodities too",
        ),
        pytest.param(
            "2026-01-27 08:30",
            {"NSE": "2026-01-23 15:29", "NFO": "2026-01-23 15:29"},
            id="before the open, after a holiday and a weekend",
        ),
        pytest.param(
            "2026-02-01 20:00",
            {"NSE": "2026-02-01 15:29", "NFO": "2026-02-01 15:29", "MCX": "2026-02-01 16:59"},
            id="after the Budget's Sunday",
        ),
        pytest.param(
            "2026-11-20 23:58",
            {"NSE": "2026-11-20 15:14", "NFO": "2026-11-20 15:39", "MCX": "2026-11-20 23:54"},
            id="before the auction, after it and in winter",
        ),
    ],
)
async def test_the_seed_is_the_last_minute_of_continuous_trading(
    now: str, opens: Mapping[str, str]
) -> None:
    async with open_market(clock(now)) as (simulated, registry):
        market = create_market(history_s=HISTORY_S, variation=0.0)  # it stays where it begins
        instruments = {exchange: chosen(registry, exchange) for exchange in opens}
        seeder = Seeder(
            market,
            load_newest=load_nothing,
            last_session=TradingHours(lambda: registry).last_session,
            load_candle=partial(load_last_close, simulated.brokers),
            wall_clock=lambda: clock(now),
        )
        await seeder.seed([*instruments.values()])
        assert market.seeded == {"candle": len(opens)}
        snapshot = market.step(clock(now))
        for exchange, instrument in instruments.items():
            token = instrument.instrument_token
            _, _, _, _, close, _ = await candle_at(simulated, token, opens[exchange])
            seed = snapshot.of(token)
            assert seed is not None
            assert seed.price == pytest.approx(close, abs=0.01)
