import datetime as dt
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticker.errors import InvalidRequestError
from ticker.history.range import (
    CALLS_MAX,
    DAYS_MAX,
    INDIA,
    MINUTES,
    Session,
    Span,
    create_span,
    missing_spans,
    parse_interval,
    split,
)
from ticker.kite.models import Interval

NOW = dt.datetime(2026, 11, 20, 6, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SECOND = dt.timedelta(seconds=1)


def india(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> dt.datetime:
    return dt.datetime(2026, 11, day, hour, minute, second, tzinfo=INDIA)


def test_a_time_without_a_zone_is_indias_and_others_are_converted() -> None:
    naive = create_span(
        dt.datetime(2026, 11, 19, 9, 15),  # noqa: DTZ001
        dt.datetime(2026, 11, 19, 15, 29),  # noqa: DTZ001
        "minute",
        NOW,
    )
    aware = create_span(
        dt.datetime(2026, 11, 19, 3, 45, tzinfo=dt.UTC),
        dt.datetime(2026, 11, 19, 4, 59, tzinfo=dt.timezone(-5 * dt.timedelta(hours=1))),
        "minute",
        NOW,
    )
    assert naive == aware == Span(india(19, 9, 15), india(19, 15, 29))
    assert naive.since_at.utcoffset() == dt.timedelta(hours=5, minutes=30)


def test_a_range_may_be_one_moment() -> None:
    span = create_span(india(19, 9, 15), india(19, 9, 15), "minute", NOW)
    assert split(span, "minute") == [Span(india(19, 9, 15), india(19, 9, 15))]


def test_what_has_not_come_yet_is_not_asked_for() -> None:
    span = create_span(india(19), dt.datetime(2090, 1, 1, tzinfo=dt.UTC), "day", NOW)
    assert span.until_at == india(20, 23, 59, 59)
    later = create_span(india(25), india(26), "day", NOW)
    assert len(split(later, "day")) == 1


@pytest.mark.parametrize(
    ("from_at", "to_at", "field"),
    [
        (india(19), india(18), "from_ts"),
        (india(19, 0, 0, 1), india(19), "from_ts"),
        (
            dt.datetime(1, 1, 1),  # noqa: DTZ001
            india(19),
            "from_ts",
        ),
        (india(19), dt.datetime.max.replace(tzinfo=dt.UTC), "to_ts"),
        (india(19) - 300 * DAY, india(19), "from_ts"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(
    from_at: dt.datetime, to_at: dt.datetime, field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        create_span(from_at, to_at, "minute", NOW)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["", "Minute", "2minute", "week", "1d", "minute "])
def test_only_the_brokers_intervals_are_intervals(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_interval(text)
    assert caught.value.field == "interval"


@given(
    since=st.datetimes(dt.datetime(2015, 1, 1), dt.datetime(2026, 1, 1)),  # noqa: DTZ001
    length=st.timedeltas(SECOND, 5000 * DAY),
    interval=st.sampled_from(sorted(MINUTES)),
)
def test_pieces_are_the_span_and_none_is_too_long(
    since: dt.datetime, length: dt.timedelta, interval: Interval
) -> None:
    since_at = since.replace(microsecond=0, tzinfo=INDIA)
    span = Span(since_at, since_at + length.seconds * SECOND + length.days * DAY)
    pieces = split(span, interval)
    assert pieces[0].since_at == span.since_at
    assert pieces[-1].until_at == span.until_at
    for piece in pieces:
        assert piece.since_at <= piece.until_at
        days = (piece.until_at.date() - piece.since_at.date()).days + 1
        assert days <= DAYS_MAX[interval]
    for one, next_one in pairwise(pieces):
        assert next_one.since_at - one.until_at == SECOND
    assert len(pieces) <= (length.days // DAYS_MAX[interval]) + 2


@pytest.mark.parametrize("interval", sorted(MINUTES))
def test_the_longest_range_takes_no_more_than_the_calls_allowed(interval: Interval) -> None:
    longest = DAYS_MAX[interval] * CALLS_MAX
    since_at = india(20, 12) - (longest - 1) * DAY
    assert len(split(create_span(since_at, india(20, 12), interval, NOW), interval)) <= CALLS_MAX


def session(day: int) -> Session:
    times = (india(day, 9, 15), india(day, 15, 30), india(day, 23, 59, 59))
    return Session(*(time.timestamp() for time in times))


def minutes(day: int, *but: int) -> list[int]:
    begin = int(session(day).begin)
    return [begin + 60 * n for n in range(375) if n not in but]


def spans_of(*known: list[int]) -> list[tuple[str, str]]:
    starts = np.array([*chain.from_iterable(known)], np.int64)
    spans = missing_spans(starts, [session(18), session(19)])
    return [(f"{a:%d %H:%M}", f"{b:%d %H:%M}") for a, b in spans]


def test_nothing_is_missing_of_days_that_are_whole() -> None:
    assert spans_of(minutes(18), minutes(19)) == []


def test_what_is_missing_is_asked_for_in_as_few_calls_as_can_be() -> None:
    assert spans_of([]) == [("18 09:15", "19 23:59")]
    assert spans_of(minutes(18)) == [("19 09:15", "19 23:59")]
    assert spans_of(minutes(18), minutes(19, 100)) == [("19 10:55", "19 10:55")]
    assert spans_of(minutes(18, 0), minutes(19, 374)) == [("18 09:15", "19 23:59")]


def test_spans_far_apart_are_asked_for_apart() -> None:
    far = [
        Session(begin, begin + 3600, begin + 7200)
        for begin in (india(1).timestamp() + 86_400 * days for days in (0, 30, 80))
    ]
    spans = missing_spans(np.empty(0, np.int64), far)
    assert [(b - a).days for a, b in spans] == [30, 0]
