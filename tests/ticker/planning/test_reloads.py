"""The ledger of reloads, on virtual time."""

import pytest
import trio
import trio.testing

from ticker.planning.reloads import PATIENCE_S, REASONS_MAX, Reloads


def create_reloads(**bounds: int) -> Reloads:
    return Reloads(trio.current_time, **bounds)


async def serve(reloads: Reloads, served: list[float], *, debounce_s: float, most_s: float) -> None:
    while True:
        await reloads.wait_requested(debounce_s=debounce_s, at_most_s=most_s)
        reloads.settle(reloads.take())
        served.append(trio.current_time())


async def test_callers_between_two_takes_share_a_reload(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reloads = create_reloads()
    ids = {reloads.request(reason) for reason in ("a", "b", "a")}
    assert len(ids) == 1
    taken = reloads.take()
    assert ids == {taken}
    later = reloads.request("c")
    assert later != taken, "what comes while a reload runs opens the next one"
    state = reloads.settle(taken)
    assert state.reasons == ("a", "b")
    found = reloads.find(later)
    assert found is not None
    assert found.state == "pending"
    assert reloads.is_pending
    reloads.settle(reloads.take())
    assert [reloads.is_pending] == [False]
    with pytest.raises(LookupError):
        reloads.take()


async def test_a_reload_waits_for_a_pause(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    reloads, served = create_reloads(), list[float]()
    nursery.start_soon(lambda: serve(reloads, served, debounce_s=1.0, most_s=5.0))
    for _ in range(4):
        await trio.sleep(0.9)
        reloads.request("spam")
    last_at = trio.current_time()
    await trio.sleep(10)
    assert served == pytest.approx([last_at + 1.0])
    nursery.cancel_scope.cancel()


async def test_requests_without_a_pause_starve_nobody(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    reloads, served = create_reloads(), list[float]()
    nursery.start_soon(lambda: serve(reloads, served, debounce_s=1.0, most_s=5.0))
    started_at = trio.current_time()
    for _ in range(110):
        reloads.request("spam")
        await trio.sleep(0.1)
    await trio.sleep(10)
    assert len(served) == 3
    assert served[0] - started_at == pytest.approx(5.0)
    nursery.cancel_scope.cancel()


async def test_a_hundred_requests_in_a_second_are_one_reload(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    reloads, served = create_reloads(), list[float]()
    nursery.start_soon(lambda: serve(reloads, served, debounce_s=1.0, most_s=5.0))
    ids = []
    for _ in range(100):
        ids.append(reloads.request("subscribed"))
        await trio.sleep(0.01)
    await trio.sleep(10)
    assert len(served) == 1
    assert all((state := reloads.find(i)) is not None and state.state == "applied" for i in ids)
    nursery.cancel_scope.cancel()


async def test_waiting_ends_when_everything_added_has_ticked(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    reloads = create_reloads()
    reload_id = reloads.request("a")

    async def work() -> None:
        await trio.sleep(1)
        reloads.settle(reloads.take(), added=[1, 2], removed=[3])
        applied_at = trio.current_time()
        assert reloads.awaited() == {1: applied_at, 2: applied_at}
        reloads.note_ticks({1: applied_at - 5, 2: applied_at + 0.1, 9: applied_at})
        assert reloads.awaited() == {1: applied_at}, "a tick of before is none of this reload's"
        await trio.sleep(1)
        reloads.note_ticks({1: applied_at + 1, 2: applied_at + 1})

    nursery.start_soon(work)
    started_at = trio.current_time()
    early = await reloads.wait(reload_id, 0.5)
    assert early is not None
    assert early.state == "pending"
    state = await reloads.wait(reload_id, 100)
    assert trio.current_time() == pytest.approx(started_at + 2)
    assert state is not None
    assert state.state == "applied"
    assert state.removed == (3,)
    assert state.applied_at is not None
    assert state.first_tick_at == pytest.approx(
        {1: state.applied_at + 1, 2: state.applied_at + 0.1}
    ), "the first tick stays the first"
    assert reloads.awaited() == {}


async def test_waiting_ends_with_its_time_and_with_a_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reloads = create_reloads()
    reload_id = reloads.request("a")
    with trio.fail_after(3):
        pending = await reloads.wait(reload_id, 2)
    assert pending is not None
    assert pending.state == "pending"
    reloads.settle(reloads.take(), error="no database")
    failed = await reloads.wait(reload_id, 100)
    assert failed is not None
    assert (failed.state, failed.error, failed.applied_at) == ("failed", "no database", None)
    assert await reloads.wait("unknown", 100) is None
    assert reloads.newest == failed


async def test_what_never_ticks_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    reloads = create_reloads()
    reloads.request("a")
    reloads.settle(reloads.take(), added=[1])
    with trio.fail_after(1):
        await reloads.wait_awaited()
    await trio.sleep(PATIENCE_S + 1)
    assert reloads.awaited() == {}


@pytest.mark.parametrize(
    ("bounds", "sizes", "kept"),
    [
        ({"history_max": 3}, [0, 0, 0, 0], [1, 2, 3]),
        ({"tokens_max": 10}, [4, 4, 4], [1, 2]),
        ({"tokens_max": 10}, [4, 99], [1]),
    ],
)
async def test_the_ledger_is_bounded(
    autojump_clock: trio.testing.MockClock,
    bounds: dict[str, int],
    sizes: list[int],
    kept: list[int],
) -> None:
    reloads = create_reloads(**bounds)
    ids = []
    for size in sizes:
        ids.append(reloads.request("a"))
        reloads.settle(reloads.take(), added=range(size))
    assert [place for place, found in enumerate(ids) if reloads.find(found) is not None] == kept
    assert len(reloads.awaited()) <= 99
    pending = {reloads.request(f"reason {number}") for number in range(100)}
    state = reloads.find(pending.pop())
    assert state is not None
    assert len(state.reasons) == REASONS_MAX
