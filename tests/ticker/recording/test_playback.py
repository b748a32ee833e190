"""What is played together, as of when, and when: of the recording alone."""

import itertools
import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.synthetic import ALPHA, BETA, MARKET, NOW
from ticker.messages import Frame
from ticker.recording.playback import BYTES_MAX, FRAMES_MAX, SPAN_S, Batch, Pace, play
from ticker.recording.reader import Block, Frames, Instruments
from ticker.recording.writer import create_session

SESSION = create_session(NOW, is_mock=False)


def at(*offsets: float, size: int = 10) -> list[Frame]:
    """Frames that arrived so many seconds after ``NOW``."""
    return [Frame(bytes(size), NOW + offset, ALPHA) for offset in offsets]


def batches(blocks: Sequence[Block]) -> list[Batch]:
    return [step for step in play(blocks) if isinstance(step, Batch)]


def offsets(blocks: Sequence[Block]) -> list[list[float]]:
    return [
        [round(frame.received_at - NOW, 6) for frame in batch.frames] for batch in batches(blocks)
    ]


def test_what_arrived_together_is_processed_together() -> None:
    inside, outside = round(0.9 * SPAN_S, 6), round(1.1 * SPAN_S, 6)
    some = at(0, inside, outside, 1.0)
    assert offsets([Frames.of(some)]) == [[0, inside], [outside], [1.0]]


def test_a_batch_is_bounded() -> None:
    assert [len(batch.frames) for batch in batches([Frames.of(at(*[0.0] * 600))])] == [
        FRAMES_MAX,
        FRAMES_MAX,
        600 - 2 * FRAMES_MAX,
    ]
    big = Frames.of(at(*[0.0] * 5, size=BYTES_MAX // 2))
    assert [len(batch.frames) for batch in batches([big])] == [2, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 0.02), max_size=30),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_how_frames_lie_in_blocks_makes_no_difference(
    moments: list[float], cuts: list[int]
) -> None:
    some = at(*moments)
    bounds = [0, *sorted(cuts), len(some)]
    blocks = [Frames.of(some[begin:end]) for begin, end in itertools.pairwise(bounds)]
    assert batches(blocks) == batches([Frames.of(some)])
    assert [frame for batch in batches(blocks) for frame in batch.frames] == Frames.of(some).play()


def test_instruments_and_sessions_part_batches() -> None:
    news = Instruments(tuple(MARKET[:1]))
    some = Frames.of(at(0))
    steps = list(play([SESSION, news, some, news, some, some, SESSION, some]))
    assert [type(step).__name__ for step in steps] == [
        *("Session", "Instruments", "Batch", "Instruments", "Batch", "Session", "Batch"),
    ]
    assert [len(step.frames) for step in steps if isinstance(step, Batch)] == [1, 2, 1]


def test_the_clock_is_that_of_the_newest_frame() -> None:
    a, b = ALPHA, BETA
    some = [
        Frame(b"1", NOW + 0.001, a),
        Frame(b"2", NOW, b),  # has waited longer for its turn
        Frame(b"3", NOW + 5, a),
        Frame(b"4", NOW + 4.5, b),
    ]
    assert [batch.now - NOW for batch in batches([Frames.of(some)])] == [
        NOW + 0.001 - NOW,
        5.0,
        5.0,
    ]


def test_the_clock_follows_one_that_was_set_back() -> None:
    assert [batch.now - NOW for batch in batches([Frames.of(at(0, 100, 40, 41))])] == [
        *(0, 100, 40, 41),
    ]


def test_another_session_has_another_clock() -> None:
    blocks: list[Block] = [SESSION, Frames.of(at(100)), SESSION, Frames.of(at(99.5))]
    assert [batch.now - NOW for batch in batches(blocks)] == [100, 99.5]


def test_missed_frames_are_told_once() -> None:
    blocks = [Frames.of(at(0), 3), Frames.of(at(0), 4), Frames.of(at(1), 5)]
    assert sum(batch.missed for batch in batches(blocks)) == 12


def test_the_pace_is_that_of_the_recording_times_the_speed() -> None:
    for speed in (0.5, 1.0, 20.0):
        pace = Pace(speed)
        due = [pace.due_at(NOW + offset, 7.0 + late) for offset, late in ((0, 0), (1, 9), (60, 9))]
        assert due == [7.0, 7.0 + 1 / speed, 7.0 + 60 / speed]


def test_at_full_speed_everything_is_due_at_once() -> None:
    pace = Pace(math.inf)
    assert [pace.due_at(NOW + offset, 7.0 + offset) for offset in (0, 1, 3600)] == [7.0] * 3


def test_nobody_waits_from_one_session_to_the_next() -> None:
    pace = Pace(1.0)
    pace.begin()
    assert pace.due_at(NOW, 0.0) == 0.0
    assert pace.due_at(NOW + 1, 0.5) == 1.0
    pace.begin()
    assert pace.due_at(NOW + 86_400, 1.5) == 1.5
    assert pace.due_at(NOW + 86_401, 1.5) == 2.5


def test_after_a_clock_was_set_back_the_pace_goes_on() -> None:
    pace = Pace(1.0)
    pace.due_at(NOW, 0.0)
    assert pace.due_at(NOW - 3600, 1.0) == 1.0
    assert pace.due_at(NOW - 3595, 1.0) == 6.0
