"""Which token goes on which socket, in which mode: pure functions from wishes to a plan."""

import datetime as dt
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from ticker.errors import ConfigurationError
from ticker.instruments import Instrument, InstrumentRegistry, TickMode
from ticker.messages import ConnectionId


class Subscription(msgspec.Struct, frozen=True):
    """One instrument wanted, and how much of it."""

    instrument: Instrument
    mode: TickMode


class Plan(msgspec.Struct, frozen=True):
    """The desired state of every socket: token to mode. Newest wins; readers may skip one."""

    shards: Mapping[ConnectionId, Mapping[int, TickMode]]

    def shard(self, connection: ConnectionId) -> Mapping[int, TickMode]:
        """What this socket should carry; empty if nothing."""
        return self.shards.get(connection, MappingProxyType({}))


def find_index(registry: InstrumentRegistry, underlying: str) -> Instrument | None:
    """The index that goes by this normalised name, such as ``NSE:NIFTY BANK`` for BANKNIFTY."""
    return next((row for row in registry if row.is_index and row.underlying == underlying), None)


def select_chain(
    registry: InstrumentRegistry,
    underlying: str,
    *,
    spot: float | None,
    today: dt.date,
    expiries: int,
    otm_levels: int,
    mode: TickMode,
) -> list[Subscription]:
    """What to stream for one underlying: its index, its futures and its near option chains.

    Of each of the next ``expiries`` option expiries, the strike nearest to ``spot`` and
    ``otm_levels`` strikes on either side of it, calls and puts. Without a spot price, no options.
    """
    index = find_index(registry, underlying)
    derivatives = [
        row
        for row in registry
        if row.expiry is not None and row.expiry >= today and row.underlying == underlying
    ]
    chosen = [index] if index is not None else []
    chosen += sorted(
        (row for row in derivatives if row.is_future), key=lambda row: row.expiry or today
    )
    options = [row for row in derivatives if row.is_option]
    if spot is not None:
        for expiry in sorted({row.expiry for row in options if row.expiry})[:expiries]:
            chain = [row for row in options if row.expiry == expiry]
            strikes = sorted({row.strike for row in chain})
            middle = min(range(len(strikes)), key=lambda i: abs(strikes[i] - spot))
            near = set(strikes[max(0, middle - otm_levels) : middle + otm_levels + 1])
            chosen += sorted(
                (row for row in chain if row.strike in near),
                key=lambda row: (row.strike, row.instrument_type),
            )
    return [Subscription(row, mode) for row in chosen]


def create_plan(
    subscriptions: Iterable[Subscription],
    account_ids: Iterable[str],
    *,
    sockets_per_account: int,
    instruments_per_socket: int,
) -> Plan:
    """Distribute subscriptions over the accounts' sockets.

    The instruments of one underlying stay together as far as they fit, because an option is
    priced from its neighbours: when a chain arrives in one frame, its forward and its prices are
    of the same instant. Chains go, largest first, to the emptiest account, and fill its sockets
    in order. Duplicates are merged; the first mode wins.

    Raises ConfigurationError when the accounts together have too few places.
    """
    chains: dict[str, dict[int, TickMode]] = {}
    seen: set[int] = set()
    for wanted in subscriptions:
        token = wanted.instrument.instrument_token
        if token not in seen:
            seen.add(token)
            chains.setdefault(wanted.instrument.underlying, {})[token] = wanted.mode
    accounts: dict[str, dict[int, TickMode]] = {name: {} for name in account_ids}
    capacity = sockets_per_account * instruments_per_socket
    if len(seen) > capacity * len(accounts):
        raise ConfigurationError(
            f"{len(seen)} instruments are wanted, but {len(accounts)} account(s) carry at most "
            f"{capacity * len(accounts)}"
        )
    for chain in sorted(chains.values(), key=len, reverse=True):
        rest = list(chain.items())
        while rest:
            emptiest = min(accounts.values(), key=len)
            room = capacity - len(emptiest)
            emptiest.update(rest[:room])
            rest = rest[room:]
    shards: dict[ConnectionId, Mapping[int, TickMode]] = {}
    for account_id, tokens in accounts.items():
        items = list(tokens.items())
        for shard in range(sockets_per_account):
            start = shard * instruments_per_socket
            part = dict(items[start : start + instruments_per_socket])
            if part:
                shards[ConnectionId(account_id, shard)] = MappingProxyType(part)
    return Plan(MappingProxyType(shards))
