"""Greeks of one option over many past moments, in one call of the kernel.

The forward of a past moment cannot come from put-call parity: that would take the candles of the
whole chain. It is the listed future of the option's own expiry; else the nearest future, or else
the spot, moved to the expiry at the interest rate, as in ``ticker.greeks.forward``. The
exchange's convention starts from the spot.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ticker.greeks.forward import YEAR_S, ForwardSource
from ticker.greeks.kernel import GreekRow, GreeksStatus, price_options
from ticker.greeks.pricing import NO_FORWARD, NO_PRICE, Profile
from ticker.ticks import FloatArray, UInt8Array

_COMMODITY_EXCHANGES: Final = frozenset({"MCX", "NCO"})


class OptionTerms(NamedTuple):
    """The contract. ``expires_at`` and ``future_expires_at`` in UNIX seconds, the latter NaN if
    there is no future to look at; ``tick_size`` and ``strike`` in rupees.
    """

    strike: float
    is_call: bool
    tick_size: float
    expires_at: float
    future_expires_at: float
    bears_carry: bool


class PricedHistory(NamedTuple):
    """``greeks``: float64 (9, n), a ``GreekRow`` each; ``statuses``: uint8 (n,), indices of
    ``STATUS_NAMES``; ``forward``: float64 (n,), NaN for none, to the option's expiry;
    ``sources``: uint8 (n,), a ``ForwardSource`` each.
    """

    greeks: FloatArray
    statuses: UInt8Array
    forward: FloatArray
    sources: UInt8Array


def bears_carry(exchange: str) -> bool:
    """Whether prices of different expiries differ by interest: commodities' options are on the
    future itself.
    """
    return exchange not in _COMMODITY_EXCHANGES


def align(
    starts: npt.NDArray[np.int64],
    other_starts: npt.NDArray[np.int64],
    values: FloatArray,
    tolerance_s: float,
) -> FloatArray:
    """For each candle the value of the other series' candle that opens with it, or of the last
    one before it, ``tolerance_s`` at most; NaN if there is none. float64 (n,).
    """
    if len(other_starts) == 0:
        return np.full(len(starts), np.nan)
    at = np.searchsorted(other_starts, starts, "right") - 1
    is_near = (at >= 0) & (starts - other_starts[at] <= tolerance_s)
    return np.where(is_near, values[at], np.nan)


def price_history(
    terms: OptionTerms,
    at: FloatArray,
    price: FloatArray,
    spot: FloatArray,
    future: FloatArray,
    *,
    rate: float,
    profile: Profile,
) -> PricedHistory:
    """Implied volatility and Greeks at each moment.

    All arrays float64 (n,): ``at`` in UNIX seconds; the option's ``price``, and what ``spot`` and
    ``future`` cost then, NaN where that is not known, in rupees.
    """
    n = len(at)
    years = (terms.expires_at - at) / YEAR_S
    forward, sources = _forwards(terms, years, spot, future, rate, profile)
    is_spot = sources == ForwardSource.SPOT
    underlying = np.where(is_spot, spot, forward)
    greeks = np.empty((len(GreekRow), n))
    statuses = np.empty(n, np.uint8)
    price_options(
        np.ascontiguousarray(price),
        underlying,
        np.full(n, terms.strike),
        years,
        np.full(n, rate),
        np.where(is_spot, rate, 0.0),
        np.full(n, terms.is_call, np.uint8),
        np.full(n, terms.tick_size / 2),
        greeks,
        statuses,
    )
    statuses[~(underlying > 0)] = NO_FORWARD
    statuses[price == 0] = NO_PRICE
    statuses[years <= 0] = int(GreeksStatus.EXPIRED)
    return PricedHistory(greeks, statuses, forward, sources)


def _forwards(
    terms: OptionTerms,
    years: FloatArray,
    spot: FloatArray,
    future: FloatArray,
    rate: float,
    profile: Profile,
) -> tuple[FloatArray, UInt8Array]:
    """The forward of each moment, and its source: the profile's, or the next that is there."""
    cost = rate if terms.bears_carry else 0.0
    from_spot = spot * np.exp(cost * years)
    is_same = terms.future_expires_at == terms.expires_at
    later_s = terms.expires_at - terms.future_expires_at
    growth = 1.0 if is_same or math.isnan(later_s) else math.exp(cost * later_s / YEAR_S)
    by_future = (future * growth, ForwardSource.FUTURE if is_same else ForwardSource.CARRY)
    choices = [by_future, (from_spot, ForwardSource.CARRY)]
    if profile is Profile.NSE:
        choices.insert(0, (spot * np.exp(rate * years), ForwardSource.SPOT))
    forward = np.full(len(years), np.nan)
    sources = np.zeros(len(years), np.uint8)
    for values, source in reversed(choices):
        is_there = values > 0
        forward[is_there] = values[is_there]
        sources[is_there] = int(source)
    return forward, sources
