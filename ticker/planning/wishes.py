"""From subscription rows to instruments: contracts are found by what they are, not by token."""

import datetime as dt
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from ticker.instruments.registry import Instrument, InstrumentRegistry, TickMode
from ticker.planning.layout import Subscription
from ticker.stores.subscriptions import Mode, SubscriptionRow

TICK_MODES: Final[Mapping[Mode, TickMode]] = MappingProxyType(
    {"FULL": "full", "QUOTE": "quote", "LTP": "ltp"}
)
"""The API's word for a mode to the broker's."""

MOVED_MAX: Final = dt.timedelta(days=7)
"""How far an exchange moves the expiry of a listed contract, at most."""


class Wishes(msgspec.Struct, frozen=True):
    """What the rows ask for.

    ``subscriptions``: users' before the rebalancer's, which give way to them, and older before
    younger: the order in which they get places. ``moves``: token in the row to the token that its
    contract has now. ``expired``: tokens of contracts that are over. ``unresolved``: tokens of
    contracts that are not among the instruments; they are not streamed, and their rows are left
    alone.
    """

    subscriptions: tuple[Subscription, ...] = ()
    moves: Mapping[int, int] = MappingProxyType({})
    expired: tuple[int, ...] = ()
    unresolved: tuple[int, ...] = ()


def resolve_rows(
    rows: Iterable[SubscriptionRow], registry: InstrumentRegistry, today: dt.date
) -> Wishes:
    """Find the instrument of each row; 30 ms for 27,000.

    A token is given to another contract after an expiry. A row therefore means the contract of
    its exchange, symbol and expiry; one without an expiry, as made by hand, means its token as
    long as the symbol agrees. So does one whose contract expires a few days from where it did:
    exchanges move an expiry when its day becomes a holiday.
    """
    subscriptions: list[Subscription] = []
    moves: dict[int, int] = {}
    expired: list[int] = []
    unresolved: list[int] = []
    for row in sorted(rows, key=_precedence):
        if row.expiry is not None and row.expiry < today:
            expired.append(row.instrument_token)
            continue
        instrument = _find(row, registry)
        if instrument is None:
            unresolved.append(row.instrument_token)
            continue
        if instrument.instrument_token != row.instrument_token:
            moves[row.instrument_token] = instrument.instrument_token
        mode = TICK_MODES[row.requested_mode]
        gives_way = row.origin != "user"
        subscriptions.append(Subscription(instrument, mode, row.account_id, gives_way))
    return Wishes(tuple(subscriptions), MappingProxyType(moves), tuple(expired), tuple(unresolved))


def is_contract(row: SubscriptionRow, there: Instrument) -> bool:
    """Whether the instrument that has the row's token is the row's contract, its expiry moved or
    not; symbols come back after a decade.
    """
    if (row.exchange, row.tradingsymbol) != (there.exchange, there.tradingsymbol):
        return False
    if row.expiry is None or there.expiry is None:
        return row.expiry == there.expiry
    return abs(there.expiry - row.expiry) <= MOVED_MAX


def _precedence(row: SubscriptionRow) -> tuple[bool, dt.datetime, int]:
    return row.origin != "user", row.created_at, row.instrument_token


def _find(row: SubscriptionRow, registry: InstrumentRegistry) -> Instrument | None:
    by_token = registry.by_token(row.instrument_token)
    contract = row.exchange, row.tradingsymbol, row.expiry
    if by_token is not None and by_token.contract == contract:
        return by_token  # also where another token has the same symbol
    found = registry.find(*contract)
    if found is not None or by_token is None:
        return found
    by_hand = row.expiry is None and row.tradingsymbol == by_token.tradingsymbol
    return by_token if by_hand or is_contract(row, by_token) else None
