"""Five levels on each side around the last price, sized by how liquid the instrument is."""

from typing import Final

import numpy as np
import numpy.typing as npt

from ticker.simulator.paths import FloatArray
from ticker.ticks import DEPTH_LEVELS, Int32Array, Row

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_LEVELS: Final = np.arange(DEPTH_LEVELS)[:, None]
_SPREAD: Final = 0.0008
"""Half spread of the least liquid instruments as a fraction of the price."""


class Book:
    """Books of n tradable instruments.

    ``tick``: wire units per price step, int64 (n,). ``lot``: int64 (n,). ``liquidity``: 0..1.
    The quotes stand at equal distances from the last price, which so is the mid, except where
    the bid would fall below one tick.
    """

    def __init__(
        self, tick: Int64Array, lot: Int64Array, liquidity: FloatArray, random: np.random.Generator
    ) -> None:
        self._tick = tick
        self._lot = lot
        self._liquidity = liquidity
        self._random = random
        everything = np.ones(len(tick), dtype=np.bool_)
        self._lots = np.zeros((2 * DEPTH_LEVELS, len(tick)), dtype=np.int64)
        self._orders = np.zeros_like(self._lots)
        # what is quoted behind the five levels, which the totals include
        self._behind = (40 * liquidity * random.uniform(0.5, 2.0, len(tick))).astype(np.int64)
        self.refresh(everything)

    def refresh(self, which: BoolArray) -> None:
        """Draw new sizes for some instruments."""
        columns = np.flatnonzero(which)
        shape = (2 * DEPTH_LEVELS, len(columns))
        typical = 1 + 24 * self._liquidity[columns]
        lots = 1 + (typical * self._random.standard_exponential(shape)).astype(np.int64)
        self._lots[:, columns] = lots
        self._orders[:, columns] = 1 + (lots * self._random.random(shape) / 3).astype(np.int64)

    def write(self, words: Int32Array, last: Int64Array) -> None:
        """Fill the book's rows and the totals for last prices given in ticks, shape (n,)."""
        half = 1 + (last * (_SPREAD * (1 - self._liquidity))).astype(np.int64)
        bids = last - np.minimum(half, last - 1) - _LEVELS
        asks = last + half + _LEVELS
        self._write_side(words, Row.BIDS, bids, slice(None, DEPTH_LEVELS), Row.TOTAL_BUY_QUANTITY)
        self._write_side(words, Row.ASKS, asks, slice(DEPTH_LEVELS, None), Row.TOTAL_SELL_QUANTITY)

    def _write_side(
        self, words: Int32Array, first: int, prices: Int64Array, levels: slice, total: int
    ) -> None:
        real = prices > 0
        quantity = np.where(real, self._lots[levels] * self._lot, 0)
        rows = words[first : first + 3 * DEPTH_LEVELS]
        rows[0::3] = quantity
        rows[1::3] = np.where(real, prices * self._tick, 0)
        rows[2::3] = np.where(real, self._orders[levels] << 16, 0)
        words[total] = quantity.sum(axis=0) + np.where(real[0], self._behind * self._lot, 0)
