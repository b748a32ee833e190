import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest
import trio
import trio.testing

from nurseries.supervise import RestartPolicy, supervise


class LinkError(Exception):
    """Expected by the policies here."""


class BusyError(LinkError):
    """Expected, and asks for quiet."""


def highest() -> float:
    """Jitter at the upper end: delays are then their ceilings."""
    return 1.0


POLICY = RestartPolicy(
    expected=(LinkError,),
    delay_first_s=0.5,
    delay_max_s=60,
    healthy_after_s=60,
    delay_floors_s={BusyError: 30},
    jitter=highest,
)


async def run_until_cancelled(
    policy: RestartPolicy, child: Callable[[], Awaitable[None]], *, for_s: float
) -> list[tuple[Exception, float]]:
    failures: list[tuple[Exception, float]] = []
    with trio.move_on_after(for_s):
        await supervise(
            policy, child, on_failure=lambda error, delay_s: failures.append((error, delay_s))
        )
    return failures


async def test_returns_when_the_child_does(autojump_clock: trio.testing.MockClock) -> None:
    calls: list[tuple[int, str]] = []

    async def child(number: int, word: str) -> None:
        calls.append((number, word))
        await trio.lowlevel.checkpoint()

    await supervise(POLICY, child, 1, "one")
    assert calls == [(1, "one")]


async def test_delay_doubles_to_the_cap(autojump_clock: trio.testing.MockClock) -> None:
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        raise LinkError

    failures = await run_until_cancelled(POLICY, child, for_s=360)
    assert [delay for _, delay in failures] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


async def test_thousand_failures_are_all_retried_at_a_bounded_rate(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts: list[float] = []

    async def child() -> None:
        attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if len(attempts) > 1000:
            return
        raise LinkError

    delays: list[float] = []
    chance = random.Random(7)
    policy = RestartPolicy(expected=(LinkError,), jitter=chance.random)
    await supervise(policy, child, on_failure=lambda _, delay_s: delays.append(delay_s))
    assert len(attempts) == 1001
    assert max(delays) <= 60
    # Full jitter at the cap: uniform on 0 to 60 s, thus 30 s on average, and never in step.
    settled = delays[8:]
    assert 27 < sum(settled) / len(settled) < 33
    assert len(set(delays)) == 1000
    assert min(settled) < 5
    # No minute of the storm holds more than a few attempts once the cap is reached.
    busiest = max(sum(start <= at < start + 60 for at in attempts[8:]) for start in attempts[8::10])
    assert busiest < 12


async def test_backoff_starts_anew_only_after_a_healthy_spell(
    autojump_clock: trio.testing.MockClock,
) -> None:
    spells = itertools.chain([0, 59.9, 0, 60, 0], itertools.repeat(1000))

    async def child() -> None:
        await trio.sleep(next(spells))
        raise LinkError

    failures = await run_until_cancelled(POLICY, child, for_s=150)
    assert [delay for _, delay in failures] == [0.5, 1, 2, 0.5, 1]


async def test_error_that_asks_for_quiet_gets_it(autojump_clock: trio.testing.MockClock) -> None:
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("both", [LinkError(), ExceptionGroup("", [BusyError()])])

    failures = await run_until_cancelled(POLICY, child, for_s=40)
    assert [(type(error), delay) for error, delay in failures] == [
        (BusyError, 30.5),
        (BusyError, 31),
    ]


@pytest.mark.parametrize(
    "failure",
    [
        LinkError(),
        ExceptionGroup("", [LinkError(), LinkError()]),
        ExceptionGroup("", [ExceptionGroup("", [LinkError()]), BusyError()]),
    ],
)
async def test_wholly_expected_failure_is_retried(
    failure: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    outcomes: Iterator[Exception | None] = iter([failure, None])

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome

    await supervise(POLICY, child)
    assert next(outcomes, "used up") == "used up"


BUG = KeyError("a bug")


@pytest.mark.parametrize(
    "failure",
    [
        BUG,
        ExceptionGroup("", [BUG]),
        ExceptionGroup("", [LinkError(), BUG]),
        ExceptionGroup("", [LinkError(), ExceptionGroup("", [LinkError(), BUG])]),
        BaseExceptionGroup("", [LinkError(), KeyboardInterrupt()]),
    ],
)
async def test_bug_propagates_unchanged(
    failure: BaseException, autojump_clock: trio.testing.MockClock
) -> None:
    runs = 0

    async def child() -> None:
        nonlocal runs
        runs += 1
        await trio.lowlevel.checkpoint()
        raise failure

    with pytest.raises(type(failure)) as caught, trio.move_on_after(60):
        await supervise(POLICY, child)
    assert caught.value is failure
    assert runs == 1


async def test_error_of_the_failure_callback_propagates(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def child() -> None:
        await trio.lowlevel.checkpoint()
        raise LinkError

    def on_failure(error: Exception, delay_s: float) -> None:
        raise BUG

    with pytest.raises(KeyError):
        await supervise(POLICY, child, on_failure=on_failure)


@pytest.mark.parametrize("moment_s", [0.0, 0.5, 1.2, 3.0])
async def test_cancellation_ends_it_at_once(
    moment_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    async def child() -> None:
        await trio.sleep(1)
        raise LinkError

    began = trio.current_time()
    with trio.move_on_after(moment_s) as scope:
        await supervise(POLICY, child)
    assert scope.cancelled_caught
    assert trio.current_time() - began == pytest.approx(moment_s)


async def test_link_that_breaks_while_we_stop_is_no_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LinkError

    async def child() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(1) as scope:
        await supervise(POLICY, child)
    assert scope.cancelled_caught


async def test_bug_that_happens_while_we_stop_is_not_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fail_when_cancelled(error: Exception) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async def child() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled, LinkError())
            nursery.start_soon(fail_when_cancelled, BUG)
            nursery.start_soon(trio.sleep_forever)

    with pytest.RaisesGroup(LinkError, KeyError), trio.move_on_after(1):
        await supervise(POLICY, child)


async def test_siblings_come_back_at_different_times(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nine sockets that are reset together do not reconnect together."""
    attempts: list[float] = []
    policy = RestartPolicy(expected=(LinkError,), jitter=random.Random(3).random)

    async def child() -> None:
        attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if len(attempts) > 9:
            return
        raise LinkError

    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(partial(supervise, policy, child))
    assert len(set(attempts[:9])) == 1
    assert len(set(attempts[9:])) == 9
