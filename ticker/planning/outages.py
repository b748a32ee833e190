"""Which sockets are away for so long that others are to stand in for them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ticker.messages import ConnectionId, FeedStatus


@dataclass(frozen=True, slots=True)
class AccountState:
    """What the plan has to know of an account: whether there is a token to log in with."""

    account_id: str
    has_token: bool = True


class Outages:
    """Remembers since when each socket has not been live; ``patience_s`` later it is away."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: dict[ConnectionId, float] = {}

    def find_away(
        self,
        accounts: Iterable[AccountState],
        feeds: Mapping[ConnectionId, FeedStatus],
        *,
        sockets_per_account: int,
        now: float,
    ) -> frozenset[ConnectionId]:
        """The sockets that are away at ``now``, in seconds of a clock that never goes back.

        A socket that has nothing to carry is as its account is: away if there is no token, or if
        all of the account's other sockets are.
        """
        away: set[ConnectionId] = set()
        since: dict[ConnectionId, float] = {}
        for account in accounts:
            sockets = [
                ConnectionId(account.account_id, shard) for shard in range(sockets_per_account)
            ]
            used = [socket for socket in sockets if socket in feeds and feeds[socket].target > 0]
            for socket in used:
                if feeds[socket].state != "live":
                    since[socket] = self._since.get(socket, now)
            gone = {socket for socket in since if now - since[socket] >= self._patience_s}
            if not account.has_token or (used and gone.issuperset(used)):
                away.update(sockets)
            else:
                away.update(gone.intersection(used))
        self._since = since  # bounded by the sockets of the accounts of now
        return frozenset(away)
