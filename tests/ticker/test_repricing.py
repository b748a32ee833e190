"""Options that did not tick follow their forward."""

from typing import Any

import msgspec
import numpy as np
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
    RATE,
    Packet,
    chain_packets,
    create_chain,
    create_frame,
    create_future,
    create_market_engine,
    on_tick,
    payloads,
    process,
    published,
    true_price,
    years_to,
)
from ticker.engine import Enriched
from ticker.greeks.pricing import Profile
from ticker.ticks import PacketKind

pytestmark = pytest.mark.usefixtures("compiled_engine")


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


@pytest.mark.parametrize("move", [-150.0, 150.0])
@pytest.mark.parametrize("profile", Profile)
def test_pricing_again_holds_the_volatility(profile: Profile, move: float) -> None:
    engine = create_market_engine(MARKET, profile=profile)
    index = [Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL), Packet(FUTURE, FORWARD)]
    before = process(engine, [*index, *chain_packets()])[2:]
    quiet = [payload for payload in before if payload["strike"] in (24_800, 25_000, 25_200)]
    still = {payload["token"] for payload in quiet}
    ticks = [
        Packet(INDEX, 25_000.0 + move, PacketKind.INDEX_FULL),
        Packet(FUTURE, FORWARD + move),
        *[each for each in chain_packets(FORWARD + move) if each.instrument.instrument_token
          not in still],
    ]  # fmt: skip
    told = {payload["token"]: payload for payload in process(engine, ticks, NOW + 5)}
    for then in quiet:
        now = told[then["token"]]
        assert now["repriced"] is True
        assert now["greeks_status"] == "ok"
        assert now["price"] == then["price"]
        assert now["iv"] == pytest.approx(then["iv"], rel=1e-7)
        assert now["delta"] != pytest.approx(then["delta"], abs=0.01)
        assert abs(now["forward"] - then["forward"] - move) < 3


def test_pricing_again_agrees_with_the_tick_that_confirms_it() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES)
    process(engine, [Packet(FUTURE, FORWARD), *chain_packets()])
    told = payloads_of_repriced(
        engine.process([create_frame([Packet(FUTURE, FORWARD + 40)])], NOW + 5)
    )
    greeks = ("delta", "gamma", "theta", "vega", "rho", "vanna", "volga", "charm")
    for held in told:
        option = next(each for each in CHAIN if each.instrument_token == held["token"])
        volatility = held["iv"]
        price = true_price(option, FORWARD + 40, lambda *_, iv=volatility: iv, NOW + 5)
        if held["vega"] < 1:
            continue
        fresh = create_market_engine(
            [FUTURE, msgspec.structs.replace(option, tick_size=0.0)], profile=Profile.FUTURES
        )
        ticks = [Packet(FUTURE, FORWARD + 40), Packet(option, price)]
        [_, payload] = process(fresh, ticks, NOW + 5)
        for name in greeks:
            assert payload[name] == pytest.approx(held[name], rel=0.01, abs=0.02), name


def test_a_volatility_is_held_where_the_option_is_worth_next_to_nothing() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES)
    [_, then] = process(engine, [Packet(FUTURE, FORWARD), Packet(CHAIN[1], 0.1)])
    [_, now] = process(engine, [Packet(FUTURE, FORWARD + 600)], NOW + 5)
    assert now["greeks_status"] == "ok"
    assert now["iv"] == pytest.approx(then["iv"], rel=1e-7)
    assert then["delta"] < now["delta"] < 0
    [_, back] = process(engine, [Packet(FUTURE, FORWARD)], NOW + 10)
    assert back["delta"] == pytest.approx(then["delta"], rel=1e-3)


def test_an_option_without_a_volatility_waits_for_its_tick() -> None:
    engine = create_market_engine(MARKET, profile=Profile.FUTURES)
    deep = CHAIN[0]
    intrinsic = on_tick((FORWARD - deep.strike) * np.exp(-RATE * years_to(EXPIRY)))
    [_, payload] = process(engine, [Packet(FUTURE, FORWARD), Packet(deep, intrinsic)])
    assert payload["greeks_status"] == "no_time_value"
    assert len(process(engine, [Packet(FUTURE, FORWARD - 150)], NOW + 5)) == 1


def test_pricing_again_is_bounded_and_leaves_nothing_out() -> None:
    names = [f"U{i}" for i in range(27)]
    futures = [create_future(100 + i, name) for i, name in enumerate(names)]
    chains = [
        create_chain(range(24_000, 26_000, 50), 1_000 * (i + 1), name=name)
        for i, name in enumerate(names)
    ]
    quotes = [Packet(each, on_tick(true_price(each, 25_000.0))) for each in chains[0]]
    engine = create_market_engine([*futures, *(each for chain in chains for each in chain)])
    process(engine, [Packet(each, 25_000.0) for each in futures])
    for chain in chains:
        alike = zip(chain, quotes, strict=True)
        process(engine, [Packet(each, quote.price) for each, quote in alike])
    moved = [Packet(each, 25_100.0) for each in futures]
    told: list[int] = []
    frames = [create_frame(moved, NOW + 40)]
    counts = []
    for _ in range(3):
        enriched = engine.process(frames, NOW + 40)
        counts.append(enriched.repriced)
        sent = payloads(enriched.snapshots)
        told += [payload["token"] for payload in sent if payload["repriced"]]
        frames = []
    assert 2_000 <= counts[0] < 2_000 + len(quotes)
    assert counts[1] > 0 == counts[2]
    assert len(told) == len(set(told)), "none twice before all"
    assert {token >> 8 for token in told} >= {
        each.exchange_token for chain in chains for each in chain if 24_500 < each.strike < 25_500
    }
    seen: set[int] = set()
    for at in (50, 60):
        moved = [Packet(each, 25_000.0 + 4 * at) for each in futures]
        enriched = engine.process([create_frame(moved, NOW + at)], NOW + at)
        seen |= {each["token"] for each in payloads(enriched.snapshots) if each["repriced"]}
    assert seen >= set(told), "whoever was left over is first the next time"


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
