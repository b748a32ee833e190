"""Spot and volatility of every underlying as pure functions of a seed and the time.

Any instant, past or future, can be asked for in any order and always answers the same, so the
live market, yesterday's candles and a second simulator with the same seed agree. Brownian paths
are built by midpoint displacement (Levy's construction), each displacement drawn by hashing
(seed, path, level, interval) instead of stepping a generator through time. The coarsest interval
is half a year, which bounds how far a price can drift from where it belongs.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ticker.calendar.market_hours import YEAR_S
from ticker.simulator.underlyings import NIFTY, VIX, Underlying

FloatArray = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]
UInt64Array = npt.NDArray[np.uint64]

_LEVELS: Final = 28
"""From 2**24 s (194 days) down to 2**-3 s."""

_SPANS: Final[FloatArray] = 2.0 ** (24 - np.arange(_LEVELS, dtype=np.float64))
_AMPLITUDES: Final[FloatArray] = np.sqrt(_SPANS / YEAR_S) / 2 * np.sqrt(3.0)
_CHUNK: Final = 2048
"""Instants per pass: keeps the temporaries of a long history in the cache."""

_VOLATILITY_PATHS: Final = 1 << 20
_VOLATILITY_OF_VOLATILITY: Final = 0.5
_LEVERAGE: Final = 1.5
"""Volatility falls this many percent when the spot rises by one."""

_REALISED_OVER_IMPLIED: Final = 1.6
"""The simulated market never closes, so its moves per second are raised towards the size they
have in session hours."""


def _mix(value: UInt64Array) -> UInt64Array:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def uniforms(seed: int, *keys: npt.ArrayLike) -> FloatArray:
    """Numbers in [0, 1) that depend on the seed and the (broadcast) integer keys alone."""
    state = np.array([seed % 2**64], dtype=np.uint64)
    for key in keys:
        words = np.asarray(key).astype(np.int64).view(np.uint64)
        state = _mix((state ^ words) + np.uint64(0x9E3779B97F4A7C15))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def brownian(seed: int, paths: npt.ArrayLike, times: FloatArray) -> FloatArray:
    """Independent Brownian paths at UNIX times, shape (paths, times), unit variance a year."""
    ids = np.asarray(paths, dtype=np.int64)
    chunks = [
        _brownian(seed, ids, times[start : start + _CHUNK])
        for start in range(0, max(len(times), 1), _CHUNK)
    ]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=1)


def _brownian(seed: int, ids: npt.NDArray[np.int64], times: FloatArray) -> FloatArray:
    # each path has a phase of its own: all are pinned to 0 once per coarsest interval
    phase = uniforms(seed, ids, -1)[:, None] * _SPANS[0]
    position = (times[None, :] + phase)[None, :, :] / _SPANS[:, None, None]
    interval = np.floor(position)
    hat = 1.0 - np.abs(2.0 * (position - interval) - 1.0)
    levels = np.arange(_LEVELS)[:, None, None]
    draw = 2.0 * uniforms(seed, ids[None, :, None], levels, interval) - 1.0
    path: FloatArray = np.einsum("lpt,l->pt", hat * draw, _AMPLITUDES)
    return path


class SpotPaths:
    """Spot price and at-the-money volatility of underlyings at any UNIX time.

    ``rows`` are places in the sequence of underlyings; answers have the shape (rows, times).
    """

    def __init__(self, seed: int, underlyings: Sequence[Underlying]) -> None:
        names = [underlying.name for underlying in underlyings]
        self.everything = np.arange(len(names))
        self._seed = seed
        self._ids = _stable_ids(names)
        self._price = np.array([row.price for row in underlyings])[:, None]
        self._volatility = np.array([row.volatility for row in underlyings])[:, None]
        self._weight = np.array([row.market_weight for row in underlyings])[:, None]
        self._is_vix = np.array([name == VIX for name in names])
        self._nifty = np.flatnonzero([name == NIFTY.name for name in names])

    def spots(self, rows: IntpArray, times: FloatArray) -> FloatArray:
        """Prices in rupees; of the volatility index, percent."""
        spots: FloatArray = self._price[rows] * np.exp(self._log_returns(rows, times))
        vix = np.flatnonzero(self._is_vix[rows])
        if len(vix):
            spots[vix] = 100 * self.volatilities(self._nifty, times)
        return spots

    def volatilities(self, rows: IntpArray, times: FloatArray) -> FloatArray:
        """Annual fractions."""
        nerves = brownian(self._seed, self._ids[rows] ^ _VOLATILITY_PATHS, times)
        exponent = _VOLATILITY_OF_VOLATILITY * nerves
        exponent -= _LEVERAGE * self._log_returns(rows, times)
        volatilities: FloatArray = self._volatility[rows] * np.exp(exponent)
        return volatilities

    def _log_returns(self, rows: IntpArray, times: FloatArray) -> FloatArray:
        """Since the price that the underlying belongs at."""
        market = brownian(self._seed, [0], times)
        own = brownian(self._seed, self._ids[rows], times)
        weight = self._weight[rows]
        mixed = weight * market + np.sqrt(1 - weight**2) * own
        returns: FloatArray = _REALISED_OVER_IMPLIED * self._volatility[rows] * mixed
        return returns


def _stable_ids(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """A path's number comes from its name, not from its place in the list."""
    return np.array([int.from_bytes(name.encode()[:7].ljust(7), "big") for name in names])
