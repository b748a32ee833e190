"""Market time for the whole tree: faster than real time, and over what is quiet in one leap."""

import threading
import time


class MarketClock:
    """A wall clock, UNIX seconds: ``speed`` seconds pass in one. Callable from any thread.

    Sockets, threads and servers stay real, and so do the deadlines that guard them: only what the
    service takes for the time of day is not. It cannot be an autojump clock, which sees neither
    a worker thread nor a server at work and would run away from both.
    """

    def __init__(self, at: float, speed: float) -> None:
        self._lock = threading.Lock()
        self._speed = speed
        self._at = at
        self._since = time.monotonic()
        self._leaps: list[tuple[float, float]] = []

    def __call__(self) -> float:
        with self._lock:
            return self._at + (time.monotonic() - self._since) * self._speed

    def leap_to(self, at: float) -> None:
        """Be at ``at`` and run on from there; never back."""
        with self._lock:
            now = time.monotonic()
            shown = self._at + (now - self._since) * self._speed
            self._at, self._since = max(at, shown), now
            self._leaps.append((shown, self._at))

    def later(self, at: float, by_s: float) -> float:
        """What the clock showed ``by_s`` seconds of its own after ``at``: leaps take no time."""
        for shown, leapt_to in self._leaps:
            if at <= shown < at + by_s:
                by_s -= shown - at
                at = leapt_to
        return at + by_s
