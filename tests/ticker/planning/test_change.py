"""What one reload brings and takes away."""

from functools import partial

from tests.ticker.planning.test_plan import sockets_of, wishes_of
from ticker.planning.change import Change, Fleet, create_change
from ticker.planning.plan import EMPTY_PLAN, Plan

ALONE = Fleet(("a0",))


def change(before: Plan, sizes: list[int], fleet: Fleet = ALONE) -> Change:
    create = partial(create_change, sockets_per_account=3, instruments_per_socket=2)
    return create(before, wishes_of(sizes), fleet)


def test_a_change_names_what_is_carried_since_and_no_more() -> None:
    first = change(EMPTY_PLAN, [2, 1])
    assert (first.added, first.removed) == ((1000, 1001, 2000), ())
    second = change(first.plan, [1, 2])
    assert (second.added, second.removed) == ((2001,), (1001,))
    crowded = change(EMPTY_PLAN, [7])
    assert crowded.added == tuple(range(1000, 1006)), "what has no place is not carried"


def test_the_same_plan_is_the_one_before() -> None:
    before = change(EMPTY_PLAN, [2, 1]).plan
    assert change(before, [2, 1]).plan is before
    moved = change(before, [2, 1], Fleet(("a0", "a1"), sockets_of("a0")))
    assert moved.plan is not before
    assert (moved.added, moved.removed) == ((), ()), "stand-ins carry nothing else"
