"""Restart a task whose failures are expected; let every other failure through."""

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVarTuple

import trio

Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Which failures are expected, and how long to wait before trying again.

    The ceiling of the delay starts at ``delay_first_s`` and doubles with each failure up to
    ``delay_max_s``; the delay is a random part of it (full jitter), so that tasks which failed
    together do not come back together. It starts anew once the child has run for
    ``healthy_after_s``. There is no limit on attempts.

    ``delay_floors_s`` adds a constant to the delay after an error of that type, for a peer that
    asked for quiet. ``jitter`` yields uniform numbers in [0, 1).
    """

    expected: tuple[type[Exception], ...]
    delay_first_s: float = 0.5
    delay_max_s: float = 60.0
    healthy_after_s: float = 60.0
    delay_floors_s: Mapping[type[Exception], float] = field(default_factory=dict)
    jitter: Callable[[], float] = random.random

    def floor_s(self, error: Exception) -> float:
        """The constant part of the delay after this error."""
        floors = (delay for kind, delay in self.delay_floors_s.items() if isinstance(error, kind))
        return max(floors, default=0.0)


def ignore_failure(error: Exception, delay_s: float) -> None:
    """Do nothing about a failure but restart the child."""


async def supervise(
    policy: RestartPolicy,
    child: Callable[[*Ts], Awaitable[None]],
    *args: *Ts,
    on_failure: Callable[[Exception, float], None] = ignore_failure,
    wait: Callable[[float], Awaitable[None]] = trio.sleep,
) -> None:
    """Run ``child(*args)`` until it returns, again after each failure that is expected.

    A failure is expected if it is made up wholly of ``policy.expected`` errors, however deeply
    nested in exception groups. Anything else propagates unchanged: a bug is not hidden by the
    broken connection that it happened beside. Cancellation always propagates.

    ``on_failure`` is told the error, of a group the one that asks for the longest delay, and the
    seconds to wait; what it raises propagates.
    """
    ceiling_s = policy.delay_first_s
    while True:
        started_at = trio.current_time()
        try:
            await child(*args)
        except policy.expected as error:
            failure: Exception = error
        except BaseExceptionGroup as group:
            _, unexpected = group.split(policy.expected)
            if unexpected is not None:
                if unexpected.split(trio.Cancelled)[1] is None:
                    # We are being stopped. That the connection broke as well concerns nobody
                    # any more, and would turn a clean shutdown into a failed one.
                    raise unexpected from None
                raise
            failure = max(_leaves(group), key=policy.floor_s)
        else:
            return
        if trio.current_time() - started_at >= policy.healthy_after_s:
            ceiling_s = policy.delay_first_s
        delay_s = policy.floor_s(failure) + policy.jitter() * ceiling_s
        ceiling_s = min(policy.delay_max_s, ceiling_s * 2)
        on_failure(failure, delay_s)
        await wait(delay_s)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        elif isinstance(error, Exception):
            yield error
