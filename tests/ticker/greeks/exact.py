"""Black's formula in 50 digits, straight from the textbook: the truth that tests compare with."""

from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

from ticker.greeks.kernel import FloatArray, GreekRow, UInt8Array, price_options

DIGITS = 50


class Option(NamedTuple):
    """The inputs of one lane, exact."""

    underlying: Any
    strike: Any
    years: Any
    rate: Any
    carry: Any
    is_call: bool


def normal(x: Any) -> Any:
    """Cumulative distribution function."""
    return mp.erfc(-x / mp.sqrt(2)) / 2


def premium(option: Option, sigma: Any) -> Any:
    """Discounted value of the option."""
    U, K, T, r, b, is_call = option
    U, K, T, r, b, sigma = (mp.mpf(value) for value in (U, K, T, r, b, sigma))
    forward = U * mp.exp(b * T)
    deviation = sigma * mp.sqrt(T)
    d1 = mp.log(forward / K) / deviation + deviation / 2
    d2 = d1 - deviation
    sign = 1 if is_call else -1
    undiscounted = sign * (forward * normal(sign * d1) - K * normal(sign * d2))
    return mp.exp(-r * T) * undiscounted


def volatility_error(option: Option, price: float, sigma: float) -> float:
    """Relative error of an implied volatility: one exact Newton step from it to the solution."""
    with mp.workdps(DIGITS):
        U, K, T, r, b, _ = (mp.mpf(value) for value in option)
        s = mp.mpf(sigma)
        deviation = s * mp.sqrt(T)
        forward = U * mp.exp(b * T)
        d1 = mp.log(forward / K) / deviation + deviation / 2
        vega = mp.exp(-r * T) * forward * mp.npdf(d1) * mp.sqrt(T)
        return float((mp.mpf(price) - premium(option, s)) / vega / s)


def derivatives(option: Option, sigma: Any) -> dict[GreekRow, float]:
    """Every Greek from its definition, as a derivative of ``premium`` taken in 50 digits.

    With carry 0, the rate moves alone (Black-76); otherwise the carry moves with it.
    """
    U, K, T, r, b, is_call = option

    def value(u: Any, s: Any, t: Any, dr: Any) -> Any:
        carry = b + dr if b else b
        return premium(Option(u, K, t, r + dr, carry, is_call), s)

    def slope(u: int = 0, s: int = 0, t: int = 0, dr: int = 0) -> float:
        return float(mp.diff(value, at, (u, s, t, dr)))

    with mp.workdps(DIGITS):
        at = (mp.mpf(U), mp.mpf(sigma), mp.mpf(T), mp.mpf(0))
        return {
            GreekRow.IV: float(sigma),
            GreekRow.DELTA: slope(u=1),
            GreekRow.GAMMA: slope(u=2),
            GreekRow.THETA: -slope(t=1) / 365,
            GreekRow.VEGA: slope(s=1) / 100,
            GreekRow.RHO: slope(dr=1) / 100,
            GreekRow.VANNA: slope(u=1, s=1),
            GreekRow.VOLGA: slope(s=2),
            GreekRow.CHARM: -slope(u=1, t=1),
        }


def price_lanes(
    price: FloatArray,
    underlying: FloatArray | float,
    strike: FloatArray | float,
    years: FloatArray | float,
    rate: FloatArray | float = 0.0,
    carry: FloatArray | float = 0.0,
    is_call: Any = True,
    half_tick: FloatArray | float = 0.0,
) -> tuple[FloatArray, UInt8Array]:
    """Call the kernel with scalars spread over the lanes of ``price``; returns out, status."""
    n = len(price)

    def column(values: FloatArray | float) -> FloatArray:
        return np.ascontiguousarray(np.broadcast_to(np.asarray(values, np.float64), n))

    out = np.full((len(GreekRow), n), 12345.0)
    status = np.full(n, 99, np.uint8)
    price_options(
        column(price),
        column(underlying),
        column(strike),
        column(years),
        column(rate),
        column(carry),
        np.ascontiguousarray(np.broadcast_to(np.asarray(is_call, np.uint8), n)),
        column(half_tick),
        out,
        status,
    )
    return out, status
