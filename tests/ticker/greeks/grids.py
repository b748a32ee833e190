"""Grids of options: a market as it is quoted, and one as hard as volatilities get."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from ticker.greeks.kernel import FloatArray

HOUR = 1 / (365 * 24)
RATE = 0.065
DIVIDEND_YIELD = 0.012


class Grid(NamedTuple):
    """One lane an option, shape (n,) each; ``time_value`` in rupees of premium."""

    price: FloatArray
    underlying: FloatArray
    strike: FloatArray
    years: FloatArray
    rate: FloatArray
    carry: FloatArray
    is_call: FloatArray
    half_tick: FloatArray
    time_value: FloatArray


def _grid(
    spot: float, strike: FloatArray, years: FloatArray, sigma: FloatArray, carry: float, tick: float
) -> Grid:
    """A call and a put for every strike; prices rounded to the tick unless that is 0."""
    strike, years, sigma = (np.concatenate([a, a]) for a in (strike, years, sigma))
    n = len(strike)
    sign = np.repeat([1.0, -1.0], n // 2)
    forward = spot * np.exp(carry * years)
    discount = np.exp(-RATE * years)
    deviation = sigma * np.sqrt(years)
    d1 = np.log(forward / strike) / deviation + deviation / 2
    value = forward * ndtr(sign * d1) - strike * ndtr(sign * (d1 - deviation))
    price = discount * np.abs(value)
    if tick:
        price = np.round(price / tick) * tick
    return Grid(
        price,
        np.full(n, spot),
        strike,
        years,
        np.full(n, RATE),
        np.full(n, carry),
        (sign > 0).astype(np.float64),
        np.full(n, tick / 2),
        price - discount * np.maximum(sign * (forward - strike), 0.0),
    )


def market_grid(carry: float) -> Grid:
    """NIFTY-like: 1,818 options on a smile, 1 hour to 90 days, rounded to the tick of 0.05."""
    spot = 25_013.35
    strikes = np.arange(22_500.0, 27_501.0, 50.0)
    expiries = np.array([HOUR, 4 * HOUR, 1 / 365, 3 / 365, 7 / 365, 14 / 365, 0.08, 0.16, 0.25])
    strike, years = (a.ravel() for a in np.meshgrid(strikes, expiries))
    moneyness = np.log(strike / spot) / np.sqrt(years)
    sigma = np.clip(0.13 - 0.08 * moneyness + 0.25 * moneyness**2, 0.05, 1.5)
    return _grid(spot, strike, years, sigma, carry, 0.05)


def hard_grid(carry: float) -> Grid:
    """Strikes from half to twice the spot, 1 hour to 2 years, 3 % to 300 % volatility."""
    spot = 1_000.0
    ratios = np.exp(np.linspace(np.log(0.5), np.log(2.0), 14))
    expiries = np.array([HOUR, 1 / 365, 7 / 365, 30 / 365, 0.25, 1.0, 2.0])
    sigmas = np.array([0.03, 0.06, 0.1, 0.15, 0.25, 0.4, 0.7, 1.2, 2.0, 3.0])
    strike, years, sigma = (a.ravel() for a in np.meshgrid(spot * ratios, expiries, sigmas))
    return _grid(spot, strike, years, sigma, carry, 0.0)
