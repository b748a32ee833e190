"""The packet an instrument begins with, and which prices there is room for in it."""

import math
from typing import Final

import numpy as np

from ticker.instruments.registry import Instrument
from ticker.kite.wire import DIVISORS
from ticker.mock_market.kernel import WORD_MAX
from ticker.ticks import WORDS, Int32Array, Row

VOLUME_LOTS: Final = 1000
INTEREST_LOTS: Final = 5000
"""What volume and open interest begin at where they were not told."""


def is_price(instrument: Instrument, price: float) -> bool:
    """Whether the instrument may begin at this price, rupees: it is one, and the wire has room."""
    return 0 < price * _divisor(instrument) <= WORD_MAX


def wire_tick(instrument: Instrument) -> int:
    """The step of its prices as an integer of the wire; indices have none in the dump."""
    return min(max(round(instrument.tick_size * _divisor(instrument)), 1), WORD_MAX)


def _divisor(instrument: Instrument) -> float:
    return float(DIVISORS[instrument.instrument_token & 0xFF])


def create_words(instrument: Instrument, price: float) -> Int32Array:
    """A packet of which only the price is known, or not even that."""
    words = np.zeros(WORDS, np.int32)
    words[Row.INSTRUMENT_TOKEN] = np.uint32(instrument.instrument_token).view(np.int32)
    lot = max(instrument.lot_size, 1)
    if not instrument.is_index:
        words[Row.VOLUME_TRADED] = min(VOLUME_LOTS * lot, WORD_MAX)
    if instrument.expiry is not None:
        words[[Row.OI, Row.OI_DAY_HIGH, Row.OI_DAY_LOW]] = min(INTEREST_LOTS * lot, WORD_MAX)
    if not math.isnan(price):
        tick, most = wire_tick(instrument), min(price * _divisor(instrument), WORD_MAX)
        words[Row.LAST_PRICE] = min(round(most / tick) * tick, WORD_MAX)
    return completed(words)


def completed(words: Int32Array) -> Int32Array:
    """A copy with a day's range, which packets of the mode ``ltp`` lack."""
    words = words.copy()
    if words[Row.HIGH] == 0 and words[Row.LOW] == 0:
        words[[Row.OPEN, Row.HIGH, Row.LOW, Row.CLOSE]] = words[Row.LAST_PRICE]
    return words
