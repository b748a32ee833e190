"""The whole way from frames to payloads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.synthetic import (
    ALPHA,
    BETA,
    EXPIRY,
    NEXT_EXPIRY,
    NOW,
    RATE,
    Packet,
    create_chain,
    create_frame,
    create_future,
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
from ticker.engine import Engine, Enriched, create_engine
from ticker.errors import ConfigurationError
from ticker.greeks.forward import update_forwards
from ticker.greeks.pricing import Profile, gather_lanes, settle, sweep
from ticker.instruments import InstrumentRegistry
from ticker.messages import Frame
from ticker.settings import Settings
from ticker.snapshots.formatter import format_messages
from ticker.ticks import PacketKind, Row
from ticker.validation import judge

INDEX = create_index()
FUTURE = create_future(35_000)
CHAIN = create_chain(range(24_000, 26_050, 50))
MARKET = [INDEX, FUTURE, *CHAIN]
FORWARD = 25_031.7


def chain_packets(forward: float = FORWARD, **kwargs: Any) -> list[Packet]:
    return [Packet(each, on_tick(true_price(each, forward)), **kwargs) for each in CHAIN]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine(MARKET).warm_up()


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


def test_what_a_packet_does_not_carry_is_the_last_known_or_null() -> None:
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
    assert (after["price"], after["volume"], after["oi"]) == (25_003.0, 12_345, 777)
    assert (after["exchange_ts"], after["ts"]) == (None, int(NOW + 60))
    assert "depth" not in after


def test_two_ticks_of_one_instrument_are_two_messages() -> None:
    engine = create_market_engine(MARKET)
    ticks = [Packet(FUTURE, 25_000.0 + i, PacketKind.LTP) for i in range(3)]
    assert [payload["price"] for payload in process(engine, ticks)] == [25_000, 25_001, 25_002]


def test_options_are_priced_again_when_their_forward_moves() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES, reprice_interval_s=1.0)
    process(engine, [Packet(FUTURE, FORWARD, half_spread=0.5), *chain_packets()])
    moved = [Packet(FUTURE, FORWARD + 20, half_spread=0.5)]
    assert len(process(engine, moved, NOW + 0.5)) == 1, "the interval has not passed"
    later = engine.process(
        [create_frame([Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL)])], NOW + 2
    )
    assert later.repriced == len(CHAIN)
    assert published(later) == 1
    assert later.decoded == {ALPHA: 1}
    assert later.snapshots is not None
    assert later.snapshots.sources.tolist() == [0] + [-1] * len(CHAIN)
    assert later.snapshots.received_at.tolist() == [NOW] + [NOW + 2] * len(CHAIN)
    index, *options = payloads(later.snapshots)
    assert index["repriced"] is False
    for option in options:
        assert option["repriced"] is True
        assert option["forward"] == FORWARD + 20
        assert option["received_ts"] == NOW
        assert option["account_id"] == "alpha"
        assert len(option["depth"]["buy"]) == 5
    again = engine.process([create_frame([Packet(FUTURE, FORWARD + 20, half_spread=0.5)])], NOW + 4)
    assert again.repriced == 0, "nothing has moved since"


def test_each_group_has_its_own_interval() -> None:
    next_future = create_future(35_001, expiry=NEXT_EXPIRY)
    monthly = create_chain([25_000.0], 50_000, expiry=NEXT_EXPIRY)
    engine = create_market_engine([*MARKET, next_future, *monthly], profile=Profile.FUTURES)

    def move(at: float, *prices: float) -> int:
        futures = zip((FUTURE, next_future), prices, strict=False)
        frame = create_frame([Packet(each, price, half_spread=0.5) for each, price in futures], at)
        return engine.process([frame], at).repriced

    move(NOW, FORWARD, FORWARD)
    process(engine, [*chain_packets(), *[Packet(each, 400.0) for each in monthly]])
    assert move(NOW + 5, FORWARD + 20) == len(CHAIN)
    assert move(NOW + 5.5, FORWARD + 40, FORWARD + 40) == len(monthly)
    assert move(NOW + 6.1, FORWARD + 60, FORWARD + 60) == len(CHAIN)


def test_what_ticks_is_not_priced_again() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES)
    process(engine, [Packet(FUTURE, FORWARD, half_spread=0.5), *chain_packets()])
    ticks = [Packet(FUTURE, FORWARD + 20, half_spread=0.5), *chain_packets(FORWARD + 20)[:10]]
    enriched = engine.process([create_frame(ticks, NOW + 5)], NOW + 5)
    assert published(enriched) == 11
    assert enriched.repriced == len(CHAIN) - 10


def test_a_move_worth_less_than_half_a_tick_is_not_priced_again() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES)
    process(engine, [Packet(FUTURE, FORWARD, half_spread=0.5), *chain_packets()])
    moved = [create_frame([Packet(FUTURE, FORWARD + 0.05, half_spread=0.5)])]
    repriced = payloads_of_repriced(engine.process(moved, NOW + 5))
    assert 0 < len(repriced) < len(CHAIN)
    assert all(abs(option["delta"]) * 0.05 > 0.025 for option in repriced)


def payloads_of_repriced(enriched: Enriched) -> list[dict[str, Any]]:
    assert enriched.snapshots is not None
    return [payload for payload in payloads(enriched.snapshots) if payload.get("repriced")]


def test_pricing_again_can_be_switched_off() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES, reprice_interval_s=0.0)
    process(engine, [Packet(FUTURE, FORWARD, half_spread=0.5), *chain_packets()])
    assert len(process(engine, [Packet(FUTURE, FORWARD + 99, half_spread=0.5)], NOW + 60)) == 1


def test_an_option_that_came_before_its_forward_is_priced_when_there_is_one() -> None:
    engine = create_market_engine(MARKET)
    [early] = process(engine, [Packet(CHAIN[40], 300.0)])
    assert early["greeks_status"] == "no_forward"
    future, option = process(engine, [Packet(FUTURE, FORWARD, half_spread=0.5)], NOW + 1)
    assert future["type"] == "FUT"
    assert option["greeks_status"] == "ok"


def test_an_instrument_that_becomes_known_is_published_from_then_on() -> None:
    registries = [InstrumentRegistry([INDEX])]
    engine = Engine(lambda: registries[-1], expiry_at=expiry_at, channel_prefix="p")
    frame = create_frame([Packet(FUTURE, 25_000.0)])
    unknown = engine.process([frame], NOW)
    assert unknown.snapshots is None
    assert unknown.dropped == {(ALPHA, "unknown_instrument"): 1}
    registries.append(InstrumentRegistry([INDEX, FUTURE]))
    assert engine.process([frame], NOW).dropped == {}


def test_a_token_that_is_given_to_another_contract_is_that_contract() -> None:
    registries = [InstrumentRegistry([FUTURE])]
    engine = Engine(lambda: registries[-1], expiry_at=expiry_at, channel_prefix="p")
    assert process(engine, [Packet(FUTURE, 25_000.0)])[0]["expiry"] == EXPIRY.isoformat()
    following = create_future(FUTURE.exchange_token, expiry=NEXT_EXPIRY)
    registries.append(InstrumentRegistry([following]))
    [payload] = process(engine, [Packet(FUTURE, 25_000.0, PacketKind.LTP)])
    assert payload["expiry"] == NEXT_EXPIRY.isoformat()
    assert payload["volume"] is None, "values of the old contract are not the new one's"


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
