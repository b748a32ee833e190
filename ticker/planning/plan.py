"""Which token goes on which socket, in which mode: pure functions from wishes to a plan."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from ticker.instruments.registry import TickMode
from ticker.messages import ConnectionId
from ticker.planning.layout import Layout, Subscription


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
    left out and named in ``Plan.unplaced``. Those that give way are left out first, even of what
    is carried: as many as are needed, the last first.

    Tokens whose home is ``away`` get stand-ins in what room is left, and lose them when it is
    back or the room is needed. For the stand-in of one that does not give way, one that does is
    put off. Duplicates are merged: the mode that carries most wins, and the first account that is
    named; they give way if all of them do.
    """
    accounts = list(dict.fromkeys(account_ids))
    sockets = [
        ConnectionId(account_id, shard)
        for account_id in accounts
        for shard in range(sockets_per_account)
    ]
    wishes = merge_wishes(subscriptions)
    layout = Layout(dict.fromkeys(sockets, instruments_per_socket))
    live = [socket for socket in sockets if socket not in away]
    homeless = _keep_homes(layout, wishes, accounts, previous)
    _find_homes(layout, [wish for wish in homeless if not wish.gives_way], wishes, accounts)
    stand_ins = _find_stand_ins(layout, live, wishes, previous, gives_way=False)
    _fill_up(layout, wishes, accounts, stand_ins)
    stand_ins |= _find_stand_ins(layout, live, wishes, previous, gives_way=True)
    shards: dict[ConnectionId, Mapping[int, TickMode]] = {}
    for socket in sockets:
        shard = MappingProxyType({token: wishes[token].mode for token in layout.carried[socket]})
        if shard:
            known = previous.shards.get(socket)
            shards[socket] = known if known is not None and known == shard else shard
    return Plan(
        MappingProxyType(shards),
        tuple(
            wish.instrument.instrument_token for wish in _find_unplaced(layout, wishes, stand_ins)
        ),
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
            gives_way = known.gives_way and wish.gives_way
            wishes[token] = Subscription(known.instrument, mode, account_id, gives_way)
    return wishes


_STRENGTH: Final[Mapping[TickMode, int]] = MappingProxyType({"ltp": 0, "quote": 1, "full": 2})


def _keep_homes(
    layout: Layout,
    wishes: Mapping[int, Subscription],
    accounts: Collection[str],
    previous: Plan,
) -> list[Subscription]:
    """Put every wish where it was, if it may be there; returns those that were nowhere."""

    def may_live(wish: Subscription, socket: ConnectionId) -> bool:
        return wish.account_id in (None, socket.account_id) or wish.account_id not in known

    known = set(accounts)
    kept: set[int] = set()
    # A stand-in becomes the home when the account that it stood in for is gone: hence last.
    for is_stand_in in (False, True):
        for socket, shard in previous.shards.items():
            if socket not in layout.carried:
                continue
            for token in shard:
                wish = wishes.get(token)
                if (
                    wish is not None
                    and token not in kept
                    and (previous.stand_ins.get(token) == socket) is is_stand_in
                    and may_live(wish, socket)
                    and layout.put(token, socket)
                ):
                    kept.add(token)
    return [wish for token, wish in wishes.items() if token not in kept]


def _find_homes(
    layout: Layout,
    homeless: Iterable[Subscription],
    wishes: Mapping[int, Subscription],
    accounts: Sequence[str],
) -> None:
    """Give wishes a socket as long as there is room, or what gives way is in it."""
    by_account = _group(homeless, accounts)
    anywhere = by_account.pop(None, [])
    for account_id, bound in by_account.items():
        own = layout.sockets.get(account_id or "", [])
        _put_off(layout, own, wishes, len(bound))
        moved = _send_elsewhere(layout, own, wishes, accounts, len(bound))
        layout.place(bound, [account_id or ""], wishes)
        _put_off(layout, layout.carried, wishes, len(moved))
        layout.place(moved, accounts, wishes)
    _put_off(layout, layout.carried, wishes, len(anywhere))
    layout.place(anywhere, accounts, wishes)


def _fill_up(
    layout: Layout,
    wishes: Mapping[int, Subscription],
    accounts: Sequence[str],
    stand_ins: Collection[int],
) -> None:
    """Give those that give way what room is left."""
    spare = (wish for wish in _find_unplaced(layout, wishes, stand_ins) if wish.gives_way)
    for account_id, group in _group(spare, accounts).items():
        layout.place(group, accounts if account_id is None else [account_id], wishes)


def _find_unplaced(
    layout: Layout, wishes: Mapping[int, Subscription], stand_ins: Collection[int]
) -> list[Subscription]:
    if sum(map(len, layout.carried.values())) == len(wishes) + len(stand_ins):
        return []  # each token has its home, and some a second place
    placed = set[int]().union(*layout.carried.values())
    return [wish for token, wish in wishes.items() if token not in placed]


def _group(
    some: Iterable[Subscription], accounts: Collection[str]
) -> dict[str | None, list[Subscription]]:
    """Wishes by the account that they have to be on; None: on any."""
    groups: defaultdict[str | None, list[Subscription]] = defaultdict(list)
    for wish in some:
        account_id = wish.account_id
        if account_id is not None and account_id not in accounts:
            account_id = None
        groups[account_id].append(wish)
    return groups


def _put_off(
    layout: Layout,
    sockets: Collection[ConnectionId],
    wishes: Mapping[int, Subscription],
    count: int,
) -> None:
    """Take off these sockets what gives way, the last first, as ``count`` more need its places."""
    short = count - sum(map(layout.free, sockets))
    if short > 0:
        layout.take_off(_find_spare(layout, sockets, wishes)[-short:])


def _find_spare(
    layout: Layout, sockets: Iterable[ConnectionId], wishes: Mapping[int, Subscription]
) -> list[int]:
    """What gives way of what these sockets carry."""
    there = set(layout.tokens(sockets))
    return [token for token, wish in wishes.items() if wish.gives_way and token in there]


def _send_elsewhere(
    layout: Layout,
    own: Collection[ConnectionId],
    wishes: Mapping[int, Subscription],
    accounts: Collection[str],
    count: int,
) -> list[Subscription]:
    """Take off an account what is in the way of ``count`` more, may leave, and has where to go."""
    short = count - sum(map(layout.free, own))
    if short <= 0:
        return []
    others = [socket for socket in layout.carried if socket not in own]
    room = sum(map(layout.free, others)) + len(_find_spare(layout, others, wishes))
    movable = [token for token in layout.tokens(own) if wishes[token].account_id not in accounts]
    count = min(short, room)
    gone = movable[-count:] if count else []
    layout.take_off(gone)
    return [wishes[token] for token in gone]


def _find_stand_ins(
    layout: Layout,
    live: Sequence[ConnectionId],
    wishes: Mapping[int, Subscription],
    previous: Plan,
    *,
    gives_way: bool,
) -> dict[int, ConnectionId]:
    """Give those whose home is away a second place, where they stand in already if possible."""
    away = [socket for socket in layout.carried if socket not in live]
    displaced = [
        wish for token in layout.tokens(away) if (wish := wishes[token]).gives_way is gives_way
    ]
    if not gives_way:
        _put_off(layout, live, wishes, len(displaced))
    substitutes = Layout({socket: layout.free(socket) for socket in live})
    rest: list[Subscription] = []
    for wish in displaced:
        token = wish.instrument.instrument_token
        socket = previous.stand_ins.get(token)
        if socket is None or not substitutes.put(token, socket):
            rest.append(wish)
    of_displaced = {wish.instrument.instrument_token: wish for wish in displaced}
    substitutes.place(rest, list(substitutes.sockets), of_displaced)
    stand_ins = {token: socket for socket in live for token in substitutes.carried[socket]}
    for token, socket in stand_ins.items():
        layout.put(token, socket)
    return stand_ins
