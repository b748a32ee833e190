"""Which ticks can be true: rules on whole batches, one verdict a tick.

*Schema* rules say that the numbers cannot be what they claim to be; such a tick is dropped.
*Business* rules say that they are strange, as real markets sometimes are (a crossed book in the
pre-open session, a day's range that lags): they are counted, and dropped only when strict.
"""

from enum import IntEnum
from typing import Final

import numpy as np
from numba import njit

from ticker.board import InstrumentClass, RowArray
from ticker.ticks import Int32Array, PacketKind, Row, TickBatch, UInt8Array


class Verdict(IntEnum):
    """Outcome for one tick; the worst that was found."""

    GOOD = 0
    STRANGE = 1
    """Breaks a business rule."""
    INVALID = 2
    """Breaks a schema rule."""


INDEX_PRICE_MAX: Final = 1_000_000.0
OPTION_PRICE_MAX: Final = 100_000.0
PRICE_MAX: Final = 1_000_000.0
"""Shares and futures: the dearest are at some 150,000 rupees."""
OPEN_INTEREST_MAX: Final = 2_000_000_000
"""In units of the contract: low-priced shares have futures with over a billion."""

_INDEX: Final = int(InstrumentClass.INDEX)
_OPTION: Final = int(InstrumentClass.OPTION)
_LTP: Final = int(PacketKind.LTP)
_FULL: Final = int(PacketKind.FULL)
_GOOD: Final = int(Verdict.GOOD)
_STRANGE: Final = int(Verdict.STRANGE)
_INVALID: Final = int(Verdict.INVALID)
_TOKEN: Final = int(Row.INSTRUMENT_TOKEN)
_LAST_PRICE: Final = int(Row.LAST_PRICE)
_HIGH: Final = int(Row.HIGH)
_LOW: Final = int(Row.LOW)
_OI: Final = int(Row.OI)
_BIDS: Final = int(Row.BIDS)
_ASKS: Final = int(Row.ASKS)


def validate(ticks: TickBatch, slots: Int32Array, rows: RowArray) -> UInt8Array:
    """Judge every tick; returns a ``Verdict`` each, uint8 (n,).

    ``slots``: int32 (n,), negative where the instrument is unknown: then only its token counts.
    """
    verdicts = np.empty(len(ticks), np.uint8)
    judge(ticks.words, ticks.kind, slots, rows, verdicts)
    return verdicts


@njit(nogil=True, cache=True, error_model="numpy")
def judge(
    words: Int32Array, kinds: UInt8Array, slots: Int32Array, rows: RowArray, verdicts: UInt8Array
) -> None:
    """The compiled body of ``validate``."""
    for i in range(len(kinds)):
        if words[_TOKEN, i] == 0:
            verdicts[i] = _INVALID
        elif slots[i] < 0:
            verdicts[i] = _GOOD
        else:
            row = rows[slots[i]]
            price = words[_LAST_PRICE, i] / row["divisor"]
            what = row["instrument_class"]
            if what == _INDEX:
                is_sound = 0 < price <= INDEX_PRICE_MAX
            elif what == _OPTION:
                is_sound = 0 <= price <= OPTION_PRICE_MAX
            else:
                is_sound = price <= PRICE_MAX and (price >= 0 or row["may_be_negative"] != 0)
            if not is_sound:
                verdicts[i] = _INVALID
            elif _is_strange(words, i, kinds[i]):
                verdicts[i] = _STRANGE
            else:
                verdicts[i] = _GOOD


@njit(nogil=True, cache=True, error_model="numpy")
def _is_strange(words: Int32Array, i: int, kind: int) -> bool:
    """A price outside the day's range, too much open interest, a crossed book."""
    if kind == _LTP:
        return False
    high, low = words[_HIGH, i], words[_LOW, i]
    if low != 0 and high != 0 and not low <= words[_LAST_PRICE, i] <= high:
        return True
    if kind != _FULL:
        return False
    if (np.int64(words[_OI, i]) & 0xFFFFFFFF) > OPEN_INTEREST_MAX:
        return True
    has_both = words[_BIDS, i] != 0 and words[_ASKS, i] != 0
    return bool(has_both and words[_BIDS + 1, i] > words[_ASKS + 1, i])
