"""How long a task keeps the event loop to itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class LongestStep(trio.abc.Instrument):
    """``longest_s``: the most processor time that the task spent between two awaits.

    Processor time of this thread, not time on the wall: other programs make no difference.
    """

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.longest_s = 0.0
        self._task = task
        self._began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.longest_s = max(self.longest_s, time.thread_time() - self._began)


@contextmanager
def watch_steps() -> Iterator[LongestStep]:
    """Watch the task that this is called in."""
    watch = LongestStep(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(watch)
    try:
        yield watch
    finally:
        trio.lowlevel.remove_instrument(watch)
