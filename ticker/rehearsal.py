"""A market of four instruments and a few ticks, to run everything once before the feed opens."""

import datetime as dt
from typing import Final

import numpy as np

from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import encode_frame
from ticker.messages import ConnectionId, Frame
from ticker.ticks import WORDS, PacketKind, Row, TickBatch

OPENS_AT: Final = 1_800_000_000.0
"""UNIX seconds of the first act; the second follows ``ACT_S`` later."""
ACT_S: Final = 10.0
_EXPIRY: Final = dt.date(2027, 2, 23)
_CONNECTION: Final = ConnectionId("rehearsal", 0)


def create_cast() -> InstrumentRegistry:
    """An index, its future, and a call and a put on it."""
    rows = (
        (0x0109, "NIFTY 50", "", None, 0.0, "EQ", "INDICES", "NSE"),
        (0x0102, "NIFTY27FEBFUT", "NIFTY", _EXPIRY, 0.0, "FUT", "NFO-FUT", "NFO"),
        (0x0202, "NIFTY27FEB25000CE", "NIFTY", _EXPIRY, 25_000.0, "CE", "NFO-OPT", "NFO"),
        (0x0302, "NIFTY27FEB25000PE", "NIFTY", _EXPIRY, 25_000.0, "PE", "NFO-OPT", "NFO"),
    )
    return InstrumentRegistry(
        Instrument(
            token, token >> 8, symbol, name, expiry, strike, 0.05, 1, kind, segment, exchange
        )
        for token, symbol, name, expiry, strike, kind, segment, exchange in rows
    )


def expires_at(exchange: str, day: dt.date) -> dt.datetime:
    """When the cast's contracts expire."""
    del exchange
    return dt.datetime(day.year, day.month, day.day, 10, tzinfo=dt.UTC)


def create_acts() -> tuple[list[Frame], list[Frame]]:
    """Frames of two moments: all kinds of packets, a stranger, then a forward that has moved."""
    tokens = (0x0109, 0x0102, 0x0202, 0x0302, 0x0402)
    first = (25_000_00, 25_100_00, 800_00, 650_00, 1_00)
    full = [PacketKind.INDEX_FULL, *[PacketKind.FULL] * 4]
    brief = [PacketKind.INDEX_QUOTE, PacketKind.QUOTE, PacketKind.LTP, PacketKind.LTP]
    moved = (25_050_00, 25_150_00)
    return (
        [
            _frame(tokens, first, full, OPENS_AT),
            _frame(tokens[2:3], first[2:3], full[2:3], OPENS_AT),
            _frame(tokens[:4], first[:4], brief, OPENS_AT),
        ],
        [
            _frame(tokens[:2], moved, full[:2], OPENS_AT + ACT_S),
            _frame(tokens[2:3], (850_00,), full[2:3], OPENS_AT + ACT_S),
        ],
    )


def _frame(
    tokens: tuple[int, ...], prices: tuple[int, ...], kinds: list[PacketKind], at: float
) -> Frame:
    words = np.zeros((WORDS, len(tokens)), np.int32)
    words[Row.INSTRUMENT_TOKEN] = tokens
    words[[Row.LAST_PRICE, Row.OPEN, Row.HIGH, Row.LOW, Row.CLOSE]] = prices
    words[Row.EXCHANGE_TIMESTAMP] = int(at)
    for side, step in ((Row.BIDS, -5), (Row.ASKS, 5)):
        words[side] = 100
        words[side + 1] = np.array(prices) + step
    batch = TickBatch(words, np.array(kinds, np.uint8), np.zeros(len(tokens), np.int32))
    return Frame(encode_frame(batch), at, _CONNECTION)
