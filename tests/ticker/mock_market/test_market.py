"""How the mock market moves: prices, chains, volumes."""

import math

import numpy as np
import pytest
from vollib.black import black
from vollib.black.greeks import analytical

from tests.ticker.mock_market.rig import (
    NEAR,
    SPOT,
    VARIATION,
    chain_values,
    create_market,
    seeded,
    told,
    value,
)
from tests.ticker.synthetic import (
    CHAIN,
    EXPIRY,
    FORWARD,
    FUTURE,
    INDEX,
    NOW,
    RATE,
    YEAR_S,
    expiry_at,
)
from ticker.ticks import Row


def test_it_begins_within_the_variation_of_what_was_told() -> None:
    market, values = seeded(), chain_values()
    snapshot = market.step(NOW)
    for each in (INDEX, FUTURE, *CHAIN):
        row, before = value(snapshot, each), values[each.instrument_token].price
        level = row.forward or before
        assert abs(row.price - before) <= VARIATION * level + 0.051


def test_no_step_moves_a_price_further_than_its_underlying_may() -> None:
    market = seeded()
    before = market.step(NOW)
    for second in range(1, 300):
        after = market.step(NOW + second)
        for each in (INDEX, FUTURE, *NEAR):
            old, new = value(before, each), value(after, each)
            assert abs(new.price - old.price) <= VARIATION * (new.forward or new.price) + 0.051
        before = after


def test_it_stays_about_where_it_began() -> None:
    """A free walk would be a fifth away after a night; the next opening would be a leap."""
    market = seeded(INDEX)
    prices = [value(market.step(NOW + second), INDEX).price for second in range(60_000)]
    moves = np.abs(np.diff(prices)) / prices[:-1]
    assert moves.max() <= VARIATION * 1.001
    assert moves.mean() > VARIATION / 4
    assert max(abs(np.log(np.array(prices) / SPOT))) < 0.03


def test_options_are_black_on_the_forward_of_that_instant() -> None:
    market = seeded()
    first = {each: value(market.step(NOW), each).iv for each in NEAR}
    for second in range(1, 50):
        now = NOW + 60.0 * second
        snapshot = market.step(now)
        years = (expiry_at("NFO", EXPIRY).timestamp() - now) / YEAR_S
        for each in NEAR:
            row = value(snapshot, each)
            assert row.iv == first[each], "volatility is its own"
            flag = each.instrument_type[0].lower()
            terms = flag, row.forward, each.strike, years, RATE, row.iv
            fair = float(black(terms[0], terms[1], terms[2], years, RATE, row.iv))
            assert abs(row.price - max(fair, 0.05)) < 0.0251
            of = (terms[0], terms[1], terms[2], years, RATE, row.iv)
            assert row.delta == pytest.approx(analytical.delta(*of), abs=1e-9)
            assert row.gamma == pytest.approx(analytical.gamma(*of), rel=1e-9)
            assert row.theta == pytest.approx(analytical.theta(*of), rel=1e-6)
            assert row.vega == pytest.approx(analytical.vega(*of), rel=1e-9)


def test_the_chain_is_free_of_arbitrage() -> None:
    """Calls fall and puts rise with the strike, prices are convex, parity holds: up to rounding."""
    market = seeded()
    for second in range(0, 600, 20):
        snapshot = market.step(NOW + second)
        rows = {(e.strike, e.instrument_type): value(snapshot, e) for e in CHAIN}
        strikes = sorted({each.strike for each in CHAIN})
        years = (expiry_at("NFO", EXPIRY).timestamp() - NOW - second) / YEAR_S
        for kind, sign in (("CE", -1), ("PE", 1)):
            prices = np.array([rows[strike, kind].price for strike in strikes])
            assert (sign * np.diff(prices) >= -0.101).all()
            assert (np.diff(prices, 2) >= -0.201).all()
        for strike in strikes:
            call, put = rows[strike, "CE"], rows[strike, "PE"]
            assert call.forward is not None
            parity = math.exp(-RATE * years) * (call.forward - strike)
            assert call.price - put.price == pytest.approx(parity, abs=0.2)


def test_volume_grows_and_interest_wanders_within_their_variation() -> None:
    market = seeded(INDEX, FUTURE)
    first = value(market.step(NOW), FUTURE)
    volumes, interests = [first.volume], [first.oi]
    for second in range(1, 20_000):
        row = value(market.step(NOW + second), FUTURE)
        volumes.append(row.volume)
        interests.append(row.oi)
    seed_volume, seed_interest = 65 * 1000, 65 * 5000
    assert (np.diff(volumes) >= 0).all()
    assert seed_volume * 1.1 < volumes[-1] <= seed_volume * 1.15
    assert seed_interest * 0.85 <= min(interests) < max(interests) <= seed_interest * 1.15
    assert max(interests) - min(interests) > 0.1 * seed_interest


def test_what_a_live_packet_said_is_kept() -> None:
    words = np.zeros(46, np.int32)
    words[Row.INSTRUMENT_TOKEN] = FUTURE.instrument_token
    words[Row.LAST_PRICE], words[Row.CLOSE], words[Row.OPEN] = 2_500_000, 2_480_000, 2_490_000
    words[Row.HIGH], words[Row.LOW], words[Row.VOLUME_TRADED] = 2_500_000, 2_470_000, 650_000
    market = create_market()
    last = told(25_000.0)
    market.admit([FUTURE], {FUTURE.instrument_token: type(last)(25_000.0, "live", words)}, NOW)
    ticks = market.step(NOW).ticks([FUTURE.instrument_token])
    assert [ticks.words[row, 0] for row in (Row.OPEN, Row.CLOSE)] == [2_490_000, 2_480_000]
    assert ticks.words[Row.LOW, 0] <= ticks.words[Row.LAST_PRICE, 0] <= ticks.words[Row.HIGH, 0]
    assert ticks.words[Row.VOLUME_TRADED, 0] >= 650_000


def test_a_price_that_its_model_does_not_share_gets_there_in_steps() -> None:
    """A stale option in the money, below its intrinsic value, implies no volatility."""
    call = next(e for e in CHAIN if e.strike == 24_500 and e.instrument_type == "CE")
    values = chain_values()
    fair = values[call.instrument_token].price
    values[call.instrument_token] = told(fair - 100, FORWARD)
    market = create_market()
    market.admit([INDEX, *CHAIN], values, NOW)
    prices = [value(market.step(NOW), call).price for _ in range(10)]
    steps = np.diff([fair - 100, *prices])
    assert abs(steps).max() <= VARIATION * 26_000
    assert abs(prices[-1] - fair) < 100


def test_the_same_seed_walks_the_same_way() -> None:
    one, two, other = (create_market(seed=seed) for seed in (5, 5, 6))
    for market in (one, two, other):
        market.admit([INDEX], chain_values(), NOW)
    walks = [
        [value(market.step(NOW + second), INDEX).price for second in range(20)]
        for market in (one, two, other)
    ]
    assert walks[0] == walks[1] != walks[2]
