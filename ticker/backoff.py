"""When a thing that failed is to be tried again, for a task that has other things to do as well."""

import math
import random
from collections.abc import Callable

import trio


class Backoff:
    """Due at once when started; after each failure, twice as long after as the last time.

    The wait is between half and all of a ceiling that grows from ``first_s`` to ``max_s`` and
    falls back with ``stop``. ``jitter`` yields uniform numbers in [0, 1).
    """

    def __init__(
        self, first_s: float, max_s: float, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._jitter = jitter
        self._ceiling_s = first_s
        self._due_at = math.inf

    @property
    def is_due(self) -> bool:
        return trio.current_time() >= self._due_at

    @property
    def wait_s(self) -> float:
        """Seconds until it is due; infinity if it is not started."""
        return max(self._due_at - trio.current_time(), 0.0)

    def start(self) -> None:
        """There is something to try, at once."""
        self._due_at = trio.current_time()

    def fail(self) -> None:
        """It was tried in vain."""
        self._due_at = trio.current_time() + self._ceiling_s * (0.5 + 0.5 * self._jitter())
        self._ceiling_s = min(2 * self._ceiling_s, self._max_s)

    def stop(self) -> None:
        """There is nothing to try: it succeeded, or is not wanted any more."""
        self._due_at = math.inf
        self._ceiling_s = self._first_s
