"""Rules: what is dropped, what is only counted."""

import pytest

from tests.ticker.synthetic import (
    ALPHA,
    NOW,
    Packet,
    create_frame,
    create_future,
    create_index,
    create_market_engine,
    create_option,
    create_share,
)
from ticker.engine import Enriched
from ticker.instruments.registry import Instrument
from ticker.ticks import PacketKind, Row

INDEX = create_index()
OPTION = create_option(40_000, 25_000.0, "CE")
SHARE = create_share(341, "MRF")
CRUDE = create_future(902, "CRUDEOIL", exchange="MCX", segment=7)
CRUDE_OPTION = create_option(903, 5_000.0, "PE", "CRUDEOIL", exchange="MCX", segment=7)
FUTURE = create_future(35_000)
MARKET = [INDEX, OPTION, SHARE, CRUDE, CRUDE_OPTION, FUTURE]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine([]).warm_up()


def judge(packet: Packet, *, is_strict: bool = False, validates: bool = True) -> Enriched:
    engine = create_market_engine(MARKET, is_strict=is_strict, validates=validates)
    return engine.process([create_frame([packet])], NOW)


@pytest.mark.parametrize(
    ("instrument", "price", "is_sound"),
    [
        (INDEX, 25_000.0, True),
        (INDEX, 1_000_000.0, True),
        (INDEX, 0.0, False),
        (INDEX, -1.0, False),
        (INDEX, 1_000_000.05, False),
        (OPTION, 0.0, True),
        (OPTION, 100_000.0, True),
        (OPTION, -0.05, False),
        (OPTION, 100_000.05, False),
        (SHARE, 149_000.0, True),
        (SHARE, -0.05, False),
        (SHARE, 1_000_000.05, False),
        (FUTURE, -0.05, False),
        (CRUDE, -37.63, True),
        (CRUDE_OPTION, -0.05, False),
    ],
)
def test_prices_that_cannot_be_are_dropped(
    instrument: Instrument, price: float, is_sound: bool
) -> None:
    kind = PacketKind.INDEX_FULL if instrument.is_index else PacketKind.FULL
    enriched = judge(Packet(instrument, price, kind))
    if is_sound:
        assert enriched.dropped == {}
        assert enriched.snapshots is not None
    else:
        assert enriched.dropped == {(ALPHA, "invalid"): 1}
        assert enriched.violations == {"schema": 1}
        assert enriched.snapshots is None
        assert judge(Packet(instrument, price, kind), validates=False).dropped == {}


def test_token_zero_is_invalid_not_unknown() -> None:
    enriched = judge(Packet(OPTION, 1.0, words={Row.INSTRUMENT_TOKEN: 0}))
    assert enriched.dropped == {(ALPHA, "invalid"): 1}


@pytest.mark.parametrize(
    "words",
    [
        {Row.OI: 2_000_000_001},
        {Row.BIDS + 1: 101_00, Row.ASKS + 1: 100_00},
        {Row.HIGH: 99_00, Row.LOW: 98_00},
        {Row.HIGH: 120_00, Row.LOW: 101_00},
    ],
)
def test_strange_ticks_are_counted_and_dropped_only_when_strict(words: dict[int, int]) -> None:
    packet = Packet(OPTION, 100.0, words=words)
    lenient = judge(packet)
    assert lenient.violations == {"business_rule": 1}
    assert lenient.dropped == {}
    assert lenient.snapshots is not None
    strict = judge(packet, is_strict=True)
    assert strict.dropped == {(ALPHA, "invalid"): 1}
    assert strict.snapshots is None


@pytest.mark.parametrize(
    "words",
    [
        {Row.OI: 2_000_000_000},
        {Row.BIDS + 1: 100_00, Row.ASKS + 1: 100_00},
        {Row.BIDS: 0, Row.BIDS + 1: 101_00, Row.ASKS + 1: 100_00},
        {Row.OPEN: 0, Row.HIGH: 0, Row.LOW: 0},
    ],
)
def test_rare_but_real_ticks_are_not_strange(words: dict[int, int]) -> None:
    assert judge(Packet(OPTION, 100.0, words=words)).violations == {}


def test_a_dropped_tick_leaves_no_trace() -> None:
    engine = create_market_engine(MARKET)
    engine.process([create_frame([Packet(FUTURE, 25_000.0)])], NOW)
    ticks = [Packet(FUTURE, -1.0), Packet(OPTION, 100.0)]
    enriched = engine.process([create_frame(ticks)], NOW + 1)
    assert enriched.dropped == {(ALPHA, "invalid"): 1}
    slot = engine.board.instruments.index(FUTURE)
    assert engine.board.words[slot, Row.LAST_PRICE] == 25_000_00
    assert engine.board.rows[slot]["received_at"] == NOW
