import pytest

from ticker.errors import (
    FeedClosedError,
    FeedError,
    FeedSilentError,
    FeedThrottledError,
    FeedUnreachableError,
    HandshakeRejectedError,
    TokenRejectedError,
)
from ticker.feed_record import FeedRecord
from ticker.messages import ConnectionId, FeedStatus
from ticker.metrics import Metrics


def create_record() -> tuple[FeedRecord, list[FeedStatus]]:
    statuses: list[FeedStatus] = []
    record = FeedRecord(
        ConnectionId("primary", 0),
        count_target=lambda: 7,
        report=statuses.append,
        metrics=Metrics(),
        wall_clock=lambda: 50.0,
    )
    return record, statuses


def test_live_only_after_everything_was_asked_for() -> None:
    record, statuses = create_record()
    record.enter("connecting")
    assert record.note_message(10, is_heartbeat=True) is None
    assert record.note_message(11, is_heartbeat=False) is None
    record.note_subscribed(7, added=7, removed=0)
    assert [status.state for status in statuses] == ["connecting", "connecting"]
    record.note_message(12, is_heartbeat=True)
    assert (statuses[-1].state, statuses[-1].live_at, statuses[-1].subscribed) == ("live", 12, 7)


def test_what_a_new_socket_carries_starts_at_nothing() -> None:
    record, statuses = create_record()
    record.enter("connecting")
    record.note_subscribed(7, added=7, removed=0)
    record.note_message(12, is_heartbeat=False)
    record.note_failure(FeedClosedError("closed"), "backing_off", 1)
    record.enter("connecting")
    record.note_message(13, is_heartbeat=False)
    assert (statuses[-1].state, statuses[-1].subscribed, statuses[-1].target) == (
        "connecting",
        0,
        7,
    )


def test_outage_of_many_attempts_is_one_gap_with_its_first_reason() -> None:
    record, _ = create_record()
    record.enter("connecting")
    record.note_subscribed(7, added=7, removed=0)
    record.note_message(12, is_heartbeat=False)
    begun = record.note_failure(FeedSilentError("silent"), "backing_off", 1)
    assert begun is not None
    assert (begun.reason, begun.from_ts, begun.to_ts, begun.ended) == ("silent", 12, 50, False)
    record.enter("connecting")
    assert record.note_failure(FeedUnreachableError("no"), "backing_off", 1) is None
    record.enter("connecting")
    record.note_subscribed(7, added=7, removed=0)
    ended = record.note_message(60, is_heartbeat=True)
    assert ended is not None
    assert (ended.reason, ended.from_ts, ended.to_ts, ended.ended) == ("silent", 12, 60, True)
    assert record.note_message(61, is_heartbeat=True) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FeedSilentError("x"), "silent"),
        (FeedClosedError("x"), "closed"),
        (FeedUnreachableError("x"), "unreachable"),
        (TokenRejectedError(403), "token_rejected"),
        (FeedThrottledError(429), "throttled"),
        (HandshakeRejectedError(503), "rejected"),
    ],
)
def test_every_feed_error_has_its_reason(error: FeedError, reason: str) -> None:
    record, _ = create_record()
    record.enter("connecting")
    record.note_subscribed(1, added=1, removed=0)
    record.note_message(1, is_heartbeat=False)
    gap = record.note_failure(error, "backing_off", 0)
    assert gap is not None
    assert gap.reason == reason
