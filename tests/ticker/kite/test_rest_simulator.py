"""The REST client against the simulator over real HTTP, well and broken."""

import datetime as dt
import time
from contextlib import aclosing

import pytest
import trio

from tests.loop_steps import watch_steps
from tests.rest_brokers import SimulatedBrokers, open_simulated_brokers
from ticker.accounts.credentials import Credentials
from ticker.circuit_breaker import BreakerPolicy
from ticker.errors import BrokerBusyError, BrokerResponseError, BrokerUnreachableError
from ticker.instruments.dump import DumpReader
from ticker.instruments.registry import InstrumentRegistry
from ticker.kite.calls import RestPolicy
from ticker.kite.rest import BrokerRest

pytestmark = pytest.mark.slow

NIFTY_50 = 256265
KEYS = ("NSE:NIFTY 50", "NSE:INFY", "NSE:NOSUCH")


async def test_every_read_is_understood() -> None:
    async with open_simulated_brokers() as market:
        broker = market.brokers.of("first")
        profile = await broker.load_profile()
        assert profile.user_id == market.accounts[0].user_id
        assert "NFO" in profile.exchanges
        prices = await broker.load_last_prices(KEYS)
        assert set(prices) == set(KEYS[:2])
        ohlc = (await broker.load_ohlc(KEYS))["NSE:INFY"]
        assert ohlc.ohlc.low <= ohlc.last_price <= ohlc.ohlc.high
        quote = (await broker.load_quotes(KEYS))["NSE:INFY"]
        assert len(quote.depth.buy) == len(quote.depth.sell) == 5
        assert quote.depth.buy[0].price < quote.depth.sell[0].price
    assert {outcome for _, outcome, _ in market.calls.made} == {"200"}


async def test_candles_are_of_the_times_asked_for() -> None:
    since_at = dt.datetime(2026, 11, 19, 4, 0, tzinfo=dt.UTC)  # 09:30 in India
    async with open_simulated_brokers() as market:
        candles = await market.brokers.of("first").load_candles(
            NIFTY_50, "minute", since_at, since_at + dt.timedelta(minutes=9)
        )
    expected = [since_at.timestamp() + 60 * minute for minute in range(10)]
    assert candles.starts.tolist() == expected
    assert candles.oi is None


async def request_token(market: SimulatedBrokers) -> str:
    """What logging in on the broker's page ends with."""
    query = {"v": "3", "api_key": market.accounts[0].api_key}
    login = await market.simulator.get("/connect/login", params=query)
    return str(login.json()["request_token"])


async def test_a_whole_session_from_login_to_logout() -> None:
    async with open_simulated_brokers() as market:
        account, session = market.accounts[0], market.sessions.value["first"]
        broker = market.brokers.of("first")
        session.credentials.set(Credentials(account.api_key, ""))
        token = await request_token(market)
        with pytest.raises(BrokerResponseError, match="checksum"):
            await broker.create_session(token, "wrong")
        issued = await broker.create_session(await request_token(market), account.api_secret)
        assert issued.access_token not in repr(issued)
        session.credentials.set(Credentials(account.api_key, issued.access_token, time.time()))
        assert (await broker.load_profile()).user_id == issued.user_id == account.user_id
        await broker.delete_session()
        with pytest.raises(BrokerResponseError) as caught:
            await broker.load_profile()
        assert (caught.value.status, caught.value.error_type) == (403, "TokenException")


async def test_a_dump_is_streamed_without_stalling_the_loop() -> None:
    async with open_simulated_brokers(instruments="full") as market:
        reader = DumpReader("NFO", InstrumentRegistry(()))
        sizes = []
        with watch_steps() as steps:
            async with aclosing(market.brokers.of("first").load_instruments("NFO")) as pieces:
                async for piece in pieces:
                    sizes.append(len(piece))
                    await trio.to_thread.run_sync(reader.feed, piece)
        dump = reader.finish(dt.date(2026, 11, 20))
    assert len(dump.instruments) > 30_000
    assert dump.rejected == 0
    assert max(sizes) <= 65_536
    assert steps.longest_s < 0.02


async def test_bursts_of_every_class_are_never_refused_by_the_broker() -> None:
    async with open_simulated_brokers() as market:
        now = dt.datetime.now(dt.UTC)
        async with trio.open_nursery() as nursery:
            for name in ("first", "second"):
                broker = market.brokers.of(name)
                for _ in range(20):
                    nursery.start_soon(broker.load_profile)
                for _ in range(6):
                    nursery.start_soon(broker.load_candles, NIFTY_50, "day", now, now)
                for _ in range(3):
                    nursery.start_soon(broker.load_last_prices, KEYS)
    assert {outcome for _, outcome, _ in market.calls.made} == {"200"}
    assert len(market.calls.made) == 2 * 29


async def test_no_turn_in_time_is_told() -> None:
    async with open_simulated_brokers(policy=RestPolicy(deadline_s=1.0)) as market:
        broker = market.brokers.of("first")
        refused: list[BrokerBusyError] = []

        async def call() -> None:
            try:
                await broker.load_last_prices(KEYS)
            except BrokerBusyError as error:
                refused.append(error)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)
        assert trio.current_time() - began < 5
        assert len(refused) >= 7
        assert all(error.retry_after_s >= 1 for error in refused)


IMPATIENT = RestPolicy(timeout_s=1.5, breaker=BreakerPolicy(4, 1.0, 1))


async def profile(broker: BrokerRest) -> str:
    return (await broker.load_profile()).user_id


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429},
        {"status": 503, "error_type": "NetworkException"},
        {"status": 504, "body": "html"},
        {"body": "reset"},
        {"status": 500, "delay_s": 30},
    ],
)
async def test_a_fault_that_passes_is_survived_and_one_that_stays_is_told(
    fault: dict[str, object],
) -> None:
    async with open_simulated_brokers(policy=IMPATIENT) as market:
        broker = market.brokers.of("first")
        await market.inject("rest", path="/user", times=2, **fault)
        assert await profile(broker) == market.accounts[0].user_id
        assert len(market.calls.made) == 3
        await market.inject("rest", path="/user", **fault)
        began = trio.current_time()
        with pytest.raises((BrokerUnreachableError, BrokerResponseError, BrokerBusyError)):
            await profile(broker)
        assert trio.current_time() - began < 12
        await market.heal()
        await trio.sleep(1.1)
        assert await profile(broker) == market.accounts[0].user_id


async def test_one_accounts_open_circuit_leaves_the_other_alone() -> None:
    async with open_simulated_brokers(policy=IMPATIENT) as market:
        key = market.accounts[0].api_key
        await market.inject("rest", path="/", status=502, body="html", api_key=key)
        for _ in range(2):
            with pytest.raises((BrokerUnreachableError, BrokerBusyError)):
                await profile(market.brokers.of("first"))
        made = len(market.calls.made)
        with pytest.raises(BrokerBusyError):
            await profile(market.brokers.of("first"))
        assert len(market.calls.made) == made
        assert [broker.account_id for broker in market.brokers.in_order()] == ["second", "first"]
        assert await market.brokers.ask(profile) == market.accounts[1].user_id


async def test_cancelled_calls_leave_no_connection_behind() -> None:
    async with open_simulated_brokers(rate_limits=False) as market:
        broker = market.brokers.of("first")
        await market.inject("rest", path="/user", delay_s=5, status=500)
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(profile, broker)
                await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
        await market.heal()
        await trio.sleep(1)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(profile, broker)


async def test_a_dump_that_is_not_read_to_its_end_is_let_go(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async with open_simulated_brokers(instruments="full") as market:
        broker: BrokerRest = market.brokers.of("first")
        for _ in range(3):
            async with aclosing(broker.load_instruments()) as pieces:
                async for _piece in pieces:
                    break
            with trio.move_on_after(0.05):
                async with aclosing(broker.load_instruments()) as pieces:
                    async for _piece in pieces:
                        await trio.sleep_forever()
        assert await profile(broker)
    assert not recwarn.list


async def test_other_accounts_are_not_slowed_by_one_whose_broker_hangs() -> None:
    async with open_simulated_brokers(policy=RestPolicy(timeout_s=10)) as market:
        key = market.accounts[0].api_key
        await market.inject("rest", path="/user", delay_s=30, api_key=key)
        await profile_times(market)


async def profile_times(market: SimulatedBrokers) -> None:
    async def hang() -> None:
        with pytest.raises((BrokerUnreachableError, BrokerBusyError)):
            await profile(market.brokers.of("first"))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(hang)
        await trio.sleep(0.1)
        for _ in range(5):
            began = trio.current_time()
            await profile(market.brokers.of("second"))
            assert trio.current_time() - began < 2
        nursery.cancel_scope.cancel()
