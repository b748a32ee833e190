"""The option chain that is put together from the board."""

import datetime as dt
import threading
from functools import partial

import msgspec
import numpy as np
import pytest

from tests.ticker.synthetic import (
    CHAIN,
    EXPIRY,
    FORWARD,
    FUTURE,
    INDEX,
    MARKET,
    NEXT_EXPIRY,
    NOW,
    Packet,
    chain_packets,
    create_chain,
    create_future,
    create_market_engine,
    create_option,
    expiry_at,
    on_tick,
    process,
    true_price,
)
from ticker.chains.option_chain import ChainStrike, OptionChain, option_chain
from ticker.engine import Engine
from ticker.errors import ConfigurationError, UnknownInstrumentError, UnknownItemError
from ticker.instruments.registry import InstrumentRegistry
from ticker.ticks import PacketKind, Row

pytestmark = pytest.mark.usefixtures("compiled_engine")

LATER = create_chain([24_900.0, 25_000.0], 45_000, expiry=NEXT_EXPIRY)
REGISTRY = InstrumentRegistry([*MARKET, *LATER])


def create_engine() -> Engine:
    return create_market_engine([*MARKET, *LATER])


def chain_of(
    engine: Engine,
    *,
    registry: InstrumentRegistry = REGISTRY,
    now: float = NOW,
    underlying: str = "NIFTY",
    expiry: dt.date | None = None,
    strikes: int | None = None,
) -> OptionChain:
    return option_chain(
        engine.board,
        engine.chains,
        registry,
        underlying,
        now=now,
        expiry_at=expiry_at,
        expiry=expiry,
        strikes=strikes,
    )


def strike_of(chain: OptionChain, strike: float) -> ChainStrike:
    return next(each for each in chain.strikes if each.strike == strike)


def test_the_chain_says_what_the_payloads_said() -> None:
    engine = create_engine()
    told = process(engine, [Packet(INDEX, 25_010.0), Packet(FUTURE, FORWARD), *chain_packets()])
    chain = chain_of(engine, now=NOW + 2)
    assert (chain.underlying, chain.exchange, chain.expiry) == ("NIFTY", "NFO", EXPIRY)
    assert chain.expiries == (EXPIRY, NEXT_EXPIRY)
    assert chain.forward == pytest.approx(FORWARD, abs=0.05)
    assert (chain.forward_source, chain.forward_age_s) == ("parity", 2.0)
    assert (chain.spot, chain.spot_age_s) == (25_010.0, 2.0)
    assert chain.timestamp == NOW + 2
    expires_in_s = expiry_at("NFO", EXPIRY).timestamp() - NOW - 2
    assert chain.days_to_expiry == pytest.approx(expires_in_s / 86_400)
    assert (chain.options_listed, chain.options_seen) == (82, 82)
    payloads = {payload["token"]: payload for payload in told}
    for each in chain.strikes:
        for side in (each.call, each.put):
            assert side is not None
            payload = payloads[side.instrument_token]
            assert payload["strike"] == each.strike
            assert side.last_price == payload["price"]
            assert (side.volume, side.oi) == (payload["volume"], payload["oi"])
            assert side.bid == payload["depth"]["buy"][0]["price"]
            assert side.ask_quantity == payload["depth"]["sell"][0]["quantity"]
            for name in ("iv", "delta", "gamma", "theta", "vega", "rho"):
                assert getattr(side, name) == pytest.approx(payload[name], rel=1e-6), name
            assert side.greeks_status == payload["greeks_status"] == "ok"
            assert (side.age_s, side.is_stale, side.change) == (2.0, False, 0.0)


def test_it_is_json() -> None:
    engine = create_engine()
    process(engine, [Packet(FUTURE, FORWARD), *chain_packets()])
    told = msgspec.json.decode(msgspec.json.encode(chain_of(engine, strikes=1)))
    assert told["expiry"] == EXPIRY.isoformat()
    assert len(told["strikes"]) == 3


def test_the_money_the_straddle_and_the_window() -> None:
    engine = create_engine()
    process(engine, [Packet(INDEX, 25_490.0), Packet(FUTURE, FORWARD), *chain_packets()])
    chain = chain_of(engine, strikes=2)
    assert chain.atm_strike == 25_050, "nearest to the forward, not to the spot"
    assert [each.strike for each in chain.strikes] == [24_950, 25_000, 25_050, 25_100, 25_150]
    assert [each.is_atm for each in chain.strikes] == [False, False, True, False, False]
    legs = [on_tick(true_price(each, FORWARD)) for each in CHAIN if each.strike == 25_050]
    assert chain.straddle is not None
    assert (chain.straddle.call, chain.straddle.put) == pytest.approx(tuple(legs))
    assert chain.straddle.price == pytest.approx(sum(legs))
    assert [each.strike for each in chain_of(engine, strikes=0).strikes] == [25_050]


def test_sums_are_of_all_that_has_ticked() -> None:
    engine = create_engine()
    interest = {25_000.0: (300, 900), 25_100.0: (1_000, 100)}
    packets = [
        Packet(
            each,
            100.0,
            words={
                Row.OI: interest[each.strike][each.instrument_type == "PE"],
                Row.VOLUME_TRADED: 10 if each.instrument_type == "CE" else 30,
            },
        )
        for each in CHAIN
        if each.strike in interest
    ]
    process(engine, packets)
    chain = chain_of(engine, strikes=0)
    assert chain.pcr_oi == (900 + 100) / (300 + 1_000)
    assert chain.pcr_volume == 3.0
    assert chain.options_seen == 4
    # at 25,000 the puts of 25,100 are worth 100 x 100, at 25,100 the calls of 25,000 300 x 100
    assert chain.max_pain == 25_000


def test_a_strike_without_a_tick_is_there_and_says_so() -> None:
    engine = create_engine()
    process(engine, [Packet(CHAIN[0], 900.0)])
    first = chain_of(engine).strikes[0]
    assert first.call is not None
    assert first.put is not None
    assert (first.call.reason, first.call.last_price) == (None, 900.0)
    assert (first.put.reason, first.put.last_price, first.put.oi) == ("no_tick", None, None)
    assert first.put.instrument_token == CHAIN[1].instrument_token


def test_nothing_has_ticked() -> None:
    chain = chain_of(create_engine(), strikes=1)
    assert chain.options_seen == 0
    assert [
        chain.spot,
        chain.forward,
        chain.forward_source,
        chain.atm_strike,
        chain.straddle,
        chain.pcr_oi,
        chain.pcr_volume,
        chain.max_pain,
    ] == [None] * 8
    assert [each.strike for each in chain.strikes] == [24_950, 25_000, 25_050], "the middle"


def test_what_a_packet_did_not_carry_is_null() -> None:
    engine = create_engine()
    process(engine, [Packet(CHAIN[0], 900.0, PacketKind.LTP)])
    call = chain_of(engine).strikes[0].call
    assert call is not None
    assert (call.bid, call.ask, call.volume, call.oi, call.change) == (None,) * 5
    assert call.iv is None
    assert call.greeks_status == "no_forward"
    engine = create_engine()
    empty = dict.fromkeys(range(Row.BIDS, Row.BIDS + 30), 0)
    process(engine, [Packet(CHAIN[0], 900.0, words=empty)])
    call = chain_of(engine).strikes[0].call
    assert call is not None
    assert (call.bid, call.bid_quantity, call.ask, call.oi) == (None, None, None, 777)


def test_what_is_not_the_markets_is_told() -> None:
    engine = create_engine()
    assert chain_of(engine).is_mock is None, "nobody was asked"
    process(engine, [Packet(CHAIN[0], 900.0)])
    for source_is_mock in (True, False):
        load = partial(
            option_chain,
            engine.board,
            engine.chains,
            REGISTRY,
            "NIFTY",
            now=NOW,
            expiry_at=expiry_at,
            is_mock={0: source_is_mock}.__getitem__,
        )
        assert load(expiry=NEXT_EXPIRY).is_mock is None, "nothing of it has ticked"
        chain = load()
        assert chain.is_mock is source_is_mock
        [call, put] = [chain.strikes[0].call, chain.strikes[0].put]
        assert call is not None
        assert put is not None
        assert (call.is_mock, put.is_mock) == (source_is_mock, None)


def test_what_was_forgotten_has_no_tick() -> None:
    engine = create_engine()
    process(engine, [Packet(CHAIN[0], 900.0)])
    engine.board.forget(engine.board.find(np.array([CHAIN[0].instrument_token], np.uint32)))
    chain = chain_of(engine)
    assert chain.options_seen == 0
    assert chain.strikes[0].call is not None
    assert chain.strikes[0].call.reason == "no_tick"


def test_old_values_are_stale() -> None:
    engine = create_engine()
    process(engine, [Packet(CHAIN[0], 900.0)])
    call = chain_of(engine, now=NOW + 5.5).strikes[0].call
    assert call is not None
    assert (call.age_s, call.is_stale) == (5.5, True)


def test_the_nearest_expiry_that_is_not_over_unless_one_is_chosen() -> None:
    engine = create_engine()
    over = expiry_at("NFO", EXPIRY).timestamp()
    assert chain_of(engine, now=over - 1).expiry == EXPIRY
    assert chain_of(engine, now=over).expiry == NEXT_EXPIRY
    chosen = chain_of(engine, now=over + 5, expiry=EXPIRY)
    assert (chosen.expiry, chosen.days_to_expiry) == (EXPIRY, 0.0)


def test_an_expiry_that_the_calendar_cannot_tell_is_in_no_others_way() -> None:
    first, last = dt.date(2001, 1, 1), dt.date(2098, 12, 30)
    strange = [*create_chain([25_000.0], 46_000, expiry=first)]
    strange += create_chain([25_000.0], 47_000, expiry=last)
    registry = InstrumentRegistry([*MARKET, *LATER, *strange])

    def tell(exchange: str, day: dt.date) -> dt.datetime:
        if day in (first, last):
            raise ConfigurationError("nobody knows")
        return expiry_at(exchange, day)

    engine = create_engine()
    load = partial(option_chain, engine.board, engine.chains, registry, "NIFTY", expiry_at=tell)
    assert load(now=NOW).expiry == EXPIRY
    assert load(now=NOW).expiries == (first, EXPIRY, NEXT_EXPIRY, last)
    assert load(now=NOW, expiry=NEXT_EXPIRY).expiry == NEXT_EXPIRY
    with pytest.raises(ConfigurationError):
        load(now=NOW, expiry=first)


def test_what_is_not_there_is_named() -> None:
    engine = create_engine()
    with pytest.raises(UnknownInstrumentError) as unknown:
        chain_of(engine, underlying="NOSUCH")
    assert unknown.value.field == "underlying"
    with pytest.raises(UnknownItemError) as missing:
        chain_of(engine, expiry=dt.date(2030, 1, 1))
    assert missing.value.field == "expiry"


def test_a_token_of_another_contract_lends_it_no_price() -> None:
    engine = create_engine()
    process(engine, [Packet(FUTURE, FORWARD), *chain_packets()])
    reused = create_option(CHAIN[0].exchange_token, 24_900.0, "CE", expiry=NEXT_EXPIRY)
    registry = InstrumentRegistry([INDEX, create_future(36_000), reused])
    [strike] = chain_of(engine, registry=registry).strikes
    assert strike.call is not None
    assert strike.call.reason == "no_tick"
    assert strike.put is None


def test_a_chain_is_of_one_moment_between_two_batches() -> None:
    engine = create_engine()
    process(engine, [Packet(CHAIN[0], 900.0), Packet(CHAIN[1], 10.0)])
    chains: list[OptionChain] = []
    reader = threading.Thread(target=lambda: chains.append(chain_of(engine)))
    with engine.board.lock:  # as while a batch is in hand
        reader.start()
        reader.join(0.05)
        assert reader.is_alive()
        slots = engine.board.find(
            np.array([each.instrument_token for each in CHAIN[:2]], np.uint32)
        )
        engine.board.words[slots, Row.LAST_PRICE] = 700
    reader.join(10)
    first = chains[0].strikes[0]
    assert first.call is not None
    assert first.put is not None
    assert (first.call.last_price, first.put.last_price) == (7.0, 7.0)
