"""Historical Greeks against vollib, candle by candle."""

import math
import time

import numpy as np
import numpy.typing as npt
import pytest

from ticker.greeks.forward import YEAR_S, ForwardSource
from ticker.greeks.history import OptionTerms, align, bears_carry, price_history
from ticker.greeks.pricing import STATUS_NAMES, Profile
from ticker.greeks.reference import price_reference

EXPIRY = 1_795_500_000.0
RATE = 0.054
NEAR = EXPIRY + 7 * 86_400.0
Array = npt.NDArray[np.float64]


def terms(**changes: object) -> OptionTerms:
    plain = OptionTerms(26_000.0, True, 0.05, EXPIRY, EXPIRY, True)
    return plain._replace(**changes)  # type: ignore[arg-type]


def moments(n: int) -> tuple[Array, Array, Array]:
    """Times up to ten days before the expiry, a spot that walks, and an option's prices."""
    walk = np.random.default_rng(1).normal(0, 8, n).cumsum()
    at = EXPIRY - np.linspace(10 * 86_400.0, 3600.0, n)
    spot = 26_000.0 + walk
    premium = 60.0 + np.maximum(spot - 26_000.0, 0.0) + 200.0 * np.sqrt((EXPIRY - at) / 864_000)
    return at, spot, np.round(premium * 20) / 20


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize(
    ("profile", "source", "carry"),
    [(Profile.PARITY, ForwardSource.FUTURE, 0.0), (Profile.NSE, ForwardSource.SPOT, RATE)],
)
@pytest.mark.slow
def test_every_candle_is_priced_as_vollib_prices_it(
    is_call: bool, profile: Profile, source: ForwardSource, carry: float
) -> None:
    at, spot, price = moments(400)
    if not is_call:
        price = price + np.maximum(26_000.0 - spot, 0.0)
    future = spot + 25.0
    priced = price_history(
        terms(is_call=is_call), at, price, spot, future, rate=RATE, profile=profile
    )
    assert set(priced.sources.tolist()) == {int(source)}
    solved = [n for n in range(400) if STATUS_NAMES[priced.statuses[n]] == "ok"]
    assert len(solved) > 380
    for n in solved:
        years = (EXPIRY - at[n]) / YEAR_S
        underlying = spot[n] if source is ForwardSource.SPOT else future[n]
        expected = price_reference(
            price[n], underlying, 26_000.0, years, RATE, carry, is_call=is_call
        )
        assert priced.greeks[:5, n] == pytest.approx(list(expected[:5]), rel=1e-8)


def test_the_forward_is_the_future_then_the_carried_one_then_the_spot() -> None:
    at, spot, price = moments(3)
    years = (EXPIRY - at) / YEAR_S
    future = np.array([26_100.0, math.nan, math.nan])
    spot = np.array([26_000.0, 26_010.0, math.nan])
    same = price_history(terms(), at, price, spot, future, rate=RATE, profile=Profile.PARITY)
    assert same.sources.tolist() == [ForwardSource.FUTURE, ForwardSource.CARRY, 0]
    assert same.forward[0] == 26_100.0
    assert same.forward[1] == pytest.approx(26_010.0 * math.exp(RATE * years[1]))
    assert STATUS_NAMES[same.statuses[2]] == "no_forward"
    assert np.isnan(same.greeks[:, 2]).all()
    later = terms(future_expires_at=NEAR)
    carried = price_history(later, at, price, spot, future, rate=RATE, profile=Profile.PARITY)
    assert carried.sources[0] == ForwardSource.CARRY
    assert carried.forward[0] == pytest.approx(26_100.0 * math.exp(-RATE * 7 / 365))


def test_commodities_bear_no_carry() -> None:
    assert bears_carry("NFO")
    assert not bears_carry("MCX")
    at, spot, price = moments(3)
    gold = terms(bears_carry=False, future_expires_at=NEAR)
    nothing = np.full(3, math.nan)
    priced = price_history(gold, at, price, nothing, spot, rate=RATE, profile=Profile.PARITY)
    assert priced.forward.tolist() == spot.tolist()


def test_the_exchanges_convention_falls_back_on_the_future() -> None:
    at, spot, price = moments(2)
    priced = price_history(
        terms(), at, price, np.array([spot[0], math.nan]), spot, rate=RATE, profile=Profile.NSE
    )
    assert priced.sources.tolist() == [ForwardSource.SPOT, ForwardSource.FUTURE]


@pytest.mark.parametrize(
    ("price", "underlying", "at", "status"),
    [
        (0.0, 26_000.0, EXPIRY - 86_400, "no_price"),
        (500.0, 26_000.0, EXPIRY, "expired"),
        (500.0, 26_000.0, EXPIRY + 60, "expired"),
        (100.0, 26_500.0, EXPIRY - 86_400, "below_intrinsic"),
        (99_000.0, 26_500.0, EXPIRY - 86_400, "above_maximum"),
        (100.0, math.nan, EXPIRY - 86_400, "no_forward"),
    ],
)
def test_what_cannot_be_priced_says_why(
    price: float, underlying: float, at: float, status: str
) -> None:
    column = np.array([underlying])
    priced = price_history(
        terms(), np.array([at]), np.array([price]), column, column, rate=RATE,
        profile=Profile.PARITY,
    )  # fmt: skip
    assert STATUS_NAMES[priced.statuses[0]] == status
    assert np.isnan(priced.greeks).all()


def test_candles_are_aligned_by_time_and_not_from_the_future() -> None:
    starts = np.array([0, 60, 120, 180, 1000], np.int64)
    other = np.array([60, 180, 240], np.int64)
    values = np.array([1.0, 2.0, 3.0])
    aligned = align(starts, other, values, 300.0)
    assert aligned[1:4].tolist() == [1.0, 1.0, 2.0]
    assert np.isnan(aligned[[0, 4]]).all()
    assert np.isnan(align(starts, other[:0], values[:0], 300.0)).all()
    assert align(starts, other, values, 0.0)[[1, 3]].tolist() == [1.0, 2.0]


@pytest.mark.slow
def test_ten_days_of_minutes_take_milliseconds() -> None:
    at, spot, price = moments(3750)
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        priced = price_history(terms(), at, price, spot, spot, rate=RATE, profile=Profile.PARITY)
        best = min(best, time.perf_counter() - began)
    assert np.isfinite(priced.greeks[0]).mean() > 0.95
    assert best < 0.02
