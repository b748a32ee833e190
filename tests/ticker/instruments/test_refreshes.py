"""Requests made into one, and retries."""

import pytest
import trio

from ticker.backoff import Backoff
from ticker.instruments.refreshes import Refreshes, RefreshResult
from ticker.kite.text import InstrumentDump, InstrumentsMeta, UnknownText


async def test_requests_between_two_takings_are_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    refreshes = Refreshes()
    results: list[RefreshResult] = []

    async def request(force: bool) -> None:
        results.append(await refreshes.request(force=force))

    for force in (False, True, False):
        nursery.start_soon(request, force)
    await trio.testing.wait_all_tasks_blocked()
    await refreshes.wait_asked()
    wish = refreshes.take()
    assert (wish.is_requested, wish.force, wish.is_outdated) == (True, True, False)
    nursery.start_soon(request, False)
    await trio.testing.wait_all_tasks_blocked()
    wish.settle(RefreshResult(force=True, refreshed=True, account_used="alpha"))
    await trio.testing.wait_all_tasks_blocked()
    assert [each.force for each in results].count(True) == 1, "each is told its own wish"
    assert len(results) == 3, "who came later is of the next"
    await refreshes.wait_asked()
    refreshes.take().settle(RefreshResult(force=False, refreshed=False))
    await trio.testing.wait_all_tasks_blocked()
    assert not results[-1].refreshed
    with trio.move_on_after(1) as scope:
        await refreshes.wait_asked()
    assert scope.cancelled_caught, "nothing is asked for any more"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [("a", 0), ("aa", 0), ("ab", 1), ("abab", 1), ("abc", 2)],
)
def test_a_dump_that_nobody_told_of_before_is_another(tags: str, expected: int) -> None:
    refreshes = Refreshes()
    wishes = 0
    for tag in tags:
        refreshes.note_text(InstrumentsMeta(InstrumentDump(9, tag)))
        refreshes.note_text(UnknownText("invalid_json", ""))
        wishes += refreshes.take().is_outdated
    assert wishes == expected


def test_the_number_of_rows_tells_too() -> None:
    refreshes = Refreshes()
    for count in (1, 2):
        refreshes.note_text(InstrumentsMeta(InstrumentDump(count, "same")))
    assert refreshes.take().is_outdated


async def test_waits_double_up_to_a_ceiling_and_fall_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backoff = Backoff(1.0, 4.0, jitter=lambda: 0.5)
    dues = [backoff.is_due]
    backoff.start()
    dues.append(backoff.is_due)
    waits = []
    for _ in range(4):
        backoff.fail()
        dues.append(backoff.is_due)
        waits.append(backoff.wait_s)
    assert waits == [0.75, 1.5, 3.0, 3.0]
    await trio.sleep(3)
    dues.append(backoff.is_due)
    backoff.stop()
    dues.append(backoff.is_due)
    assert dues == [False, True, False, False, False, False, True, False]
    backoff.start()
    backoff.fail()
    assert backoff.wait_s == 0.75
