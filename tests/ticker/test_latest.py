from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from ticker.latest import Latest


async def test_reader_gets_present_value_then_waits(autojump_clock: trio.testing.MockClock) -> None:
    latest = Latest("first")
    version = await latest.wait_newer(0)
    assert latest.value == "first"
    with trio.move_on_after(10) as waiting:
        await latest.wait_newer(version)
    assert waiting.cancelled_caught


async def test_slow_reader_skips_to_newest(autojump_clock: trio.testing.MockClock) -> None:
    latest = Latest(0)
    seen: list[int] = []

    async def follow() -> None:
        version = 0
        while not seen or seen[-1] < 9:
            version = await latest.wait_newer(version)
            seen.append(latest.value)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        # Changes at 0.3, 0.6, ... 2.7 s; the reader looks at 0, 1, 2 and 3 s.
        for number in range(1, 10):
            await trio.sleep(0.3)
            latest.set(number)
    assert seen == [0, 3, 6, 9]


async def test_every_reader_sees_last_value(autojump_clock: trio.testing.MockClock) -> None:
    latest = Latest(0)
    results: list[int] = []

    async def wait_last() -> None:
        results.append(await latest.wait_until(lambda value: value == 3))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait_last)
        await trio.testing.wait_all_tasks_blocked()
        for number in (1, 2, 3):
            latest.set(number)
    assert results == [3] * 5


async def test_value_that_was_replaced_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    latest = Latest(0)
    with trio.move_on_after(1) as waiting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(latest.wait_until, lambda value: value == 1)
            await trio.testing.wait_all_tasks_blocked()
            latest.set(1)
            latest.set(2)
    assert waiting.cancelled_caught


def _wait_newer(latest: Latest[int]) -> Awaitable[object]:
    return latest.wait_newer(0)


def _wait_until(latest: Latest[int]) -> Awaitable[object]:
    return latest.wait_until(bool)


@pytest.mark.parametrize("wait", [_wait_newer, _wait_until])
async def test_waiting_is_a_checkpoint_even_if_ready(
    wait: Callable[[Latest[int]], Awaitable[object]],
) -> None:
    latest = Latest(1)
    with trio.testing.assert_checkpoints():
        await wait(latest)
