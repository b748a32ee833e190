"""The steps around the kernel: what to price, and from what; one compiled call each.

``sweep`` finds options whose forward moved although they did not tick; ``gather_lanes`` lays out
what the kernel needs; ``settle`` writes its results to the board.

A tick's volatility is the one that its last price implies, on the forward of that moment. That
price says nothing about a forward that has moved since: a re-pricing holds the volatility and
takes the Greeks to where the forward is now.
"""

import math
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from ticker.board import InstrumentClass, Known, RowArray
from ticker.greeks.chains import Chains
from ticker.greeks.forward import YEAR_S, ForwardPolicy, ForwardSource, update_forwards
from ticker.greeks.kernel import GreekRow, GreeksStatus, price_options
from ticker.ticks import FloatArray, Int32Array, Row, UInt8Array

NO_FORWARD: Final = len(GreeksStatus)
NOT_AN_OPTION: Final = len(GreeksStatus) + 1
NO_PRICE: Final = len(GreeksStatus) + 2
STATUS_NAMES: Final = (
    *(status.name.lower() for status in GreeksStatus),
    "no_forward",
    "not_an_option",
    "no_price",
)
"""Names of the codes in ``greeks_status``: the kernel's own, then three of this module's.

``no_price``: the option has never traded, its last price is 0.
"""


class Profile(StrEnum):
    """A convention of pricing.

    ``parity``: Black-76 on the forward that the options' own prices imply. ``nse``: the
    exchange's, Black-Scholes on the spot. ``futures``: Black-76 on the listed future.
    """

    PARITY = "parity"
    NSE = "nse"
    FUTURES = "futures"


INTEREST_RATES: Final = MappingProxyType(
    {Profile.PARITY: 0.054, Profile.NSE: 0.10, Profile.FUTURES: 0.054}
)
"""Continuous yearly rates: the 91-day treasury bill's, and what the exchange's chain applies."""

_POLICIES: Final = MappingProxyType(
    {
        Profile.PARITY: ForwardPolicy.PARITY,
        Profile.NSE: ForwardPolicy.SPOT,
        Profile.FUTURES: ForwardPolicy.FUTURE,
    }
)
_OPTION: Final = int(InstrumentClass.OPTION)
_PRICE: Final = int(Known.PRICE)
_SPOT: Final = int(ForwardSource.SPOT)
_LAST_PRICE: Final = int(Row.LAST_PRICE)
_OK: Final = int(GreeksStatus.OK)
_EXPIRED: Final = int(GreeksStatus.EXPIRED)
_GREEKS: Final = len(GreekRow)
_IV: Final = int(GreekRow.IV)
_DELTA: Final = int(GreekRow.DELTA)
_ROOT_HALF: Final = math.sqrt(0.5)
_LEAST: Final = 1e-300  # a worthless option's value: a price of 0 would mean that there is none
_TICKED_NOW: Final = -1.0  # in priced_from: will be priced in this batch anyway
_FAR: Final = 0.002
"""Fraction of the forward beyond which the delta of before does not tell what a move is worth."""
_SWEEP_MAX: Final = 2_000
"""Options chosen after which a sweep begins no other group: at 5 us each, 10 ms in which no tick
goes out. The groups left over are next in the sweep of the next batch."""

_PRICE_LANE: Final = 0
_UNDERLYING_LANE: Final = 1
_STRIKE_LANE: Final = 2
_YEARS_LANE: Final = 3
_RATE_LANE: Final = 4
_CARRY_LANE: Final = 5
_HALF_TICK_LANE: Final = 6
_LANES: Final = 7


class Pricer:
    """Prices what ticked and what moved. Not thread-safe: it writes to chains and board rows.

    ``reprice_interval_s``: the least time between two re-pricings of a group, 0 for none.
    An option is re-priced when its forward's move, by its delta, is worth more than half a tick:
    less than that is within what the price can tell. So it is after any move too large for its
    delta to tell, or a worthless option would stay so when the market returns. One that had no
    forward is priced when there is one; one that had a forward and no volatility waits for its
    next tick.
    """

    def __init__(
        self,
        profile: Profile,
        interest_rate: float | None,
        *,
        reprice_interval_s: float,
    ) -> None:
        self.rate = INTEREST_RATES[profile] if interest_rate is None else interest_rate
        self._policy = int(_POLICIES[profile])
        self._reprice_interval_s = reprice_interval_s
        self._next_group = 0

    def move_forwards(
        self, slots: Int32Array, rows: RowArray, chains: Chains, now: float
    ) -> Int32Array:
        """Bring forwards up to date; returns the slots to re-price, int32 (r,)."""
        update_forwards(
            slots,
            rows,
            chains.groups,
            chains.pairs,
            chains.is_touched,
            now,
            self.rate,
            self._policy,
        )
        if not self._reprice_interval_s or not _is_due(
            chains.groups, now, self._reprice_interval_s
        ):
            return np.empty(0, np.int32)
        chosen = np.empty(len(chains.members), np.int32)
        count, self._next_group = sweep(
            slots,
            rows,
            chains.groups,
            chains.members,
            now,
            self._reprice_interval_s,
            self._next_group,
            chosen,
        )
        return chosen[:count]

    def price(
        self,
        ticks: Int32Array,
        slots: Int32Array,
        rows: RowArray,
        chains: Chains,
        now: float,
        *,
        ticked: int,
    ) -> tuple[FloatArray, UInt8Array]:
        """Price messages; returns Greeks, float64 (9, n), and statuses, uint8 (n,).

        From ``ticked`` on they are re-pricings. Lanes that are no options cost a lane and get NaN
        and ``NOT_AN_OPTION``.
        """
        n = len(slots)
        lanes = np.empty((_LANES, n))
        is_call = np.empty(n, np.uint8)
        gather_lanes(ticks, slots, rows, chains.groups, now, self.rate, ticked, lanes, is_call)
        greeks = np.empty((_GREEKS, n))
        statuses = np.empty(n, np.uint8)
        price_options(
            lanes[_PRICE_LANE],
            lanes[_UNDERLYING_LANE],
            lanes[_STRIKE_LANE],
            lanes[_YEARS_LANE],
            lanes[_RATE_LANE],
            lanes[_CARRY_LANE],
            is_call,
            lanes[_HALF_TICK_LANE],
            greeks,
            statuses,
        )
        settle(slots, rows, lanes, greeks, statuses)
        return greeks, statuses


@njit(nogil=True, cache=True, error_model="numpy")
def _is_due(groups: npt.NDArray[Any], now: float, interval_s: float) -> bool:
    for g in range(len(groups)):
        if groups[g]["has_moved"] and now - groups[g]["swept_at"] >= interval_s:
            return True
    return False


@njit(nogil=True, cache=True, error_model="numpy")
def sweep(
    slots: Int32Array,
    rows: RowArray,
    groups: npt.NDArray[Any],
    members: Int32Array,
    now: float,
    interval_s: float,
    first_group: int,
    chosen: Int32Array,
) -> tuple[int, int]:
    """Choose the options, other than ``slots``, that were priced from a forward that is gone.

    Fills ``chosen``, going round from ``first_group``; returns how many, and the group to begin
    with the next time. Options that no forward was known for are chosen too.
    """
    for slot in slots:
        rows[slot]["priced_from"] = _TICKED_NOW
    count = 0
    for step in range(len(groups)):
        g = (first_group + step) % len(groups)
        group = groups[g]
        if not group["has_moved"] or now - group["swept_at"] < interval_s:
            continue
        if count >= _SWEEP_MAX:
            return count, g
        group["has_moved"] = 0
        group["swept_at"] = now
        if group["expires_at"] <= now:
            continue
        forward = _priced_from(group, rows)
        for m in range(group["first_member"], group["last_member"]):
            row = rows[members[m]]
            before = row["priced_from"]
            if not row["known"] & _PRICE or before == _TICKED_NOW:
                continue
            move = abs(before - forward)
            is_far = move * abs(row["greeks"][_DELTA]) > row["half_tick"] or move > _FAR * forward
            if row["status"] == NO_FORWARD or (row["status"] == _OK and is_far):
                chosen[count] = members[m]
                count += 1
    return count, first_group


@njit(nogil=True, cache=True, error_model="numpy")
def _priced_from(group: Any, rows: RowArray) -> float:
    """The price that a group's options are priced from: its forward, or the spot itself."""
    if group["source"] == _SPOT:
        return rows[group["spot"]]["quote"]  # type: ignore[no-any-return]
    return group["forward"]  # type: ignore[no-any-return]


@njit(nogil=True, cache=True, error_model="numpy")
def gather_lanes(
    ticks: Int32Array,
    slots: Int32Array,
    rows: RowArray,
    groups: npt.NDArray[Any],
    now: float,
    rate: float,
    ticked: int,
    lanes: FloatArray,
    is_call: UInt8Array,
) -> None:
    """Fill the kernel's lanes, float64 (7, n), from messages; NaN where there is no price.

    A re-priced option that has a volatility gets the price it stands for, exact to the last bit.
    """
    for i in range(len(slots)):
        row = rows[slots[i]]
        lanes[_RATE_LANE, i] = rate
        lanes[_CARRY_LANE, i] = 0.0
        lanes[_STRIKE_LANE, i] = row["strike"]
        lanes[_HALF_TICK_LANE, i] = row["half_tick"]
        is_call[i] = row["is_call"]
        if row["instrument_class"] != _OPTION:
            lanes[_PRICE_LANE, i] = np.nan
            lanes[_UNDERLYING_LANE, i] = np.nan
            lanes[_YEARS_LANE, i] = np.nan
            continue
        group = groups[row["group"]]
        lanes[_PRICE_LANE, i] = ticks[i, _LAST_PRICE] / row["divisor"]
        years = (row["expires_at"] - now) / YEAR_S
        lanes[_YEARS_LANE, i] = years
        lanes[_UNDERLYING_LANE, i] = _priced_from(group, rows)
        if group["source"] == _SPOT:
            lanes[_CARRY_LANE, i] = rate
        if i >= ticked and row["status"] == _OK:
            deviation = row["greeks"][_IV] * math.sqrt(years)
            forward = lanes[_UNDERLYING_LANE, i] * math.exp(lanes[_CARRY_LANE, i] * years)
            sign = 1.0 if row["is_call"] else -1.0
            value = _black(forward, row["strike"], deviation, sign)
            lanes[_PRICE_LANE, i] = math.exp(-rate * years) * value
            lanes[_HALF_TICK_LANE, i] = 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _black(forward: float, strike: float, deviation: float, sign: float) -> float:
    """Black's formula, undiscounted: what is out of the money, and the intrinsic value."""
    out = 1.0 if forward < strike else -1.0
    high = math.log(forward / strike) / deviation + 0.5 * deviation
    low = high - deviation
    time_value = out * (
        forward * 0.5 * math.erfc(-out * high * _ROOT_HALF)
        - strike * 0.5 * math.erfc(-out * low * _ROOT_HALF)
    )
    return max(sign * (forward - strike), 0.0) + max(time_value, _LEAST)


@njit(nogil=True, cache=True, error_model="numpy")
def settle(
    slots: Int32Array,
    rows: RowArray,
    lanes: FloatArray,
    greeks: FloatArray,
    statuses: UInt8Array,
) -> None:
    """Write Greeks to the board, and name what could not be priced for want of a forward."""
    for i in range(len(slots)):
        row = rows[slots[i]]
        if row["instrument_class"] != _OPTION:
            statuses[i] = NOT_AN_OPTION
        else:
            if lanes[_YEARS_LANE, i] <= 0:
                statuses[i] = _EXPIRED
            elif lanes[_PRICE_LANE, i] == 0:
                statuses[i] = NO_PRICE
            elif not lanes[_UNDERLYING_LANE, i] > 0:
                statuses[i] = NO_FORWARD
            row["priced_from"] = lanes[_UNDERLYING_LANE, i]
        row["status"] = statuses[i]
        target = row["greeks"]
        for k in range(_GREEKS):
            target[k] = greeks[k, i]
