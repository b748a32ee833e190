"""One coherent market: every instrument steps together from the same spots.

At any instant spots, forwards and option prices agree with each other up to each price's
rounding to its tick. The state is one matrix of wire words, so that what a socket gets is a copy
of some of its columns. No I/O and no clock: the caller says what time it is.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from ticker.kite.wire import DIVISORS
from ticker.simulator.book import Book, BoolArray, Int64Array
from ticker.simulator.days import previous_close, session_open
from ticker.simulator.dump import InstrumentDump
from ticker.simulator.paths import FloatArray, uniforms
from ticker.simulator.pricing import FairValues
from ticker.ticks import WORDS, Int32Array, PacketKind, Row, TickBatch, UInt8Array

Positions = npt.NDArray[np.intp]

MODES: Final = ("ltp", "quote", "full")
"""Modes in the order of their numbers: 0, 1, 2."""

_BUSY: Final = frozenset({"NIFTY", "BANKNIFTY", "SENSEX", "NIFTY 50", "NIFTY BANK"})
"""Underlyings that everybody trades; the others trade a third as much."""

INDEX_TICK: Final = 0.05
_OPENING_SAMPLES: Final = 32
"""Looks at the fair value between the session's open and now, for the day's open, high and low."""

_CHUNK: Final = 4096
"""Instruments priced in one pass over those looks: bounds the memory of the largest dump."""

_QUOTE_ROWS: Final = slice(Row.LAST_PRICE, Row.CLOSE + 1)
_STATE_ROWS: Final = np.array(
    [row for row in range(Row.LAST_PRICE, WORDS) if row != Row.EXCHANGE_TIMESTAMP]
)


def _carried() -> Int32Array:
    """1 where a kind of packet has the row, shape (kinds, rows)."""
    index = [Row.INSTRUMENT_TOKEN, Row.LAST_PRICE, Row.OPEN, Row.HIGH, Row.LOW, Row.CLOSE]
    carried = np.zeros((len(PacketKind), WORDS), dtype=np.int32)
    carried[PacketKind.LTP, : Row.LAST_PRICE + 1] = 1
    carried[PacketKind.QUOTE, : Row.CLOSE + 1] = 1
    carried[PacketKind.FULL] = 1
    carried[PacketKind.INDEX_QUOTE, index] = 1
    carried[PacketKind.INDEX_FULL, [*index, Row.EXCHANGE_TIMESTAMP]] = 1
    return carried


_CARRIED: Final = _carried()


class Market:
    """The instruments of a dump, by position, and their newest words.

    ``words``: int32, shape (46, n), wire integers as in ``TickBatch``; read it, do not keep it.
    ``step``: how many times the market has moved. ``now``: UNIX seconds of market time.
    ``changed``: int64, shape (3, n), the step at which a field of each mode last changed.
    """

    def __init__(self, seed: int, dump: InstrumentDump, now: float) -> None:
        rows = dump.instruments
        self.dump = dump
        self.fair = FairValues(seed, dump)
        self.now = now
        self.step = 0
        self.tokens = np.array([row.instrument_token for row in rows], dtype=np.int64)
        self.everything: Positions = np.arange(len(rows))
        self._position_of = {int(token): place for place, token in enumerate(self.tokens)}
        self._random = np.random.default_rng([seed % 2**63, dump.date.toordinal()])
        tick_size = np.array([row.tick_size or INDEX_TICK for row in rows])
        self.divisor = DIVISORS[self.tokens & 0xFF]
        self._tick_size = tick_size
        self._tick: Int64Array = np.rint(tick_size * self.divisor).astype(np.int64)
        self._is_index = np.array([row.is_index for row in rows])
        self._has_oi = np.array([row.expiry is not None for row in rows])
        self._lot = np.array([max(row.lot_size, 1) for row in rows], dtype=np.int64)
        self.liquidity = self._estimate_liquidity()
        self._tradable: Positions = np.flatnonzero(~self._is_index)
        self._book = self._create_book()
        self.words: Int32Array = np.zeros((WORDS, len(rows)), dtype=np.int32)
        self._spare = np.zeros_like(self.words)
        self.changed: Int64Array = np.zeros((len(MODES), len(rows)), dtype=np.int64)
        self._open_day()

    def position(self, token: int) -> int | None:
        """Where a token's column is; None for one that the dump does not have."""
        return self._position_of.get(token)

    def advance(self, now: float, trading: BoolArray | None = None) -> None:
        """Move every instrument to where it is at ``now`` and note what changed.

        ``trading``: bool (n,), which of them trade; the others stay as they are. None for all.
        """
        self.now = now
        self.step += 1
        if session_open(now) != self._opened_at:
            self._begin_day(np.ones(len(self.tokens), np.bool_) if trading is None else trading)
            return
        old, words = self.words, self._spare
        words[:] = old
        alive = self.fair.expiry > now
        last = self._ticks(self.everything, np.array([now]))[:, 0]
        last = np.where(alive, last, old[Row.LAST_PRICE] // self._tick)
        words[Row.LAST_PRICE] = last * self._tick
        np.maximum(words[Row.HIGH], words[Row.LAST_PRICE], out=words[Row.HIGH])
        np.minimum(words[Row.LOW], words[Row.LAST_PRICE], out=words[Row.LOW])
        self._trade(words, alive, words[Row.LAST_PRICE] != old[Row.LAST_PRICE])
        self._quote(words, alive, last)
        if trading is not None:
            words[:, ~trading] = old[:, ~trading]
        self._note_changes(old, words)
        self.words, self._spare = words, old

    def batch(self, positions: Positions, modes: UInt8Array) -> TickBatch:
        """The newest packet of each position in its mode (0 ltp, 1 quote, 2 full)."""
        kind = modes + np.where(
            self._is_index[positions] & (modes > 0), PacketKind.INDEX_QUOTE - PacketKind.QUOTE, 0
        )
        words = self.words[:, positions]  # a copy: the market moves on
        if not (kind == PacketKind.FULL).all():
            words *= _CARRIED[kind].T
        return TickBatch(words, kind.astype(np.uint8), np.zeros(len(positions), dtype=np.int32))

    def rupees(self, position: int, times: FloatArray) -> FloatArray:
        """What one instrument trades at, at any times: rounded to its tick, shape (times,)."""
        ticks = self._ticks(np.array([position]), times)[0]
        prices: FloatArray = ticks * self._tick[position] / self.divisor[position]
        return prices

    def _ticks(self, positions: Positions, times: FloatArray) -> Int64Array:
        """Fair values as whole ticks, never under one; shape (positions, times)."""
        fair = self.fair.at(positions, times)
        ticks: Int64Array = np.rint(fair / self._tick_size[positions][:, None]).astype(np.int64)
        return np.maximum(ticks, 1, out=ticks)

    def _estimate_liquidity(self) -> FloatArray:
        """0..1: near expiries close to the money trade, wings and far months hardly do."""
        rows = self.dump.instruments
        now = np.array([self.now])
        _, forward, volatility = self.fair.detail(self.everything, now)
        years = self.fair.years(self.everything, now)[:, 0]
        strike = np.array([row.strike for row in rows])
        is_option = strike > 0
        distance = np.zeros(len(rows))
        deviation = volatility[is_option, 0] * np.sqrt(years[is_option])
        distance[is_option] = np.log(strike[is_option] / forward[is_option, 0]) / deviation
        fading = np.where(self._has_oi, 1 / (1 + 12 * years), 1.0)
        share: FloatArray = np.exp(-(distance**2) / 3) * fading
        share *= np.array([0.35 if row.name not in _BUSY else 1.0 for row in rows])
        return share

    def _create_book(self) -> Book:
        at = self._tradable
        return Book(self._tick[at], self._lot[at], self.liquidity[at], self._random)

    def _begin_day(self, trading: BoolArray) -> None:
        closed = ~trading
        still = self.words[:, closed]
        self._open_day()
        self.words[:, closed] = still
        self.changed[:, trading] = self.step

    def _open_day(self) -> None:
        """Set the day's fields as if the market had been running since the session's open."""
        self._opened_at = session_open(self.now)
        times = np.linspace(self._opened_at, self.now, _OPENING_SAMPLES)
        names, exchange = np.unique(
            [row.exchange for row in self.dump.instruments], return_inverse=True
        )
        closings = np.array([previous_close(str(name), self._opened_at) for name in names])
        words = self.words
        words[:] = 0
        words[Row.INSTRUMENT_TOKEN] = self.tokens.astype(np.uint32).view(np.int32)
        for start in range(0, len(self.tokens), _CHUNK):
            at = self.everything[start : start + _CHUNK]
            wire = self._ticks(at, times) * self._tick[at][:, None]
            words[Row.OPEN, at] = wire[:, 0]
            words[Row.HIGH, at] = wire.max(axis=1)
            words[Row.LOW, at] = wire.min(axis=1)
            words[Row.LAST_PRICE, at] = wire[:, -1]
            close = self._ticks(at, closings)[np.arange(len(at)), exchange[at]]
            words[Row.CLOSE, at] = close * self._tick[at]
        self._open_volume(words)
        last = words[Row.LAST_PRICE] // self._tick
        words[Row.EXCHANGE_TIMESTAMP] = int(self.now)
        self._quote(words, self.fair.expiry > self.now, last)

    def _open_volume(self, words: Int32Array) -> None:
        at = self._tradable
        elapsed = min((self.now - self._opened_at) / 22_500, 1.0)
        lots = self.liquidity[at] * uniforms(self.dump.date.toordinal(), self.tokens[at])
        volume = (20_000 * elapsed * lots).astype(np.int64) * self._lot[at]
        typical = words[[Row.OPEN, Row.HIGH, Row.LOW, Row.LAST_PRICE]].mean(axis=0)
        self._average = typical
        traded = at[volume > 0]
        words[Row.VOLUME_TRADED, at] = volume
        words[Row.AVERAGE_TRADED_PRICE, traded] = np.rint(typical[traded])
        words[Row.LAST_TRADED_QUANTITY, traded] = self._lot[traded]
        words[Row.LAST_TRADE_TIME, traded] = int(self.now)
        oi = 500 + 60_000 * self.liquidity * uniforms(7, self.tokens)
        words[Row.OI] = np.where(self._has_oi, oi.astype(np.int64) * self._lot, 0)
        words[Row.OI_DAY_HIGH] = words[Row.OI_DAY_LOW] = words[Row.OI]

    def _trade(self, words: Int32Array, alive: BoolArray, moved: BoolArray) -> None:
        """A price that moved was traded; liquid instruments also trade where they stand."""
        at = self._tradable
        draw = self._random.random(len(at))
        traded = moved[at] | (alive[at] & (draw < self.liquidity[at]))
        at = at[traded]
        lots = 1 + (40 * self.liquidity[at] * self._random.standard_exponential(len(at)))
        quantity = lots.astype(np.int64) * self._lot[at]
        volume = words[Row.VOLUME_TRADED, at].view(np.uint32) + quantity
        last = words[Row.LAST_PRICE, at]
        fresh = words[Row.VOLUME_TRADED, at] == 0
        self._average[at] += (last - self._average[at]) * np.where(fresh, 1.0, quantity / volume)
        words[Row.VOLUME_TRADED, at] = volume.astype(np.uint32).view(np.int32)
        words[Row.LAST_TRADED_QUANTITY, at] = np.minimum(quantity, 5 * self._lot[at])
        words[Row.AVERAGE_TRADED_PRICE, at] = np.rint(self._average[at])
        words[Row.LAST_TRADE_TIME, at] = int(self.now)
        self._shift_open_interest(words, at[self._has_oi[at]])

    def _shift_open_interest(self, words: Int32Array, at: Positions) -> None:
        at = at[self._random.random(len(at)) < 0.2]
        shift = self._random.integers(-4, 6, len(at)) * self._lot[at]
        oi = np.maximum(words[Row.OI, at] + shift, 0)
        words[Row.OI, at] = oi
        words[Row.OI_DAY_HIGH, at] = np.maximum(words[Row.OI_DAY_HIGH, at], oi)
        words[Row.OI_DAY_LOW, at] = np.minimum(words[Row.OI_DAY_LOW, at], oi)

    def _quote(self, words: Int32Array, alive: BoolArray, last: Int64Array) -> None:
        at = self._tradable
        stirred = self._random.random(len(at)) < 0.1 + 0.9 * self.liquidity[at]
        self._book.refresh(stirred & alive[at])
        columns = words[:, at]
        self._book.write(columns, last[at])
        words[:, at] = columns

    def _note_changes(self, old: Int32Array, words: Int32Array) -> None:
        differs = old != words
        any_field = differs[_STATE_ROWS].any(axis=0)
        words[Row.EXCHANGE_TIMESTAMP, any_field] = int(self.now)
        self.changed[0, differs[Row.LAST_PRICE]] = self.step
        self.changed[1, differs[_QUOTE_ROWS].any(axis=0)] = self.step
        self.changed[2, any_field] = self.step
