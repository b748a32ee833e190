"""Lanes that cannot be priced, and that no lane touches another."""

import re
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.greeks.exact import price_lanes
from tests.ticker.greeks.grids import RATE, market_grid
from ticker.greeks.kernel import (
    FloatArray,
    GreekRow,
    GreeksStatus,
    UInt8Array,
    create_kernel,
    price_options,
)

Lane = tuple[float, float, float, float, float, float, float, float]
NAN, INF = float("nan"), float("inf")
WEEK = 7 / 365
GOOD: Lane = (1_050.0, 25_000.0, 24_000.0, WEEK, 0.0, 0.0, 1.0, 0.025)
"""Price, underlying, strike, years, rate, carry, is_call, half tick."""
STATUSES = np.array([*GreeksStatus], np.uint8)


def _price(lanes: list[Lane]) -> tuple[FloatArray, UInt8Array]:
    columns = np.array(lanes, np.float64).reshape(-1, 8).T.copy()
    return price_lanes(columns[0], *columns[1:])


def _bits(values: FloatArray) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(values).view(np.uint64)


def _with(**changes: float) -> Lane:
    names = ("price", "underlying", "strike", "years", "rate", "carry", "is_call", "half_tick")
    assert set(changes) <= set(names)
    price, U, K, T, r, b, is_call, half_tick = (
        changes.get(name, value) for name, value in zip(names, GOOD, strict=True)
    )
    return price, U, K, T, r, b, is_call, half_tick


@pytest.mark.parametrize(
    ("lane", "expected"),
    [
        (GOOD, GreeksStatus.OK),
        (_with(price=990.0), GreeksStatus.BELOW_INTRINSIC),
        (_with(price=999.97), GreeksStatus.BELOW_INTRINSIC),
        (_with(price=999.98), GreeksStatus.NO_TIME_VALUE),
        (_with(price=1_000.0), GreeksStatus.NO_TIME_VALUE),
        (_with(price=1_000.02), GreeksStatus.NO_TIME_VALUE),
        (_with(price=1_000.05), GreeksStatus.OK),
        (_with(price=1_000.0 + 2e-8, half_tick=0.0), GreeksStatus.NO_TIME_VALUE),
        (_with(price=0.0), GreeksStatus.BELOW_INTRINSIC),
        (_with(price=0.0, is_call=0.0), GreeksStatus.NO_TIME_VALUE),
        (_with(price=0.05, is_call=0.0), GreeksStatus.OK),
        (_with(price=24_999.0), GreeksStatus.OK),
        (_with(price=25_000.0), GreeksStatus.ABOVE_MAXIMUM),
        (_with(price=26_000.0), GreeksStatus.ABOVE_MAXIMUM),
        (_with(price=24_000.0, is_call=0.0), GreeksStatus.ABOVE_MAXIMUM),
        (_with(price=24_000.0 * (1 - 2e-16), is_call=0.0), GreeksStatus.UNSOLVED),
        (_with(price=NAN), GreeksStatus.BAD_INPUT),
        (_with(price=INF), GreeksStatus.BAD_INPUT),
        (_with(price=-0.05), GreeksStatus.BAD_INPUT),
        (_with(underlying=0.0), GreeksStatus.BAD_INPUT),
        (_with(underlying=-1.0), GreeksStatus.BAD_INPUT),
        (_with(underlying=NAN), GreeksStatus.BAD_INPUT),
        (_with(strike=0.0), GreeksStatus.BAD_INPUT),
        (_with(strike=INF), GreeksStatus.BAD_INPUT),
        (_with(years=0.0), GreeksStatus.EXPIRED),
        (_with(years=-1.0), GreeksStatus.EXPIRED),
        (_with(years=NAN), GreeksStatus.BAD_INPUT),
        (_with(rate=NAN), GreeksStatus.BAD_INPUT),
        (_with(carry=-INF), GreeksStatus.BAD_INPUT),
        (_with(half_tick=NAN), GreeksStatus.BAD_INPUT),
        (_with(years=NAN, price=0.0), GreeksStatus.BAD_INPUT),
    ],
)
def test_what_cannot_be_priced_says_why(lane: Lane, expected: GreeksStatus) -> None:
    out, status = _price([lane])
    assert GreeksStatus(status[0]) == expected
    wanted = np.isfinite if expected == GreeksStatus.OK else np.isnan
    assert wanted(out).all()


def test_an_empty_batch_is_none() -> None:
    out, status = _price([])
    assert out.shape == (9, 0)
    assert status.shape == (0,)


def test_flags_may_be_bool_and_inputs_read_only() -> None:
    price, underlying, strike, years, rate, carry, _, half_tick = (np.full(3, x) for x in GOOD)
    is_call = np.array([True, True, False])
    for column in (price, underlying, strike, years, rate, carry, is_call, half_tick):
        column.setflags(write=False)
    out, status = np.empty((9, 3)), np.empty(3, np.uint8)
    price_options(price, underlying, strike, years, rate, carry, is_call, half_tick, out, status)
    assert status.tolist() == [0, 0, 0]
    assert out[GreekRow.DELTA, 0] > 0 > out[GreekRow.DELTA, 2]


def test_another_dtype_is_refused_rather_than_compiled_for() -> None:
    column, flags = np.ones(3), np.ones(3, np.uint8)
    narrow = np.ones(3, np.float32)
    with pytest.raises(TypeError):
        price_options(
            narrow,  # type: ignore[arg-type]
            column, column, column, column, column, flags, column, np.empty((9, 3)), flags.copy(),
        )  # fmt: skip


_numbers = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, NAN, INF, -INF, 5e-324, 1e-308, 1e308, 1.0, 24_000.0, 25_000.0]),
    st.floats(0.0, 100_000.0),
)
_lanes = st.lists(
    st.tuples(
        _numbers, _numbers, _numbers, _numbers, _numbers, _numbers, st.sampled_from([0.0, 1.0]),
        _numbers,
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


def _check(out: FloatArray, status: UInt8Array) -> None:
    assert np.isin(status, STATUSES).all()
    is_ok = status == GreeksStatus.OK
    assert np.isfinite(out[:, is_ok]).all()
    assert np.isnan(out[:, ~is_ok]).all()
    assert (out[GreekRow.IV, is_ok] > 0).all()


@given(_lanes)
@settings(max_examples=40, deadline=None)
def test_no_value_raises_and_every_lane_has_a_status(lanes: list[Lane]) -> None:
    _check(*_price(lanes))


@given(_lanes, st.integers(0, 40), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_neighbours_and_places_change_no_bit(lanes: list[Lane], place: int, random: Random) -> None:
    alone, _ = _price([GOOD])
    place = min(place, len(lanes))
    batch = [*lanes[:place], GOOD, *lanes[place:]]
    out, status = _price(batch)
    assert status[place] == GreeksStatus.OK
    assert np.array_equal(_bits(out[:, place]), _bits(alone[:, 0]))
    order = np.argsort([random.random() for _ in batch])
    shuffled, shuffled_status = _price([batch[k] for k in order])
    assert np.array_equal(shuffled_status, status[order])
    assert np.array_equal(_bits(shuffled), _bits(out[:, order]))


def _garbage(random: np.random.Generator, n: int) -> FloatArray:
    """Columns of 8 inputs: any bit pattern, special values, and numbers that could be quotes."""
    patterns = random.integers(0, 2**64, (8, n), dtype=np.uint64).view(np.float64)
    special = random.choice([0.0, -0.0, NAN, INF, -INF, 5e-324, 1e308, 1.0, 25_000.0], (8, n))
    plausible = random.uniform(0.0, 1.0, (8, n)) * np.array(
        [[3_000.0], [30_000.0], [30_000.0], [1.0], [0.1], [0.1], [2.0], [0.05]]
    )
    kind = random.random((8, n)) + random.random(n) - 0.5
    lanes = np.where(kind < 0.1, patterns, np.where(kind < 0.2, special, plausible))
    lanes[6] = lanes[6] > 1.0
    return lanes


@pytest.mark.slow
def test_ten_million_lanes_of_garbage() -> None:
    random = np.random.default_rng(7)
    for _ in range(100):
        lanes = _garbage(random, 100_000)
        grid = np.array(market_grid(RATE)[:8])
        places = np.sort(random.permutation(100_000)[: grid.shape[1]])
        lanes[:, places] = grid
        out, status = price_lanes(lanes[0], *lanes[1:])
        _check(out, status)
        assert set(status) == set(STATUSES)
        good, good_status = price_lanes(grid[0], *grid[1:])
        assert np.array_equal(status[places], good_status)
        assert np.array_equal(_bits(out[:, places]), _bits(good))
        order = random.permutation(100_000)
        shuffled, _ = price_lanes(lanes[0][order], *lanes[1:, order])
        assert np.array_equal(_bits(shuffled), _bits(out[:, order]))


def test_threads_at_once_get_what_one_gets() -> None:
    grid = market_grid(0.0)
    expected, _ = price_lanes(*grid[:8])
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: price_lanes(*grid[:8]), range(16)):
            assert np.array_equal(_bits(result[0]), _bits(expected))


@pytest.mark.slow
def test_the_loop_is_compiled_to_vector_instructions_alone() -> None:
    """Without them every figure of the benchmark is seven times worse, and nothing else tells."""
    code = "".join(create_kernel(cache=False).inspect_llvm().values())
    assert len(re.findall(r"= fdiv [^<\n]*<\d+ x double>", code)) >= 10
    # these would become a call of libm for each element
    assert not re.search(r"@llvm\.(exp|log|pow|sin|cos)[\w.]*\.v\d+f64", code)
