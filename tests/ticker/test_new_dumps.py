"""A registry that is replaced while the feed runs."""

from typing import Any

import msgspec
import pytest

from tests.ticker.synthetic import (
    ALPHA,
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
    create_frame,
    create_future,
    create_share,
    expiry_at,
    on_tick,
    process,
    true_price,
)
from ticker.engine import Engine
from ticker.greeks.pricing import Profile
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.ticks import PacketKind

pytestmark = pytest.mark.usefixtures("compiled_engine")


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


def replaced(instrument: Instrument, **changes: Any) -> Instrument:
    return msgspec.structs.replace(instrument, **changes)


def test_a_contract_whose_lot_changes_keeps_its_place() -> None:
    share = create_share(738, "NIFTY")
    market = [share, FUTURE, *CHAIN]
    registries = [InstrumentRegistry(market)]
    engine = Engine(lambda: registries[-1], expiry_at=expiry_at, channel_prefix="p")
    process(engine, [Packet(share, 25_000.0), Packet(FUTURE, FORWARD), *chain_packets()])
    registries.append(InstrumentRegistry(replaced(each, lot_size=75) for each in market))
    moved = [Packet(FUTURE, FORWARD + 100), *chain_packets(FORWARD + 100)]
    for second in (10, 50):
        told = process(engine, [Packet(share, 25_090.0), *moved], NOW + second)
        assert len(told) == len(market), "nothing is priced twice"
        assert {payload["lot_size"] for payload in told} == {75}
    assert told[-1]["forward"] == pytest.approx(FORWARD + 100, abs=0.05)
    assert told[-1]["forward_source"] == "parity"
    assert told[-1]["underlying_price"] == 25_090.0
    assert len(engine.board) == len(market)


def test_a_new_tick_size_is_the_prices_doubt() -> None:
    registries = [InstrumentRegistry(MARKET)]
    engine = Engine(lambda: registries[-1], expiry_at=expiry_at, channel_prefix="p")
    process(engine, [Packet(FUTURE, FORWARD), *chain_packets()])
    registries.append(InstrumentRegistry(replaced(each, tick_size=2.0) for each in MARKET))
    cheap = next(each for each in CHAIN if each.strike == 24_300 and each.instrument_type == "PE")
    [payload] = process(engine, [Packet(cheap, 0.9)])
    assert payload["greeks_status"] == "no_time_value"
    assert payload["tick_size"] == 2.0


@pytest.mark.parametrize("profile", [Profile.FUTURES, Profile.NSE])
def test_a_contract_that_is_gone_prices_nothing(profile: Profile) -> None:
    share = create_share(738, "NIFTY")
    gone = {FUTURE.instrument_token, share.instrument_token, CHAIN[40].instrument_token}
    market = [share, FUTURE, *CHAIN]
    registries = [InstrumentRegistry(market)]
    engine = Engine(
        lambda: registries[-1], expiry_at=expiry_at, channel_prefix="p", profile=profile
    )
    process(engine, [Packet(share, 25_000.0), Packet(FUTURE, FORWARD), *chain_packets()])
    others = [
        replaced(each, tradingsymbol=f"NEW{each.tradingsymbol}", name="OTHER")
        if each.instrument_token in gone
        else each
        for each in market
    ]
    following = create_future(36_000)
    registries.append(InstrumentRegistry([*others, following]))
    reused = [Packet(each, 99.0) for each in (FUTURE, share, CHAIN[40])]
    told = process(engine, [*reused, Packet(CHAIN[41], 300.0)], NOW + 5)
    assert [payload["symbol"] for payload in told[:3]] == ["OTHER", "NEWNIFTY", "OTHER"]
    assert told[3]["forward_age_s"] == 5.0, "the last forward there was"
    told = process(engine, [Packet(following, FORWARD + 77), Packet(CHAIN[41], 300.0)], NOW + 6)
    assert told[1]["forward"] == pytest.approx(FORWARD + 77)
    assert told[3]["underlying_price"] is None
    assert all(payload["tradingsymbol"] != CHAIN[40].tradingsymbol for payload in told)


def test_a_contract_under_another_token_is_there_once() -> None:
    registries = [InstrumentRegistry(MARKET)]
    engine = Engine(lambda: registries[-1], expiry_at=expiry_at, channel_prefix="p")
    process(engine, [Packet(FUTURE, FORWARD), *chain_packets()])
    renumbered = [
        replaced(each, instrument_token=each.instrument_token + (9_000 << 8)) for each in CHAIN
    ]
    registries.append(InstrumentRegistry([FUTURE, *renumbered]))
    moved = [
        Packet(each, on_tick(true_price(each, FORWARD + 200)), PacketKind.FULL)
        for each in renumbered
    ]
    told = process(engine, moved, NOW + 5)
    assert len(told) == len(CHAIN)
    assert told[-1]["forward"] == pytest.approx(FORWARD + 200, abs=0.05)
    assert len(process(engine, moved, NOW + 10)) == len(CHAIN)
