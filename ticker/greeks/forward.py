"""The forward of each group of options, from the market itself.

Put-call parity first: a call less a put at strike K is worth ``(F - K) exp(-rT)``, so every pair
says ``F = K + (C - P) exp(rT)``. Pairs next to the money are asked, and each answer is weighted
by the inverse of its variance, which has two parts. *Noise*, half the spreads, is each pair's own
and averages out. *Lag*, what the market has moved since the legs were quoted, all pairs have in
common. A pair whose legs are of different moments lags more than its age, because then one leg has
seen a move and the other has not: while half a chain has arrived, the last coherent forward stands,
and moves only as the future, or the spot, does. So it does while wider spreads cannot tell the new
forward from it; a move beyond them is followed at once. Answers far from the weighted median are
left out.

Where there is no such pair, the future of the same expiry; else the nearest future or the spot,
moved to the expiry at the interest rate. The exchange's own convention starts from the spot
instead, and market makers' from the future: a ``ForwardPolicy`` says so, and then the source is
another only where that one is missing, however old it is. Expired groups keep their last forward.
"""

import math
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from ticker.board import DRIFT, RowArray
from ticker.ticks import FloatArray, Int32Array

YEAR_S: Final = 365.0 * 86_400.0


class ForwardSource(IntEnum):
    """Where a forward comes from; the lower-case name is in the payload, null for NONE."""

    NONE = 0
    PARITY = 1
    FUTURE = 2
    CARRY = 3
    SPOT = 4
    """The spot at the interest rate because the policy wants it so."""


class ForwardPolicy(IntEnum):
    """Which source is asked first; the others follow in their usual order.

    Parity gives way when it is stale too, the future and the spot only when they are missing.
    """

    PARITY = 0
    FUTURE = 1
    SPOT = 2


_BY_PARITY: Final = int(ForwardPolicy.PARITY)
_BY_FUTURE: Final = int(ForwardPolicy.FUTURE)
_BY_SPOT: Final = int(ForwardPolicy.SPOT)
_PARITY: Final = int(ForwardSource.PARITY)
_FUTURE: Final = int(ForwardSource.FUTURE)
_CARRY: Final = int(ForwardSource.CARRY)
_SPOT: Final = int(ForwardSource.SPOT)

_PAIRS: Final = 12
"""Pairs asked, nearest to the money first."""
_LOOKED_AT: Final = 40
"""Strikes looked at to find them."""
_SKEW_PENALTY: Final = 4.0
"""How much worse a second between a pair's legs is than a second of age."""
_OUTLIER: Final = 4.0
"""Standard deviations from the weighted median at which an answer is left out."""
_DISTINCT: Final = 3.0
"""Standard deviations between two forwards at which the market has moved for certain."""
_ROUNDING: Final = 1.0 / 6.0
"""Variance of the two prices' rounding, in squares of half a tick twice."""
_DOUBT_MAX: Final = 0.002
"""Parity is not used if even the best pair's standard deviation is above this fraction."""
_FRESH_S: Final = 30.0
"""A source older than this gives way to a fresher one that is next in order."""


@njit(nogil=True, cache=True, error_model="numpy")
def update_forwards(
    slots: Int32Array,
    rows: RowArray,
    groups: npt.NDArray[Any],
    pairs: npt.NDArray[Any],
    is_touched: npt.NDArray[np.uint8],
    now: float,
    rate: float,
    policy: int,
) -> None:
    """Recompute the forwards of all groups that ``slots``, just written to, have a say in."""
    for slot in slots:
        row = rows[slot]
        if row["group"] >= 0:
            groups[row["group"]]["is_touched"] = 1
        else:
            is_touched[row["underlying"]] = 1
    for g in range(len(groups)):
        group = groups[g]
        if group["is_touched"] or is_touched[group["underlying"]]:
            group["is_touched"] = 0
            if now < group["expires_at"] < np.inf:
                _update(group, rows, pairs, now, rate, policy)
    is_touched[:] = 0


@njit(nogil=True, cache=True, error_model="numpy")
def _update(
    group: Any, rows: RowArray, pairs: npt.NDArray[Any], now: float, rate: float, policy: int
) -> None:
    """Take the policy's source; by parity, the first fresh one, or else the first there is."""
    years = (group["expires_at"] - now) / YEAR_S
    future, future_at = _quoted(rows, group["future"])
    carried, carried_at = _carried(group, rows, now, rate)
    forward, forward_at, source, doubt = np.nan, np.nan, 0, np.nan
    if policy == _BY_SPOT:
        spot, forward_at = _quoted(rows, group["spot"])
        forward, source = spot * math.exp(rate * years), _SPOT
    elif policy == _BY_FUTURE:
        forward, forward_at, source = future, future_at, _FUTURE
    else:
        guess = group["forward"]
        if not guess > 0:
            guess = future if future > 0 else carried
        forward, forward_at, doubt, stands = _parity(group, rows, pairs, years, rate, guess)
        source = _PARITY
        if stands and carried > 0 and group["carried"] > 0:
            forward += carried - group["carried"]
        if stands or forward_at != group["forward_at"]:
            group["carried"] = carried
    may_give_way = policy == _BY_PARITY or not forward > 0
    if may_give_way and _is_better(future_at, forward_at, now):
        forward, forward_at, source = future, future_at, _FUTURE
    if may_give_way and _is_better(carried_at, forward_at, now):
        forward, forward_at, source = carried, carried_at, _CARRY
    if forward > 0:
        if forward != group["forward"]:
            group["has_moved"] = 1
        group["forward"] = forward
        group["forward_at"] = forward_at
        group["source"] = source
        group["doubt"] = doubt if source == _PARITY else np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def _is_better(candidate_at: float, current_at: float, now: float) -> bool:
    """Whether a source next in order replaces one that is missing, or stale while it is not."""
    return candidate_at == candidate_at and (
        current_at != current_at or now - candidate_at <= _FRESH_S < now - current_at
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _quoted(rows: RowArray, slot: int) -> tuple[float, float]:
    """Quote of a slot and its time; NaN for none."""
    if slot < 0 or not rows[slot]["quote"] > 0:
        return np.nan, np.nan
    return rows[slot]["quote"], rows[slot]["quoted_at"]


@njit(nogil=True, cache=True, error_model="numpy")
def _carried(group: Any, rows: RowArray, now: float, rate: float) -> tuple[float, float]:
    """The nearest future, or else the spot, moved to the group's expiry, and its time."""
    price, at = _quoted(rows, group["carrier"])
    spot, spot_at = _quoted(rows, group["spot"])
    from_s = group["carrier_expires_at"]
    if spot > 0 and not now - at <= _FRESH_S and not at > spot_at:
        price, at, from_s = spot, spot_at, now
    if price > 0 and group["bears_carry"]:
        price *= math.exp(rate * (group["expires_at"] - from_s) / YEAR_S)
    return price, at


@njit(nogil=True, cache=True, error_model="numpy")
def _parity(
    group: Any, rows: RowArray, pairs: npt.NDArray[Any], years: float, rate: float, guess: float
) -> tuple[float, float, float, bool]:
    """Forward, time of its quotes, variance, and whether it is the last one that stands.

    NaN if no pair is good enough.
    """
    answers = np.empty(_PAIRS)
    noises = np.empty(_PAIRS)
    lags = np.empty(_PAIRS)
    growth = math.exp(rate * years)
    first, last = group["first_pair"], group["last_pair"]
    if not guess > 0:
        guess = _money(rows, pairs, first, last)
    forward, noise, lag, at, newest = np.nan, np.nan, np.nan, np.nan, np.nan
    for _ in range(4):
        found, low, high, at, newest = _ask(
            rows, pairs, first, last, guess, growth, answers, noises, lags
        )
        if found == 0:
            return np.nan, np.nan, np.nan, False
        forward, noise, lag = _robust_mean(answers[:found], noises[:found], lags[:found])
        if low <= forward <= high:
            break
        guess = forward
    doubt = noise + lag
    if group["source"] == _PARITY:
        since = max(newest - group["forward_at"], 0.0)
        aged = group["doubt"] + (DRIFT * group["forward"]) ** 2 * since
        is_near = (forward - group["forward"]) ** 2 <= _DISTINCT**2 * (doubt + aged)
        if lag > aged or (doubt > aged and is_near):
            return group["forward"], group["forward_at"], group["doubt"], True
    if not (noises[:found] + lags[:found]).min() <= (_DOUBT_MAX * forward) ** 2:
        return np.nan, np.nan, np.nan, False
    return forward, at, doubt, False


@njit(nogil=True, cache=True, error_model="numpy")
def _money(rows: RowArray, pairs: npt.NDArray[Any], first: int, last: int) -> float:
    """The strike at which call and put cost most nearly the same; NaN if no pair is quoted."""
    strike, smallest = np.nan, np.inf
    for p in range(first, last):
        difference = abs(rows[pairs[p]["call"]]["quote"] - rows[pairs[p]["put"]]["quote"])
        if difference < smallest:
            strike, smallest = pairs[p]["strike"], difference
    return strike


@njit(nogil=True, cache=True, error_model="numpy")
def _ask(
    rows: RowArray,
    pairs: npt.NDArray[Any],
    first: int,
    last: int,
    guess: float,
    growth: float,
    answers: FloatArray,
    noises: FloatArray,
    lags: FloatArray,
) -> tuple[int, float, float, float, float]:
    """Ask the pairs nearest to ``guess``; fills in their answers and both parts of the variances.

    Returns how many answered, the lowest and highest of their strikes, the time of the best
    answer (of the older of its legs), and that of the newest leg.
    """
    right = first
    end = last
    while right < end:
        middle = (right + end) // 2
        if pairs[middle]["strike"] < guess:
            right = middle + 1
        else:
            end = middle
    left = right - 1
    found = 0
    low, high, newest = np.inf, -np.inf, -np.inf
    asked = np.empty(_PAIRS, np.int64)
    for _ in range(_LOOKED_AT):
        if found == _PAIRS or (left < first and right >= last):
            break
        takes_right = left < first
        if left >= first and right < last:
            takes_right = pairs[right]["strike"] - guess < guess - pairs[left]["strike"]
        p = right if takes_right else left
        if takes_right:
            right += 1
        else:
            left -= 1
        call, put = rows[pairs[p]["call"]], rows[pairs[p]["put"]]
        if call["quote"] > 0 and put["quote"] > 0:
            strike = pairs[p]["strike"]
            low, high = min(low, strike), max(high, strike)
            newest = max(newest, call["quoted_at"], put["quoted_at"])
            answers[found] = strike + (call["quote"] - put["quote"]) * growth
            asked[found] = p
            found += 1
    drift = (DRIFT * guess) ** 2
    at, least = np.nan, np.inf
    for i in range(found):
        call, put = rows[pairs[asked[i]]["call"]], rows[pairs[asked[i]]["put"]]
        age = newest - (call["quoted_at"] + put["quoted_at"]) / 2
        skew = abs(call["quoted_at"] - put["quoted_at"])
        step = max(2 * call["half_tick"], 1 / call["divisor"])  # where a dump has no tick size
        noises[i] = call["half_spread"] ** 2 + put["half_spread"] ** 2 + _ROUNDING * step**2
        lags[i] = drift * (age + _SKEW_PENALTY * skew)
        if noises[i] + lags[i] < least:
            least = noises[i] + lags[i]
            at = min(call["quoted_at"], put["quoted_at"])
    return found, low, high, at, newest


@njit(nogil=True, cache=True, error_model="numpy")
def _robust_mean(
    answers: FloatArray, noises: FloatArray, lags: FloatArray
) -> tuple[float, float, float]:
    """Mean weighted by inverse variance, of what lies around the weighted median.

    The second and third number are the parts of its variance: noise averages out, lag does not.
    """
    variances = noises + lags
    order = np.empty(len(answers), np.int64)  # a dozen: numba's own sort takes seconds to compile
    for i in range(len(answers)):
        at = i
        while at > 0 and answers[order[at - 1]] > answers[i]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = i
    half = (1.0 / variances).sum() / 2
    passed = 0.0
    median = answers[order[0]]
    for k in order:
        median = answers[k]
        passed += 1.0 / variances[k]
        if passed >= half:
            break
    weights, total, noise, lag = 0.0, 0.0, 0.0, 0.0
    for i in range(len(answers)):
        if (answers[i] - median) ** 2 <= _OUTLIER**2 * variances[i]:
            weight = 1.0 / variances[i]
            weights += weight
            total += weight * answers[i]
            noise += weight**2 * noises[i]
            lag += weight * math.sqrt(lags[i])
    return total / weights, noise / weights**2, (lag / weights) ** 2
