import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ticker.circuit_breaker import BreakerPolicy, CircuitBreaker

POLICY = BreakerPolicy(failures=3, open_s=60.0, tries=2)


def opened(now: float = 0.0) -> CircuitBreaker:
    circuit = CircuitBreaker(POLICY)
    for _ in range(POLICY.failures):
        circuit = circuit.failed(now)
    return circuit


def test_failures_in_a_row_open_it() -> None:
    circuit = CircuitBreaker(POLICY).failed(0).failed(0)
    assert circuit.state == "closed"
    assert circuit.failed(0).state == "open"


def test_a_success_between_failures_counts_them_anew() -> None:
    assert CircuitBreaker(POLICY).failed(0).failed(0).succeeded().failed(0).state == "closed"


def test_time_opens_it_half() -> None:
    assert opened(now=100).at(159.9).state == "open"
    assert opened(now=100).at(160).state == "half_open"


def test_an_answered_probe_need_not_wait() -> None:
    assert opened().probed().state == "half_open"
    assert CircuitBreaker(POLICY).failed(0).probed() == CircuitBreaker(POLICY).failed(0)


def test_tries_close_it_and_one_failure_opens_it_again() -> None:
    half_open = opened().probed()
    assert half_open.succeeded().state == "half_open"
    assert half_open.succeeded().succeeded() == CircuitBreaker(POLICY)
    assert half_open.succeeded().failed(7).opened_at == 7
    assert half_open.succeeded().failed(7).state == "open"


class BreakerMachine(RuleBasedStateMachine):
    """Any sequence of events, beside the rules written as plain counters."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = CircuitBreaker(POLICY)
        self.now = 0.0
        self.row = 0
        """Failures in a row while closed, or successes in a row while half open."""
        self.state = "closed"
        self.opened_at = 0.0

    def enter(self, state: str) -> None:
        self.state, self.row = state, 0
        if state == "open":
            self.opened_at = self.now

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.circuit = self.circuit.at(self.now)
        if self.state == "open" and self.now - self.opened_at >= POLICY.open_s:
            self.enter("half_open")

    @rule()
    def failure(self) -> None:
        self.circuit = self.circuit.failed(self.now)
        if self.state == "half_open":
            self.enter("open")
        elif self.state == "closed":
            self.row += 1
            if self.row == POLICY.failures:
                self.enter("open")

    @rule()
    def success(self) -> None:
        self.circuit = self.circuit.succeeded()
        if self.state == "closed":
            self.row = 0
        elif self.state == "half_open":
            self.row += 1
            if self.row == POLICY.tries:
                self.enter("closed")

    @precondition(lambda self: self.state == "open")
    @rule()
    def probe(self) -> None:
        self.circuit = self.circuit.probed()
        self.enter("half_open")

    @invariant()
    def agrees(self) -> None:
        assert self.circuit.state == self.state


BreakerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
test_breaker_follows_its_rules = pytest.mark.slow(BreakerMachine.TestCase)
