"""The broker's answers as types (Kite Connect v3). Fields that are not named here are ignored.

A price may come as an integer or a float. Times of quotes are India's wall clock, as text, and can
be null, empty or of the year 1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar, cast

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

    def between(self, since: float, until: float) -> "Candles":
        """Those that open from ``since`` to ``until``, UNIX seconds, both included."""
        kept = slice(
            np.searchsorted(self.starts, since, "left"),
            np.searchsorted(self.starts, until, "right"),
        )
        oi = None if self.oi is None else self.oi[kept]
        return Candles(self.starts[kept], self.prices[:, kept], self.volume[kept], oi)


class _CandleRows(msgspec.Struct):
    candles: list[tuple[str, float, float, float, float, float]]


class _CandleRowsWithOi(msgspec.Struct):
    candles: list[tuple[str, float, float, float, float, float, float]]


_ROWS: Final = msgspec.json.Decoder(Envelope[_CandleRows])
_ROWS_WITH_OI: Final = msgspec.json.Decoder(Envelope[_CandleRowsWithOi])


def parse_candles(body: bytes, *, oi: bool) -> Candles:
    """Candles of ``GET /instruments/historical``; a minute's 60 days take 50 ms, in a thread.

    Raises msgspec.ValidationError for what are no candles, another ValueError for what is no JSON,
    and RecursionError where that is nested too deeply.
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


_STAMP: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\+05:?30")
_INDIA_S: Final = 19_800
_LAST_S: Final = 4_102_444_800
"""1970 to 2100: the broker's zero times are of the year 1, which no clock here can tell."""
_COUNT_MAX: Final = 2**53


def _columns(
    rows: Sequence[tuple[str | float, ...]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    stamps, *columns = zip(*rows, strict=True)
    numbers = np.array(columns, np.float64)
    counts = numbers[4:]
    if not (np.isfinite(numbers).all() and ((counts >= 0) & (counts < _COUNT_MAX)).all()):
        raise msgspec.ValidationError("a candle's number is none, or its count cannot be one")
    return _starts(cast("tuple[str, ...]", stamps)), numbers


def _starts(stamps: Sequence[str]) -> npt.NDArray[np.int64]:
    """UNIX seconds."""
    if not all(map(_STAMP.fullmatch, stamps)):
        raise msgspec.ValidationError("a candle's time is not India's")
    try:
        local = np.array([stamp[:19] for stamp in stamps], "datetime64[s]").astype(np.int64)
    except ValueError:  # a month or an hour that there is not
        raise msgspec.ValidationError("a candle's time is none") from None
    if local.min() < 0 or local.max() >= _LAST_S:
        raise msgspec.ValidationError("a candle's time is none")
    return local - _INDIA_S
