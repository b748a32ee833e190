"""Ticks as columns: what one or more binary frames said, one row of integers a packet.

Every number of the broker's packets is a 32-bit word at a 4-byte offset (a depth level's order
count is the upper half of one), so a batch is a matrix of words, one *row per field* and one
*column per packet*: a field is a contiguous array, whatever mix of packets came in. The rows are
the words of the largest packet, full mode; index packets, which order their fields differently,
are laid out in the same rows. Words a packet does not carry are 0, and ``CARRIES`` tells them
from real zeros.
"""

from enum import IntEnum
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
UInt32Array = npt.NDArray[np.uint32]
UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

WORDS: Final = 46
"""Rows of ``TickBatch.words``: a full-mode packet is 46 words of 4 bytes."""

DEPTH_LEVELS: Final = 5
"""Price levels on each side of the book."""


class Row(IntEnum):
    """Row of each field in ``TickBatch.words``; prices are signed, all else unsigned."""

    INSTRUMENT_TOKEN = 0
    LAST_PRICE = 1
    LAST_TRADED_QUANTITY = 2
    AVERAGE_TRADED_PRICE = 3
    VOLUME_TRADED = 4
    TOTAL_BUY_QUANTITY = 5
    TOTAL_SELL_QUANTITY = 6
    OPEN = 7
    HIGH = 8
    LOW = 9
    CLOSE = 10
    LAST_TRADE_TIME = 11
    OI = 12
    OI_DAY_HIGH = 13
    OI_DAY_LOW = 14
    EXCHANGE_TIMESTAMP = 15
    BIDS = 16
    """First of 5 levels of 3 words each: quantity, price, orders << 16."""
    ASKS = 31
    """As ``BIDS``, for the other side."""


class PacketKind(IntEnum):
    """What a packet is; on the wire its length alone tells."""

    LTP = 0
    QUOTE = 1
    FULL = 2
    INDEX_QUOTE = 3
    INDEX_FULL = 4


_INDEX_QUOTE_ROWS: Final = (Row.INSTRUMENT_TOKEN, Row.LAST_PRICE, *range(Row.OPEN, Row.CLOSE + 1))


def _carries() -> npt.NDArray[np.bool_]:
    table = np.zeros((len(PacketKind), WORDS), np.bool_)
    table[PacketKind.LTP, : Row.LAST_PRICE + 1] = True
    table[PacketKind.QUOTE, : Row.CLOSE + 1] = True
    table[PacketKind.FULL] = True
    table[PacketKind.INDEX_QUOTE, _INDEX_QUOTE_ROWS] = True
    table[PacketKind.INDEX_FULL, (*_INDEX_QUOTE_ROWS, Row.EXCHANGE_TIMESTAMP)] = True
    table.flags.writeable = False
    return table


CARRIES: Final = _carries()
"""Which rows each kind of packet carries, bool, shape (5, 46), by ``PacketKind`` and ``Row``.

``CARRIES[ticks.kind, row]`` is True, shape (n,), where that field was on the wire.
"""


class TickBatch(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Columns of one decoded batch, in arrival order. The arrays are not written to again.

    ``words``: int32, shape (46, n), C-contiguous; integers of the wire (prices unscaled).
    ``kind``: uint8, shape (n,), a ``PacketKind`` each.
    ``frame``: int32, shape (n,), the position of the packet's frame in the decoded sequence.
    """

    words: Int32Array
    kind: UInt8Array
    frame: Int32Array

    def __len__(self) -> int:
        return int(self.kind.shape[0])

    def signed(self, row: int) -> Int32Array:
        """A row as signed integers (prices), shape (n,)."""
        values: Int32Array = self.words[row]
        return values

    def unsigned(self, row: int) -> UInt32Array:
        """A row as unsigned integers (tokens, quantities, times), shape (n,)."""
        values: UInt32Array = self.words[row].view(np.uint32)
        return values

    @property
    def token(self) -> UInt32Array:
        """Instrument tokens, shape (n,)."""
        return self.unsigned(Row.INSTRUMENT_TOKEN)

    @property
    def segment(self) -> UInt32Array:
        """Segment ids, the low byte of each token (an observed regularity, not documented)."""
        return self.token & np.uint32(0xFF)
