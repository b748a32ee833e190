"""The whole way from frames to payloads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.synthetic import (
    ALPHA,
    BETA,
    CHAIN,
    EXPIRY,
    FORWARD,
    FUTURE,
    INDEX,
    MARKET,
    NOW,
    RATE,
    Packet,
    book,
    chain_packets,
    create_chain,
    create_frame,
    create_index,
    create_market_engine,
    create_option,
    create_share,
    expiry_at,
    on_tick,
    payloads,
    process,
    published,
    smile,
    true_price,
    years_to,
)
from ticker.board import apply_ticks
from ticker.engine import create_engine
from ticker.errors import ConfigurationError
from ticker.greeks.forward import update_forwards
from ticker.greeks.pricing import Profile, gather_lanes, settle, sweep
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import Frame
from ticker.settings import Settings
from ticker.snapshots.formatter import format_messages
from ticker.ticks import PacketKind, Row
from ticker.validation import judge

pytestmark = pytest.mark.usefixtures("compiled_engine")


def test_a_chain_gets_its_forward_and_its_smile() -> None:
    engine = create_market_engine(MARKET)
    prices = process(engine, [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL), *chain_packets()])[1:]
    assert len(prices) == len(CHAIN)
    for option, payload in zip(CHAIN, prices, strict=True):
        assert payload["token"] == payload["instrument_token"] == option.instrument_token
        assert payload["forward"] == pytest.approx(FORWARD, abs=0.02)
        assert payload["forward_source"] == "parity"
        assert payload["underlying_price"] == 25_000.0
        if payload["price"] > 2:
            assert payload["greeks_status"] == "ok"
            half_tick = 0.026 / (payload["vega"] * 100)
            assert payload["iv"] == pytest.approx(smile(option.strike, FORWARD), abs=half_tick)


def test_the_exchange_profile_is_black_scholes_on_the_spot() -> None:
    engine = create_market_engine(MARKET, profile=Profile.NSE)
    spot, rate = 25_000.0, 0.10
    forward = spot * np.exp(rate * years_to(EXPIRY))
    option = create_option(CHAIN[40].exchange_token, CHAIN[40].strike, "CE")
    price = on_tick(true_price(option, forward, lambda *_: 0.14, rate=rate))
    [_, payload] = process(
        engine, [Packet(INDEX, spot, PacketKind.INDEX_FULL), Packet(CHAIN[40], price)]
    )
    assert payload["forward_source"] == "spot"
    assert payload["forward"] == pytest.approx(forward, rel=1e-8)
    assert payload["iv"] == pytest.approx(0.14, abs=1e-4)


def test_the_futures_profile_prices_from_the_listed_future() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES)
    ticks = [Packet(FUTURE, 25_100.0, half_spread=0.5), *chain_packets()]
    future, *options = process(engine, ticks)
    assert future["greeks_status"] == "not_an_option"
    assert future["iv"] is None
    assert {option["forward_source"] for option in options} == {"future"}
    assert {option["forward"] for option in options} == {25_100.0}


def test_no_underlying_price_is_taken_from_another() -> None:
    bank = create_index(1009, "NIFTY BANK")
    chain = create_chain([52_000.0], 60_000, name="BANKNIFTY")
    engine = create_market_engine([INDEX, bank, *chain], profile=Profile.NSE)
    for index, price in ((INDEX, 25_001.0), (bank, 52_000.0), (INDEX, 25_000.0)):
        process(engine, [Packet(index, price, PacketKind.INDEX_FULL)])
    [payload] = process(engine, [Packet(chain[0], 400.0)])
    assert payload["symbol"] == "BANKNIFTY"
    assert payload["underlying_price"] == 52_000.0
    assert payload["forward"] == pytest.approx(52_000, rel=0.01)


def test_without_any_source_of_a_forward_there_are_no_greeks() -> None:
    [payload] = process(create_market_engine(MARKET), [Packet(CHAIN[0], 1000.0)])
    assert payload["greeks_status"] == "no_forward"
    for name in ("iv", "delta", "forward", "forward_source", "forward_age_s", "underlying_price"):
        assert payload[name] is None


def test_an_expired_option_is_published_unpriced() -> None:
    engine = create_market_engine(MARKET)
    after = expiry_at("NFO", EXPIRY).timestamp() + 1
    [payload] = process(engine, [Packet(CHAIN[40], 12.0)], after)
    assert payload["greeks_status"] == "expired"
    assert payload["iv"] is None
    assert payload["price"] == 12.0


def test_an_exchange_without_a_calendar_is_published_unpriced() -> None:
    def no_calendar(exchange: str, day: object) -> Any:
        raise ConfigurationError(f"{exchange} {day}")

    engine = create_market_engine(MARKET, expiry_at=no_calendar)
    [payload] = process(engine, [Packet(CHAIN[40], 12.0)])
    assert payload["iv"] is None
    assert payload["greeks_status"] != "ok"


def test_every_message_has_the_next_number_and_its_origin() -> None:
    engine = create_market_engine(MARKET)
    frames = [
        create_frame(chain_packets(), NOW, ALPHA),
        create_frame([Packet(INDEX, 25_000.0, PacketKind.INDEX_QUOTE)], NOW + 0.5, BETA),
        create_frame([Packet(FUTURE, 25_050.0, PacketKind.QUOTE)], NOW + 0.75, BETA),
    ]
    first = engine.process(frames[:1], NOW).snapshots
    second = engine.process(frames[1:], NOW + 1).snapshots
    assert first is not None
    assert second is not None
    assert first.seqs.tolist() == list(range(1, len(CHAIN) + 1))
    assert second.seqs.tolist() == [len(CHAIN) + 1, len(CHAIN) + 2]
    assert [payload["seq"] for payload in payloads(second)] == second.seqs.tolist()
    assert [second.connections[source] for source in second.sources] == [BETA, BETA]
    assert second.received_at.tolist() == [NOW + 0.5, NOW + 0.75]
    assert second.is_underlying.tolist() == [True, False]
    index, future = payloads(second)
    assert index["account_id"] == future["account_id"] == "beta"
    assert index["ts"] == int(NOW + 0.5)
    assert index["exchange_ts"] is None
    assert future["received_ts"] == NOW + 0.75
    assert future["mode"] == "quote"


def test_what_a_packet_does_not_carry_is_null() -> None:
    engine = create_market_engine(MARKET)
    [only_price] = process(engine, [Packet(FUTURE, 25_000.0, PacketKind.LTP)])
    for name in ("volume", "oi", "total_buy_quantity", "exchange_ts", "last_trade_time"):
        assert only_price[name] is None
    assert only_price["ohlc"] == dict.fromkeys(("open", "high", "low", "close"))
    assert "depth" not in only_price
    [quote] = process(engine, [Packet(FUTURE, 25_001.0, PacketKind.QUOTE)])
    assert (quote["volume"], quote["oi"]) == (12_345, None)
    [full] = process(engine, [Packet(FUTURE, 25_002.0)])
    assert (full["volume"], full["oi"], full["exchange_ts"]) == (12_345, 777, int(NOW))
    [after] = process(engine, [Packet(FUTURE, 25_003.0, PacketKind.LTP)], NOW + 60)
    assert (after["price"], after["volume"], after["oi"]) == (25_003.0, None, None)
    assert (after["exchange_ts"], after["ts"]) == (None, int(NOW + 60))
    assert "depth" not in after


def test_two_ticks_of_one_instrument_are_two_messages() -> None:
    engine = create_market_engine(MARKET)
    ticks = [Packet(FUTURE, 25_000.0 + i, PacketKind.LTP) for i in range(3)]
    assert [payload["price"] for payload in process(engine, ticks)] == [25_000, 25_001, 25_002]


def test_an_option_that_never_traded_has_no_price() -> None:
    engine = create_market_engine(MARKET)
    process(engine, [Packet(FUTURE, FORWARD), *chain_packets()])
    [payload] = process(engine, [Packet(CHAIN[0], 0.0, words=book(1_030, 1_040))], NOW + 1)
    assert payload["greeks_status"] == "no_price"
    assert payload["iv"] is None
    assert payload["forward"] == pytest.approx(FORWARD, abs=0.05)


def test_the_underlying_tells_its_age() -> None:
    engine = create_market_engine(MARKET)
    process(engine, [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL), *chain_packets()])
    payload = process(engine, chain_packets(), NOW + 1_500)[-1]
    assert payload["underlying_price"] == 25_000.0
    assert payload["underlying_age_s"] == pytest.approx(1_500, abs=1e-3)


def test_mock_ticks_say_so() -> None:
    [payload] = process(create_market_engine(MARKET, is_mock=True), [Packet(FUTURE, 25_000.0)])
    assert payload["is_mock"] is True


def test_heartbeats_and_anomalies_are_passed_on() -> None:
    engine = create_market_engine(MARKET)
    junk = [Frame(b"\0", NOW, ALPHA), Frame(b"\0\1\0\xb8only half", NOW, ALPHA)]
    enriched = engine.process(junk, NOW)
    assert enriched.heartbeats == 1
    assert sum(enriched.anomalies.values()) == 1
    assert enriched.snapshots is None


def test_a_batch_is_summed_up() -> None:
    engine = create_market_engine(MARKET)
    ticks = [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL), Packet(FUTURE, 25_050.0)]
    frames = [create_frame([*ticks, *chain_packets()], NOW - 0.25)]
    enriched = engine.process(frames, NOW)
    assert enriched.decoded == {ALPHA: 2 + len(CHAIN)}
    assert enriched.classes == {"index": 1, "future": 1, "option": len(CHAIN)}
    assert enriched.depths == {"future": 1, "option": len(CHAIN)}
    assert sum(enriched.greeks.values()) == len(CHAIN)
    assert enriched.index_prices == {"NIFTY": 25_000.0}
    assert enriched.oldest_at == NOW - 0.25


KNOWN = [*MARKET, create_share(341, "ODD", segment=6)]
UNKNOWN = create_share(999, "STRANGER")


@st.composite
def junk_packets(draw: st.DrawFn) -> Packet:
    words = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 100, 2**31 - 1, 2**31])
    instrument = draw(st.sampled_from([*KNOWN[:6], KNOWN[-1], UNKNOWN]))
    chosen = {row: draw(words) for row in range(1, 46)}
    if draw(st.booleans()):
        chosen[Row.LAST_PRICE] = draw(st.integers(1, 10_000_000))
    if draw(st.integers(0, 9)) == 0:
        chosen[Row.INSTRUMENT_TOKEN] = 0
    return Packet(instrument, 0.0, draw(st.sampled_from(PacketKind)), words=chosen)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(
        st.lists(
            st.tuples(st.lists(junk_packets(), max_size=6), st.sampled_from([ALPHA, BETA])),
            max_size=4,
        ),
        max_size=4,
    ),
    is_strict=st.booleans(),
    validates=st.booleans(),
)
def test_every_decoded_tick_is_published_or_counted(
    batches: list[list[tuple[list[Packet], Any]]], is_strict: bool, validates: bool
) -> None:
    engine = create_market_engine(KNOWN, is_strict=is_strict, validates=validates)
    for number, batch in enumerate(batches):
        now = NOW + 2 * number
        sent = {connection: 0 for _, connection in batch}
        for packets, connection in batch:
            sent[connection] += len(packets)
        frames = [
            create_frame(packets, now, connection) for packets, connection in batch if packets
        ]
        enriched = engine.process(frames, now)
        for connection, count in sent.items():
            decoded = enriched.decoded.get(connection, 0)
            assert decoded == count
            dropped = sum(n for (at, _), n in enriched.dropped.items() if at == connection)
            messages = 0
            if enriched.snapshots is not None:
                numbers = enriched.snapshots.connections.index(connection) if count else -2
                messages = int((enriched.snapshots.sources == numbers).sum())
            assert decoded == messages + dropped
        assert len(payloads(enriched.snapshots)) == published(enriched) + enriched.repriced


def test_nothing_is_compiled_after_the_warm_up() -> None:
    kernels = (
        apply_ticks, judge, update_forwards, sweep, gather_lanes, settle, format_messages,
    )  # fmt: skip
    before = [len(kernel.signatures) for kernel in kernels]
    assert before == [1] * len(kernels)
    engine = create_market_engine(MARKET)
    mixed = [Packet(each, 100.0, kind) for each in MARKET for kind in PacketKind]
    for at in (NOW, NOW + 5):
        engine.process([create_frame(mixed, at), create_frame([Packet(UNKNOWN, 1.0)], at)], at)
        engine.process([create_frame(chain_packets(), at)], at)
        engine.process([Frame(b"\0", at, BETA)], at)
        engine.process([], at)
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_settings_make_an_engine() -> None:
    configured = Settings(publish_channel_prefix="x:y")
    registry = InstrumentRegistry(MARKET)
    engine = create_engine(configured, lambda: registry)
    snapshots = engine.process([create_frame([Packet(FUTURE, 25_000.0)])], NOW).snapshots
    assert snapshots is not None
    assert b"\r\nx:y:options\r\n" in bytes(snapshots.buffer)
    assert RATE == 0.054
