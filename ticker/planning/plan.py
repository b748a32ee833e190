"""Which token goes on which socket, in which mode: pure functions from wishes to a plan."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from ticker.instruments.registry import Instrument, TickMode
from ticker.messages import ConnectionId


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """One instrument wanted, how much of it, and on which account; None: on any."""

    instrument: Instrument
    mode: TickMode
    account_id: str | None = None


class Plan(msgspec.Struct, frozen=True):
    """The desired state of every socket: token to mode. Newest wins; readers may skip one.

    Each token has a *home*, the socket it belongs on. While that socket is away, another may
    *stand in*: the token is then on both, so that its home has it from the first moment it is
    back. ``stand_ins`` says where; ``unplaced`` are the tokens that no socket has room for.
    """

    shards: Mapping[ConnectionId, Mapping[int, TickMode]]
    unplaced: tuple[int, ...] = ()
    stand_ins: Mapping[int, ConnectionId] = MappingProxyType({})

    def shard(self, connection: ConnectionId) -> Mapping[int, TickMode]:
        """What this socket should carry; empty if nothing."""
        return self.shards.get(connection, MappingProxyType({}))

    def tokens(self) -> set[int]:
        """Everything that some socket should carry."""
        return {token for shard in self.shards.values() for token in shard}


EMPTY_PLAN: Final = Plan(MappingProxyType({}))


def create_plan(
    subscriptions: Iterable[Subscription],
    account_ids: Iterable[str],
    *,
    sockets_per_account: int,
    instruments_per_socket: int,
    away: Collection[ConnectionId] = (),
    previous: Plan = EMPTY_PLAN,
) -> Plan:
    """Distribute subscriptions over the accounts' sockets; the same arguments, the same plan.

    What has a home in ``previous`` keeps it. What is new goes where most of its underlying is, or
    else to the emptiest account: an option is priced from its neighbours, and when a chain
    arrives in one frame, its forward and its prices are of the same instant. Chains of new
    instruments are placed whole where they fit, largest first.

    A subscription that names an account goes there or nowhere, unless there is no such account.
    Where that account is full, others that name none make room, as many as needed, while there is
    room for them elsewhere. When there are more subscriptions than places, the later ones are
    left out and named in ``Plan.unplaced``.

    Tokens whose home is ``away`` get stand-ins in what room is left, and lose them when it is
    back or the room is needed. Duplicates are merged: the mode that carries most wins, and the
    first account that is named.
    """
    accounts = list(dict.fromkeys(account_ids))
    sockets = [
        ConnectionId(account_id, shard)
        for account_id in accounts
        for shard in range(sockets_per_account)
    ]
    wishes = merge_wishes(subscriptions)
    homes = _Layout(dict.fromkeys(sockets, instruments_per_socket))
    unplaced = {
        wish.instrument.instrument_token for wish in _find_homes(homes, wishes, accounts, previous)
    }
    rooms = {socket: homes.free(socket) for socket in sockets if socket not in away}
    substitutes = _Layout(rooms)
    if len(rooms) < len(sockets):
        displaced = [
            wishes[token] for socket in sockets if socket in away for token in homes.carried[socket]
        ]
        _find_stand_ins(substitutes, displaced, previous)
    shards: dict[ConnectionId, Mapping[int, TickMode]] = {}
    for socket in sockets:
        tokens = (*homes.carried[socket], *substitutes.carried.get(socket, ()))
        shard = MappingProxyType({token: wishes[token].mode for token in tokens})
        if shard:
            known = previous.shards.get(socket)
            shards[socket] = known if known is not None and known == shard else shard
    stand_ins = {token: socket for socket, part in substitutes.carried.items() for token in part}
    return Plan(
        MappingProxyType(shards),
        tuple(token for token in wishes if token in unplaced),
        MappingProxyType(stand_ins),
    )


def merge_wishes(subscriptions: Iterable[Subscription]) -> dict[int, Subscription]:
    """One wish a token, in the order of their first mention."""
    wishes: dict[int, Subscription] = {}
    for wish in subscriptions:
        token = wish.instrument.instrument_token
        known = wishes.setdefault(token, wish)
        if known is not wish:
            mode = max(known.mode, wish.mode, key=_STRENGTH.__getitem__)
            account_id = known.account_id or wish.account_id
            wishes[token] = Subscription(known.instrument, mode, account_id)
    return wishes


_STRENGTH: Final[Mapping[TickMode, int]] = MappingProxyType({"ltp": 0, "quote": 1, "full": 2})


def _find_homes(
    homes: "_Layout",
    wishes: Mapping[int, Subscription],
    accounts: Sequence[str],
    previous: Plan,
) -> list[Subscription]:
    """Give every wish a socket, the one it has if possible; returns those that got none."""

    def may_live(wish: Subscription, socket: ConnectionId) -> bool:
        return wish.account_id in (None, socket.account_id) or wish.account_id not in known

    known = set(accounts)
    kept: set[int] = set()
    # A stand-in becomes the home when the account that it stood in for is gone: hence last.
    for is_stand_in in (False, True):
        for socket, shard in previous.shards.items():
            if socket not in homes.carried:
                continue
            for token in shard:
                wish = wishes.get(token)
                if (
                    wish is not None
                    and token not in kept
                    and (previous.stand_ins.get(token) == socket) is is_stand_in
                    and may_live(wish, socket)
                    and homes.put(token, socket)
                ):
                    kept.add(token)
    bound: dict[str, list[Subscription]] = {}
    free: list[Subscription] = []
    for token, wish in wishes.items():
        if token in kept:
            continue
        if wish.account_id is not None and wish.account_id in known:
            bound.setdefault(wish.account_id, []).append(wish)
        else:
            free.append(wish)
    unplaced: list[Subscription] = []
    for account_id, group in bound.items():
        movable = [
            token
            for token in homes.of_account(account_id)
            if (wish := wishes[token]).account_id is None or wish.account_id not in known
        ]
        free += (wishes[token] for token in homes.make_room(account_id, len(group), movable))
        unplaced += homes.place(group, [account_id], wishes)
    return unplaced + homes.place(free, accounts, wishes)


def _find_stand_ins(
    substitutes: "_Layout", displaced: Sequence[Subscription], previous: Plan
) -> None:
    """Fill the room that homes leave with what is displaced, where it stands in if possible."""
    rest: list[Subscription] = []
    for wish in displaced:
        token = wish.instrument.instrument_token
        socket = previous.stand_ins.get(token)
        if socket is None or not substitutes.put(token, socket):
            rest.append(wish)
    wishes = {wish.instrument.instrument_token: wish for wish in displaced}
    accounts = dict.fromkeys(socket.account_id for socket in substitutes.carried)
    substitutes.place(rest, list(accounts), wishes)


class _Layout:
    """Sockets while they are being filled. ``carried``: the tokens on each, in order."""

    def __init__(self, rooms: Mapping[ConnectionId, int]) -> None:
        self.carried: dict[ConnectionId, dict[int, None]] = {socket: {} for socket in rooms}
        self._rooms = rooms
        self._sockets: dict[str, list[ConnectionId]] = {}
        for socket in rooms:
            self._sockets.setdefault(socket.account_id, []).append(socket)
        self._free = {
            account_id: sum(rooms[socket] for socket in sockets)
            for account_id, sockets in self._sockets.items()
        }

    def free(self, socket: ConnectionId) -> int:
        """How many tokens more the socket has room for."""
        return self._rooms[socket] - len(self.carried[socket])

    def of_account(self, account_id: str) -> Iterator[int]:
        return (token for socket in self._sockets[account_id] for token in self.carried[socket])

    def put(self, token: int, socket: ConnectionId) -> bool:
        """Put a token on a socket; False if there is no such socket, or no room."""
        carried = self.carried.get(socket)
        if carried is None or len(carried) >= self._rooms[socket]:
            return False
        carried[token] = None
        self._free[socket.account_id] -= 1
        return True

    def make_room(self, account_id: str, count: int, movable: Sequence[int]) -> list[int]:
        """Take off as many movable tokens as are in the way of ``count`` and fit elsewhere."""
        elsewhere = sum(self._free.values()) - self._free[account_id]
        count = min(count - self._free[account_id], elsewhere, len(movable))
        if count <= 0:
            return []
        gone = set(movable[-count:])
        for socket in self._sockets[account_id]:
            kept = {token: None for token in self.carried[socket] if token not in gone}
            self._free[account_id] += len(self.carried[socket]) - len(kept)
            self.carried[socket] = kept
        return list(movable[-count:])

    def place(
        self,
        homeless: Sequence[Subscription],
        accounts: Sequence[str],
        wishes: Mapping[int, Subscription],
    ) -> list[Subscription]:
        """Place wishes on these accounts, chain by chain; returns those that found no room."""
        chains: dict[str, list[Subscription]] = {}
        for wish in homeless:
            chains.setdefault(wish.instrument.underlying, []).append(wish)
        company = self._company(chains, accounts, wishes)
        able = [account_id for account_id in accounts if account_id in self._sockets]
        unplaced: list[Subscription] = []
        for name, chain in sorted(chains.items(), key=lambda item: len(item[1]), reverse=True):
            rest = chain
            if counts := company.get(name):
                for socket in sorted(counts, key=counts.__getitem__, reverse=True):
                    rest = self._fill(socket, rest)
            while rest:
                emptiest = max(able, key=self._free.__getitem__, default=None)
                if emptiest is None or self._free[emptiest] == 0:
                    unplaced += rest
                    break
                rest = self._fill_account(emptiest, rest)
        return unplaced

    def _company(
        self,
        chains: Collection[str],
        accounts: Sequence[str],
        wishes: Mapping[int, Subscription],
    ) -> dict[str, dict[ConnectionId, int]]:
        """How many of each chain every socket carries, where that is any."""
        counts: dict[str, dict[ConnectionId, int]] = {}
        for account_id in accounts if chains else ():
            for socket in self._sockets.get(account_id, ()):
                for token in self.carried[socket]:
                    name = wishes[token].instrument.underlying
                    if name in chains:
                        of_chain = counts.setdefault(name, {})
                        of_chain[socket] = of_chain.get(socket, 0) + 1
        return counts

    def _fill_account(self, account_id: str, chain: list[Subscription]) -> list[Subscription]:
        """Onto the first socket that takes all of it, else onto one after the other."""
        sockets = self._sockets[account_id]
        for socket in sockets:
            if self.free(socket) >= len(chain):
                return self._fill(socket, chain)
        for socket in sockets:
            chain = self._fill(socket, chain)
        return chain

    def _fill(self, socket: ConnectionId, chain: list[Subscription]) -> list[Subscription]:
        """Onto one socket what it has room for; returns the rest."""
        count = min(self.free(socket), len(chain))
        self.carried[socket].update(
            (wish.instrument.instrument_token, None) for wish in chain[:count]
        )
        self._free[socket.account_id] -= count
        return chain[count:]
