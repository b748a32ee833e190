import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from ticker.instruments.registry import TickMode
from ticker.kite.difference import subscription_difference

modes = st.sampled_from(["ltp", "quote", "full"])
tables = st.dictionaries(st.integers(0, 2**32 - 1) | st.integers(0, 5), modes, max_size=12)


class Table(dict[int, str]):
    """What a broker believes a socket to carry, and the most it ever did."""

    most = 0

    def obey(self, message: dict[str, Any]) -> None:
        if message["a"] == "subscribe":
            for token in message["v"]:
                assert token not in self, "subscribed twice"
                self[token] = "default"
        elif message["a"] == "unsubscribe":
            for token in message["v"]:
                del self[token]
        else:
            mode, tokens = message["v"]
            for token in tokens:
                assert self[token] != mode, "asked for what it has"
                self[token] = mode
        self.most = max(self.most, len(self))


@pytest.mark.slow
@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(current=tables, wanted=tables, size=st.integers(1, 5))
def test_difference_turns_one_table_into_the_other(
    current: dict[int, TickMode], wanted: dict[int, TickMode], size: int
) -> None:
    table = Table(current)
    messages = list(subscription_difference(current, wanted, tokens_per_message=size))
    for text in messages:
        message = json.loads(text)
        tokens = message["v"][1] if message["a"] == "mode" else message["v"]
        assert 1 <= len(tokens) <= size
        table.obey(message)
    assert table == wanted
    # Never above the larger of the two: the broker refuses what exceeds its limit.
    assert table.most <= max(len(current), len(wanted))


def test_nothing_is_said_when_nothing_changes() -> None:
    assert not list(subscription_difference({1: "full"}, {1: "full"}, tokens_per_message=500))
