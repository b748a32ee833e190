"""One side speaks for an underlying: the feed, or the mock market while the market is closed.

The gate stands where frames are processed, so that what passes it is in order: no mock tick
follows the first live one of a session, and whichever side is not let through is counted.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ticker.ticks import Int32Array

BoolArray = npt.NDArray[np.bool_]
_NONE: Final[frozenset[int]] = frozenset()


class MockGate:
    """Who speaks for each underlying. The feed does, until the mock market has, in closed hours.

    Underlyings are the numbers that ``Chains`` gives them. ``is_closed`` answers for a name and
    UNIX seconds, ``closed_until`` says how long that stands at least. Not thread-safe: called
    under the board's lock.

    ``mock_until``: UNIX seconds from which on mock ticks that have passed are not to be published
    any more: a market that is spoken for may open then, whatever they wait for.
    """

    def __init__(
        self,
        is_closed: Callable[[str, float], bool],
        closed_until: Callable[[str, float], float],
    ) -> None:
        self.mock_until = math.inf
        self._is_closed = is_closed
        self._closed_until = closed_until
        self._mocked: frozenset[int] = _NONE

    def follow(self, names: Sequence[str], now: float) -> frozenset[int]:
        """Give the word back to the feed wherever the market is no longer closed; returns where.

        ``names``: of all underlyings, by number.
        """
        if not self._mocked:
            return _NONE
        opened = frozenset(u for u in self._mocked if not self._is_closed(names[u], now))
        self._mocked -= opened
        return opened

    def pass_ticks(
        self, underlyings: Int32Array, is_mock: BoolArray, names: Sequence[str], now: float
    ) -> tuple[BoolArray | None, frozenset[int]]:
        """Which ticks may pass, bool (n,), None for all; and whose first mock ticks are among them.

        ``underlyings``: int32 (n,), negative where unknown. Of an underlying whose first mock
        ticks are in this batch, no live tick passes any more.
        """
        if not is_mock.any():
            return (None, _NONE) if not self._mocked else (~self._are_mocked(underlyings), _NONE)
        numbers = np.unique(underlyings[is_mock]).tolist()
        closed = frozenset(u for u in numbers if u >= 0 and self._is_closed(names[u], now))
        begun = closed - self._mocked
        self._mocked |= closed
        self.mock_until = min(
            (self._closed_until(names[u], now) for u in self._mocked), default=now
        )
        may_pass = np.isin(underlyings, list(closed))
        return np.where(is_mock, may_pass, ~self._are_mocked(underlyings)), begun

    def _are_mocked(self, underlyings: Int32Array) -> BoolArray:
        return np.isin(underlyings, list(self._mocked))
