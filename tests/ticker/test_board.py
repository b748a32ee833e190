"""The board: slots, lookup, growth, and what is known of an instrument."""

import threading

import numpy as np
import pytest

from tests.ticker.synthetic import (
    NOW,
    Packet,
    book,
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
from ticker.instruments.registry import Instrument
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


OLD = {Row.LAST_TRADE_TIME: int(NOW) - 7_200}
DOUBT = 2 * 0.05 + 0.02 * 1_001
"""Of a last price of 1,001 rupees."""


@pytest.mark.parametrize(
    ("words", "quote", "half_spread", "age_s"),
    [
        pytest.param(book(999, 1_002), 1_000.5, 1.5, 0, id="a sane book"),
        pytest.param(book(999, 1_002) | OLD, 1_000.5, 1.5, 0, id="and an old trade"),
        pytest.param(book(1_001, 1_001), 1_001, 0, 0, id="a locked book"),
        pytest.param(book(500, 1_500), 1_001, DOUBT, 0, id="a wide book"),
        pytest.param(book(980, 1_025) | OLD, 1_002.5, 22.5, 0, id="not too wide for an old trade"),
        pytest.param(book(500, 1_500) | OLD, 1_001, DOUBT, 7_200, id="too wide even so"),
        pytest.param(book(1_100, 1_900) | OLD, 1_100, DOUBT + 99, 0, id="beyond a wide book"),
        pytest.param(book(1_003, 1_002), 1_001, DOUBT, 0, id="a crossed book"),
        pytest.param(book(None, 1_002), 1_001, DOUBT, 0, id="sellers only"),
        pytest.param(book(None, 1_002) | OLD, 1_001, DOUBT, 7_200, id="and an old trade, too"),
        pytest.param(book(None, 991) | OLD, 991, DOUBT + 10, 0, id="sellers below it"),
        pytest.param(book(1_011, None) | OLD, 1_011, DOUBT + 10, 0, id="buyers above it"),
        pytest.param(book(None, 0), 1_001, DOUBT, 0, id="an offer without a price"),
    ],
)
def test_the_quote_is_the_less_doubtful_of_book_and_last_price(
    words: dict[int, int], quote: float, half_spread: float, age_s: float
) -> None:
    future = create_future(1)
    engine = create_market_engine([future])
    process(engine, [Packet(future, 1_001.0, words=words)])
    row = engine.board.read(np.zeros(1, np.int32)).rows[0]
    assert row["quote"] == pytest.approx(quote)
    assert row["half_spread"] == pytest.approx(half_spread)
    assert row["quoted_at"] == NOW - age_s


@pytest.mark.parametrize(("words", "quote"), [(book(5, 15), 10.0), (book(5, None), np.nan)])
def test_what_never_traded_is_quoted_by_its_book_alone(words: dict[int, int], quote: float) -> None:
    future = create_future(1)
    engine = create_market_engine([future])
    process(engine, [Packet(future, 0.0, words=words)])
    row = engine.board.read(np.zeros(1, np.int32)).rows[0]
    assert row["quote"] == pytest.approx(quote, nan_ok=True)


def test_without_a_trade_time_a_price_is_as_old_as_its_last_change() -> None:
    future, index = create_future(1), create_index()
    engine = create_market_engine([future, index])

    def traded_at(instrument: Instrument, at: float, kind: PacketKind, volume: int = 5) -> float:
        packet = Packet(instrument, 25_000.0, kind, words={Row.VOLUME_TRADED: volume})
        process(engine, [packet], NOW + at)
        row = engine.board.read(engine.board.find(np.array([instrument.instrument_token])))
        assert row.rows["received_at"][0] == NOW + at
        return float(row.rows["traded_at"][0] - NOW)

    assert traded_at(future, 0, PacketKind.QUOTE) == 0
    assert traded_at(future, 1, PacketKind.QUOTE) == 0
    assert traded_at(future, 2, PacketKind.LTP) == 0
    assert traded_at(future, 3, PacketKind.QUOTE, volume=6) == 3
    assert traded_at(index, 0, PacketKind.INDEX_QUOTE) == 0
    assert traded_at(index, 1, PacketKind.INDEX_QUOTE) == 1, "an index is no trade"


def test_a_retired_slot_is_not_found_any_more() -> None:
    board = Board()
    old, other = create_option(1, 100.0, "CE"), create_option(2, 300.0, "PE")
    add(board, old)
    add(board, other)
    board.retire(0)
    board.index()
    tokens = np.array([old.instrument_token, other.instrument_token, 0], np.uint32)
    assert board.find(tokens).tolist() == [NO_SLOT, 1, NO_SLOT]
    assert board.live() == [(1, other)]


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


def test_what_is_forgotten_is_as_if_nothing_had_ticked() -> None:
    board = Board()
    slots = np.array([add(board, each) for each in create_chain([24_000, 24_050])], np.int32)
    rows, words = board.rows[slots].copy(), board.words[slots].copy()
    told = ("received_at", "traded_at", "quote", "half_spread", "quoted_at", "greeks")
    for name in (*told, "priced_from", "source", "known", "kind", "status"):
        board.rows[name][slots] = 7
    board.words[slots] = 7
    board.forget(slots[:2])
    assert board.rows[slots[:2]].tobytes() == rows[:2].tobytes()
    assert (board.words[slots[:2]] == words[:2]).all()
    assert (board.rows["traded_at"][slots[2:]] == 7).all()
    assert (board.words[slots[2:]] == 7).all()
