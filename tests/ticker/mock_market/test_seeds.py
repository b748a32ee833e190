"""What an instrument begins from, and that it is asked for once."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import pytest
import trio

from tests.loop_steps import watch_steps
from tests.ticker.mock_market.rig import SPOT, be_patient, chain_values, create_market, told
from tests.ticker.synthetic import (
    CHAIN,
    EXPIRY,
    FORWARD,
    FUTURE,
    INDEX,
    NEXT_EXPIRY,
    NOW,
    RATE,
    create_chain,
    create_future,
    create_option,
    create_share,
    expiry_at,
    smile,
    years_to,
)
from ticker.engine import Newest
from ticker.errors import BrokerUnreachableError, TickerError, UnknownAccountError
from ticker.instruments.registry import Instrument
from ticker.mock_market.market import MockMarket
from ticker.mock_market.seeder import Seeder
from ticker.mock_market.seeds import PRICE, VOLATILITY, Known, LastValue, Seed, create_seeds
from ticker.ticks import Row

SHARE = create_share(500, "RELIANCE")
CRUDE = create_future(900, "CRUDEOIL", exchange="MCX", segment=7)


def seeds_of(
    instruments: Sequence[Instrument],
    values: Mapping[int, LastValue],
    known: Known | None = None,
) -> dict[Instrument, Seed]:
    seeds = create_seeds(
        instruments, values, known or Known(), expiry_at=expiry_at, rate=RATE, now=NOW
    )
    return {seed.instrument: seed for seed in seeds}


def test_a_live_chain_keeps_its_forward_and_its_smile() -> None:
    seeds = seeds_of([INDEX, FUTURE, *CHAIN], chain_values())
    for each in CHAIN:
        assert seeds[each].base == FORWARD
        if abs(each.strike - FORWARD) < 500:
            assert seeds[each].volatility == pytest.approx(smile(each.strike, FORWARD), abs=1e-3)
    assert seeds[INDEX].base == SPOT
    assert {seed.source for seed in seeds.values()} == {"live"}


def test_lots_and_strikes_beyond_the_wire_are_cut_off() -> None:
    lot = msgspec.structs.replace(FUTURE, lot_size=2**31 - 1)
    strike = create_option(70_000, 1e9, "CE", "HUGE")
    priced_so = create_future(70_001, "HUGE")
    seeds = seeds_of([lot, strike, priced_so], {})
    assert seeds[lot].words[[Row.VOLUME_TRADED, Row.OI]].tolist() == [2**31 - 1] * 2
    highest = seeds[priced_so].words[Row.LAST_PRICE]
    assert highest == (2**31 - 1) // 5 * 5, "the last tick of the wire"


def test_quotes_without_a_forward_make_one_by_parity() -> None:
    values = {token: told(value.price) for token, value in chain_values().items()}
    seeds = seeds_of([INDEX, *CHAIN], values)
    assert seeds[CHAIN[0]].base == pytest.approx(FORWARD, abs=0.15)


def test_from_the_spot_alone_everything_gets_a_model_price() -> None:
    later = create_chain([24_000, 25_000], 60_000, expiry=NEXT_EXPIRY)
    seeds = seeds_of([INDEX, FUTURE, *CHAIN, *later], {INDEX.instrument_token: told(SPOT)})
    carried = SPOT * 2.718281828 ** (RATE * years_to(EXPIRY))
    assert seeds[FUTURE].base == pytest.approx(carried, rel=1e-9)
    assert seeds[CHAIN[0]].base == pytest.approx(carried, rel=1e-9)
    assert seeds[later[0]].base > carried
    assert {seeds[each].volatility for each in CHAIN} == {VOLATILITY}
    assert {seeds[each].source for each in (FUTURE, *CHAIN)} == {"model"}


def test_from_instruments_alone_too() -> None:
    seeds = seeds_of([INDEX, *CHAIN, SHARE, CRUDE], {})
    assert seeds[INDEX].base == 25_000.0, "the middle of where strikes are listed"
    assert seeds[SHARE].base == PRICE
    assert len(seeds) == len(CHAIN) + 3


def test_an_option_without_a_volatility_takes_its_neighbours() -> None:
    values = chain_values()
    silent = CHAIN[41]
    del values[silent.instrument_token]
    seeds = seeds_of([INDEX, *CHAIN], values)
    assert seeds[silent].source == "model"
    assert seeds[silent].volatility == seeds[CHAIN[40]].volatility, "the same strike's call"


def test_known_forwards_are_taken_over() -> None:
    known = Known(factors={"NIFTY": 1.1}, forwards={("NIFTY", EXPIRY, "NFO"): 20_000.0})
    own = LastValue(2_750.0, "live", is_mock=True)
    seeds = seeds_of([CHAIN[0], FUTURE], {FUTURE.instrument_token: own}, known)
    assert seeds[CHAIN[0]].base == 20_000.0
    assert seeds[FUTURE].base == pytest.approx(2_500.0), "it was told where the factor is 1.1"


# --- asking --------------------------------------------------------------------------------------


class Broker:
    """What was asked, and what is answered: prices in rupees by token, or an error."""

    def __init__(self) -> None:
        self.now = NOW
        self.sessions = dict.fromkeys(("NSE", "NFO", "MCX"), (NOW - 6 * 3600, NOW - 60))
        self.candles: dict[int, float] = {}
        self.quotes: dict[str, float] = {}
        self.newest: dict[int, Newest] = {}
        self.error: TickerError | None = None
        self.asked: list[tuple[str, object]] = []
        self.delay_s = 0.0

    def last_session(self, exchange: str, now: float) -> tuple[float, float] | None:
        assert now == self.now
        return self.sessions.get(exchange)

    def load_newest(self, tokens: Sequence[int]) -> Mapping[int, Newest]:
        self.asked.append(("newest", tuple(tokens)))
        return {token: self.newest[token] for token in tokens if token in self.newest}

    async def load_candle(self, each: Instrument, since: float, until: float) -> float | None:
        self.asked.append(("candle", (each.instrument_token, since, until)))
        await trio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return self.candles.get(each.instrument_token)

    async def load_quotes(self, keys: Sequence[str]) -> Mapping[str, float]:
        self.asked.append(("quotes", tuple(keys)))
        await trio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return {key: self.quotes[key] for key in keys if key in self.quotes}

    def seeder(self, market: MockMarket) -> Seeder:
        return Seeder(
            market,
            load_newest=self.load_newest,
            last_session=self.last_session,
            load_candle=self.load_candle,
            load_quotes=self.load_quotes,
            wall_clock=lambda: self.now,
        )

    def count(self, kind: str) -> int:
        return sum(what == kind for what, _ in self.asked)


def newest(price: float) -> Newest:
    words = seeds_of([INDEX], {INDEX.instrument_token: told(price)})[INDEX].words
    return Newest(price, words, float("nan"), is_mock=False)


async def test_the_record_comes_before_candles_before_quotes_before_the_model() -> None:
    shares = [create_share(number, f"S{number}") for number in range(1, 4)]
    market, broker = create_market(history_s=600.0), Broker()
    broker.newest = {INDEX.instrument_token: newest(SPOT)}
    broker.candles = {shares[0].instrument_token: 10.0, INDEX.instrument_token: 1.0}
    broker.quotes = {shares[1].key: 20.0, shares[0].key: 1.0, INDEX.key: 1.0}
    await broker.seeder(market).seed([INDEX, *shares])
    assert market.seeded == {"live": 1, "candle": 1, "quote": 1, "model": 1}
    snapshot = market.step(NOW)
    found = [snapshot.of(each.instrument_token) for each in (INDEX, *shares)]
    prices = [row.price for row in found if row]
    assert prices == pytest.approx([SPOT, 10.0, 20.0, PRICE], rel=0.006)
    asked = [what for what in broker.asked if what[0] == "candle"]
    assert asked[0][1] == (shares[0].instrument_token, NOW - 660, NOW - 60)
    assert INDEX.instrument_token not in [what[1][0] for what in asked]  # type: ignore[index]


async def test_candles_are_those_before_each_segments_own_close() -> None:
    """Never of before the session began; where nobody knows when that was, none is asked for."""
    market, broker = create_market(history_s=600.0), Broker()
    broker.sessions = {"NSE": (NOW - 3600, NOW - 60), "NFO": (NOW - 300, NOW - 30)}
    await broker.seeder(market).seed([FUTURE, SHARE, CRUDE])
    assert {what for kind, what in broker.asked if kind == "candle"} == {
        (SHARE.instrument_token, NOW - 660, NOW - 60),
        (FUTURE.instrument_token, NOW - 300, NOW - 30),
    }
    assert broker.count("quotes") == 1


@pytest.mark.parametrize(
    "error", [BrokerUnreachableError("no session"), UnknownAccountError("no account")]
)
async def test_without_a_session_models_do(error: TickerError) -> None:
    market, broker = create_market(), Broker()
    broker.error = error
    await broker.seeder(market).seed([INDEX, *CHAIN])
    assert market.seeded == {"model": len(CHAIN) + 1}
    assert broker.count("candle") == 1, "the first refusal is enough"
    bare = create_market()
    seeder = Seeder(
        bare,
        load_newest=broker.load_newest,
        last_session=broker.last_session,
        wall_clock=lambda: NOW,
    )
    await seeder.seed([INDEX, *CHAIN])
    assert bare.seeded == {"model": len(CHAIN) + 1}


async def test_a_slow_broker_is_waited_for_only_so_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    market, broker = create_market(candles_s=10.0, quotes_s=15.0), Broker()
    broker.delay_s = 4.0
    broker.candles = {each.instrument_token: 100.0 for each in CHAIN}
    began_at = trio.current_time()
    await broker.seeder(market).seed(CHAIN)
    assert market.seeded["candle"] == 2
    assert trio.current_time() - began_at == pytest.approx(14.0, abs=1.0)


async def test_what_is_on_record_does_not_wait_for_the_broker(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    market, broker = create_market(), Broker()
    broker.newest = {INDEX.instrument_token: newest(SPOT)}
    broker.delay_s = 4.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.seeder(market).seed, [INDEX, SHARE])
        await trio.sleep(1)
        assert market.seeded == {"live": 1}
    assert market.seeded == {"live": 1, "model": 1}


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf, 1e9, 1e300])
async def test_prices_that_are_none_are_not_begun_from(price: float) -> None:
    market, broker = create_market(), Broker()
    broker.candles = {SHARE.instrument_token: price}
    broker.quotes = {SHARE.key: price}
    await broker.seeder(market).seed([SHARE])
    assert market.seeded == {"model": 1}


async def test_a_hundred_first_requests_ask_and_seed_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    market, broker = create_market(), Broker()
    broker.delay_s = 1.0
    seeder = broker.seeder(market)
    finished = 0

    async def request() -> None:
        nonlocal finished
        await seeder.seed([INDEX, SHARE])
        assert len(market) == 2
        finished += 1

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(request)
    assert finished == 100
    assert market.seeded == {"model": 2}
    assert (broker.count("newest"), broker.count("candle"), broker.count("quotes")) == (1, 2, 1)


@pytest.mark.slow
async def test_five_thousand_at_once_do_not_hold_the_loop() -> None:
    market, broker = create_market(), Broker()
    rows = create_chain(range(12_500, 37_500, 10), 100_000)
    broker.quotes = {each.key: 100.0 for each in rows[::2]}
    broker.sessions = {}
    with watch_steps() as watch:
        await broker.seeder(market).seed(rows)
        await trio.lowlevel.checkpoint()  # which ends the last step
    assert market.seeded == {"quote": 2_500, "model": 2_500}
    assert 0 < watch.longest_s < 0.02


async def test_if_who_asks_is_cancelled_another_takes_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    market, broker = create_market(), Broker()
    broker.delay_s = 3.0
    seeder = broker.seeder(market)
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await seeder.seed([SHARE])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(1)
        nursery.start_soon(seeder.seed, [SHARE])
        await trio.sleep(1)
        scope.cancel()
    assert market.seeded == {"model": 1}
    assert broker.count("newest") == 2


async def test_what_is_refused_is_not_asked_for_again_and_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    market, broker = create_market(), Broker()
    broker.delay_s = 1.0
    seeder = broker.seeder(market)
    past = create_chain([25_000], 80_000, expiry=EXPIRY.replace(year=2020))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(seeder.seed, past)
    assert len(market) == 0
    assert broker.count("newest") == 1


async def test_a_clean_up_and_an_opening_during_seeding(
    autojump_clock: trio.testing.MockClock,
) -> None:
    be_patient(autojump_clock)
    market, broker = create_market(), Broker()
    broker.delay_s = 1.0
    market.admit(CHAIN, {}, NOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.seeder(market).seed, [INDEX, SHARE, *CHAIN])
        await trio.sleep(0.5)
        broker.now = expiry_at("NFO", EXPIRY).timestamp()
        assert market.clean_up(broker.now) == len(CHAIN)
        market.release(["RELIANCE"], "market_open")
    assert len(market) == 2, "what was being seeded is there, what has expired is not"
    snapshot = market.step(NOW)
    assert {each.tradingsymbol for each in snapshot.instruments} == {"NIFTY 50", "RELIANCE"}
