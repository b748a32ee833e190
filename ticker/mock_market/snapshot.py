"""What others see of the mock market: frozen, and of one instant throughout."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ticker.instruments.registry import Instrument
from ticker.kite.wire import DIVISORS
from ticker.mock_market import kernel
from ticker.ticks import DEPTH_LEVELS, WORDS, FloatArray, Int32Array, PacketKind, Row, TickBatch


class MockLevel(msgspec.Struct, frozen=True, gc=False):
    """One level of a book; ``price`` in rupees."""

    quantity: int
    price: float
    orders: int


class MockInstrument(msgspec.Struct, frozen=True):
    """One instrument at one instant. ``at``: UNIX seconds, ``step``: the market's count.

    ``price``, ``forward``: rupees. Of what is no option, ``forward`` and the Greeks are None; the
    Greeks are Black-76's with respect to the forward, in the units of the payloads.
    """

    instrument: Instrument
    at: float
    step: int
    price: float
    volume: int
    oi: int
    bids: tuple[MockLevel, ...]
    asks: tuple[MockLevel, ...]
    forward: float | None
    iv: float | None
    delta: float | None
    gamma: float | None
    theta: float | None
    vega: float | None


@dataclass(frozen=True, slots=True, eq=False)
class MockSnapshot:
    """The whole mock market after one step. Nothing in it can be changed.

    ``words``: int32 (n, 46), wire integers as in a full packet; ``priced``: float64
    (n, kernel.GREEKS); ``is_alive``: bool (n,), False once expired. ``places``: the row of each
    token. ``at``: UNIX seconds.
    """

    at: float
    step: int
    places: Mapping[int, int]
    instruments: tuple[Instrument, ...]
    words: Int32Array
    priced: FloatArray
    is_alive: npt.NDArray[np.bool_]

    def of(self, token: int) -> MockInstrument | None:
        """One instrument as an object; None if it is not held."""
        place = self.places.get(token)
        if place is None:
            return None
        words, instrument = self.words[place], self.instruments[place]
        divisor = float(DIVISORS[token & 0xFF])
        greeks = [None if value != value else float(value) for value in self.priced[place]]
        return MockInstrument(
            instrument,
            self.at,
            self.step,
            float(words[Row.LAST_PRICE] / divisor),
            int(words[Row.VOLUME_TRADED].view(np.uint32)),
            int(words[Row.OI].view(np.uint32)),
            _levels(words, Row.BIDS, divisor),
            _levels(words, Row.ASKS, divisor),
            *greeks,
        )

    def ticks(self, tokens: Iterable[int]) -> TickBatch:
        """Full packets, in order, of those of ``tokens`` that are held and have not expired."""
        found = [place for place in map(self.places.get, tokens) if place is not None]
        places = np.array(found, np.intp)
        places = places[self.is_alive[places]]
        kinds = [
            PacketKind.INDEX_FULL if self.instruments[place].is_index else PacketKind.FULL
            for place in places.tolist()
        ]
        return TickBatch(
            np.ascontiguousarray(self.words[places].T),
            np.array(kinds, np.uint8),
            np.zeros(len(places), np.int32),
        )


def create_snapshot(
    at: float,
    step: int,
    places: Mapping[int, int],
    instruments: tuple[Instrument, ...],
    words: Int32Array,
    priced: FloatArray,
    is_alive: npt.NDArray[Any],
) -> MockSnapshot:
    """Copy the builders' arrays. ``places`` is read-only, and nobody changes what is behind it."""
    return MockSnapshot(
        at,
        step,
        places,
        instruments,
        _frozen(words, np.int32).reshape(-1, WORDS),
        _frozen(priced, np.float64).reshape(-1, kernel.GREEKS),
        _frozen(is_alive, np.bool_),
    )


def _frozen(array: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    """A copy over immutable bytes: unlike a flag, that cannot be switched back."""
    return np.frombuffer(array.astype(dtype, copy=False).tobytes(), dtype)


def _levels(words: Int32Array, first: int, divisor: float) -> tuple[MockLevel, ...]:
    return tuple(
        MockLevel(int(words[at]), float(words[at + 1] / divisor), int(words[at + 2]) >> 16)
        for at in range(first, first + 3 * DEPTH_LEVELS, 3)
        if words[at]
    )


EMPTY: Final = create_snapshot(
    0.0,
    0,
    MappingProxyType({}),
    (),
    np.empty((0, WORDS), np.int32),
    np.empty((0, kernel.GREEKS)),
    np.empty(0, np.bool_),
)
"""The market before its first step."""
