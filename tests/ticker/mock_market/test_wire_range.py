"""Whatever prices are told, none ends the service, and none leaves the wire's 32 bits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.ticker.mock_market.rig import create_market, told
from tests.ticker.synthetic import NOW, create_chain, create_future, create_share
from ticker.instruments.registry import Instrument
from ticker.kite.wire import DIVISORS, KNOWN_SEGMENTS
from ticker.mock_market.packets import is_price
from ticker.mock_market.seeds import PRICE
from ticker.ticks import DEPTH_LEVELS, Row

HOSTILE = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-300, 1e-9, 1e8, 1e12, 1e300]
PRICES = st.none() | st.sampled_from(HOSTILE) | st.floats(0.0025, 300.0)


def listed(segment: int) -> list[Instrument]:
    """A share, a future and a chain of four strikes of one underlying on a segment of the wire."""
    return [
        create_share(500, "X", segment),
        create_future(501, "X", segment=segment),
        *create_chain([80.0, 84.25, 90.0, 1e9], 600, name="X", segment=segment, tick_size=0.0025),
    ]


def test_the_default_price_has_room_on_every_segment() -> None:
    for segment in KNOWN_SEGMENTS:
        assert is_price(create_future(501, segment=segment), 2 * PRICE)


@pytest.mark.parametrize("segment", KNOWN_SEGMENTS)
def test_a_future_of_which_nothing_is_known_is_played(segment: int) -> None:
    future, market = create_future(501, "USDINR", segment=segment), create_market()
    market.admit([future], {}, NOW)
    row = market.step(NOW).of(future.instrument_token)
    assert row is not None
    assert row.price == pytest.approx(PRICE, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("segment", KNOWN_SEGMENTS)
@given(
    prices=st.lists(PRICES, min_size=10, max_size=10),
    forward=st.sampled_from([*HOSTILE, 84.0]),
    variation=st.sampled_from([0.0, 0.00125, 0.1]),
)
@examples(max_examples=25, deadline=None)
def test_no_price_escapes_and_none_leaves_the_wire(
    segment: int, prices: list[float | None], forward: float, variation: float
) -> None:
    instruments, market = listed(segment), create_market(variation=variation)
    values = {
        each.instrument_token: told(price, forward)
        for each, price in zip(instruments, prices, strict=True)
        if price is not None
    }
    market.admit(instruments, values, NOW)
    for step in range(300):
        snapshot = market.step(NOW + step)
    assert len(snapshot.instruments) >= 2, "share and future are played at least"
    prices_at = [Row.LAST_PRICE, Row.OPEN, Row.HIGH, Row.LOW, Row.CLOSE]
    assert (snapshot.words[:, prices_at] > 0).all(), "what is beyond the wire comes out negative"
    book = [side + 3 * level + 1 for side in (Row.BIDS, Row.ASKS) for level in range(DEPTH_LEVELS)]
    assert (snapshot.words[:, book] >= 0).all()


@pytest.mark.slow
def test_a_long_walk_at_the_end_of_the_wire_turns_back() -> None:
    future = create_future(501, "X", segment=3)
    market = create_market(variation=0.1)
    highest = (2**31 - 1) / DIVISORS[3]
    market.admit([future], {future.instrument_token: told(0.999 * highest)}, NOW)
    prices = []
    for step in range(20_000):
        row = market.step(NOW + step).of(future.instrument_token)
        assert row is not None
        prices.append(row.price)
    walked = np.array(prices)
    assert walked.min() > 0
    assert walked.max() == pytest.approx(highest, rel=1e-3)
    assert walked.min() < 0.9 * highest
