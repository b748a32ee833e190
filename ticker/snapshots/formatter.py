"""Payloads straight from columns to bytes, with the GIL released.

One compiled function writes a batch of ``PUBLISH`` commands into one buffer. Prices are integers
on the wire, so their decimal digits are exact without any float in between. Eight digits at a
time come out of one 64-bit register; literals are copied by constant-length moves, which is what
``_put`` and the other intrinsics are for. Everything compiled lives in this file because numba's
cache on disk notices a change in a function's own file only.

Digits are stored lowest byte first, as on every machine that numba compiles for. Stores are wider
than what they write: up to 31 bytes of rubbish follow the cursor until the next store, for which
``MESSAGE_SLACK`` makes room.
"""

from typing import Any, Final

import numba
import numba.core.cgutils
import numba.extending
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from ticker.board import InstrumentClass, Known, RowArray
from ticker.ticks import DEPTH_LEVELS, Int32Array, PacketKind, Row, UInt8Array

# numba's annotations describe its decorators, not what they make of a function
njit: Any = numba.njit
intrinsic: Any = numba.extending.intrinsic
cgutils: Any = numba.core.cgutils

Bytes = UInt8Array
Cursor = Any
"""A position in the buffer. Compiled code alone sees its type, an intp."""

MESSAGE_MAX: Final = 2048
"""Bound on a message's bytes beside its channel, its instrument's text and its account's."""
MESSAGE_SLACK: Final = 64
"""Bytes that must exist behind the last message."""
NAME_WIDTH: Final = 32
"""Bytes of one entry in the tables of names: its length, then the JSON string."""

_LAST_PRICE: Final = int(Row.LAST_PRICE)
_VOLUME: Final = int(Row.VOLUME_TRADED)
_TOTAL_BUY: Final = int(Row.TOTAL_BUY_QUANTITY)
_TOTAL_SELL: Final = int(Row.TOTAL_SELL_QUANTITY)
_OPEN: Final = int(Row.OPEN)
_HIGH: Final = int(Row.HIGH)
_LOW: Final = int(Row.LOW)
_CLOSE: Final = int(Row.CLOSE)
_LAST_TRADE_TIME: Final = int(Row.LAST_TRADE_TIME)
_OI: Final = int(Row.OI)
_EXCHANGE_TIMESTAMP: Final = int(Row.EXCHANGE_TIMESTAMP)
_BIDS: Final = int(Row.BIDS)
_ASKS: Final = int(Row.ASKS)
_FULL: Final = int(PacketKind.FULL)
_QUOTE: Final = int(PacketKind.QUOTE)
_INDEX_QUOTE: Final = int(PacketKind.INDEX_QUOTE)
_INDEX_FULL: Final = int(PacketKind.INDEX_FULL)
_INDEX: Final = int(InstrumentClass.INDEX)
_DAY: Final = int(Known.DAY)
_FLOW: Final = int(Known.FLOW)
_INTEREST: Final = int(Known.INTEREST)
_TEN_TO: Final = np.array([10**k for k in range(10)], np.int64)
_ASCII_ZEROS: Final = np.uint64(0x3030303030303030)
_SIGNIFICANT: Final = 9


@intrinsic
def _put(typingctx: Any, buffer: Any, at: Any, text: Any) -> Any:
    """Copy a literal to ``buffer[at:]``; returns the position behind it."""
    if not isinstance(text, types.StringLiteral):
        return None
    data = text.literal_value.encode()

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        constant = cgutils.global_constant(
            builder, "literal", cgutils.create_constant_array(ir.IntType(8), bytearray(data))
        )
        target = builder.gep(_address(context, builder, signature.args[0], args[0]), [args[1]])
        cgutils.raw_memcpy(
            builder, target, _as_bytes(builder, constant), ir.Constant(args[1].type, len(data)), 1
        )
        return builder.add(args[1], ir.Constant(args[1].type, len(data)))

    return types.intp(buffer, types.intp, text), build


@intrinsic
def _copy(typingctx: Any, buffer: Any, at: Any, source: Any, start: Any, count: Any) -> Any:
    """Copy ``source[start:start + count]`` to ``buffer[at:]``; returns the position behind it."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = builder.gep(_address(context, builder, signature.args[0], args[0]), [args[1]])
        origin = builder.gep(_address(context, builder, signature.args[2], args[2]), [args[3]])
        cgutils.raw_memmove(builder, target, origin, args[4], 1)
        return builder.add(args[1], args[4])

    return types.intp(buffer, types.intp, source, types.intp, types.intp), build


@intrinsic
def _store(typingctx: Any, buffer: Any, at: Any, value: Any) -> Any:
    """Write the eight bytes of a uint64 at ``buffer[at:at + 8]``, lowest first."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = builder.gep(_address(context, builder, signature.args[0], args[0]), [args[1]])
        word = builder.bitcast(target, ir.IntType(64).as_pointer())
        builder.store(args[2], word, align=1)
        return context.get_dummy_value()

    return types.void(buffer, types.intp, types.uint64), build


@intrinsic
def _trailing_zeros(typingctx: Any, value: Any) -> Any:
    """Zero bits below the lowest set bit of a uint64; ``value`` is not 0."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), build


def _address(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return _as_bytes(builder, data)


def _as_bytes(builder: Any, pointer: Any) -> Any:
    return builder.bitcast(pointer, ir.IntType(8).as_pointer())


@njit(forceinline=True)
def _eight(value: np.uint64) -> np.uint64:
    """The eight decimal digits of ``value`` < 10**8 as bytes 0..9, the first in the lowest byte."""
    high = value // np.uint64(10_000)
    fours = high | ((value - high * np.uint64(10_000)) << np.uint64(32))
    high = ((fours * np.uint64(10_486)) >> np.uint64(20)) & np.uint64(0x7F0000007F)
    twos = high | ((fours - high * np.uint64(100)) << np.uint64(16))
    high = ((twos * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F000F000F000F)
    return high | ((twos - high * np.uint64(10)) << np.uint64(8))


@njit(forceinline=True)
def _put_small(buffer: Bytes, at: Cursor, value: int) -> Cursor:
    """Write 0 <= value < 10**8 without leading zeros."""
    digits = _eight(np.uint64(value))
    skipped = _trailing_zeros(digits | np.uint64(1 << 56)) >> np.uint64(3)
    _store(buffer, at, (digits | _ASCII_ZEROS) >> (skipped << np.uint64(3)))
    return at + 8 - np.intp(skipped)


@njit(forceinline=True)
def _put_whole(buffer: Bytes, at: Cursor, value: int) -> Cursor:
    """Write 0 <= value < 10**16."""
    if value < 100_000_000:
        return _put_small(buffer, at, value)
    high = value // 100_000_000
    at = _put_small(buffer, at, high)
    _store(buffer, at, _eight(np.uint64(value - high * 100_000_000)) | _ASCII_ZEROS)
    return at + 8


@njit(forceinline=True)
def _put_count(buffer: Bytes, at: Cursor, word: int) -> Cursor:
    """Write a word of the wire that is an unsigned number."""
    return _put_whole(buffer, at, np.int64(word) & 0xFFFFFFFF)


@njit(forceinline=True)
def _put_fraction(buffer: Bytes, at: Cursor, value: int, places: int) -> Cursor:
    """Write a point and ``places`` digits, 1..8, of 0 <= value < 10**places."""
    at = _put(buffer, at, ".")
    _store(buffer, at, _eight(np.uint64(value * _TEN_TO[8 - places])) | _ASCII_ZEROS)
    return at + places


@njit(forceinline=True)
def _put_price(buffer: Bytes, at: Cursor, word: int, decimals: int) -> Cursor:
    """Write a price of the wire, which has ``decimals`` decimal places: exact."""
    value = np.int64(word)
    if value < 0:
        at = _put(buffer, at, "-")
        value = -value
    if decimals == 2:
        whole = value // 100
        at = _put_small(buffer, at, whole)
        cents = value - whole * 100
        tens = cents // 10
        pair = np.uint64(0x30302E | (tens << 8) | ((cents - 10 * tens) << 16))
        _store(buffer, at, pair)
        return at + 3
    unit = _TEN_TO[decimals]
    whole = value // unit
    at = _put_small(buffer, at, whole)
    return _put_fraction(buffer, at, value - whole * unit, decimals)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_float(buffer: Bytes, at: Cursor, value: float) -> Cursor:
    """Write nine significant digits, in plain decimals; ``null`` for what is not finite.

    The error is at most 5e-9 of the value. Below 1e-15 it is 0.0, above 1e15 it is null.
    """
    if not (abs(value) <= 1e15):
        return _put(buffer, at, "null")
    if value < 0:
        at = _put(buffer, at, "-")
        value = -value
    if value >= 0.1:
        places = _SIGNIFICANT
        bound = 1.0
        while places > 1 and value >= bound:
            bound *= 10
            places -= 1
        if places == _SIGNIFICANT:
            scaled = int(value * 1e9 + 0.5)
            whole = scaled // 1_000_000_000
            at = _put_small(buffer, at, whole)
            at = _put(buffer, at, ".")
            return _put_nine(buffer, at, scaled - whole * 1_000_000_000)
        whole = int(value)
        part = int((value - whole) * _TEN_TO[places] + 0.5)
        if part == _TEN_TO[places]:
            whole += 1
            part = 0
        at = _put_whole(buffer, at, whole)
        return _put_fraction(buffer, at, part, places)
    zeros = 0
    while value < 0.1 and zeros < 15:
        value *= 10
        zeros += 1
    at = _put(buffer, at, "0.0")
    if value < 0.1:
        return at
    _store(buffer, at, _ASCII_ZEROS)
    _store(buffer, at + 8, _ASCII_ZEROS)
    return _put_nine(buffer, at + zeros - 1, min(int(value * 1e9 + 0.5), 999_999_999))


@njit(forceinline=True)
def _put_nine(buffer: Bytes, at: Cursor, value: int) -> Cursor:
    first = value // 100_000_000
    _store(buffer, at, np.uint64(0x30 + first))
    _store(buffer, at + 1, _eight(np.uint64(value - first * 100_000_000)) | _ASCII_ZEROS)
    return at + 9


@njit(nogil=True, cache=True, error_model="numpy")
def _put_time(buffer: Bytes, at: Cursor, seconds: float) -> Cursor:
    """Write UNIX seconds, or an age, with microseconds; null if it is not a sane number."""
    if not (0.0 <= seconds < 1e11):
        return _put(buffer, at, "null")
    micros = np.int64(seconds * 1e6 + 0.5)
    whole = micros // 1_000_000
    at = _put_whole(buffer, at, whole)
    return _put_fraction(buffer, at, micros - whole * 1_000_000, 6)


@njit(forceinline=True)
def _put_stamp(buffer: Bytes, at: Cursor, word: int) -> Cursor:
    """Write a time of the wire; null for 0, which means never."""
    if word == 0:
        return _put(buffer, at, "null")
    return _put_count(buffer, at, word)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_name(buffer: Bytes, at: Cursor, names: Bytes, index: int) -> Cursor:
    """Write entry ``index`` of a table of names, uint8 (k, NAME_WIDTH)."""
    return _copy(buffer, at, names[index], 1, np.intp(names[index, 0]))


@njit(nogil=True, cache=True, error_model="numpy")
def _put_ohlc(buffer: Bytes, at: Cursor, tick: Int32Array, known: int, decimals: int) -> Cursor:
    if not known & _DAY:
        return _put(buffer, at, '{"open":null,"high":null,"low":null,"close":null}')
    at = _put_price(buffer, _put(buffer, at, '{"open":'), tick[_OPEN], decimals)
    at = _put_price(buffer, _put(buffer, at, ',"high":'), tick[_HIGH], decimals)
    at = _put_price(buffer, _put(buffer, at, ',"low":'), tick[_LOW], decimals)
    at = _put_price(buffer, _put(buffer, at, ',"close":'), tick[_CLOSE], decimals)
    return _put(buffer, at, "}")


@njit(nogil=True, cache=True, error_model="numpy")
def _put_levels(buffer: Bytes, at: Cursor, tick: Int32Array, first: int, decimals: int) -> Cursor:
    """Write one side of the book without its empty levels, and the bracket that closes it."""
    start = at
    for word in range(first, first + 3 * DEPTH_LEVELS, 3):
        if tick[word] != 0:
            at = _put_count(buffer, _put(buffer, at, '{"quantity":'), tick[word])
            at = _put_price(buffer, _put(buffer, at, ',"price":'), tick[word + 1], decimals)
            orders = (np.int64(tick[word + 2]) >> 16) & 0xFFFF
            at = _put_small(buffer, _put(buffer, at, ',"orders":'), orders)
            at = _put(buffer, at, "},")
    return _put(buffer, at - (at > start), "]")


@njit(nogil=True, cache=True, error_model="numpy")
def _put_greeks(
    buffer: Bytes, at: Cursor, greeks: npt.NDArray[np.float64], i: int, status: int, names: Bytes
) -> Cursor:
    """Write the nine Greeks of column ``i`` and their status."""
    if np.isnan(greeks[0, i]):
        at = _put(
            buffer,
            at,
            ',"iv":null,"delta":null,"gamma":null,"theta":null,"vega":null,"rho":null'
            ',"vanna":null,"volga":null,"charm":null',
        )
    else:
        at = _put_float(buffer, _put(buffer, at, ',"iv":'), greeks[0, i])
        at = _put_float(buffer, _put(buffer, at, ',"delta":'), greeks[1, i])
        at = _put_float(buffer, _put(buffer, at, ',"gamma":'), greeks[2, i])
        at = _put_float(buffer, _put(buffer, at, ',"theta":'), greeks[3, i])
        at = _put_float(buffer, _put(buffer, at, ',"vega":'), greeks[4, i])
        at = _put_float(buffer, _put(buffer, at, ',"rho":'), greeks[5, i])
        at = _put_float(buffer, _put(buffer, at, ',"vanna":'), greeks[6, i])
        at = _put_float(buffer, _put(buffer, at, ',"volga":'), greeks[7, i])
        at = _put_float(buffer, _put(buffer, at, ',"charm":'), greeks[8, i])
    return _put_name(buffer, _put(buffer, at, ',"greeks_status":'), names, status)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_forward(
    buffer: Bytes,
    at: Cursor,
    group: Any,
    spot: int,
    spot_decimals: int,
    spot_at: float,
    now: float,
    names: Bytes,
) -> Cursor:
    """Write what the option was priced from; ``spot`` is a word of the wire, 0 if unknown.

    ``spot_at``: UNIX seconds of it; NaN if unknown.
    """
    at = _put(buffer, at, ',"underlying_price":')
    at = _put_price(buffer, at, spot, spot_decimals) if spot else _put(buffer, at, "null")
    at = _put_time(buffer, _put(buffer, at, ',"underlying_age_s":'), now - spot_at)
    at = _put_float(buffer, _put(buffer, at, ',"forward":'), group["forward"])
    at = _put_name(buffer, _put(buffer, at, ',"forward_source":'), names, group["source"])
    at = _put(buffer, at, ',"forward_age_s":')
    age = now - group["forward_at"]
    return _put_time(buffer, at, age if not age < 0 else 0.0)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_origin(
    buffer: Bytes,
    at: Cursor,
    stamp: int,
    received_at: float,
    account: Bytes,
    mode: int,
    is_mock: bool,
    repriced: bool,
    seq: int,
) -> Cursor:
    """Write when and whence; ``stamp``: the exchange's time, 0 if the packet carried none."""
    at = _put(buffer, at, ',"ts":')
    if stamp != 0:
        at = _put_count(buffer, at, stamp)
    else:
        at = _put_whole(buffer, at, np.int64(received_at))
    at = _put_stamp(buffer, _put(buffer, at, ',"exchange_ts":'), stamp)
    at = _put_time(buffer, _put(buffer, at, ',"received_ts":'), received_at)
    at = _put(buffer, at, ',"account_id":')
    at = _copy(buffer, at, account, 0, np.intp(len(account)))
    if mode in (_FULL, _INDEX_FULL):
        at = _put(buffer, at, ',"mode":"full"')
    elif mode in (_QUOTE, _INDEX_QUOTE):
        at = _put(buffer, at, ',"mode":"quote"')
    else:
        at = _put(buffer, at, ',"mode":"ltp"')
    at = _put(buffer, at, ',"is_mock":')
    at = _put(buffer, at, "true") if is_mock else _put(buffer, at, "false")
    at = _put(buffer, at, ',"repriced":')
    at = _put(buffer, at, "true") if repriced else _put(buffer, at, "false")
    return _put_whole(buffer, _put(buffer, at, ',"seq":'), seq)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_bar(
    buffer: Bytes, at: Cursor, tick: Int32Array, known: int, decimals: int, stamp: int
) -> Cursor:
    """Write an index's values: as a tick, then the day as a bar that closes at the last value."""
    last = tick[_LAST_PRICE]
    at = _put_price(buffer, _put(buffer, at, ',"last_price":'), last, decimals)
    at = _put_count(buffer, _put(buffer, at, ',"volume":null,"timestamp":'), stamp)
    at = _put_ohlc(buffer, _put(buffer, at, ',"ohlc":'), tick, known, decimals)
    if known & _DAY:
        at = _put_price(buffer, _put(buffer, at, ',"open":'), tick[_OPEN], decimals)
        at = _put_price(buffer, _put(buffer, at, ',"high":'), tick[_HIGH], decimals)
        at = _put_price(buffer, _put(buffer, at, ',"low":'), tick[_LOW], decimals)
    else:
        at = _put(buffer, at, ',"open":null,"high":null,"low":null')
    return _put_price(buffer, _put(buffer, at, ',"close":'), last, decimals)


@njit(nogil=True, cache=True, error_model="numpy")
def _put_market(
    buffer: Bytes, at: Cursor, tick: Int32Array, known: int, kind: int, decimals: int
) -> Cursor:
    """Write price, quantities, the day and, if the packet carried it, the book."""
    at = _put_price(buffer, _put(buffer, at, ',"price":'), tick[_LAST_PRICE], decimals)
    if known & _FLOW:
        at = _put_count(buffer, _put(buffer, at, ',"volume":'), tick[_VOLUME])
        at = _put_count(buffer, _put(buffer, at, ',"total_buy_quantity":'), tick[_TOTAL_BUY])
        at = _put_count(buffer, _put(buffer, at, ',"total_sell_quantity":'), tick[_TOTAL_SELL])
    else:
        at = _put(buffer, at, ',"volume":null,"total_buy_quantity":null,"total_sell_quantity":null')
    if known & _INTEREST:
        at = _put_count(buffer, _put(buffer, at, ',"oi":'), tick[_OI])
    else:
        at = _put(buffer, at, ',"oi":null')
    at = _put_ohlc(buffer, _put(buffer, at, ',"ohlc":'), tick, known, decimals)
    if kind != _FULL:
        return _put(buffer, at, ',"last_trade_time":null')
    at = _put_stamp(buffer, _put(buffer, at, ',"last_trade_time":'), tick[_LAST_TRADE_TIME])
    at = _put_levels(buffer, _put(buffer, at, ',"depth":{"buy":['), tick, _BIDS, decimals)
    at = _put_levels(buffer, _put(buffer, at, ',"sell":['), tick, _ASKS, decimals)
    return _put(buffer, at, "}")


@njit(nogil=True, cache=True, error_model="numpy")
def _seal(buffer: Bytes, head_end: Cursor, begin: Cursor, at: Cursor) -> Cursor:
    """Write the payload's length between its head and itself; returns where it now begins.

    The gap was left for as many digits as the payload before had. If this one has more or fewer,
    it is moved.
    """
    length = at - begin
    scratch = at + 16  # a wide store must not touch the payload, wherever it ends up
    width = _put_small(buffer, scratch, length) - scratch
    moved = head_end + width + 2
    if moved != begin:
        _copy(buffer, moved, buffer, begin, length)
    _copy(buffer, head_end, buffer, scratch, width)
    _put(buffer, head_end + width, "\r\n")
    return moved


@njit(nogil=True, cache=True, error_model="numpy")
def format_messages(
    buffer: Bytes,
    starts: npt.NDArray[np.int64],
    payload_starts: npt.NDArray[np.int64],
    payload_ends: npt.NDArray[np.int64],
    ticks: Int32Array,
    slots: Int32Array,
    sources: npt.NDArray[np.int16],
    kinds: UInt8Array,
    known: UInt8Array,
    received_at: npt.NDArray[np.float64],
    greeks: npt.NDArray[np.float64],
    statuses: UInt8Array,
    ticked: int,
    rows: RowArray,
    board_words: Int32Array,
    texts: Bytes,
    groups: npt.NDArray[Any],
    heads: tuple[Bytes, Bytes, Bytes, Bytes],
    accounts: Bytes,
    account_ends: npt.NDArray[np.int64],
    status_names: Bytes,
    source_names: Bytes,
    now: float,
    first_seq: int,
    mocks: UInt8Array,
) -> None:
    """Write n messages back to back and where each lies; see ``SnapshotBatch`` for the arrays.

    ``ticks``: int32 (n, 46), completed by the board; ``greeks``: float64 (9, n). Messages from
    ``ticked`` on are re-pricings. ``heads``: the command up to ``$`` of the payload, for options
    and for underlyings, then both again for mock messages. ``sources`` index ``mocks``, 1 where
    frames are mock, and ``account_ends``, the ends of JSON strings in ``accounts``. The buffer
    must hold ``MESSAGE_MAX`` and the variable parts for each.
    """
    at = 0
    gap = 6  # digits of the last payload's length, and a line end
    for i in range(len(slots)):
        tick = ticks[i]
        row = rows[slots[i]]
        kind = kinds[i]
        decimals = row["decimals"]
        is_index = row["instrument_class"] == _INDEX
        is_mock = mocks[sources[i]] != 0
        if is_mock:
            head = heads[3] if is_index else heads[2]
        else:
            head = heads[1] if is_index else heads[0]
        starts[i] = at
        head_end = _copy(buffer, at, head, 0, np.intp(len(head)))
        begin = head_end + gap
        text_start = np.intp(row["text_start"])
        at = _copy(buffer, begin, texts, text_start, np.intp(row["text_end"]) - text_start)
        stamp = np.int64(0)
        if kind in (_FULL, _INDEX_FULL):
            stamp = np.int64(tick[_EXCHANGE_TIMESTAMP]) & 0xFFFFFFFF
        if is_index:
            moment = stamp if stamp != 0 else np.int64(received_at[i])
            at = _put_bar(buffer, at, tick, known[i], decimals, moment)
        else:
            at = _put_market(buffer, at, tick, known[i], kind, decimals)
            at = _put_greeks(buffer, at, greeks, i, statuses[i], status_names)
            if row["group"] >= 0:
                group = groups[row["group"]]
                spot = group["spot"]
                if spot >= 0:
                    price, places = board_words[spot, _LAST_PRICE], rows[spot]["decimals"]
                    spot_at = rows[spot]["traded_at"]
                else:
                    price, places, spot_at = np.int32(0), np.uint8(2), np.nan
                at = _put_forward(buffer, at, group, price, places, spot_at, now, source_names)
            else:
                at = _put(
                    buffer,
                    at,
                    ',"underlying_price":null,"underlying_age_s":null'
                    ',"forward":null,"forward_source":null,"forward_age_s":null',
                )
        source = sources[i]
        account_start = account_ends[source - 1] if source > 0 else 0
        account = accounts[account_start : account_ends[source]]
        at = _put_origin(
            buffer,
            at,
            stamp,
            received_at[i],
            account,
            kind,
            is_mock,
            i >= ticked,
            first_seq + i,
        )
        at = _put(buffer, at, "}")
        payload_starts[i] = _seal(buffer, head_end, begin, at)
        at += payload_starts[i] - begin
        gap = payload_starts[i] - head_end
        payload_ends[i] = at
        at = _put(buffer, at, "\r\n")
    starts[len(slots)] = at
