"""The board: slots, lookup, growth, and what is known of an instrument."""

import threading

import numpy as np
import pytest

from tests.ticker.synthetic import (
    NOW,
    Packet,
    create_chain,
    create_frame,
    create_future,
    create_index,
    create_market_engine,
    create_option,
    create_share,
    process,
)
from ticker.board import NO_SLOT, Board, InstrumentClass
from ticker.instruments import Instrument
from ticker.ticks import PacketKind, Row


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine([]).warm_up()


def add(board: Board, instrument: Instrument, text: bytes = b"{}") -> int:
    return board.add(instrument, divisor=100, decimals=2, expires_at=NOW, text=text)


def test_slots_are_dense_and_found_by_token() -> None:
    board = Board(capacity=2)
    chain = create_chain(range(24_000, 26_000, 50))
    tokens = np.array([each.instrument_token for each in chain], np.uint32)
    assert board.find(tokens).tolist() == [NO_SLOT] * len(chain)
    assert [add(board, each, each.tradingsymbol.encode()) for each in chain] == [*range(len(chain))]
    board.index()
    assert board.find(tokens).tolist() == [*range(len(chain))]
    assert board.find(np.array([1, 2**32 - 1], np.uint32)).tolist() == [NO_SLOT, NO_SLOT]
    assert board.find(np.empty(0, np.uint32)).tolist() == []
    for slot, each in enumerate(chain):
        row = board.rows[slot]
        assert (
            bytes(board.texts[row["text_start"] : row["text_end"]]).decode() == each.tradingsymbol
        )
        assert row["strike"] == each.strike


def test_a_token_that_is_used_again_leads_to_the_newer_slot() -> None:
    board = Board()
    old, new = create_option(1, 100.0, "CE"), create_option(1, 200.0, "PE")
    other = create_option(2, 300.0, "PE")
    for each in (old, other, new):
        add(board, each)
    board.index()
    tokens = np.array([old.instrument_token, other.instrument_token], np.uint32)
    assert board.find(tokens).tolist() == [2, 1]
    assert board.instruments == [old, other, new]


@pytest.mark.parametrize(
    ("instrument", "expected"),
    [
        (create_index(), InstrumentClass.INDEX),
        (create_option(1, 100.0, "PE"), InstrumentClass.OPTION),
        (create_future(1), InstrumentClass.FUTURE),
        (create_share(1, "X"), InstrumentClass.CASH),
    ],
)
def test_classes(instrument: Instrument, expected: InstrumentClass) -> None:
    board = Board()
    assert board.rows[add(board, instrument)]["instrument_class"] == expected


def test_rows_hold_the_newest_values() -> None:
    future = create_future(1)
    engine = create_market_engine([future])
    process(engine, [Packet(future, 25_000.0)])
    process(
        engine, [Packet(future, 25_001.5, PacketKind.QUOTE, words={Row.VOLUME_TRADED: 9})], NOW + 1
    )
    read = engine.board.read(np.zeros(1, np.int32))
    assert read.words[0, Row.LAST_PRICE] == 25_001_50
    assert read.words[0, Row.VOLUME_TRADED] == 9
    assert read.words[0, Row.OI] == 777
    assert read.rows["received_at"].tolist() == [NOW + 1]
    assert read.rows["kind"].tolist() == [PacketKind.QUOTE]


def test_the_quote_is_the_middle_of_a_sane_book_else_the_last_price() -> None:
    future = create_future(1)
    engine = create_market_engine([future])

    def quote(packet: Packet) -> tuple[float, float]:
        process(engine, [packet])
        row = engine.board.read(np.zeros(1, np.int32)).rows[0]
        return float(row["quote"]), float(row["half_spread"])

    lopsided = {Row.BIDS + 1: 999_00, Row.ASKS + 1: 1_002_00}
    assert quote(Packet(future, 1_001.0, words=lopsided)) == (1_000.5, 1.5)
    wide = {Row.BIDS + 1: 500_00, Row.ASKS + 1: 1_500_00}
    assert quote(Packet(future, 1_001.0, words=wide))[0] == 1_001.0
    crossed = {Row.BIDS + 1: 1_003_00, Row.ASKS + 1: 1_002_00}
    assert quote(Packet(future, 1_001.0, words=crossed))[0] == 1_001.0
    one_sided = {Row.BIDS: 0}
    assert quote(Packet(future, 1_001.0, words=one_sided))[0] == 1_001.0
    assert quote(Packet(future, 1_004.0, PacketKind.LTP))[0] == 1_004.0
    assert np.isnan(quote(Packet(future, 0.0, PacketKind.LTP))[0])


def test_a_reader_waits_for_the_batch_in_hand() -> None:
    future = create_future(1)
    engine = create_market_engine([future])
    engine.process([create_frame([Packet(future, 25_000.0)])], NOW)
    board = engine.board
    done = threading.Event()

    def read() -> None:
        board.read(np.zeros(1, np.int32))
        done.set()

    thread = threading.Thread(target=read)
    with board.lock:
        thread.start()
        assert not done.wait(0.02)
    assert done.wait(5)
    thread.join()


def test_the_copy_is_the_readers_own() -> None:
    future = create_future(1)
    engine = create_market_engine([future])
    process(engine, [Packet(future, 25_000.0)])
    before = engine.board.read(np.zeros(1, np.int32))
    process(engine, [Packet(future, 26_000.0)])
    assert before.words[0, Row.LAST_PRICE] == 25_000_00
