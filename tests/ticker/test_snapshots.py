"""Payloads: what they say, digit by digit, and how they lie in their buffer."""

import json
import math
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ticker.reference_payload import ReferenceInstrument, is_equal, parse
from tests.ticker.synthetic import (
    NOW,
    Packet,
    create_frame,
    create_future,
    create_index,
    create_market_engine,
    create_option,
    create_share,
    process,
)
from ticker.greeks.pricing import STATUS_NAMES
from ticker.instruments.registry import Instrument
from ticker.messages import ConnectionId, SnapshotBatch
from ticker.snapshots.formatter import MESSAGE_MAX, MESSAGE_SLACK, _put_float, _put_time
from ticker.ticks import PacketKind, Row

INDEX = create_index()
CALL = create_option(40_000, 25_000.0, "CE")
FUTURE = create_future(35_000)
DOLLAR = create_option(900, 83.5, "PE", "USDINR", exchange="CDS", segment=3, tick_size=0.0025)
EURO = create_future(901, "EURINR", exchange="BCD", segment=6)
CRUDE = create_future(902, "CRUDEOIL", exchange="MCX", segment=7)
SHARE = create_share(341, "M&M")
MARKET = [INDEX, CALL, FUTURE, DOLLAR, EURO, CRUDE, SHARE]
FORWARD_FIELDS = (
    "underlying_price",
    "underlying_age_s",
    "forward",
    "forward_source",
    "forward_age_s",
)
WORDS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.integers(0, 100_000),
    st.sampled_from([0, 9, 10, 99_999_999, 100_000_000, 2**31 - 1, 2**31, 2**32 - 1]),
)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine([]).warm_up()


def commands(snapshots: SnapshotBatch) -> list[tuple[bytes, bytes]]:
    """Channel and payload of each command, read as a Redis server reads them."""
    data = bytes(snapshots.buffer)
    found = []
    at = 0
    while at < len(data):
        parts = []
        assert data[at : at + 4] == b"*3\r\n"
        at += 4
        for _ in range(3):
            end = data.index(b"\r\n", at)
            assert data[at : at + 1] == b"$"
            assert not data[at + 1 : end].startswith(b"0")
            size = int(data[at + 1 : end])
            parts.append(data[end + 2 : end + 2 + size])
            at = end + 2 + size
            assert data[at : at + 2] == b"\r\n"
            at += 2
        assert parts[0] == b"PUBLISH"
        found.append((parts[1], parts[2]))
    return found


packets = st.builds(
    Packet,
    st.sampled_from(MARKET),
    st.just(0.0),
    st.sampled_from(PacketKind),
    words=st.fixed_dictionaries(dict.fromkeys(range(1, 46), WORDS)),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(ticks=st.lists(packets, min_size=1, max_size=12), is_mock=st.booleans())
def test_payloads_are_those_of_the_slow_formatter(ticks: list[Packet], is_mock: bool) -> None:
    engine = create_market_engine(MARKET, validates=False, is_mock=is_mock, reprice_interval_s=0)
    known = {each.instrument_token: ReferenceInstrument(each) for each in MARKET}
    for number, tick in enumerate(ticks):
        now = NOW + number / 8
        snapshots = engine.process([create_frame([tick], now)], now).snapshots
        assert snapshots is not None
        [(channel, payload)] = commands(snapshots)
        assert payload == bytes(
            snapshots.buffer[snapshots.payload_starts[0] : snapshots.payload_ends[0]]
        )
        msgspec.json.decode(payload)
        actual = parse(payload)
        reference = known[tick.instrument.instrument_token]
        words = [word & 0xFFFFFFFF for word in tick.column()]
        reference.take(words, tick.kind)
        row = engine.board.read(snapshots.slots).rows[0]
        expected = reference.payload(
            row["greeks"].tolist(),
            STATUS_NAMES[row["status"]],
            received_ts=now,
            account_id="alpha",
            is_mock=is_mock,
            seq=number + 1,
        )
        if tick.instrument.is_index:
            assert channel == b"ticker:nifty:underlying"
        else:
            assert channel == b"ticker:nifty:options"
            for name in FORWARD_FIELDS:
                del actual[name]
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert is_equal(actual[name], value), name


@pytest.mark.parametrize(
    ("instrument", "word", "written"),
    [
        (CALL, 5, "0.05"),
        (CALL, 10_000_000, "100000.00"),
        (FUTURE, 2**31 - 1, "21474836.47"),
        (CRUDE, -3_763, "-37.63"),
        (CRUDE, -5, "-0.05"),
        (CRUDE, -(2**31), "-21474836.48"),
        (EURO, 901_234, "90.1234"),
        (EURO, -7, "-0.0007"),
        (DOLLAR, 834_525_000, "83.4525000"),
        (DOLLAR, 1, "0.0000001"),
        (DOLLAR, -(2**31), "-214.7483648"),
    ],
)
def test_prices_are_exact(instrument: Instrument, word: int, written: str) -> None:
    engine = create_market_engine(MARKET, validates=False)
    tick = Packet(instrument, 0.0, words={Row.LAST_PRICE: word & 0xFFFFFFFF})
    snapshots = engine.process([create_frame([tick])], NOW).snapshots
    assert snapshots is not None
    assert f'"price":{written},'.encode() in bytes(snapshots.buffer)


def test_messages_lie_back_to_back() -> None:
    engine = create_market_engine(MARKET)
    kinds = [PacketKind.FULL, PacketKind.LTP, PacketKind.QUOTE, PacketKind.FULL, PacketKind.LTP]
    ticks = [Packet(each, 25_000.0, kind) for each in (FUTURE, SHARE) for kind in kinds]
    ticks.append(Packet(INDEX, 25_000.0, PacketKind.INDEX_FULL))
    snapshots = engine.process([create_frame(ticks)], NOW).snapshots
    assert snapshots is not None
    assert len(commands(snapshots)) == len(ticks) == len(snapshots)
    assert snapshots.starts[0] == 0
    assert snapshots.starts[-1] == len(snapshots.buffer)
    sizes = snapshots.payload_ends - snapshots.payload_starts
    assert sizes.min() < 1000 < sizes.max(), "the lengths have different numbers of digits"
    for i, (_, payload) in enumerate(commands(snapshots)):
        start, end = snapshots.payload_starts[i], snapshots.payload_ends[i]
        assert bytes(snapshots.buffer[start:end]) == payload
        assert bytes(snapshots.buffer[snapshots.starts[i] : start]).startswith(b"*3\r\n$7\r\nPUB")


def test_empty_levels_are_left_out() -> None:
    engine = create_market_engine(MARKET)
    empty = dict.fromkeys(range(Row.BIDS + 6, Row.ASKS), 0) | {Row.ASKS: 0}
    [payload] = process(engine, [Packet(FUTURE, 100.0, words=empty)])
    assert [level["quantity"] for level in payload["depth"]["buy"]] == [65, 130]
    assert [level["quantity"] for level in payload["depth"]["sell"]] == [130, 195, 260, 325]
    [payload] = process(engine, [Packet(FUTURE, 100.0, half_spread=0)])
    assert payload["depth"] == {"buy": [], "sell": []}


def test_an_index_is_a_tick_and_a_bar() -> None:
    engine = create_market_engine(MARKET)
    words = {Row.OPEN: 24_950_00, Row.HIGH: 25_100_00, Row.LOW: 24_900_00, Row.CLOSE: 24_890_00}
    [payload] = process(engine, [Packet(INDEX, 25_000.5, PacketKind.INDEX_FULL, words=words)])
    day = {"open": 24_950.0, "high": 25_100.0, "low": 24_900.0}
    assert payload["ohlc"] == day | {"close": 24_890.0}
    assert {name: payload[name] for name in day} == day
    assert payload["close"] == payload["last_price"] == 25_000.5
    assert payload["timestamp"] == payload["ts"] == payload["exchange_ts"] == int(NOW)
    assert payload["volume"] is None
    assert payload["symbol"] == "NIFTY"


@pytest.mark.parametrize("name", ['A"B', "back\\slash", "tab\t", "ündïcode ₹", "M&M", ""])
def test_names_are_quoted(name: str) -> None:
    share = create_share(500, name or "X")
    engine = create_market_engine([share])
    frame = create_frame([Packet(share, 100.0)], NOW, ConnectionId(name, 0))
    snapshots = engine.process([frame], NOW).snapshots
    assert snapshots is not None
    payload = json.loads(commands(snapshots)[0][1])
    assert payload["account_id"] == name
    assert payload["tradingsymbol"] == (name or "X")


def test_the_longest_message_fits() -> None:
    engine = create_market_engine(MARKET, validates=False)
    words = dict.fromkeys(range(1, 46), 2**32 - 1)
    for row in (*range(1, 11), *range(17, 46, 3)):
        words[row] = 2**31
    snapshots = engine.process([create_frame([Packet(DOLLAR, 0.0, words=words)])], NOW).snapshots
    assert snapshots is not None
    greeks = 9 * len(str(Decimal(10) ** 16))
    assert len(snapshots.buffer) + greeks + 8 * 20 < MESSAGE_MAX


finite = st.floats(-1e15, 1e15) | st.floats(-10, 10) | st.floats(-1e-3, 1e-3)


@settings(max_examples=400, deadline=None)
@given(value=finite)
@example(value=0.99999999999)
@example(value=9.9999999996)
@example(value=0.0999999999999)
@example(value=1e15)
@example(value=-0.0)
def test_floats_are_written_to_nine_digits(value: float) -> None:
    buffer = np.zeros(MESSAGE_SLACK, np.uint8)
    text = bytes(buffer[: _put_float(buffer, 0, value)])
    assert math.isclose(json.loads(text), value, rel_tol=5e-9, abs_tol=1e-15)
    assert b"." in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e16, -1e300])
def test_what_is_no_number_is_null(value: float) -> None:
    buffer = np.zeros(MESSAGE_SLACK, np.uint8)
    assert bytes(buffer[: _put_float(buffer, 0, value)]) == b"null"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (1_795_152_600.25, b"1795152600.250000"),
        (0.0, b"0.000000"),
        (0.9999999, b"1.000000"),
        (math.nan, b"null"),
        (-1.0, b"null"),
    ],
)
def test_times_have_microseconds(seconds: float, written: bytes) -> None:
    buffer = np.zeros(MESSAGE_SLACK, np.uint8)
    assert bytes(buffer[: _put_time(buffer, 0, seconds)]) == written


def test_accounts_are_told_apart() -> None:
    engine = create_market_engine(MARKET)
    names = ["alpha", "a", "a much longer name", "b"]
    frames = [create_frame([Packet(FUTURE, 100.0)], NOW, ConnectionId(name, 0)) for name in names]
    told = []
    for batch in (frames[:1], frames, frames[::-1]):
        snapshots = engine.process(batch, NOW).snapshots
        assert snapshots is not None
        told += [json.loads(payload)["account_id"] for _, payload in commands(snapshots)]
    assert told == ["alpha", *names, *reversed(names)]
