"""The kernel against 50-digit arithmetic and against vollib."""

from collections.abc import Callable

import mpmath as mp
import numpy as np
import numpy.typing as npt
import pytest

from tests.ticker.greeks.exact import (
    DIGITS,
    Option,
    derivatives,
    premium,
    price_lanes,
    volatility_error,
)
from tests.ticker.greeks.grids import DIVIDEND_YIELD, RATE, Grid, hard_grid, market_grid
from ticker.greeks.kernel import FloatArray, GreekRow, GreeksStatus
from ticker.greeks.reference import price_reference

CARRIES = (0.0, RATE, RATE - DIVIDEND_YIELD)
"""Black-76, Black-Scholes, Black-Scholes-Merton."""


def _options(seed: int, count: int, deviation: tuple[float, float]) -> list[tuple[Option, float]]:
    """Random Black-76 options without interest, and prices of them as doubles.

    Deviations sigma sqrt(T) are spread evenly by logarithm, strikes up to 6 of them away, and a
    fifth close to the money or at it. Both sides of the money up to a factor of two between strike
    and underlying, within which their difference is exact; out of the money beyond.
    """
    random = np.random.default_rng(seed)
    s = np.exp(random.uniform(np.log(deviation[0]), np.log(deviation[1]), count))
    h = random.uniform(-6.0, 6.0, count)
    h[: count // 10] *= 1e-6
    h[count // 10 : count // 5] = 0.0
    strike = random.uniform(50.0, 50_000.0, count)
    underlying = strike * np.exp(s * h)
    years = np.exp(random.uniform(np.log(1e-4), np.log(2.0), count))
    is_call = np.where(np.abs(s * h) < np.log(2.0), random.random(count) < 0.5, h < 0.0)
    options = []
    with mp.workdps(DIGITS):
        for k in range(count):
            option = Option(underlying[k], strike[k], years[k], 0.0, 0.0, bool(is_call[k]))
            options.append((option, float(premium(option, s[k] / mp.sqrt(years[k])))))
    return options


def _worst_error(options: list[tuple[Option, float]]) -> tuple[int, float]:
    """How many were solved, and the greatest relative error; all others lack time value."""
    columns = np.array([[float(x) for x in option] for option, _ in options]).T
    price = np.array([price for _, price in options])
    underlying, strike, years, rate, carry, is_call = columns
    out, status = price_lanes(price, underlying, strike, years, rate, carry, is_call)
    intrinsic = np.maximum(np.where(is_call > 0, underlying - strike, strike - underlying), 0.0)
    has_value = price - intrinsic >= 2.0**-40 * (underlying + strike)
    assert np.array_equal(status, np.where(has_value, GreeksStatus.OK, GreeksStatus.NO_TIME_VALUE))
    errors = [
        abs(volatility_error(option, price, float(out[GreekRow.IV, k])))
        for k, (option, price) in enumerate(options)
        if status[k] == GreeksStatus.OK
    ]
    return len(errors), max(errors)


def test_volatility_is_right_to_the_last_bits() -> None:
    solved, worst = _worst_error(_options(1, 300, (3e-4, 0.4)))
    assert solved > 240
    assert worst <= 4e-15


@pytest.mark.slow
def test_volatility_is_right_to_the_last_bits_at_20_000_points() -> None:
    solved, worst = _worst_error(_options(2, 23_000, (3e-4, 0.4)))
    assert solved >= 20_000
    assert worst <= 4e-15


def test_volatility_beyond_the_vector_loop_is_as_good_as_erfc() -> None:
    solved, worst = _worst_error(_options(3, 250, (0.4, 2.0)))
    assert solved > 120
    assert worst <= 2e-14


@pytest.mark.parametrize("carry", CARRIES)
@pytest.mark.parametrize("create_grid", [market_grid, hard_grid])
def test_agrees_with_vollib(create_grid: Callable[[float], Grid], carry: float) -> None:
    grid = create_grid(carry)
    out, status = price_lanes(*grid[:8])
    lanes = np.flatnonzero((status == GreeksStatus.OK) & (grid.time_value >= 0.01))
    assert len(lanes) > 900
    worst_iv, worst_greek = 0.0, 0.0
    for k in lanes:
        inputs = [float(column[k]) for column in grid[:6]]
        reference = price_reference(*inputs, is_call=bool(grid.is_call[k]))
        worst_iv = max(worst_iv, abs(out[GreekRow.IV, k] - reference.iv))
        if grid.time_value[k] >= 0.05:
            relative = np.abs(out[: GreekRow.VANNA, k] / np.array(reference) - 1.0)
            worst_greek = max(worst_greek, float(relative.max()))
    assert worst_iv <= 1e-9
    assert worst_greek <= 1e-9


@pytest.mark.parametrize("carry", CARRIES)
@pytest.mark.parametrize("create_grid", [market_grid, hard_grid])
def test_whatever_has_time_value_is_solved(
    create_grid: Callable[[float], Grid], carry: float
) -> None:
    grid = create_grid(carry)
    _, status = price_lanes(*grid[:8])
    floor = np.maximum(grid.half_tick, 2.0**-40 * (grid.underlying + grid.strike))
    near = np.abs(grid.time_value - floor) < 1e-9  # either status may come of the rounding
    assert (status[(grid.time_value >= floor) & ~near] == GreeksStatus.OK).all()
    assert (status[(grid.time_value < floor) & ~near] != GreeksStatus.OK).all()


@pytest.mark.slow
@pytest.mark.parametrize("carry", CARRIES)
@pytest.mark.parametrize("create_grid", [market_grid, hard_grid])
def test_volatility_from_a_hundredth_of_a_rupee_of_time_value(
    create_grid: Callable[[float], Grid], carry: float
) -> None:
    grid = create_grid(carry)
    out, status = price_lanes(*grid[:8])
    lanes = np.flatnonzero((status == GreeksStatus.OK) & (grid.time_value >= 0.01))
    for k in lanes[::2]:
        U, K, T, r, b = (float(column[k]) for column in grid[1:6])
        option = Option(U, K, T, r, b, bool(grid.is_call[k]))
        sigma = float(out[GreekRow.IV, k])
        assert abs(volatility_error(option, float(grid.price[k]), sigma)) * sigma <= 1e-9


def _definitions() -> list[tuple[Option, float]]:
    return [
        (Option(25_000.0, strike, years, 0.065, carry, is_call), sigma)
        for strike, years, sigma in (
            (25_000.0, 7 / 365, 0.13),
            (25_500.0, 7 / 365, 0.13),
            (24_000.0, 30 / 365, 0.17),
            (30_000.0, 0.5, 0.25),
            (25_050.0, 1 / 365 / 24, 0.2),
            (20_000.0, 1.5, 0.6),  # beyond the vector loop: s = 0.73
            (80_000.0, 1.0, 0.9),  # strike and forward a factor of three apart
        )
        for carry in CARRIES
        for is_call in (True, False)
    ]


@pytest.mark.parametrize(("option", "sigma"), _definitions())
def test_greeks_are_the_derivatives_of_the_premium(option: Option, sigma: float) -> None:
    with mp.workdps(DIGITS):
        price = float(premium(option, sigma))
    out, status = price_lanes(np.array([price]), *(np.array([x]) for x in option))
    assert status[0] == GreeksStatus.OK
    # the price is a double: on the far side of the strike its rounding moves the volatility
    moved = abs(volatility_error(option, price, float(out[GreekRow.IV, 0])))
    tolerance = 1e-12 + 100 * (abs(out[GreekRow.IV, 0] / sigma - 1.0) + moved)
    assert tolerance < 1e-9
    for row, expected in derivatives(option, sigma).items():
        assert out[row, 0] == pytest.approx(expected, rel=tolerance), row.name


def test_volatility_of_a_lane_does_not_see_the_other_options_of_a_batch() -> None:
    grid = market_grid(0.0)
    together, _ = price_lanes(*grid[:8])
    for k in range(0, len(grid.price), 101):
        alone, _ = price_lanes(*(column[k : k + 1] for column in grid[:8]))
        assert np.array_equal(_bits(alone[:, 0]), _bits(together[:, k]))


def _bits(values: FloatArray) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(values).view(np.uint64)
