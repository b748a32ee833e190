"""Plans: every wish placed once, chains together, limits kept."""

import datetime as dt
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticker.instruments.registry import Instrument
from ticker.messages import ConnectionId
from ticker.planning.layout import Subscription
from ticker.planning.plan import EMPTY_PLAN, Plan, create_plan, merge_wishes

TODAY = dt.date(2026, 11, 20)


def make(
    token: int,
    name: str,
    kind: str = "EQ",
    strike: float = 0.0,
    expiry: dt.date | None = None,
    segment: str = "NFO-OPT",
    symbol: str | None = None,
) -> Instrument:
    return Instrument(
        instrument_token=token,
        exchange_token=token >> 8,
        tradingsymbol=symbol or f"{name}{kind}{token}",
        name=name,
        expiry=expiry,
        strike=strike,
        tick_size=0.05,
        lot_size=65,
        instrument_type=kind,
        segment=segment,
        exchange="NSE" if segment in {"INDICES", "NSE"} else "NFO",
    )


def wishes_of(sizes: Sequence[int], accounts: Sequence[str | None] = ()) -> list[Subscription]:
    """A chain of each size; ``accounts``, if any, are named in turn."""
    return [
        Subscription(
            make(1000 * number + i, f"U{number}", "CE", 1.0, TODAY),
            "full",
            accounts[i % len(accounts)] if accounts else None,
        )
        for number, size in enumerate(sizes, start=1)
        for i in range(size)
    ]


def spares_of(sizes: Sequence[int]) -> list[Subscription]:
    """Chains that give way; their tokens are from 500,000 on."""
    return [
        Subscription(
            make(500_000 + 1000 * number + i, f"U{number}", "CE", 1.0, TODAY), "full", None, True
        )
        for number, size in enumerate(sizes, start=1)
        for i in range(size)
    ]


def plan(
    wanted: Iterable[Subscription],
    accounts: int = 2,
    *,
    away: Collection[ConnectionId] = (),
    previous: Plan = EMPTY_PLAN,
    room: int = 10,
) -> Plan:
    return create_plan(
        wanted,
        [f"a{i}" for i in range(accounts)],
        sockets_per_account=3,
        instruments_per_socket=room,
        away=away,
        previous=previous,
    )


def sockets_of(account: str) -> frozenset[ConnectionId]:
    return frozenset(ConnectionId(account, shard) for shard in range(3))


def places(found: Plan) -> dict[int, list[ConnectionId]]:
    """Where each token is, stand-ins last."""
    where: dict[int, list[ConnectionId]] = {}
    for socket, shard in found.shards.items():
        for token in shard:
            where.setdefault(token, []).append(socket)
    for token, socket in found.stand_ins.items():
        where[token].sort(key=lambda place: place == socket)
    return where


def homes(found: Plan) -> dict[int, ConnectionId]:
    return {token: sockets[0] for token, sockets in places(found).items()}


def most_placed(wanted: Sequence[Subscription], accounts: int, room: int) -> int:
    """How many can be placed at best: those bound to an account there, the rest anywhere."""
    bound = Counter(wish.account_id for wish in wanted)
    names = [f"a{i}" for i in range(accounts)]
    fixed = sum(min(bound[name], 3 * room) for name in names)
    free = sum(count for name, count in bound.items() if name not in names)
    return fixed + min(free, 3 * room * accounts - fixed)


WISHES = st.builds(
    wishes_of,
    st.lists(st.integers(1, 30), max_size=6),
    st.lists(st.sampled_from([None, None, "a0", "a1", "gone"]), max_size=4),
)
SPARES = st.builds(spares_of, st.lists(st.integers(1, 30), max_size=6))
SOCKETS = st.builds(ConnectionId, st.sampled_from(["a0", "a1", "a2"]), st.integers(0, 2))


@pytest.mark.slow
@given(WISHES, st.integers(0, 3), st.sets(SOCKETS))
def test_every_wish_that_fits_has_one_home_and_no_socket_is_overfull(
    wanted: list[Subscription], accounts: int, away: set[ConnectionId]
) -> None:
    found = plan([*wanted, *wanted[:3]], accounts, away=away)  # duplicates are merged
    where = places(found)
    assert len(where) == most_placed(wanted, accounts, room=10)
    tokens = {wish.instrument.instrument_token for wish in wanted}
    assert where.keys() | set(found.unplaced) == tokens
    assert len(where) + len(found.unplaced) == len(tokens)
    assert all(0 < len(shard) <= 10 for shard in found.shards.values())
    assert all(0 <= socket.shard < 3 for socket in found.shards)
    for wish in wanted:
        token = wish.instrument.instrument_token
        sockets = where.get(token, [])
        assert len(sockets) == 1 + (token in found.stand_ins) if sockets else True
        if sockets and wish.account_id in {f"a{i}" for i in range(accounts)}:
            assert sockets[0].account_id == wish.account_id


@pytest.mark.slow
@given(WISHES, WISHES, st.integers(1, 3), st.sets(SOCKETS), st.sets(SOCKETS))
def test_what_stays_wanted_stays_where_it_is(
    before: list[Subscription],
    after: list[Subscription],
    accounts: int,
    away_before: set[ConnectionId],
    away: set[ConnectionId],
) -> None:
    first = plan(before, accounts, away=away_before)
    second = plan(after, accounts, away=away, previous=first)
    old, new = homes(first), homes(second)
    names = {f"a{i}" for i in range(accounts)}
    wishes = {wish.instrument.instrument_token: wish for wish in after}
    moved = {token for token in old if token in wishes and old[token] != new.get(token)}
    for token in list(moved):
        wish = wishes[token]
        if wish.account_id in names and wish.account_id != old[token].account_id:
            moved.discard(token)  # it has to go to the account that is named now
    # Only who stands in the way of a wish for that very account, and names none, may have moved.
    arrived = Counter(
        new[token].account_id
        for token, wish in wishes.items()
        if token in new and wish.account_id in names and old.get(token) != new[token]
    )
    left = Counter(old[token].account_id for token in moved)
    assert all(wishes[token].account_id not in names for token in moved)
    assert all(count <= arrived[account_id] for account_id, count in left.items())
    assert plan(after, accounts, away=away, previous=first) == second, "deterministic"
    assert plan(after, accounts, away=away, previous=second) == second, "at rest"


@pytest.mark.slow
@given(WISHES, st.integers(1, 3), st.sets(SOCKETS))
def test_sockets_that_return_have_their_tokens_and_nobody_else_moved(
    wanted: list[Subscription], accounts: int, away: set[ConnectionId]
) -> None:
    whole = plan(wanted, accounts)
    failed_over = plan(wanted, accounts, away=away, previous=whole)
    assert homes(failed_over) == homes(whole)
    displaced = [token for token, home in homes(whole).items() if home in away]
    room = sum(
        10 - len(whole.shard(ConnectionId(f"a{i}", shard)))
        for i in range(accounts)
        for shard in range(3)
        if ConnectionId(f"a{i}", shard) not in away
    )
    assert len(failed_over.stand_ins) == min(len(displaced), room)
    assert not away & set(failed_over.stand_ins.values())
    assert plan(wanted, accounts, previous=failed_over) == whole


@pytest.mark.slow
@given(WISHES, SPARES, WISHES, SPARES, st.integers(0, 3), st.integers(0, 3), st.sets(SOCKETS))
def test_what_gives_way_costs_the_others_no_place_and_no_more_of_it_is_put_off_than_needed(
    before: list[Subscription],
    spares_before: list[Subscription],
    after: list[Subscription],
    spares: list[Subscription],
    accounts_before: int,
    accounts: int,
    away: set[ConnectionId],
) -> None:
    first = plan([*before, *spares_before], accounts_before)
    found = plan([*spares, *after], accounts, away=away, previous=first)
    where = places(found)
    firm = {wish.instrument.instrument_token for wish in after}
    yielding = {wish.instrument.instrument_token for wish in spares}
    assert all(len(shard) <= 10 for shard in found.shards.values())
    assert where.keys() | set(found.unplaced) == firm | yielding
    assert len(where.keys() & firm) == most_placed(after, accounts, room=10)

    # Of the room on live sockets, the others' stand-ins take what they need, but no more.
    live = {ConnectionId(f"a{i}", shard) for i in range(accounts) for shard in range(3)} - away
    on_live = sum(homes(found)[token] in live for token in where.keys() & firm)
    displaced = sum(homes(found)[token] not in live for token in where.keys() & firm)
    left = 10 * len(live) - on_live
    assert len(found.stand_ins.keys() & firm) == min(displaced, left)
    total = 30 * accounts - len(where.keys() & firm) - min(displaced, left)
    assert len(where.keys() & yielding) == min(len(yielding), total)

    assert plan([*spares, *after], accounts, away=away, previous=first) == found, "deterministic"
    assert plan([*spares, *after], accounts, away=away, previous=found) == found, "at rest"


@pytest.mark.slow
@given(
    st.lists(st.integers(1, 30), max_size=4),
    SPARES,
    st.lists(st.integers(1, 30), max_size=6),
    SPARES,
)
def test_nobody_moves_for_a_wish_and_the_last_that_give_way_go(
    before: list[int], spares_before: list[Subscription], after: list[int], more: list[Subscription]
) -> None:
    first = plan([*wishes_of(before), *spares_before], 2)
    spares = list(merge_wishes([*spares_before, *more]).values())
    found = plan([*wishes_of(after), *spares], 2, previous=first)
    old, new = homes(first), homes(found)
    assert all(old[token] == new[token] for token in old.keys() & new.keys())
    carried = [
        wish.instrument.instrument_token
        for wish in spares
        if wish.instrument.instrument_token in old
    ]
    stayed = [token for token in carried if token in new]
    assert carried[: len(stayed)] == stayed
    assert len(stayed) == min(len(carried), 60 - sum(token < 500_000 for token in new))


def test_what_was_put_off_comes_back_when_there_is_room() -> None:
    spares = spares_of([20, 10])
    alone = plan(spares, 1)
    crowded = plan([*wishes_of([12]), *spares], 1, previous=alone)
    assert len(crowded.unplaced) == 12
    assert crowded.unplaced == tuple(wish.instrument.instrument_token for wish in spares[18:])
    assert homes(plan(spares, 1, previous=crowded)).keys() == homes(alone).keys()
    assert not plan([*wishes_of([12]), *spares], 2, previous=crowded).unplaced


def test_what_gives_way_makes_room_on_the_account_that_is_named() -> None:
    spares = spares_of([30, 20])
    first = plan(spares, 2)
    full = next(socket.account_id for socket in first.shards)
    (bound,) = wishes_of([1], [full])
    found = plan([bound, *spares], 2, previous=first)
    assert homes(found)[1000].account_id == full
    assert not found.unplaced, "it goes elsewhere while there is room"
    assert sum(old != homes(found)[token] for token, old in homes(first).items()) == 1


def test_the_stand_ins_of_others_come_before_what_gives_way() -> None:
    wanted = [*wishes_of([12], ["a0"]), *spares_of([28])]
    whole = plan(wanted, 2)
    assert not whole.unplaced
    failed_over = plan(wanted, 2, away=sockets_of("a0"), previous=whole)
    assert failed_over.stand_ins.keys() >= set(range(1000, 1012))
    assert plan(wanted, 2, previous=failed_over).tokens() == whole.tokens()


def test_a_token_that_anybody_holds_to_gives_way_to_nobody() -> None:
    (spare,) = spares_of([1])
    firm = Subscription(spare.instrument, "ltp")
    merged = merge_wishes([spare, firm])[spare.instrument.instrument_token]
    assert merged == Subscription(spare.instrument, "full")


def test_a_stand_in_gives_way_to_a_wish_that_needs_its_place() -> None:
    wanted = wishes_of([30])
    whole = plan(wanted, 2)
    dead = sockets_of(next(iter(whole.shards)).account_id)
    failed_over = plan(wanted, 2, away=dead, previous=whole)
    assert len(failed_over.stand_ins) == 30
    more = plan([*wanted, *wishes_of([0, 10])], 2, away=dead, previous=failed_over)
    assert not more.unplaced
    assert len(more.stand_ins) == 20
    assert more.stand_ins.items() <= failed_over.stand_ins.items(), "the others stay"


def test_stand_ins_become_homes_when_the_account_is_gone_for_good() -> None:
    wanted = wishes_of([5, 5])
    whole = plan(wanted, 2)
    failed_over = plan(wanted, 2, away=sockets_of("a1"), previous=whole)
    alone = plan(wanted, 1, previous=failed_over)
    assert len(failed_over.stand_ins) == 5
    assert {token: alone_at for token, alone_at in homes(alone).items() if token < 2000} == {
        token: sockets[-1] for token, sockets in places(failed_over).items() if token < 2000
    }
    assert homes(alone).items() >= failed_over.stand_ins.items()


def test_a_named_account_that_is_full_sends_others_elsewhere() -> None:
    crowded = plan(wishes_of([28]), 1)
    bound = [Subscription(make(9000 + i, "B", "CE", 1.0, TODAY), "full", "a0") for i in range(4)]
    found = plan([*wishes_of([28]), *bound], 2, previous=crowded)
    where = homes(found)
    assert all(where[9000 + i].account_id == "a0" for i in range(4))
    assert sum(socket.account_id == "a1" for socket in where.values()) == 2, "no more than needed"
    assert not found.unplaced

    alone = plan([*wishes_of([28]), *bound], 1, previous=crowded)
    assert alone.unplaced == (9002, 9003), "nobody is sent away who has nowhere to go"


def test_a_wish_moves_to_the_account_that_it_names_later() -> None:
    before = plan(wishes_of([3]), 2)
    (socket,) = before.shards
    other = "a1" if socket.account_id == "a0" else "a0"
    after = plan(wishes_of([3], [other, None, None]), 2, previous=before)
    assert homes(after) == homes(before) | {1000: ConnectionId(other, 0)}


def test_the_mode_that_carries_most_wins() -> None:
    row = make(1, "U", "CE", 1.0, TODAY)
    wanted = [Subscription(row, "quote"), Subscription(row, "full"), Subscription(row, "ltp")]
    assert plan(wanted, 1).shards == {ConnectionId("a0", 0): {1: "full"}}
    changed = plan(wanted[:1], 1, previous=plan(wanted, 1))
    assert changed.shards == {ConnectionId("a0", 0): {1: "quote"}}


def test_the_later_wishes_are_left_out() -> None:
    found = plan(wishes_of([30, 3]), 1)
    assert found.unplaced == (2000, 2001, 2002)
    assert plan(wishes_of([30]), 0).unplaced[0] == 1000


def test_chains_stay_together_and_accounts_are_balanced() -> None:
    found = plan(wishes_of([10, 6, 4, 4]), 2)
    assert [str(socket) for socket in found.shards] == ["a0/0", "a0/1", "a1/0"]
    for token, sockets in places(found).items():
        assert len(sockets) == 1
        chain = {homes(found)[other] for other in homes(found) if other // 1000 == token // 1000}
        assert len(chain) == 1
    more = plan(wishes_of([10, 6, 4, 5]), 2, previous=found)
    assert homes(more)[4004] == homes(more)[4000], "a new strike joins its chain"


@pytest.mark.slow
def test_27_000_subscriptions_are_planned_at_once() -> None:
    """The figure is printed (``-s``); the bound allows for a busy machine."""
    wanted = [
        Subscription(make(i + 1, f"U{i // 150}", "CE", 1.0, TODAY), "full") for i in range(27_000)
    ]
    started = time.perf_counter()
    whole = plan(wanted, 3, room=3000)
    planned = time.perf_counter()
    again = plan(wanted, 3, room=3000, previous=whole)
    replanned = time.perf_counter()
    print(f"27,000: {1e3 * (planned - started):.0f} ms, {1e3 * (replanned - planned):.0f} ms again")  # noqa: T201
    assert again == whole
    assert all(len(shard) == 3000 for shard in whole.shards.values())
    assert replanned - started < 1.0
