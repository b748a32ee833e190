"""What the board says of underlyings and arrivals, through the engine that writes it."""

import datetime as dt

import pytest

from tests.ticker.planning.test_plan import make
from ticker.board import Board
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.planning.levels import read_arrivals, read_levels

NEAR, NEXT = dt.date(2026, 11, 24), dt.date(2026, 12, 1)
TODAY = dt.date(2026, 11, 20)
INDEX = make(1, "NIFTY 50", segment="INDICES", symbol="NIFTY 50")
ROWS = [INDEX, *(make(10 + i, "NIFTY", "CE", 100.0 * i, NEAR) for i in range(3))]
ROWS += [make(20, "NIFTY", "PE", 100.0, NEXT), make(30, "OTHER", "CE", 1.0, NEAR)]


def tick(board: Board, instrument: Instrument, **values: float) -> None:
    slot = board.add(instrument, divisor=100, decimals=2, expires_at=0.0, text=b"")
    for name, value in values.items():
        board.rows[slot][name] = value
    board.index()


def test_levels_are_the_spot_and_the_median_forward_of_each_expiry() -> None:
    board, registry = Board(), InstrumentRegistry(ROWS)
    assert read_levels(board, registry, "NIFTY", TODAY).at(NEAR) is None
    tick(board, INDEX, quote=25_000.0)
    for row, forward in zip(ROWS[1:4], (25_010.0, 25_012.0, 99_000.0), strict=True):
        tick(board, row, priced_from=forward)
    tick(board, ROWS[-1], priced_from=7.0)
    levels = read_levels(board, registry, "NIFTY", TODAY)
    assert levels.spot == 25_000.0
    assert levels.forwards == {NEAR: 25_012.0}
    assert levels.at(NEXT) == 25_000.0
    assert read_levels(board, registry, "NOSUCH", TODAY).at(NEAR) is None


def test_a_slot_without_a_price_says_nothing() -> None:
    board = Board()
    tick(board, INDEX)
    tick(board, ROWS[1])
    levels = read_levels(board, InstrumentRegistry(ROWS), "NIFTY", TODAY)
    assert (levels.spot, levels.forwards) == (None, {})


@pytest.mark.parametrize("tokens", [[], [1, 10, 11, 77]])
def test_arrivals_are_of_what_has_ticked(tokens: list[int]) -> None:
    board = Board()
    tick(board, INDEX, received_at=5.0)
    tick(board, ROWS[1])  # on the board, but never ticked
    assert read_arrivals(board, tokens) == ({1: 5.0} if tokens else {})


def test_a_token_that_is_another_contract_on_the_board_says_nothing() -> None:
    board = Board()
    tick(board, make(10, "OTHER", "CE", 100.0, NEAR), priced_from=1_234.0)
    tick(board, make(1, "OTHER", segment="INDICES", symbol="OTHER"), quote=99.0)
    levels = read_levels(board, InstrumentRegistry(ROWS), "NIFTY", TODAY)
    assert (levels.spot, levels.forwards) == (None, {})
