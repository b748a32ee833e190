"""Fair values: forwards from carry, options by Black-76 on a smooth smile.

Black-76 (Black 1976): V = exp(-rT) * s * (F N(s d1) - K N(s d2)), d1,2 = (ln(F/K) +- v*v*T/2) /
(v sqrt(T)), s = +1 for a call and -1 for a put. T is calendar seconds to the expiry instant over
365 days.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from ticker.calendar.market_hours import YEAR_S, expiry_at
from ticker.simulator.dump import InstrumentDump
from ticker.simulator.paths import FloatArray, SpotPaths

DISCOUNT_RATE: Final = 0.054
"""Continuous, per year: the 91-day treasury bill of early 2026."""

SKEW: Final = -0.055
CONVEXITY: Final = 0.018
WING: Final = 5.0
"""Standard deviations at which the smile levels off."""

FRONT_LIFT: Final = 0.08
FRONT_DECAY: Final = 20.0
"""Short expiries trade this much higher, fading with this rate per year."""


def smile(
    atm: FloatArray, forward: FloatArray, strike: FloatArray, years: FloatArray
) -> FloatArray:
    """Implied volatility by strike.

    With a = atm * (1 + FRONT_LIFT * exp(-FRONT_DECAY * T)), x = ln(K / F) / (a sqrt(T)) and
    y = WING * tanh(x / WING): a * (1 + SKEW * y + CONVEXITY * y * y).
    """
    level = atm * (1 + FRONT_LIFT * np.exp(-FRONT_DECAY * years))
    moneyness = np.log(strike / forward) / (level * np.sqrt(years))
    y = WING * np.tanh(moneyness / WING)
    curve: FloatArray = level * (1 + y * (SKEW + CONVEXITY * y))
    return curve


def black76(
    forward: FloatArray,
    strike: FloatArray,
    years: FloatArray,
    volatility: FloatArray,
    sign: FloatArray,
) -> FloatArray:
    """Present value in rupees; ``sign`` is +1 for calls and -1 for puts. Arrays broadcast."""
    deviation = volatility * np.sqrt(years)
    d1 = np.log(forward / strike) / deviation + deviation / 2
    d2 = d1 - deviation
    undiscounted = sign * (forward * ndtr(sign * d1) - strike * ndtr(sign * d2))
    value: FloatArray = np.exp(-DISCOUNT_RATE * years) * undiscounted
    return value


class FairValues:
    """The model price of any instruments of a dump at any times.

    ``expiry``: when each ends, UNIX seconds, float64 (n,); infinity for cash.
    """

    def __init__(self, seed: int, dump: InstrumentDump) -> None:
        self.paths = SpotPaths(seed, dump.underlyings)
        row_of = {underlying.name: row for row, underlying in enumerate(dump.underlyings)}
        rows = dump.instruments
        self._carry = np.array([underlying.carry for underlying in dump.underlyings])
        self._underlying = np.array([row_of[row.underlying] for row in rows])
        ends = {(row.exchange, row.expiry) for row in rows}
        end_s = {
            (exchange, date): expiry_at(exchange, date).timestamp() if date else np.inf
            for exchange, date in ends
        }
        self.expiry = np.array([end_s[row.exchange, row.expiry] for row in rows])
        self._strike = np.array([row.strike for row in rows])
        self._sign = np.array([_OPTION_SIGNS.get(row.instrument_type, 0.0) for row in rows])

    def years(self, positions: npt.NDArray[np.intp], times: FloatArray) -> FloatArray:
        """Years to expiry, never under a second of one; shape (positions, times)."""
        left: FloatArray = np.maximum(self.expiry[positions][:, None] - times[None, :], 1.0)
        return left / YEAR_S

    def at(self, positions: npt.NDArray[np.intp], times: FloatArray) -> FloatArray:
        """Fair values in rupees, shape (positions, times)."""
        return self.detail(positions, times)[0]

    def detail(
        self, positions: npt.NDArray[np.intp], times: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Fair value, forward (the spot itself for cash) and volatility (0 where there is none)."""
        rows, place = np.unique(self._underlying[positions], return_inverse=True)
        forward = self.paths.spots(rows, times)[place]
        volatility = np.zeros_like(forward)
        dated = np.flatnonzero(np.isfinite(self.expiry[positions]))
        years = self.years(positions[dated], times)
        forward[dated] *= np.exp(self._carry[rows[place[dated]]][:, None] * years)
        fair = forward.copy()

        options = np.flatnonzero(self._sign[positions])
        if len(options) == 0:
            return fair, forward, volatility
        rows, place = np.unique(self._underlying[positions[options]], return_inverse=True)
        atm = self.paths.volatilities(rows, times)[place]
        years = self.years(positions[options], times)
        strike = self._strike[positions[options]][:, None]
        sign = self._sign[positions[options]][:, None]
        ahead = forward[options]
        smiled = smile(atm, ahead, strike, years)
        volatility[options] = smiled
        fair[options] = black76(ahead, strike, years, smiled, sign)
        return fair, forward, volatility


_OPTION_SIGNS: Final = {"CE": 1.0, "PE": -1.0}
