import pytest

from ticker.messages import Event, Gap, MarketPhase
from ticker.metrics import Metrics
from ticker.publishers.accounting import PublishAccounting
from ticker.publishers.events import EVENTS_MAX, PendingEvents
from ticker.publishers.resp import Replies

PHASE = MarketPhase("NFO", "continuous", is_open=True, feed="live", ts=1.0)


class Pending:
    """Events under test, and what became of them."""

    def __init__(self) -> None:
        self._metrics = Metrics()
        self.events = PendingEvents(PublishAccounting(self._metrics, 1000))

    def published(self, reason: str) -> float:
        return self._value("feed_gaps_total", reason)

    def dropped(self, reason: str) -> float:
        return self._value("feed_gaps_dropped_total", reason)

    def _value(self, name: str, reason: str) -> float:
        return self._metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


@pytest.fixture
def pending() -> Pending:
    return Pending()


def as_gaps(events: list[Event]) -> list[Gap]:
    gaps = [event for event in events if isinstance(event, Gap)]
    assert len(gaps) == len(events)
    return gaps


def create_gap(number: int) -> Gap:
    return Gap("silent", float(number), float(number) + 6, "alpha", 0)


def answer(sent: list[Event], replies: bytes) -> Replies:
    answered = Replies(len(sent))
    if replies:
        answered.feed(replies, 0.0)
    return answered


def test_ticks_conflated_while_consumers_are_being_told_are_told_next(pending: Pending) -> None:
    events = pending.events
    events.begin_outage(1.0, 5)
    events.conflate(10)
    sent = events.take(2.0, (8, 20))
    events.conflate(7)
    events.settle(sent, answer(sent, b":0\r\n"))
    (first,), (second,) = as_gaps(sent), as_gaps(events.take(3.0, (25, 30)))
    assert (first.from_seq, first.to_seq, first.conflated) == (5, 20, 10)
    assert (second.from_seq, second.to_seq, second.conflated) == (8, 30, 7)
    assert (first.from_ts, first.to_ts, second.from_ts, second.to_ts) == (1.0, 2.0, 2.0, 3.0)
    events.settle([second], answer([second], b":0\r\n"))
    assert not events.is_outage
    assert pending.published("redis") == 2


def test_what_was_not_acknowledged_is_told_in_one(pending: Pending) -> None:
    events = pending.events
    events.begin_outage(1.0, 5)
    events.conflate(10)
    sent = events.take(2.0, (8, 20))
    events.conflate(7)
    events.settle(sent, answer(sent, b""))
    (again,) = as_gaps(events.take(3.0, (25, 30)))
    assert (again.from_ts, again.from_seq, again.to_seq, again.conflated) == (1.0, 5, 30, 17)


def test_unanswered_gaps_wait_again_in_order(pending: Pending) -> None:
    events = pending.events
    gaps = [create_gap(number) for number in range(4)]
    for gap in gaps[:3]:
        events.add(gap)
    sent = events.take(0.0, None)
    events.add(gaps[3])
    events.settle(sent, answer(sent, b":0\r\n"))
    assert events.take(0.0, None) == gaps[1:]
    assert pending.published("silent") == 1


def test_a_gap_refused_by_the_servers_state_waits_and_one_refused_for_itself_goes(
    pending: Pending,
) -> None:
    events = pending.events
    gaps = [create_gap(number) for number in range(3)]
    for gap in gaps:
        events.add(gap)
    sent = events.take(0.0, None)
    events.settle(sent, answer(sent, b"-ERR no\r\n:0\r\n-OOM no\r\n"))
    assert events.take(0.0, None) == gaps[2:]
    assert (pending.published("silent"), pending.dropped("refused")) == (1, 1)


def test_every_gap_is_published_dropped_or_waiting(pending: Pending) -> None:
    """The oldest goes when too many wait, not the one that is under way and may yet arrive."""
    events = pending.events
    for number in range(EVENTS_MAX):
        events.add(create_gap(number))
    sent = events.take(0.0, None)
    for number in range(3):
        events.add(create_gap(EVENTS_MAX + number))
    assert pending.dropped("overflow") == 0
    events.settle(sent, answer(sent, b":0\r\n"))
    assert (pending.published("silent"), pending.dropped("overflow")) == (1, 2)
    assert events.waiting == EVENTS_MAX
    events.add(create_gap(0))
    assert pending.dropped("overflow") == 3
    assert as_gaps(events.take(0.0, None))[-2].from_ts == EVENTS_MAX + 2


def test_gaps_left_at_the_end_are_counted(pending: Pending) -> None:
    for number in range(3):
        pending.events.add(create_gap(number))
    pending.events.drop_rest()
    assert pending.dropped("shutdown") == 3
    assert not pending.events.waiting


def test_a_market_phase_waits_in_its_turn_and_is_no_gap(pending: Pending) -> None:
    events = pending.events
    events.begin_outage(1.0, 5)
    events.add(create_gap(0))
    events.add(PHASE)
    sent = events.take(2.0, (8, 20))
    assert [type(event) for event in sent] == [Gap, Gap, MarketPhase]
    events.settle(sent, answer(sent, b":0\r\n:0\r\n"))
    assert events.take(3.0, None) == [PHASE]
    events.settle([PHASE], answer([PHASE], b":0\r\n"))
    assert not events
    assert (pending.published("redis"), pending.published("silent")) == (1, 1)


def test_a_market_phase_that_nobody_gets_is_counted(pending: Pending) -> None:
    events = pending.events
    events.add(PHASE)
    events.settle(events.take(1.0, None), answer([PHASE], b"-ERR no\r\n"))
    events.add(PHASE)
    events.drop_rest()
    assert (pending.dropped("refused"), pending.dropped("shutdown")) == (1, 1)
