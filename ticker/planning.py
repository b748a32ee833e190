"""Which token goes on which socket, in which mode: pure functions from wishes to a plan."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
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


def find_reference(
    registry: InstrumentRegistry, underlying: str, today: dt.date
) -> Instrument | None:
    """What an underlying's price is read from: its index, its share, or its nearest future."""
    rows = registry.of_underlying(underlying)
    for row in rows:
        if row.is_index:
            return row
    for row in rows:
        if row.expiry is None and row.instrument_type == "EQ" and row.exchange == "NSE":
            return row
    futures = [row for row in rows if row.is_future and row.expiry and row.expiry >= today]
    return min(futures, key=lambda row: row.expiry or today, default=None)


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
    """What to stream for one underlying: its index or share, futures and near option chains.

    Of each of the next ``expiries`` option expiries, the strike nearest to ``spot`` and
    ``otm_levels`` strikes on either side of it, calls and puts. Without a positive spot price,
    the middle of the listed strikes stands for it: exchanges list them around the spot.
    """
    listed = [
        row for row in registry.of_underlying(underlying) if row.expiry and row.expiry >= today
    ]
    futures = sorted((row for row in listed if row.is_future), key=lambda row: row.expiry or today)
    reference = find_reference(registry, underlying, today)
    chosen = [reference] if reference is not None and reference not in futures else []
    chosen += futures
    options = [row for row in listed if row.is_option]
    for expiry in sorted({row.expiry for row in options if row.expiry})[:expiries]:
        chain = [row for row in options if row.expiry == expiry]
        near = _near_strikes(sorted({row.strike for row in chain}), spot, otm_levels)
        chosen += sorted(
            (row for row in chain if row.strike in near),
            key=lambda row: (row.strike, row.instrument_type),
        )
    return [Subscription(row, mode) for row in chosen]


def _near_strikes(strikes: Sequence[float], spot: float | None, levels: int) -> set[float]:
    middle = len(strikes) // 2
    if spot is not None and spot > 0:
        middle = min(range(len(strikes)), key=lambda place: abs(strikes[place] - spot))
    return set(strikes[max(0, middle - levels) : middle + levels + 1])


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
