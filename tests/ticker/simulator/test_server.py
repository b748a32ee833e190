import math
from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.ticker.simulator.memory_simulator import ACCOUNTS, START, MemorySimulator
from ticker.errors import ConfigurationError
from ticker.simulator.pricing import DISCOUNT_RATE
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.sessions import create_accounts
from ticker.simulator.simulation import SimulatorConfig
from ticker.ticks import Row

CONFIG = SimulatorConfig(accounts=ACCOUNTS, port=0)


@pytest.fixture
async def address(nursery: trio.Nursery) -> AsyncIterator[SimulatorAddress]:
    yield await nursery.start(partial(serve_simulator, CONFIG))
    nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_it_answers_where_it_says_it_listens(address: SimulatorAddress) -> None:
    assert address.ws_url == f"ws://127.0.0.1:{address.port}"
    async with httpx.AsyncClient(base_url=address.rest_url) as client:
        answer = await client.get("/_simulator/market")
    assert answer.json()["underlyings"]["NIFTY"]["carry"] == 0.061


@pytest.mark.slow
async def test_a_port_in_use_is_one_clear_error(address: SimulatorAddress) -> None:
    config = SimulatorConfig(accounts=ACCOUNTS, port=address.port)
    match = f"cannot listen on 127.0.0.1:{address.port}"
    with pytest.raises(ConfigurationError, match=match), trio.fail_after(2):
        await serve_simulator(config)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com"])
async def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(ConfigurationError), trio.fail_after(2):
        await serve_simulator(SimulatorConfig(accounts=ACCOUNTS, host=host, port=0))


@pytest.mark.parametrize("wrong", [{"instruments": "all"}, {"rate": 0}, {"speed": -1}])
def test_terms_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        SimulatorConfig(**wrong)  # type: ignore[arg-type]


def test_credentials_are_a_function_of_the_seed() -> None:
    assert create_accounts(5, 3)[:2] == create_accounts(5, 2)
    assert create_accounts(5, 1) != create_accounts(6, 1)
    account = create_accounts(5, 1)[0]
    assert account.access_token not in repr(account)
    assert account.api_secret not in repr(account)


async def test_the_truth_explains_the_prices(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    simulator = MemorySimulator(nursery, CONFIG)
    await trio.sleep(3.5)
    truth = await simulator.admin("market?underlying=NIFTY&expiry=2026-12-29")
    assert (truth["step"], truth["now"], truth["frozen"]) == (3, START + 3, False)
    assert truth["discount_rate"] == DISCOUNT_RATE
    expiry = next(
        row for row in truth["underlyings"]["NIFTY"]["expiries"] if row["expiry"] == "2026-12-29"
    )
    market = simulator.simulation.market
    atm = truth["underlyings"]["NIFTY"]["atm_volatility"]
    kinds = set()
    for row in truth["contracts"]:
        place = market.position(row["instrument_token"])
        assert market.words[Row.LAST_PRICE, place] / 100 == row["last_price"]
        assert row["forward"] == expiry["forward"]
        kinds.add(row["instrument_type"])
        if row["fair_value"] > row["tick_size"]:
            assert abs(row["fair_value"] - row["last_price"]) <= row["tick_size"] / 2 + 1e-9
        if row["instrument_type"] == "FUT":
            assert row["implied_volatility"] is None
        else:
            smiled = _smile(truth["smile"], atm, row["forward"], row["strike"], expiry["years"])
            assert row["implied_volatility"] == pytest.approx(smiled, rel=1e-12)
    assert kinds == {"CE", "PE", "FUT"}


def _smile(smile: dict[str, float], atm: float, F: float, K: float, T: float) -> float:
    """The formula that the admin route gives in words."""
    a = atm * (1 + smile["front_lift"] * math.exp(-smile["front_decay"] * T))
    y = smile["wing"] * math.tanh(math.log(K / F) / (a * math.sqrt(T)) / smile["wing"])
    return a * (1 + smile["skew"] * y + smile["convexity"] * y**2)


async def test_an_unknown_admin_route_is_not_found(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    simulator = MemorySimulator(nursery, CONFIG)
    answer = await simulator.call("GET", "/_simulator/nothing")
    assert answer is not None
    assert answer.status == 404
