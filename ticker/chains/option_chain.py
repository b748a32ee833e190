"""An option chain from memory: every listed strike of an expiry, both sides, as it stands.

Prices, Greeks and ages are the board's; which strikes there are is the registry's. A strike that
is listed but has never ticked, because nobody subscribed to it or it is silent, is there with
nulls and ``reason`` ``no_tick``: a chain has no holes. No null is ever a 0.

The sums over the chain (``pcr_oi``, ``pcr_volume``, ``max_pain``) are taken over every option of
the expiry that has ticked, not only over the strikes that are shown; ``options_seen`` of
``options_listed`` tells how much that is.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from ticker.board import Board
from ticker.chains.view import ChainView, IsMock, OptionQuote, Straddle
from ticker.errors import ConfigurationError, UnknownInstrumentError, UnknownItemError
from ticker.greeks.chains import Chains
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.ticks import Row

ExpiryAt = Callable[[str, dt.date], dt.datetime]
"""Exchange and date to the moment at which contracts of that date expire."""

_DAY_S: Final = 86_400.0


class ChainStrike(msgspec.Struct, frozen=True, kw_only=True):
    """A strike in rupees; a side is None if it is not listed."""

    strike: float
    is_atm: bool
    call: OptionQuote | None
    put: OptionQuote | None


class OptionChain(msgspec.Struct, frozen=True, kw_only=True):
    """One expiry of one underlying. ``timestamp``: UNIX seconds that ages are reckoned from.

    ``atm_strike``: nearest to the forward, without one to the spot. ``days_to_expiry``: calendar
    days and their fraction, 0 once it has expired. ``is_mock``: whether any of it is of a mock or
    simulated market, None while nothing of it has ticked. ``max_pain``: the strike at which the
    options that are open would be worth least together.
    """

    underlying: str
    exchange: str
    expiry: dt.date
    expiries: tuple[dt.date, ...]
    days_to_expiry: float
    timestamp: float
    spot: float | None
    spot_age_s: float | None
    forward: float | None
    forward_source: str | None
    forward_age_s: float | None
    atm_strike: float | None
    straddle: Straddle | None
    pcr_oi: float | None
    pcr_volume: float | None
    max_pain: float | None
    options_listed: int
    options_seen: int
    is_mock: bool | None
    strikes: tuple[ChainStrike, ...]


def option_chain(
    board: Board,
    chains: Chains,
    registry: InstrumentRegistry,
    underlying: str,
    *,
    now: float,
    expiry_at: ExpiryAt,
    expiry: dt.date | None = None,
    strikes: int | None = None,
    exchange: str | None = None,
    is_mock: IsMock | None = None,
) -> OptionChain:
    """Put the chain together; waits for the batch in hand, so call it in a worker thread.

    ``expiry`` None: the nearest that is not over at ``now`` (UNIX seconds). ``strikes``: how many
    on each side of the money; None: all. ``exchange`` None: the one that lists most of them.
    ``is_mock`` None: nothing is said about it.

    Raises UnknownInstrumentError if nothing of that name has options, UnknownItemError for an
    expiry that it does not have, ConfigurationError for one that the calendar cannot tell.
    """
    rows = [row for row in registry.of_underlying(underlying) if row.is_option and row.expiry]
    rows = [row for row in rows if exchange in (None, row.exchange)]
    if not rows:
        raise UnknownInstrumentError(f"{underlying!r} has no options", field="underlying")
    exchange = exchange or Counter(row.exchange for row in rows).most_common(1)[0][0]
    rows = [row for row in rows if row.exchange == exchange]
    expiries = sorted({row.expiry for row in rows if row.expiry is not None})
    ends_at = partial(expiry_at, exchange)
    if expiry is None:
        expiry = _nearest(expiries, ends_at, now)
    if expiry not in expiries:
        raise UnknownItemError(f"{underlying} has no options of {expiry}", field="expiry")
    listed = [row for row in rows if row.expiry == expiry]
    view = ChainView(board, chains, listed, is_mock)
    sides = {
        (row.strike, row.instrument_type): view.quote(row, place, now)
        for place, row in enumerate(listed)
    }
    levels = sorted({row.strike for row in listed})
    forward, spot = view.forward(now), view.spot(now)
    reference = forward.price if forward.price is not None else spot.price
    atm = None if reference is None else min(levels, key=lambda level: abs(level - reference))
    return OptionChain(
        underlying=underlying,
        exchange=exchange,
        expiry=expiry,
        expiries=tuple(expiries),
        days_to_expiry=max(ends_at(expiry).timestamp() - now, 0.0) / _DAY_S,
        timestamp=now,
        spot=spot.price,
        spot_age_s=spot.age_s,
        forward=forward.price,
        forward_source=view.forward_source(),
        forward_age_s=forward.age_s,
        atm_strike=atm,
        straddle=None if atm is None else view.straddle(atm),
        pcr_oi=_put_call_ratio(listed, [view.count(place, Row.OI) for place in range(len(listed))]),
        pcr_volume=_put_call_ratio(
            listed, [view.count(place, Row.VOLUME_TRADED) for place in range(len(listed))]
        ),
        max_pain=view.max_pain(),
        options_listed=len(listed),
        options_seen=sum(view.is_seen),
        is_mock=any(view.is_mock) if is_mock is not None and any(view.is_seen) else None,
        strikes=tuple(
            ChainStrike(
                strike=level,
                is_atm=level == atm,
                call=sides.get((level, "CE")),
                put=sides.get((level, "PE")),
            )
            for level in _window(levels, atm, strikes)
        ),
    )


def _nearest(
    expiries: Sequence[dt.date], ends_at: Callable[[dt.date], dt.datetime], now: float
) -> dt.date:
    """The first that is not over, passing by what the calendar cannot tell; else the last."""
    for day in expiries:
        with suppress(ConfigurationError):
            if ends_at(day).timestamp() > now:
                return day
    return expiries[-1]


def _put_call_ratio(listed: Sequence[Instrument], counts: Sequence[int | None]) -> float | None:
    """Puts over calls; None while either is unknown, or there are no calls."""
    sums: dict[str, int] = {}
    for row, count in zip(listed, counts, strict=True):
        if count is not None:
            sums[row.instrument_type] = sums.get(row.instrument_type, 0) + count
    calls, puts = sums.get("CE"), sums.get("PE")
    return puts / calls if calls and puts is not None else None


def _window(levels: Sequence[float], atm: float | None, strikes: int | None) -> Sequence[float]:
    """The strikes that are shown; the middle of the list stands for a money that is unknown."""
    if strikes is None:
        return levels
    middle = len(levels) // 2 if atm is None else levels.index(atm)
    return levels[max(middle - strikes, 0) : middle + strikes + 1]
