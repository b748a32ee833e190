"""The chain is free of arbitrage whatever it is seeded from: stale, partial or wrong prices."""

import math
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.ticker.mock_market.rig import (
    SPOT,
    VARIATION,
    chain_values,
    create_market,
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
    on_tick,
    smile,
    true_price,
    years_to,
)
from ticker.instruments.registry import Instrument
from ticker.mock_market.market import MockMarket
from ticker.mock_market.seeds import LastValue
from ticker.mock_market.smiles import create_smile, volatility_at
from ticker.mock_market.snapshot import MockSnapshot

STRIKES = sorted({each.strike for each in CHAIN})
ROUNDING = 0.051  # rupees: half a tick of each of two prices
Values = dict[int, LastValue]


def is_in_the_money(option: Instrument) -> bool:
    return (option.strike < FORWARD) == (option.instrument_type == "CE")


def stale(seed: int, share: float, *, everywhere: bool = False) -> Values:
    """Prices of when the forward stood up to ``share`` elsewhere; in the money, or everywhere."""
    draw, values = random.Random(seed), chain_values()
    for each in CHAIN:
        if everywhere or is_in_the_money(each):
            then = FORWARD * (1 + draw.uniform(-share, share))
            values[each.instrument_token] = told(on_tick(true_price(each, then)), FORWARD)
    return values


def partial(seed: int, every: int) -> Values:
    draw = random.Random(seed)
    known = chain_values()
    left_out = {each.instrument_token for each in CHAIN if draw.randrange(every)}
    return {token: each for token, each in known.items() if token not in left_out}


def junk(seed: int, share: float) -> Values:
    draw, values = random.Random(seed), chain_values()
    for token in values.keys() - {INDEX.instrument_token, FUTURE.instrument_token}:
        if draw.random() < share:
            wrong = on_tick(values[token].price * math.exp(draw.uniform(-3, 3)))
            values[token] = told(wrong, FORWARD)
    return values


def begun(values: Values) -> MockMarket:
    market = create_market()
    market.admit([INDEX, FUTURE, *CHAIN], values, NOW)
    return market


def settled(market: MockMarket, steps: int = 120) -> MockSnapshot:
    """After some steps, within one instant: everything stands where its model has it."""
    for _ in range(steps):
        snapshot = market.step(NOW)
    return snapshot


def assert_no_arbitrage(snapshot: MockSnapshot) -> None:
    """Parity holds, calls fall and puts rise with the strike, both are convex: up to rounding."""
    rows = {(e.strike, e.instrument_type): value(snapshot, e) for e in CHAIN}
    years = years_to(EXPIRY, now=snapshot.at)
    for strike in STRIKES:
        call, put = rows[strike, "CE"], rows[strike, "PE"]
        assert call.forward is not None
        assert call.iv == put.iv
        parity = math.exp(-RATE * years) * (call.forward - strike)
        lowest = min(call.price, put.price) <= 0.05  # no price is below a tick
        assert call.price - put.price == pytest.approx(parity, abs=0.051 + 0.05 * lowest)
    for kind, sign in (("CE", -1), ("PE", 1)):
        prices = np.array([rows[strike, kind].price for strike in STRIKES])
        assert (sign * np.diff(prices) >= -0.11).all()
        assert (np.diff(prices, 2) >= -0.21).all()


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [False, True])
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0005, 0.001, 0.003, 0.01]))
@examples(max_examples=20, deadline=None)
def test_stale_prices_leave_no_arbitrage(everywhere: bool, seed: int, share: float) -> None:
    assert_no_arbitrage(settled(begun(stale(seed, share, everywhere=everywhere))))


@pytest.mark.slow
@given(seed=st.integers(0, 10**6), every=st.integers(2, 40))
@examples(max_examples=20, deadline=None)
def test_partly_unknown_prices_leave_no_arbitrage(seed: int, every: int) -> None:
    assert_no_arbitrage(settled(begun(partial(seed, every))))


@pytest.mark.slow
@example(seed=811_523, share=1.0)  # a put fell with its strike
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.02, 0.1, 0.5, 1.0]))
@examples(max_examples=20, deadline=None)
def test_wrong_prices_leave_no_arbitrage(seed: int, share: float) -> None:
    # the most wrong price is 20,000 rupees too high, and moves 31 a step
    assert_no_arbitrage(settled(begun(junk(seed, share)), steps=800))


@pytest.mark.slow
@pytest.mark.parametrize("values", [stale(1, 0.003), partial(1, 3), junk(1, 0.1)])
def test_it_stays_so_as_the_market_moves(values: Values) -> None:
    market = begun(values)
    for second in range(3_600):
        snapshot = market.step(NOW + second)
        if second >= 600 and second % 300 == 0:
            assert_no_arbitrage(snapshot)


def test_nothing_leaps_to_where_its_model_has_it() -> None:
    values = stale(1, 0.01)
    market = begun(values)
    last = {each: values[each.instrument_token].price for each in CHAIN}
    for _ in range(30):
        snapshot = market.step(NOW)
        for each in CHAIN:
            row = value(snapshot, each)
            assert row.forward is not None
            assert abs(row.price - last[each]) <= VARIATION * row.forward + ROUNDING
            last[each] = row.price


def test_the_side_out_of_the_money_tells() -> None:
    market = begun(stale(1, 0.001))
    for each in CHAIN:
        iv = value(market.step(NOW), each).iv
        if abs(each.strike - FORWARD) < 500:
            assert iv == pytest.approx(smile(each.strike, FORWARD), abs=1e-3)


def test_where_only_the_other_side_is_known_it_tells() -> None:
    calls = [each for each in CHAIN if each.instrument_type == "CE" and is_in_the_money(each)]
    known = chain_values()
    values = {INDEX.instrument_token: told(SPOT)}
    values |= {each.instrument_token: known[each.instrument_token] for each in calls}
    market = begun(values)
    for each in CHAIN:
        if FORWARD - 300 < each.strike < FORWARD:
            iv = value(market.step(NOW), each).iv
            assert iv == pytest.approx(smile(each.strike, FORWARD), abs=3e-3)


def test_a_smile_keeps_what_is_sound_and_fills_in_what_is_missing() -> None:
    strikes = np.array([90.0, 95.0, 100.0, 105.0, 110.0])
    made = create_smile({90.0: 0.2, 100.0: 0.1, 110.0: 0.14}, strikes, 100.0, 0.1, 0.05)
    assert list(made.values()) == pytest.approx([0.2, 0.15, 0.1, 0.12, 0.14])
    assert volatility_at(made, 97.5) == pytest.approx(0.125)
    assert volatility_at(made, 50.0) == 0.2


def test_a_few_wrong_prices_do_not_bend_the_smile() -> None:
    strikes, draw = np.array(STRIKES), random.Random(1)
    told = {strike: smile(strike, FORWARD) for strike in STRIKES}
    told |= {strike: draw.uniform(0.02, 0.6) for strike in draw.sample(STRIKES, 6)}
    made = create_smile(told, strikes, FORWARD, years_to(EXPIRY), 0.05)
    for strike in STRIKES:
        if abs(strike - FORWARD) < 700:
            assert made[strike] == pytest.approx(smile(strike, FORWARD), abs=2e-3)


def test_a_smile_of_nothing_but_noise_is_smooth() -> None:
    strikes = np.arange(80.0, 121.0)
    noise = {strike: 0.05 if strike % 2 else 3.0 for strike in strikes.tolist()}
    made = create_smile(noise, strikes, 100.0, 0.02, 0.05)
    assert np.abs(np.diff([*made.values()])).max() < 0.05
