import math

import mpmath as mp
import pytest

from tests.ticker.greeks.derive_coefficients import (
    FITS,
    deviations,
    error,
    interpolate,
    next_order,
)
from ticker.greeks import kernel

BOUNDS = {"EXP": 4e-16, "ATANH": 4e-16, "MILLS": 1e-16, "GUESS": 1e-6}
"""Relative errors; EXP and ATANH are corrections to a leading 1, where they count for less."""


@pytest.mark.parametrize("name", FITS)
def test_polynomials_fit_their_functions(name: str) -> None:
    with mp.workdps(40):
        assert error(FITS[name], getattr(kernel, name), points=12) <= BOUNDS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_polynomials_come_out_of_their_derivation(name: str) -> None:
    with mp.workdps(40):
        assert interpolate(FITS[name]) == pytest.approx(list(getattr(kernel, name)), rel=1e-15)


@pytest.mark.slow
def test_the_guess_is_near_enough_for_one_step() -> None:
    worst = max(abs(kernel.guess_deviation(beta, a) / s - 1.0) for s, a, beta in deviations())
    assert worst <= 2e-5 < kernel.STEP_MAX


@pytest.mark.slow
def test_one_step_from_the_greatest_distance_is_below_rounding() -> None:
    """Seen from 25 times as far, where the error that is left can be measured."""
    far = 25.0 * kernel.STEP_MAX
    for s, a, beta in deviations():
        for start in (s * (1.0 + far), s * (1.0 - far)):
            step = kernel.householder_step(beta, a, start)
            assert abs(start * (1.0 + step) / s - 1.0) <= 35.0 * far**4 + 1e-14
    left = 35.0 * kernel.STEP_MAX**4
    assert left < math.ulp(1.0) / 2


@pytest.mark.slow
def test_the_guesss_next_order_comes_out_of_its_derivation() -> None:
    assert next_order() == pytest.approx(kernel.GUESS_NEXT, rel=0.01)
