"""One step of every instrument in one compiled call, without the GIL.

An underlying is one number, its *factor*: 1 when its instruments were seeded, and a random walk
from there. Whatever trades is priced from it. An index, a share or a future stands at its seed
times the factor. An option is Black's formula (Black 1976) on its expiry's forward times the
factor, at the volatility that its expiry's smile has for its strike; so a chain is as free of
arbitrage as that smile, and its Greeks move. Prices are rounded to the tick, and end with the wire.
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from ticker.ticks import DEPTH_LEVELS, FloatArray, Int32Array, Row

STATE: Final = np.dtype(
    [
        ("base", "f8"),  # rupees at factor 1: the price itself; of an option, its forward
        ("volatility", "f8"),  # of an option, annual fraction
        ("strike", "f8"),
        ("expires_at", "f8"),  # UNIX seconds; infinity for what does not expire
        ("divisor", "f8"),  # wire integers to rupees
        ("tick", "i8"),  # wire integers
        ("lot", "i8"),
        ("volume_seed", "f8"),
        ("volume", "f8"),
        ("interest_seed", "f8"),
        ("interest", "f8"),
        ("factor", "i4"),  # index into factors
        ("sign", "i1"),  # 1 for a call, -1 for a put, 0 for what is no option
        ("is_index", "u1"),
        ("is_alive", "u1"),  # 0 from its expiry on
    ],
    align=True,
)
"""The builder of one instrument: nobody but the kernel and the market's own lock touches it."""

DRAWS: Final = 4 + 2 * DEPTH_LEVELS
"""Uniform numbers that one instrument takes in a step."""

FORWARD: Final = 0
IV: Final = 1
DELTA: Final = 2
GAMMA: Final = 3
THETA: Final = 4
VEGA: Final = 5
GREEKS: Final = 6
"""Columns of what a step prices; NaN for what is no option."""

YEAR_S: Final = 365.0 * 86_400.0
_REVERSION: Final = 0.01
"""Share of its way from where it began that an underlying goes back in a step: it stays within
about seven variations, and the next opening is no leap for who looks at mock and market."""
_TURNOVER: Final = 0.002
"""Share of the volume still to come that is traded in a step, at most."""
_SHIFT: Final = 0.02
"""Share of the open interest's variation that it moves in a step, at most."""
_HALF_SPREAD: Final = 0.0004
_ROOT_HALF: Final = math.sqrt(0.5)
_INVERSE_ROOT_TWO_PI: Final = 1 / math.sqrt(2 * math.pi)
WORD_MAX: Final = 2**31 - 1
"""The highest price on the wire; nothing walks beyond it."""
_COUNT_MAX: Final = 4.0e9  # quantities are 32 bits on the wire

_LAST_PRICE: Final = int(Row.LAST_PRICE)
_LAST_QUANTITY: Final = int(Row.LAST_TRADED_QUANTITY)
_VOLUME: Final = int(Row.VOLUME_TRADED)
_TOTAL_BUY: Final = int(Row.TOTAL_BUY_QUANTITY)
_TOTAL_SELL: Final = int(Row.TOTAL_SELL_QUANTITY)
_OPEN: Final = int(Row.OPEN)
_CLOSE: Final = int(Row.CLOSE)
_HIGH: Final = int(Row.HIGH)
_LOW: Final = int(Row.LOW)
_LAST_TRADE_TIME: Final = int(Row.LAST_TRADE_TIME)
_OI: Final = int(Row.OI)
_OI_HIGH: Final = int(Row.OI_DAY_HIGH)
_OI_LOW: Final = int(Row.OI_DAY_LOW)
_EXCHANGE_TIMESTAMP: Final = int(Row.EXCHANGE_TIMESTAMP)
_BIDS: Final = int(Row.BIDS)
_ASKS: Final = int(Row.ASKS)


@njit(nogil=True, cache=True, error_model="numpy")
def step_market(
    state: npt.NDArray[Any],
    words: Int32Array,
    factors: FloatArray,
    shocks: FloatArray,
    draws: FloatArray,
    now: float,
    rate: float,
    variation: float,
    volume_variation: float,
    priced: FloatArray,
) -> None:
    """Move everything to ``now``, UNIX seconds.

    ``state``: ``STATE`` (n,); ``words``: int32 (n, 46), the integers of the wire; ``factors``:
    float64 (u,), moved by ``shocks``, uniform in [0, 1), (u,); ``draws``: likewise (n, DRAWS);
    ``priced``: float64 (n, GREEKS), filled. No price moves by more than ``variation`` of its
    underlying, or its forward, and one tick: what stood at a price that its model does not share
    gets there in several steps.
    """
    for u in range(len(factors)):
        pull = -_REVERSION * math.log(factors[u])
        move = variation * (2.0 * shocks[u] - 1.0) + pull
        factors[u] *= 1.0 + min(max(move, -variation), variation)
    for i in range(len(state)):
        row = state[i]
        if row["expires_at"] <= now:
            row["is_alive"] = 0
            continue
        tick = words[i]
        level = row["base"] * factors[row["factor"]]
        value = level
        for k in range(GREEKS):
            priced[i, k] = np.nan
        if row["sign"] != 0:
            value = _price_option(row, level, now, rate, priced[i])
        room = np.ceil(variation * abs(level) * row["divisor"] / row["tick"]) * row["tick"]
        _trade(row, tick, value, min(room, WORD_MAX), now, draws[i])
        if not row["is_index"]:
            _count(row, tick, volume_variation, draws[i])
            _quote(row, tick, draws[i])
        tick[_EXCHANGE_TIMESTAMP] = np.int32(np.int64(now))


@njit(nogil=True, cache=True, error_model="numpy")
def _price_option(row: Any, forward: float, now: float, rate: float, priced: FloatArray) -> float:
    """The premium; fills a row of ``priced``: Greeks with respect to the forward."""
    years = (row["expires_at"] - now) / YEAR_S
    strike, sigma, sign = row["strike"], row["volatility"], float(row["sign"])
    root = math.sqrt(years)
    deviation = sigma * root
    d1 = math.log(forward / strike) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    discount = math.exp(-rate * years)
    in_money = 0.5 * math.erfc(-sign * d1 * _ROOT_HALF)
    value = (
        discount * sign * (forward * in_money - strike * 0.5 * math.erfc(-sign * d2 * _ROOT_HALF))
    )
    value = max(value, 0.0)
    density = discount * _INVERSE_ROOT_TWO_PI * math.exp(-0.5 * d1 * d1)
    priced[FORWARD] = forward
    priced[IV] = sigma
    priced[DELTA] = discount * sign * in_money
    priced[GAMMA] = density / (forward * deviation)
    priced[THETA] = (rate * value - forward * density * sigma / (2 * root)) / 365
    priced[VEGA] = forward * density * root / 100
    return float(value)


@njit(nogil=True, cache=True, error_model="numpy")
def _trade(
    row: Any, tick: Int32Array, value: float, cap: float, now: float, draws: FloatArray
) -> None:
    """Take the last price to ``value``, by ``cap`` at most, and widen the day's range."""
    step = row["tick"]
    before = np.int64(tick[_LAST_PRICE])
    wanted = min(value * row["divisor"], WORD_MAX)
    last = min(np.int64(np.rint(wanted / step)), WORD_MAX // step) * step
    if before == 0:  # never priced: nothing to stay near to
        tick[_OPEN] = tick[_HIGH] = tick[_LOW] = tick[_CLOSE] = max(last, step)
    else:
        last = min(max(last, before - np.int64(cap)), before + np.int64(cap))
    if value >= 0:
        last = max(last, step)
    if last != before:
        tick[_LAST_TRADE_TIME] = np.int32(np.int64(now))
        tick[_LAST_QUANTITY] = np.int32(row["lot"] * (1 + np.int64(draws[0] * 4)))
    tick[_LAST_PRICE] = last
    tick[_HIGH] = max(np.int64(tick[_HIGH]), last)
    tick[_LOW] = min(np.int64(tick[_LOW]), last)


@njit(nogil=True, cache=True, error_model="numpy")
def _count(row: Any, tick: Int32Array, variation: float, draws: FloatArray) -> None:
    """Volume only grows, open interest goes either way; neither leaves its variation."""
    most = row["volume_seed"] * (1 + variation)
    row["volume"] += (most - row["volume"]) * _TURNOVER * draws[1]
    seed = row["interest_seed"]
    interest = row["interest"] + seed * variation * _SHIFT * (2 * draws[2] - 1)
    row["interest"] = min(max(interest, seed * (1 - variation)), seed * (1 + variation))
    tick[_VOLUME] = np.int32(np.int64(min(row["volume"], _COUNT_MAX)))
    held = np.int64(min(row["interest"], _COUNT_MAX))
    tick[_OI] = np.int32(held)
    tick[_OI_HIGH] = np.int32(max(np.int64(np.uint32(tick[_OI_HIGH])), held))
    tick[_OI_LOW] = np.int32(min(np.int64(np.uint32(tick[_OI_LOW])), held))


@njit(nogil=True, cache=True, error_model="numpy")
def _quote(row: Any, tick: Int32Array, draws: FloatArray) -> None:
    """Five levels on either side of the last price, at equal distances from it where they fit."""
    step, lot = row["tick"], row["lot"]
    last = np.int64(tick[_LAST_PRICE])
    half = step * max(np.int64(last * _HALF_SPREAD / step), 1)
    for side in range(2):
        first, sign, total = _BIDS, -1, np.int64(0)
        if side == 1:
            first, sign = _ASKS, 1
        for level in range(DEPTH_LEVELS):
            at = first + 3 * level
            price = last + sign * (half + level * step)
            if price <= 0 < last or price > WORD_MAX:
                tick[at] = tick[at + 1] = tick[at + 2] = 0
                continue
            lots = 1 + np.int64(draws[4 + side * DEPTH_LEVELS + level] * 8 * (level + 1))
            total += lots * lot
            tick[at] = np.int32(lots * lot)
            tick[at + 1] = np.int32(price)
            tick[at + 2] = np.int32((1 + lots // 4) << 16)
        tick[_TOTAL_BUY if side == 0 else _TOTAL_SELL] = np.int32(total * 3)
