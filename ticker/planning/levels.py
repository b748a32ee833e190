"""What steering reads from the board: where underlyings stand, and when instruments ticked.

Both functions wait for the board's lock, milliseconds at most: from async code, call them in a
worker thread.
"""

import datetime as dt
import statistics
from collections.abc import Sequence

import numpy as np

from ticker.board import NO_SLOT, Board, RowArray
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.planning.strikes import Levels, find_reference


def read_arrivals(board: Board, tokens: Sequence[int]) -> dict[int, float]:
    """When the newest tick of each token arrived, UNIX seconds; without those that never did."""
    slots, rows, _ = _read(board, tokens)
    return {
        token: float(row["received_at"])
        for token, slot, row in zip(tokens, slots, rows, strict=True)
        if slot != NO_SLOT and not np.isnan(row["received_at"])
    }


def read_levels(
    board: Board, registry: InstrumentRegistry, underlying: str, today: dt.date
) -> Levels:
    """The spot and the forwards of an underlying as the newest ticks have them, in rupees.

    Of each expiry, the median forward of those that its options were priced from. Nothing that
    has not ticked has a say, nor has a token that stands for another contract on the board: a new
    registry gets there with the next frame.
    """
    reference = find_reference(registry, underlying, today)
    options = [row for row in registry.of_underlying(underlying) if row.is_option]
    instruments: list[Instrument] = [*options, *([reference] if reference else [])]
    _, rows, held = _read(board, [row.instrument_token for row in instruments])
    forwards: dict[dt.date, list[float]] = {}
    spot: float | None = None
    for instrument, row, there in zip(instruments, rows, held, strict=True):
        if there is None or there.contract != instrument.contract:
            continue
        if instrument is reference:
            spot = float(row["quote"]) if row["quote"] > 0 else None
        elif instrument.expiry is not None and row["priced_from"] > 0:
            forwards.setdefault(instrument.expiry, []).append(float(row["priced_from"]))
    return Levels(spot, {expiry: statistics.median(found) for expiry, found in forwards.items()})


def _read(
    board: Board, tokens: Sequence[int]
) -> tuple[list[int], RowArray, list[Instrument | None]]:
    """Slots, a copy of their rows, and what is in them; what has no slot has another's row."""
    wanted = np.array(tokens, np.uint32)
    with board.lock:  # around all: the lookup tables are replaced when instruments are added
        slots = board.find(wanted)
        places = slots.tolist()
        held = [board.instruments[place] if place != NO_SLOT else None for place in places]
        return places, board.rows[np.maximum(slots, 0)], held
