"""Volatility by strike: one for a call and its put, whatever is known of either.

Prices of one chain are not of one instant: an option that last traded an hour ago implies what its
neighbours do not. Played on volatilities of their own, calls and puts would break parity for good,
and prices would not be convex in the strike. So an expiry has one smile, without arbitrage.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ticker.ticks import FloatArray

Smile = Mapping[float, float]
"""Volatility, annual fraction, by strike in rupees."""

_REACH: Final = (0.98, 1.0, 1.02)
"""Where the forward may go while the smile stands, about: the walk is pulled back earlier."""
_WIDTH: Final = 4.0
"""Standard deviations from the forward within which a parabola is fitted; beyond, it is level."""
_OUTLIER: Final = 1.5
"""Of the median distance to the parabola: what is further off pulls less."""
_ROUNDS: Final = 8


def create_smile(
    told: Smile, strikes: FloatArray, forward: float, years: float, tick: float
) -> Smile:
    """A volatility for each of ``strikes``, ascending, from those that some of them imply.

    Their own, with straight lines between them, if no price is above the chord of its neighbours
    by more than a ``tick``, in rupees: as much as rounding does. Else a parabola through most of
    them, else the median for all, which is free of arbitrage always. ``told`` is not empty.
    """
    known = np.array(sorted(told), np.float64)
    volatilities = np.array([told[strike] for strike in known.tolist()], np.float64)
    chosen = volatilities
    for chosen in _choices(known, volatilities, strikes, forward, years):
        if _is_sound(strikes, chosen, forward, years, tick):
            break
    return dict(zip(strikes.tolist(), chosen.tolist(), strict=True))


def volatility_at(smile: Smile, strike: float) -> float:
    """Of a strike that the smile lacks, on the line between its neighbours, or as at the last."""
    if strike in smile:
        return smile[strike]
    strikes = sorted(smile)
    return float(np.interp(strike, strikes, [smile[each] for each in strikes]))


def _choices(
    known: FloatArray,
    volatilities: FloatArray,
    strikes: FloatArray,
    forward: float,
    years: float,
) -> Iterator[FloatArray]:
    """The closest to what was told comes first."""
    yield np.interp(strikes, known, volatilities)
    yield _parabola(known, volatilities, strikes, forward, years)
    yield np.full(len(strikes), np.median(volatilities))


def _parabola(
    known: FloatArray,
    volatilities: FloatArray,
    strikes: FloatArray,
    forward: float,
    years: float,
) -> FloatArray:
    """In the logarithm of the moneyness; least squares, what has much vega counting most.

    Reweighted after Huber (1964), so that a few prices that are wrong are passed over. Never
    beyond the volatilities that were told, nor outside their strikes.
    """
    deviation = float(np.median(volatilities)) * math.sqrt(years)
    at = np.clip(np.log(known / forward) / deviation, -_WIDTH, _WIDTH)
    terms = np.vander(at, 3)
    vega, trust = np.exp(-0.25 * at * at) + 0.01, np.ones(len(at))
    for _ in range(_ROUNDS):
        weights = np.sqrt(vega * trust)
        fit = np.linalg.lstsq(terms * weights[:, None], volatilities * weights, rcond=None)[0]
        distances = np.abs(terms @ fit - volatilities)
        scale = _OUTLIER * max(float(np.median(distances)), 1e-4)
        trust = 1 / np.maximum(distances / scale, 1.0)
    wanted = np.clip(np.log(strikes / forward) / deviation, at.min(), at.max())
    fitted = np.vander(wanted, 3) @ fit
    clipped: FloatArray = np.clip(fitted, volatilities.min(), volatilities.max())
    return clipped


def _is_sound(
    strikes: FloatArray, volatilities: FloatArray, forward: float, years: float, tick: float
) -> bool:
    """Whether calls fall and puts rise with the strike, and calls lie below their neighbours'
    chord, up to a tick.
    """
    share = (strikes[1:-1] - strikes[:-2]) / (strikes[2:] - strikes[:-2])
    for reach in _REACH:
        calls = _call_prices(strikes, volatilities, forward * reach, years)
        chords = calls[:-2] + share * (calls[2:] - calls[:-2])
        falls = -np.diff(calls)  # by no more than the strike rises, or the put would fall too
        if (falls < -tick).any() or (falls > np.diff(strikes) + tick).any():
            return False
        if (calls[1:-1] > chords + tick).any():
            return False
    return True


def _call_prices(
    strikes: FloatArray, volatilities: FloatArray, forward: float, years: float
) -> FloatArray:
    """Black (1976), not discounted."""
    deviations = volatilities * math.sqrt(years)
    d1 = np.log(forward / strikes) / deviations + 0.5 * deviations
    prices: FloatArray = forward * _normal(d1) - strikes * _normal(d1 - deviations)
    return prices


def _normal(values: FloatArray) -> npt.NDArray[np.float64]:
    """The cumulative normal distribution."""
    scaled = values * -math.sqrt(0.5)
    return np.array([0.5 * math.erfc(each) for each in scaled.tolist()], np.float64)
