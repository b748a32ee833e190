"""History of underlyings, fetched beside the stream, on virtual time."""

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from nurseries.bootstrap_history import RETRY_S, bootstrap_history
from tests.rest_brokers import open_memory_brokers
from ticker.errors import UnknownAccountError
from ticker.history.range import INDIA
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.calls import RestPolicy
from ticker.latest import Latest
from ticker.messages import ConnectionId
from ticker.planning.plan import Plan

NOW = dt.datetime(2026, 11, 20, 14, 0, tzinfo=INDIA).timestamp()
EXPIRY = dt.date(2026, 11, 24)


def cash(token: int, symbol: str, segment: str = "INDICES") -> Instrument:
    return Instrument(token, token, symbol, symbol, None, 0, 0.05, 1, "EQ", segment, "NSE")


def option(token: int, name: str) -> Instrument:
    symbol = f"{name}26NOV100CE"
    return Instrument(token, token, symbol, name, EXPIRY, 100, 0.05, 1, "CE", "NFO-OPT", "NFO")


SHARES = tuple(cash(100 + number, f"SHARE{number}", "NSE") for number in range(8))
REGISTRY = InstrumentRegistry(
    [
        cash(1, "NIFTY 50"),
        cash(2, "NIFTY BANK"),
        option(11, "NIFTY"),
        option(12, "BANKNIFTY"),
        option(13, "GOLD"),
        *SHARES,
    ]
)


def plan_of(*tokens: int) -> Plan:
    return Plan({ConnectionId("first", 0): dict.fromkeys(tokens, "full")})


class Broker:
    """Answers with one candle, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.spans: list[tuple[str, str]] = []
        self.is_well = True

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(int(request.url.path.split("/")[3]))
        self.spans.append((request.url.params["from"], request.url.params["to"]))
        if not self.is_well:
            return httpx.Response(503)
        rows = [["2026-11-20T09:15:00+0530", 1, 1, 1, 1, 1]]
        return httpx.Response(200, content=msgspec.json.encode({"data": {"candles": rows}}))


class CountedBars(ReferenceBars):
    """Says how many loads there are at a time."""

    at_once = 0
    most = 0

    async def load(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await trio.sleep(0.01)
            return await super().load(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            self.at_once -= 1


@asynccontextmanager
async def running(
    broker: Broker, plans: Latest[Plan], *, days: int = 10, batch: int = 6
) -> AsyncIterator[CountedBars]:
    policy = RestPolicy(attempts=1)
    async with open_memory_brokers(broker.answer, policy=policy) as brokers:
        references = CountedBars(brokers, None, wall_clock=lambda: NOW)

        async def run() -> None:
            await bootstrap_history(
                plans,
                Latest(REGISTRY),
                references,
                days=days,
                batch=batch,
                wall_clock=lambda: NOW,
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield references
            nursery.cancel_scope.cancel()


async def test_the_spots_of_what_is_streamed_are_loaded_once(autojump_clock: MockClock) -> None:
    broker, plans = Broker(), Latest(plan_of())
    async with running(broker, plans):
        await trio.sleep(1)
        assert broker.asked == []
        plans.set(plan_of(11, 13))
        await trio.sleep(10)
        assert broker.asked == [1]
        assert broker.spans == [("2026-11-10 14:00:00", "2026-11-20 14:00:00")]
        plans.set(plan_of(11, 12, 13))
        await trio.sleep(10)
        assert broker.asked == [1, 2]
        plans.set(plan_of(12))
        await trio.sleep(1000)
        assert broker.asked == [1, 2]


async def test_a_batch_at_a_time(autojump_clock: MockClock) -> None:
    broker, plans = Broker(), Latest(plan_of(*(row.instrument_token for row in SHARES)))
    async with running(broker, plans, batch=3) as references:
        await trio.sleep(20)
    assert sorted(broker.asked) == [row.instrument_token for row in SHARES]
    assert references.most == 3


async def test_a_broker_that_does_not_answer_is_asked_again_later(
    autojump_clock: MockClock,
) -> None:
    broker, plans = Broker(), Latest(plan_of(11))
    broker.is_well = False
    async with running(broker, plans):
        await trio.sleep(RETRY_S / 2)
        assert broker.asked == [1]
        broker.is_well = True
        await trio.sleep(RETRY_S)
        assert broker.asked == [1, 1]
        await trio.sleep(10 * RETRY_S)
    assert broker.asked == [1, 1]


async def test_no_days_no_task(autojump_clock: MockClock) -> None:
    broker, plans = Broker(), Latest(plan_of(11))
    async with running(broker, plans, days=0):
        await trio.sleep(100)
    assert broker.asked == []


@pytest.mark.parametrize("token", [999, 13])
async def test_what_has_no_spot_needs_no_history(autojump_clock: MockClock, token: int) -> None:
    broker, plans = Broker(), Latest(plan_of(token))
    async with running(broker, plans):
        await trio.sleep(100)
    assert broker.asked == []


async def test_an_account_that_is_taken_away_ends_nothing(autojump_clock: MockClock) -> None:
    class NoAccount(ReferenceBars):
        asked = 0

        async def load(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            self.asked += 1
            raise UnknownAccountError("there is no account")

    async with open_memory_brokers(Broker().answer) as brokers, trio.open_nursery() as nursery:
        references = NoAccount(brokers, None, wall_clock=lambda: NOW)
        run = partial(bootstrap_history, days=10, batch=6, wall_clock=lambda: NOW)
        nursery.start_soon(run, Latest(plan_of(11)), Latest(REGISTRY), references)
        await trio.sleep(1.5 * RETRY_S)
        assert references.asked == 2
        nursery.cancel_scope.cancel()
