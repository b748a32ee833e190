"""The newest values of every instrument: one table, indexed by a dense slot.

An instrument gets the next slot when its first tick arrives and keeps it for the life of the
board. ``words`` holds the integers of the wire, ``rows`` everything derived from them, ``texts``
the part of its payload that never changes.

One writer, the engine, in a worker thread and under ``lock``; readers anywhere call
``Board.read``, which takes the lock for the time of one copy, so that a row is never seen half
written. The writer holds it for one batch at most, a few milliseconds: from async code, read in a
worker thread. Kernels get the arrays themselves: none of the state is in Python objects.
"""

import math
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from ticker.instruments.registry import Instrument
from ticker.ticks import WORDS, Int32Array, PacketKind, Row, UInt8Array, UInt32Array

NO_SLOT: Final = -1
_RETIRED: Final = 0
"""Token of a retired slot; no instrument has it."""
_TIMES: Final = ("traded_at", "quoted_at")
"""Columns that ages are reckoned from. ``received_at`` is told as the clock then said."""
_UNKNOWN: Final = (*_TIMES, "received_at", "quote", "half_spread", "greeks", "priced_from")
"""Columns of what ticks tell, NaN before the first."""


class InstrumentClass(IntEnum):
    """What a slot holds, as far as validation and payloads care."""

    INDEX = 0
    OPTION = 1
    FUTURE = 2
    CASH = 3


class Known(IntEnum):
    """Bits of ``rows["known"]``: which words the slot's newest packet carried."""

    PRICE = 1
    DAY = 2
    """Open, high, low and previous close."""
    FLOW = 4
    """Volume, average price, pending quantities, last quantity."""
    INTEREST = 8
    """Open interest and its day range."""


ROW: Final = np.dtype(
    [
        ("strike", "f8"),
        ("half_tick", "f8"),
        ("expires_at", "f8"),  # UNIX seconds; infinity for what does not expire
        ("divisor", "f8"),  # wire integers to rupees
        ("received_at", "f8"),  # UNIX seconds; NaN before the first tick
        ("traded_at", "f8"),  # UNIX seconds of the last price, as far as packets tell
        ("quote", "f8"),  # middle of the book or last price, see ``_requote``; NaN if neither
        ("half_spread", "f8"),  # how far the quote may be off at its own moment, rupees
        ("quoted_at", "f8"),  # UNIX seconds of that moment
        ("greeks", "f8", (9,)),  # in the order of GreekRow; NaN where unpriced
        ("priced_from", "f8"),  # the forward, or spot, behind those Greeks; NaN if none
        ("token", "u4"),
        ("group", "i4"),  # of an option: its underlying and expiry, see Chains; else -1
        ("underlying", "i4"),  # index into Chains.underlyings
        ("text_start", "i4"),
        ("text_end", "i4"),
        ("source", "i2"),  # connection of the newest tick
        ("decimals", "u1"),
        ("instrument_class", "u1"),
        ("is_call", "u1"),
        ("may_be_negative", "u1"),
        ("known", "u1"),  # Known bits
        ("kind", "u1"),  # PacketKind of the newest tick
        ("status", "u1"),  # of the Greeks
    ],
    align=True,
)
"""One instrument, a few cache lines long: a tick touches one row, not a column per field."""

RowArray = npt.NDArray[Any]
"""Structured array of dtype ``ROW``."""


@dataclass(frozen=True, slots=True, eq=False)
class BoardRows:
    """A consistent copy of some slots. ``rows``: ``ROW`` (k,); ``words``: int32 (k, 46)."""

    rows: RowArray
    words: Int32Array


class Board:
    """Storage and lookup. ``rows``, ``words`` and ``texts`` are replaced when they grow."""

    def __init__(self, capacity: int = 1024) -> None:
        self.lock = threading.Lock()
        self.rows: RowArray = np.zeros(capacity, ROW)
        self.words: Int32Array = np.zeros((capacity, WORDS), np.int32)
        self.texts: UInt8Array = np.zeros(capacity * 256, np.uint8)
        self.instruments: list[Instrument] = []
        self._texts_end = 0
        self._tokens: UInt32Array = np.empty(0, np.uint32)
        self._slots: Int32Array = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self.instruments)

    def find(self, tokens: UInt32Array) -> Int32Array:
        """Slots of these tokens, ``NO_SLOT`` where unknown; int32 (k,)."""
        if not len(self._tokens):
            return np.full(len(tokens), NO_SLOT, np.int32)
        at = np.searchsorted(self._tokens, tokens)
        np.minimum(at, len(self._tokens) - 1, out=at)
        return np.where(self._tokens[at] == tokens, self._slots[at], np.int32(NO_SLOT))

    def read(self, slots: Int32Array) -> BoardRows:
        """Copy rows as they stood between two batches; waits for the batch in hand."""
        with self.lock:
            return BoardRows(self.rows[slots], self.words[slots])

    def add(
        self, instrument: Instrument, *, divisor: int, decimals: int, expires_at: float, text: bytes
    ) -> int:
        """Give an instrument its slot; to be found, ``index`` must be called after the last.

        ``text``: the constant head of its payload. A token that is on the board already moves to
        the new slot.
        """
        slot = len(self.instruments)
        if slot == len(self.rows):
            self.rows = _grown(self.rows, slot + 1)
            self.words = _grown(self.words, slot + 1)
        row = self.rows[slot]
        row["token"] = instrument.instrument_token
        row["strike"] = instrument.strike
        row["expires_at"] = expires_at
        row["divisor"] = divisor
        row["decimals"] = decimals
        row["instrument_class"] = _class_of(instrument)
        row["is_call"] = instrument.instrument_type == "CE"
        row["may_be_negative"] = instrument.is_future and instrument.exchange in ("MCX", "NCO")
        row["group"] = row["underlying"] = row["source"] = -1
        for name in _UNKNOWN:
            row[name] = np.nan
        self.instruments.append(instrument)
        self.amend(slot, instrument, text)
        return slot

    def amend(self, slot: int, instrument: Instrument, text: bytes) -> None:
        """Take over what may change of a contract: the step of its prices, and its text."""
        end = self._texts_end + len(text)
        self.texts = _grown(self.texts, end + 64)
        self.texts[self._texts_end : end] = np.frombuffer(text, np.uint8)
        row = self.rows[slot]
        row["half_tick"] = instrument.tick_size / 2
        row["text_start"], row["text_end"] = self._texts_end, end
        self._texts_end = end
        self.instruments[slot] = instrument

    def retire(self, slot: int) -> None:
        """Make a slot unfindable, from the next ``index`` on, and part of no group."""
        row = self.rows[slot]
        row["token"] = _RETIRED
        row["group"] = -1

    def forget(self, slots: Int32Array) -> None:
        """Make these as they were before their first tick. ``slots``: int32 (k,)."""
        for name in _UNKNOWN:
            self.rows[name][slots] = np.nan
        for name in ("known", "kind", "status"):
            self.rows[name][slots] = 0
        self.rows["source"][slots] = -1
        self.words[slots] = 0

    def live(self) -> list[tuple[int, Instrument]]:
        """Slots that are not retired, and what they hold."""
        slots = np.flatnonzero(self.rows["token"][: len(self)] != _RETIRED).tolist()
        return [(slot, self.instruments[slot]) for slot in slots]

    def set_back(self, seconds: float) -> None:
        """Follow a clock that was set back: quotes stay as old as they are."""
        for name in _TIMES:
            self.rows[name] -= seconds

    def index(self) -> None:
        """Make findable what was added, and unfindable what was retired.

        Of two with one token, the later is found.
        """
        tokens = self.rows["token"][: len(self)]
        order = np.argsort(tokens, kind="stable")
        ordered = tokens[order]
        is_last = np.append(ordered[1:] != ordered[:-1], True) & (ordered != _RETIRED)
        self._tokens = ordered[is_last]
        self._slots = order[is_last].astype(np.int32)


def _class_of(instrument: Instrument) -> InstrumentClass:
    if instrument.is_index:
        return InstrumentClass.INDEX
    if instrument.is_option:
        return InstrumentClass.OPTION
    return InstrumentClass.FUTURE if instrument.is_future else InstrumentClass.CASH


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The array, or a copy of at least twice its length, so that ``size`` elements fit."""
    if size <= len(array):
        return array
    bigger = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger


_FULL: Final = int(PacketKind.FULL)
_QUOTE: Final = int(PacketKind.QUOTE)
_INDEX_QUOTE: Final = int(PacketKind.INDEX_QUOTE)
_INDEX_FULL: Final = int(PacketKind.INDEX_FULL)
_LAST_PRICE: Final = int(Row.LAST_PRICE)
_VOLUME: Final = int(Row.VOLUME_TRADED)
_LAST_TRADE_TIME: Final = int(Row.LAST_TRADE_TIME)
_OPEN: Final = int(Row.OPEN)
_CLOSE: Final = int(Row.CLOSE)
_EXCHANGE_TIMESTAMP: Final = int(Row.EXCHANGE_TIMESTAMP)
_BIDS: Final = int(Row.BIDS)
_ASKS: Final = int(Row.ASKS)
_PRICE_WORDS: Final = int(Row.LAST_PRICE) + 1
_QUOTE_WORDS: Final = int(Row.CLOSE) + 1
_KNOWN_PRICE: Final = int(Known.PRICE)
_KNOWN_QUOTE: Final = int(Known.PRICE | Known.DAY | Known.FLOW)
_KNOWN_FULL: Final = int(Known.PRICE | Known.DAY | Known.FLOW | Known.INTEREST)
_KNOWN_INDEX: Final = int(Known.PRICE | Known.DAY)
_BLOCK: Final = 16  # ticks transposed together: one cache line of each word's column

_OPTION: Final = int(InstrumentClass.OPTION)
_LAST_PRICE_DOUBT: Final = 0.02
"""A last price may be off by this fraction and two ticks, even at the moment of the trade."""
DRIFT: Final = 5e-5
"""Standard deviation of a price's relative move in one second: 12 % a year of trading hours."""


@njit(nogil=True, cache=True, error_model="numpy")
def apply_ticks(
    words: Int32Array,
    kinds: UInt8Array,
    slots: Int32Array,
    sources: npt.NDArray[np.int16],
    received_at: npt.NDArray[np.float64],
    rows: RowArray,
    board_words: Int32Array,
    merged: Int32Array,
    known: UInt8Array,
) -> None:
    """Write ticks to the board in arrival order.

    ``words`` int32 (46, n) and ``merged`` int32 (n, 46), which receives each tick completed with
    what the board last knew of the words its packet did not carry; ``known`` uint8 (n,) receives
    the ``Known`` bits of what it did carry: nothing else of it is to be published.
    """
    n = len(kinds)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        for word in range(WORDS):
            for i in range(start, stop):
                merged[i, word] = words[word, i]
        for i in range(start, stop):
            slot = slots[i]
            kind = kinds[i]
            row = rows[slot]
            tick = merged[i]
            newest = board_words[slot]
            if kind == _FULL:
                first, last, bits = WORDS, WORDS, _KNOWN_FULL
            elif kind == _QUOTE:
                first, last, bits = _QUOTE_WORDS, WORDS, _KNOWN_QUOTE
            elif kind in (_INDEX_QUOTE, _INDEX_FULL):
                first, last, bits = _PRICE_WORDS, _OPEN, _KNOWN_INDEX
                for word in range(_CLOSE + 1, WORDS):
                    if kind == _INDEX_QUOTE or word != _EXCHANGE_TIMESTAMP:
                        tick[word] = newest[word]
            else:
                first, last, bits = _PRICE_WORDS, WORDS, _KNOWN_PRICE
            for word in range(first, last):
                tick[word] = newest[word]
            has_traded = (
                newest[_LAST_PRICE] != tick[_LAST_PRICE] or newest[_VOLUME] != tick[_VOLUME]
            )
            for word in range(WORDS):
                newest[word] = tick[word]
            row["known"] = bits
            known[i] = bits
            row["kind"] = kind
            row["source"] = sources[i]
            row["received_at"] = received_at[i]
            _date_trade(row, tick, kind, has_traded)
            _requote(row, tick, kind)


@njit(nogil=True, cache=True, error_model="numpy")
def _date_trade(row: Any, tick: Int32Array, kind: int, has_traded: bool) -> None:
    """Set ``traded_at``: by the exchange's clock if the packet tells, else by what has changed.

    An index is no trade: its value is of the moment it is sent. The first packet of an instrument
    that does not tell is taken for a trade.
    """
    traded_s = np.int64(tick[_LAST_TRADE_TIME]) & 0xFFFFFFFF
    sent_s = np.int64(tick[_EXCHANGE_TIMESTAMP]) & 0xFFFFFFFF
    if kind == _FULL and traded_s != 0 and sent_s != 0:
        row["traded_at"] = row["received_at"] - max(sent_s - traded_s, 0)
    elif has_traded or kind in (_INDEX_QUOTE, _INDEX_FULL) or math.isnan(row["traded_at"]):
        row["traded_at"] = row["received_at"]


@njit(nogil=True, cache=True, error_model="numpy")
def _requote(row: Any, tick: Int32Array, kind: int) -> None:
    """Set the quote, its moment and its doubt: the book's middle or the last price.

    The middle of a book is of now and may be off by half the spread. A last price is of the moment
    of its trade, and the market has moved on since. The less doubtful of the two is taken. A last
    price beyond a side of the book is stale for certain: the side is taken in its stead.
    """
    divisor = row["divisor"]
    last = tick[_LAST_PRICE] / divisor
    doubt = 4 * row["half_tick"] + _LAST_PRICE_DOUBT * abs(last)
    bid, ask = 0.0, np.inf
    if kind == _FULL and tick[_BIDS] != 0:
        bid = max(tick[_BIDS + 1] / divisor, 0.0)
    if kind == _FULL and tick[_ASKS] != 0 and tick[_ASKS + 1] > 0:
        ask = tick[_ASKS + 1] / divisor
    half = (ask - bid) / 2
    if half < 0:  # crossed, as before the opening: no side can be relied on
        bid, ask, half = 0.0, np.inf, np.inf
    if bid > 0 and half < np.inf:
        level = row["strike"] if row["instrument_class"] == _OPTION else last
        since = max(row["received_at"] - row["traded_at"], 0.0)  # batches mix connections
        if not last > 0 or half <= doubt or half <= doubt + DRIFT * level * math.sqrt(since):
            row["quote"] = (bid + ask) / 2
            row["half_spread"] = half
            row["quoted_at"] = row["received_at"]
            return
    held = min(max(last, bid), ask)
    row["quote"] = held if last > 0 else np.nan
    row["half_spread"] = doubt + abs(held - last)
    row["quoted_at"] = row["traded_at"] if held == last else row["received_at"]
