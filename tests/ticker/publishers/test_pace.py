from ticker.publishers.pace import Pace
from ticker.publishers.resp import Replies


def answered(*pieces: tuple[int, float], expected: int | None = None) -> Replies:
    """Replies that came as (count, at) pieces."""
    replies = Replies(expected or sum(count for count, _ in pieces))
    for count, at in pieces:
        replies.feed(b":0\r\n" * count, at)
    return replies


def pace(limit: int) -> Pace:
    return Pace(limit, most=1000, window_s=0.1)


def test_a_fast_server_doubles_it_up_to_the_most() -> None:
    assert pace(300).succeeded(300, answered((300, 5.0))).limit == 600
    assert pace(600).succeeded(600, answered((600, 5.0))).limit == 1000
    assert pace(1000).succeeded(1000, answered((1000, 5.0))).limit == 1000


def test_a_batch_that_did_not_fill_it_proves_nothing() -> None:
    assert pace(300).succeeded(10, answered((10, 5.0))).limit == 300


def test_a_slow_server_gets_what_it_takes_in_a_window() -> None:
    # 99 in 1.1 s: 9 in 100 ms
    assert pace(100).succeeded(100, answered((1, 0.0), (99, 1.1))).limit == 50
    assert pace(12).succeeded(12, answered((1, 0.0), (11, 0.125))).limit == 8
    assert pace(8).succeeded(8, answered((1, 0.0), (7, 0.08))).limit == 8


def test_distance_is_not_slowness() -> None:
    late = answered((50, 900.0), (50, 900.01))
    assert pace(100).succeeded(100, late).limit == 200


def test_commands_are_not_messages() -> None:
    # 10 messages of 3 commands each, 100 commands a second
    assert pace(10).succeeded(10, answered((1, 0.0), (29, 0.29))).limit == 5


def test_a_timeout_at_least_halves_it_but_one_always_goes() -> None:
    assert pace(1000).timed_out(answered((54, 1.0), expected=1000)).limit == 54
    assert pace(60).timed_out(answered((54, 1.0), expected=60)).limit == 30
    assert pace(60).timed_out(Replies(60)).limit == 1
