"""Sockets while they are being filled, and the wishes that fill them."""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from ticker.instruments.registry import Instrument, TickMode
from ticker.messages import ConnectionId


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """One instrument wanted, how much of it, and on which account; None: on any.

    ``gives_way``: whether it is left out for others where there is not room for all.
    """

    instrument: Instrument
    mode: TickMode
    account_id: str | None = None
    gives_way: bool = False


class Layout:
    """``carried``: the tokens on each socket, in order. ``sockets``: those of each account."""

    def __init__(self, rooms: Mapping[ConnectionId, int]) -> None:
        self.carried: dict[ConnectionId, dict[int, None]] = {socket: {} for socket in rooms}
        self._rooms = rooms
        self.sockets: dict[str, list[ConnectionId]] = {}
        for socket in rooms:
            self.sockets.setdefault(socket.account_id, []).append(socket)
        self._free = {
            account_id: sum(rooms[socket] for socket in sockets)
            for account_id, sockets in self.sockets.items()
        }

    def free(self, socket: ConnectionId) -> int:
        """How many tokens more the socket has room for."""
        return self._rooms[socket] - len(self.carried[socket])

    def tokens(self, sockets: Iterable[ConnectionId]) -> Iterator[int]:
        """What these sockets carry."""
        return itertools.chain.from_iterable(self.carried[socket] for socket in sockets)

    def put(self, token: int, socket: ConnectionId) -> bool:
        """Put a token on a socket; False if there is no such socket, or no room."""
        carried = self.carried.get(socket)
        if carried is None or len(carried) >= self._rooms[socket]:
            return False
        carried[token] = None
        self._free[socket.account_id] -= 1
        return True

    def take_off(self, tokens: Collection[int]) -> None:
        """Take these off whichever sockets carry them."""
        for socket, carried in self.carried.items():
            for token in carried.keys() & set(tokens):
                del carried[token]
                self._free[socket.account_id] += 1

    def place(
        self,
        homeless: Sequence[Subscription],
        accounts: Sequence[str],
        wishes: Mapping[int, Subscription],
    ) -> None:
        """Place wishes on these accounts, chain by chain, as long as there is room."""
        chains: dict[str, list[Subscription]] = {}
        for wish in homeless:
            chains.setdefault(wish.instrument.underlying, []).append(wish)
        company = self._company(chains, accounts, wishes)
        able = [account_id for account_id in accounts if account_id in self.sockets]
        for name, chain in sorted(chains.items(), key=lambda item: len(item[1]), reverse=True):
            rest = chain
            if counts := company.get(name):
                for socket in sorted(counts, key=counts.__getitem__, reverse=True):
                    rest = self._fill(socket, rest)
            while rest:
                emptiest = max(able, key=self._free.__getitem__, default=None)
                if emptiest is None or self._free[emptiest] == 0:
                    break
                rest = self._fill_account(emptiest, rest)

    def _company(
        self,
        chains: Collection[str],
        accounts: Sequence[str],
        wishes: Mapping[int, Subscription],
    ) -> dict[str, dict[ConnectionId, int]]:
        """How many of each chain every socket carries, where that is any."""
        counts: dict[str, dict[ConnectionId, int]] = {}
        for account_id in accounts if chains else ():
            for socket in self.sockets.get(account_id, ()):
                for token in self.carried[socket]:
                    name = wishes[token].instrument.underlying
                    if name in chains:
                        of_chain = counts.setdefault(name, {})
                        of_chain[socket] = of_chain.get(socket, 0) + 1
        return counts

    def _fill_account(self, account_id: str, chain: list[Subscription]) -> list[Subscription]:
        """Onto the first socket that takes all of it, else onto one after the other."""
        sockets = self.sockets[account_id]
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
