"""The circuit breaker in front of one account's REST calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from ticker.circuit_breaker import BreakerPolicy, CircuitBreaker, CircuitState
from ticker.errors import BrokerBusyError, BrokerError

TRIAL_S: Final = 1.0
"""When to ask again while another call tries whether the broker is back."""


@dataclass(slots=True)
class Trial:
    """A call that was let through. ``is_good``: whether the broker was well; None: nobody knows."""

    is_good: bool | None = None


class Circuit:
    """Opens when the broker cannot be reached or fails; half open, it lets one call try."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._breaker = CircuitBreaker(policy)
        self._is_tried = False
        self._last_failure = ""
        self.failures = 0
        """Calls that the broker failed."""

    @property
    def state(self) -> CircuitState:
        return self._breaker.at(trio.current_time()).state

    def check(self) -> None:
        """Raise BrokerBusyError if no call would be let through."""
        self._breaker = self._breaker.at(trio.current_time())
        if self._breaker.state == "open":
            passed_s = trio.current_time() - self._breaker.opened_at
            raise BrokerBusyError(
                f"the broker is given a rest, having failed repeatedly: {self._last_failure}",
                self._breaker.policy.open_s - passed_s,
            )
        if self._breaker.state == "half_open" and self._is_tried:
            raise BrokerBusyError("a call is trying whether the broker is back", TRIAL_S)

    def fail(self, error: Exception) -> None:
        """A call that had been let through has failed; perhaps later, having looked good."""
        self.failures += 1
        self._last_failure = str(error)
        self._breaker = self._breaker.failed(trio.current_time())

    @contextmanager
    def trial(self) -> Iterator[Trial]:
        """Let a call through, and learn from it; one that says nothing teaches nothing.

        Raises BrokerBusyError instead if the circuit is open.
        """
        self.check()
        is_the_one = self._breaker.state == "half_open"
        self._is_tried = self._is_tried or is_the_one
        trial = Trial()
        try:
            yield trial
        except BrokerError as error:
            if trial.is_good is False:
                self.fail(error)
            raise
        finally:
            if is_the_one:
                self._is_tried = False
            if trial.is_good is True:
                self._breaker = self._breaker.succeeded()
