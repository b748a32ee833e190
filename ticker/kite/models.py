"""The broker's answers as types (Kite Connect v3). Fields that are not named here are ignored.

A price may come as an integer or a float. Times of quotes are India's wall clock, as text, and can
be null, empty or of the year 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

T = TypeVar("T")

Interval = Literal[
    "minute", "3minute", "5minute", "10minute", "15minute", "30minute", "60minute", "day"
]
"""Lengths of candles that the broker documents."""

QUOTE_KEYS_MAX: Final = 500
"""Keys in one ``GET /quote``."""
LAST_PRICE_KEYS_MAX: Final = 1000
"""Keys in one ``GET /quote/ltp`` or ``/quote/ohlc``."""

_SLICE: Final = 4096
"""Candles converted in one go: a millisecond in which no other thread runs."""


class Envelope(msgspec.Struct, Generic[T]):
    """A success. ``status`` is not looked at: not every answer has one."""

    data: T


class ErrorEnvelope(msgspec.Struct):
    """A failure; without one of these two fields it is no envelope."""

    error_type: str | None
    message: str | None = None


class Profile(msgspec.Struct, frozen=True):
    """``GET /user/profile``."""

    user_id: str
    user_name: str = ""
    user_shortname: str = ""
    email: str = ""
    user_type: str = ""
    broker: str = ""
    exchanges: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    order_types: tuple[str, ...] = ()


class IssuedSession(msgspec.Struct, frozen=True):
    """``POST /session/token``. The tokens are secrets: ``repr`` shows neither."""

    user_id: str
    api_key: str
    access_token: str
    user_name: str = ""
    public_token: str = ""
    refresh_token: str = ""
    login_time: str | None = None

    def __repr__(self) -> str:
        return f"IssuedSession(user_id={self.user_id!r})"


class Ohlc(msgspec.Struct, frozen=True):
    """Prices in rupees; ``close`` is the previous session's."""

    open: float
    high: float
    low: float
    close: float


class LastPrice(msgspec.Struct, frozen=True):
    """A key's answer of ``GET /quote/ltp``, in rupees."""

    instrument_token: int
    last_price: float


class OhlcQuote(msgspec.Struct, frozen=True):
    """A key's answer of ``GET /quote/ohlc``."""

    instrument_token: int
    last_price: float
    ohlc: Ohlc


class DepthLevel(msgspec.Struct, frozen=True):
    """One level of the book; all zero where there is none."""

    price: float
    quantity: int
    orders: int


class Depth(msgspec.Struct, frozen=True):
    """The book, best level first."""

    buy: tuple[DepthLevel, ...] = ()
    sell: tuple[DepthLevel, ...] = ()


class Quote(msgspec.Struct, frozen=True):
    """A key's answer of ``GET /quote``. An index has neither book nor volume."""

    instrument_token: int
    last_price: float
    ohlc: Ohlc
    timestamp: str | None = None
    last_trade_time: str | None = None
    last_quantity: int = 0
    average_price: float = 0.0
    volume: int = 0
    buy_quantity: int = 0
    sell_quantity: int = 0
    oi: float = 0.0
    oi_day_high: float = 0.0
    oi_day_low: float = 0.0
    net_change: float = 0.0
    lower_circuit_limit: float = 0.0
    upper_circuit_limit: float = 0.0
    depth: Depth = Depth()


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """Candles as columns, oldest first, each opening once.

    ``starts``: int64 (n,), UNIX seconds at which each opens; ``prices``: float64 (4, n), open,
    high, low and close in rupees; ``volume``: int64 (n,); ``oi``: int64 (n,), None if it was not
    asked for.
    """

    starts: npt.NDArray[np.int64]
    prices: npt.NDArray[np.float64]
    volume: npt.NDArray[np.int64]
    oi: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def close(self) -> npt.NDArray[np.float64]:
        closes: npt.NDArray[np.float64] = self.prices[3]
        return closes


class _CandleRows(msgspec.Struct):
    candles: list[tuple[str, float, float, float, float, float]]


class _CandleRowsWithOi(msgspec.Struct):
    candles: list[tuple[str, float, float, float, float, float, float]]


_ROWS: Final = msgspec.json.Decoder(Envelope[_CandleRows])
_ROWS_WITH_OI: Final = msgspec.json.Decoder(Envelope[_CandleRowsWithOi])


def parse_candles(body: bytes, *, oi: bool) -> Candles:
    """Candles of ``GET /instruments/historical``; a minute's 60 days take 50 ms, in a thread.

    Raises msgspec.DecodeError or ValueError for what is not the protocol's.
    """
    rows: Sequence[tuple[str | float, ...]]
    rows = (_ROWS_WITH_OI if oi else _ROWS).decode(body).data.candles
    parts = [_columns(rows[at : at + _SLICE]) for at in range(0, len(rows), _SLICE)]
    if not parts:
        return create_candles(np.empty(0, np.int64), np.empty((6 if oi else 5, 0)))
    starts = np.concatenate([part[0] for part in parts])
    return create_candles(starts, np.concatenate([part[1] for part in parts], axis=1))


def create_candles(starts: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64]) -> Candles:
    """Sort candles by their opening; of two that open together, the later one counts.

    ``numbers``: float64 (5 or 6, n): open, high, low, close, volume and maybe open interest.
    """
    _, last = np.unique(starts[::-1], return_index=True)
    chosen = len(starts) - 1 - last
    numbers = np.ascontiguousarray(numbers[:, chosen])
    return Candles(
        starts=starts[chosen],
        prices=numbers[:4],
        volume=numbers[4].astype(np.int64),
        oi=numbers[5].astype(np.int64) if len(numbers) > 5 else None,
    )


def join_candles(parts: Sequence[Candles]) -> Candles:
    """One series of several that may overlap; of two candles that do, the later part's counts.

    At least one part, all with open interest or all without.
    """
    numbers = [
        np.vstack([part.prices, part.volume, *(() if part.oi is None else (part.oi,))])
        for part in parts
    ]
    starts = np.concatenate([part.starts for part in parts])
    return create_candles(starts, np.concatenate(numbers, axis=1))


_INDIA: Final = ("+0530", "+05:30")
_INDIA_S: Final = 19_800


def _columns(
    rows: Sequence[tuple[str | float, ...]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    stamps, *columns = zip(*rows, strict=True)
    if not all(stamp[19:] in _INDIA for stamp in stamps):
        raise ValueError("a candle's time is not India's")
    local = np.array([stamp[:19] for stamp in stamps], "datetime64[s]").astype(np.int64)
    numbers = np.array(columns, np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("a candle's number is none")
    return local - _INDIA_S, numbers
