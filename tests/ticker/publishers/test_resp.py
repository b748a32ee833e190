from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticker.errors import RedisUnreachableError
from ticker.publishers.resp import Refusal, Replies, error_code, pack

OK_REPLIES = [b":0\r\n", b":12\r\n", b"+OK\r\n", b"$3\r\n0-1\r\n", b"$1\r\n\n\r\n", b"$-1\r\n"]
ERRORS = [b"-ERR no\r\n", b"-OOM command not allowed\r\n", b"-LOADING wait\r\n"]


def test_pack() -> None:
    assert pack("PUBLISH", b"a", memoryview(b"xyz"), 7) == (
        b"*4\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$3\r\nxyz\r\n$1\r\n7\r\n"
    )


@given(
    st.lists(st.sampled_from(OK_REPLIES + ERRORS), max_size=30),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_counting_does_not_depend_on_how_bytes_arrive(stream: list[bytes], cuts: list[int]) -> None:
    data = b"".join(stream)
    replies = Replies(len(stream))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        replies.feed(data[begin:end], 0.0)
    assert replies.complete
    assert replies.answered == len(stream)
    refused = [position for position, reply in enumerate(stream) if reply in ERRORS]
    assert [refusal.position for refusal in replies.refusals] == refused


def test_what_was_answered_before_the_end_is_known() -> None:
    replies = Replies(4)
    replies.feed(b":1\r\n-ERR no\r\n:1", 0.0)
    assert (replies.answered, replies.complete) == (2, False)
    assert replies.refusals == [Refusal(1, "ERR", "ERR no")]


@pytest.mark.parametrize(
    "data", [b":1\r\n:1\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\x16\x03\x01"]
)
def test_a_peer_out_of_step_is_no_redis(data: bytes) -> None:
    with pytest.raises(RedisUnreachableError):
        Replies(1).feed(data, 0.0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("ERR max number of clients reached", "MAXCLIENTS"),
        ("ERR max number of clients + cluster connections reached", "MAXCLIENTS"),
        ("ERR unknown command", "ERR"),
        ("", "ERR"),
    ],
)
def test_error_code(text: str, code: str) -> None:
    assert error_code(text) == code


def test_the_first_server_state_counts() -> None:
    replies = Replies(3)
    replies.feed(b"-ERR no\r\n-LOADING wait\r\n-OOM no\r\n", 0.0)
    error = replies.state_error()
    assert error is not None
    assert error.code == "LOADING"


def test_rate_is_that_between_the_first_piece_and_the_last() -> None:
    replies = Replies(31)
    assert replies.rate() is None
    replies.feed(b":1\r\n", 100.0)
    assert replies.rate() is None
    replies.feed(b":1\r\n" * 10, 101.0)
    replies.feed(b":1\r\n" * 20, 103.0)
    assert replies.rate() == 10.0
