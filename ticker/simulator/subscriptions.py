"""What one socket is subscribed to, in which mode, and what it has already been sent."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from ticker.simulator.book import Int64Array
from ticker.simulator.market import MODES, Market, Positions
from ticker.ticks import UInt8Array

DEFAULT_MODE: Final = MODES.index("quote")
_NONE: Final = -1
_NEVER: Final = -1


class Subscriptions:
    """A socket's table. The server keeps nothing of it once the socket is gone.

    ``positions``: the subscribed columns of the market, ascending. Tokens that the market does
    not have take up room, as the broker's do, but never tick.
    """

    def __init__(self, market: Market, limit: int) -> None:
        self._market = market
        self._limit = limit
        size = len(market.tokens)
        self._mode = np.full(size, _NONE, dtype=np.int8)
        self._sent: Int64Array = np.full(size, _NEVER, dtype=np.int64)
        self.positions: Positions = np.zeros(0, dtype=np.intp)
        self._strangers: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.positions) + len(self._strangers)

    def subscribe(self, tokens: Iterable[int]) -> list[int]:
        """Add tokens in the default mode; returns those for which there was no room."""
        refused: list[int] = []
        count = len(self)
        for token in tokens:
            if self._mode_of(token) != _NONE:
                continue
            if count >= self._limit:
                refused.append(token)
            else:
                self._set(token, DEFAULT_MODE)
                count += 1
        self.positions = np.flatnonzero(self._mode != _NONE)
        return refused

    def unsubscribe(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            position = self._market.position(token)
            if position is None:
                self._strangers.pop(token, None)
            else:
                self._mode[position] = _NONE
        self.positions = np.flatnonzero(self._mode != _NONE)

    def set_mode(self, mode: str, tokens: Iterable[int]) -> None:
        """Change the mode of subscribed tokens; the others are not affected."""
        number = MODES.index(mode)
        for token in tokens:
            if self._mode_of(token) not in (_NONE, number):
                self._set(token, number)

    def due(self) -> Positions:
        """Positions with news in their mode since they were last sent, or never sent in it."""
        at = self.positions
        changed = self._market.changed[self._mode[at], at]
        due: Positions = at[changed > self._sent[at]]
        return due

    def take(self, positions: Positions) -> tuple[Positions, UInt8Array]:
        """Mark positions as sent now; returns those still subscribed, and their modes."""
        still: Positions = positions[self._mode[positions] != _NONE]
        self._sent[still] = self._market.step
        return still, self.modes(still)

    def modes(self, positions: Positions) -> UInt8Array:
        """Modes of subscribed positions, as numbers."""
        return self._mode[positions].astype(np.uint8)

    def table(self) -> dict[int, str]:
        """Token to mode, of everything subscribed."""
        known = {
            int(self._market.tokens[position]): MODES[self._mode[position]]
            for position in self.positions
        }
        return known | {token: MODES[mode] for token, mode in self._strangers.items()}

    def _mode_of(self, token: int) -> int:
        position = self._market.position(token)
        if position is None:
            return self._strangers.get(token, _NONE)
        return int(self._mode[position])

    def _set(self, token: int, mode: int) -> None:
        position = self._market.position(token)
        if position is None:
            self._strangers[token] = mode
        else:
            self._mode[position] = mode
            self._sent[position] = _NEVER
