"""The broker's official Python client cannot tell the simulator from the broker."""

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.ticker.simulator.memory_simulator import ACCOUNTS, INFY, NIFTY_50
from ticker.instruments.registry import Instrument, parse_instruments
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.simulation import SimulatorConfig

pytest.importorskip("kiteconnect", reason="the official client is a development dependency")
pytestmark = pytest.mark.slow

ACCOUNT = ACCOUNTS[0]
CONFIG = SimulatorConfig(accounts=ACCOUNTS, port=0, rate=10, rate_limits=False)
SCRIPT = str(Path(__file__).with_name("official_client.py"))


@pytest.fixture
async def address(nursery: trio.Nursery) -> AsyncIterator[SimulatorAddress]:
    yield await nursery.start(partial(serve_simulator, CONFIG))
    nursery.cancel_scope.cancel()


async def test_rest(address: SimulatorAddress) -> None:
    await _post(address, {"frozen": True})
    got = await _run("rest", address.rest_url, ACCOUNT.api_key, ACCOUNT.api_secret)
    rows = await _load_instruments(address)
    assert got["login"] == {"status": "success", "action": "login"}
    assert got["user_id"] == got["profile"]["user_id"] == ACCOUNT.user_id
    assert len(got["login_time"]) == 19
    assert got["margins"]["equity"] == got["equity"]
    assert got["instruments"] == len(rows)
    assert got["nfo"] == sum(row.exchange == "NFO" for row in rows)
    listed = {str(row.expiry) for row in rows if row.name == "NIFTY"}
    assert got["expiries"] == sorted(listed)
    infy = got["quote"]["NSE:INFY"]
    assert got["ltp"] == {"NSE:INFY": {"instrument_token": INFY, "last_price": infy["last_price"]}}
    assert got["ohlc"]["NSE:INFY"]["ohlc"] == infy["ohlc"]
    assert got["quote"]["NSE:NIFTY 50"]["instrument_token"] == NIFTY_50
    assert len(got["minutes"]) == 2 * 375
    assert got["minutes"][-1]["date"] == "2025-11-19 15:29:00+05:30"
    assert set(got["days"][0]) == {"date", "open", "high", "low", "close", "volume", "oi"}
    assert [error["type"] for error in got["errors"]] == [
        "InputException",
        "TokenException",
        "GeneralException",
        "TokenException",
    ]
    assert [error["code"] for error in got["errors"]] == [400, 403, 404, 403]


async def test_streaming_in_all_modes(address: SimulatorAddress) -> None:
    rows = await _load_instruments(address)
    option = next(row.instrument_token for row in rows if row.is_option)
    got = await _run("stream", address.ws_url, ACCOUNT.api_key, ACCOUNT.access_token, str(option))
    ledger = await _get(address, "ledger")
    assert got["errors"] == []
    assert got["connected"]
    assert [text["type"] for text in got["texts"]] == ["instruments_meta", "app_code"]
    modes = Counter((tick["instrument_token"], tick["mode"]) for tick in got["ticks"])
    assert modes[NIFTY_50, "full"] >= 15
    assert modes[option, "full"] >= 15
    assert modes[INFY, "ltp"] >= 1
    assert modes[INFY, "quote"] >= 3
    (row,) = ledger["sockets"]
    assert row["packets"] == len(got["ticks"])
    assert not row["open"]
    index, priced = (_last(got, token) for token in (NIFTY_50, option))
    assert not index["tradable"]
    assert index["ohlc"]["low"] <= index["last_price"] <= index["ohlc"]["high"]
    assert index["change"] == pytest.approx(
        100 * (index["last_price"] / index["ohlc"]["close"] - 1), abs=1e-9
    )
    assert priced["tradable"]
    assert priced["depth"]["buy"][0]["price"] < priced["depth"]["sell"][0]["price"]
    assert priced["oi_day_low"] <= priced["oi"] <= priced["oi_day_high"]
    assert priced["exchange_timestamp"] >= priced["last_trade_time"]
    truth = await _get(address, "market")
    assert index["last_price"] == pytest.approx(truth["underlyings"]["NIFTY"]["spot"], rel=1e-3)


async def _run(*arguments: str) -> Any:
    with trio.fail_after(30):
        done = await trio.run_process([sys.executable, SCRIPT, *arguments], capture_stdout=True)
    return json.loads(done.stdout)


def _last(got: Any, token: int) -> Any:
    return [tick for tick in got["ticks"] if tick["instrument_token"] == token][-1]


async def _load_instruments(address: SimulatorAddress) -> list[Instrument]:
    headers = {"Authorization": f"token {ACCOUNTS[1].api_key}:{ACCOUNTS[1].access_token}"}
    async with httpx.AsyncClient(base_url=address.rest_url, headers=headers) as client:
        answer = await client.get("/instruments")
    return [row for row in parse_instruments(answer.text.splitlines()) if row]


async def _get(address: SimulatorAddress, route: str) -> Any:
    async with httpx.AsyncClient(base_url=address.rest_url) as client:
        return (await client.get(f"/_simulator/{route}")).json()


async def _post(address: SimulatorAddress, order: object) -> None:
    async with httpx.AsyncClient(base_url=address.rest_url) as client:
        answer = await client.post("/_simulator/market", json=order)
        answer.raise_for_status()
