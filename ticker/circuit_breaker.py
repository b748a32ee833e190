"""A circuit breaker as a value: each event gives the next state, and nobody's clock is read.

::

    CLOSED ── `failures` in a row ──▶ OPEN ── `open_s` passed, or a probe answered ──▶ HALF_OPEN
       ▲                               ▲                                                │    │
       │                               └───────────────── one failure ──────────────────┘    │
       └───────────────────────────── `tries` successes in a row ────────────────────────────┘

``now`` is in seconds on any clock that only moves forward (``trio.current_time()``), never wall
time, which may leap.
"""

from typing import Literal

import msgspec

CircuitState = Literal["closed", "open", "half_open"]


class BreakerPolicy(msgspec.Struct, frozen=True):
    """``failures`` in a row open the circuit, for ``open_s``; ``tries`` successes close it."""

    failures: int = 10
    open_s: float = 60.0
    tries: int = 3


class CircuitBreaker(msgspec.Struct, frozen=True):
    """The state: ``failed``, ``succeeded``, ``probed`` and ``at`` return the one that follows."""

    policy: BreakerPolicy = BreakerPolicy()
    state: CircuitState = "closed"
    failures: int = 0
    """Failures in a row while closed."""
    successes: int = 0
    """Successes in a row while half open."""
    opened_at: float = 0.0

    def at(self, now: float) -> "CircuitBreaker":
        """The state at ``now``: an open circuit is half open once ``open_s`` has passed."""
        if self.state == "open" and now - self.opened_at >= self.policy.open_s:
            return CircuitBreaker(self.policy, "half_open")
        return self

    def probed(self) -> "CircuitBreaker":
        """What follows a probe that was answered: an open circuit need not wait any longer."""
        return CircuitBreaker(self.policy, "half_open") if self.state == "open" else self

    def succeeded(self) -> "CircuitBreaker":
        """What follows a success. One that comes while the circuit is open changes nothing."""
        if self.state == "half_open" and self.successes + 1 < self.policy.tries:
            return CircuitBreaker(self.policy, "half_open", successes=self.successes + 1)
        if self.state == "open" or (self.state == "closed" and self.failures == 0):
            return self
        return CircuitBreaker(self.policy)

    def failed(self, now: float) -> "CircuitBreaker":
        """What follows a failure. One that comes while the circuit is open changes nothing."""
        if self.state == "open":
            return self
        failures = self.failures + 1
        if self.state == "half_open" or failures >= self.policy.failures:
            return CircuitBreaker(self.policy, "open", opened_at=now)
        return CircuitBreaker(self.policy, "closed", failures=failures)
