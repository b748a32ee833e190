"""Desired state, shared between tasks: the newest value wins."""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Latest(Generic[T]):
    """A value that is replaced, never queued, and that any number of tasks may follow.

    Newest wins and readers may skip: a reader that is busy while the value changes three times
    sees the third only. That is right for state (a plan, credentials) and wrong for events
    (ticks, orders), which belong in a memory channel. Values are to be immutable.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 1
        self._changed = trio.Event()

    @property
    def value(self) -> T:
        """The newest value."""
        return self._value

    def set(self, value: T) -> None:
        """Replace the value and wake all who wait; never blocks."""
        self._value = value
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()

    async def wait_newer(self, version: int) -> int:
        """Return the version of ``value`` as soon as it is newer than ``version``.

        Versions start at 1, so a reader that begins with 0 gets the present value first. Read
        ``value`` before the next ``await``: it is of the version returned.
        """
        await trio.lowlevel.checkpoint()
        while self._version <= version:
            await self._changed.wait()
        return self._version

    async def wait_until(self, accept: Callable[[T], bool]) -> T:
        """Return the newest value as soon as ``accept`` holds for it.

        A value that was acceptable, but was replaced before this task ran again, does not count.
        """
        await trio.lowlevel.checkpoint()
        while not accept(self._value):
            await self._changed.wait()
        return self._value
