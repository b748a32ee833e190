"""One transaction, between the task that waits for it and the thread that works on it."""

from collections import deque
from threading import Lock

import trio

from ticker.errors import StoreUnavailableError
from ticker.stores.links import Link


class Call:
    """What the two know of each other. ``ended`` is set when the thread is done.

    ``places``: of which the thread holds one. ``begin``: the statements that begin it.
    """

    def __init__(self, places: trio.CapacityLimiter, begin: str) -> None:
        self.places = places
        self.begin = begin
        self.ended = trio.Event()
        self.has_begun = False
        self.is_abandoned = False
        self._link: Link | None = None
        self._lock = Lock()

    def abandon(self) -> Link | None:
        """Nobody wants the result any more; the connection that it is computed on, if any."""
        with self._lock:
            self.is_abandoned = True
            return self._link

    def require_wanted(self) -> None:
        """Raise if the call is abandoned; the thread's first step."""
        self.has_begun = True
        if self.is_abandoned:
            raise StoreUnavailableError("abandoned")

    def take(self, link: Link) -> None:
        """Use this connection. Raises, and closes it, if the call is abandoned."""
        with self._lock:
            self._link = link
            if not self.is_abandoned:
                return
        link.close()
        self.require_wanted()

    def release(self, idle: deque[Link]) -> bool:
        """Put the connection among the idle ones; False if the call is abandoned."""
        with self._lock:
            link, self._link = self._link, None
            if link is None or self.is_abandoned:
                return False
            idle.append(link)
            return True
