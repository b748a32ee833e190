"""Hex lines in, JSON lines out, and a summary that adds up."""

import base64
import io
import json
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.kite.batches import batches
from ticker.decode import Summary, decode_lines, read_lines
from ticker.kite.wire import encode_frame
from ticker.ticks import TickBatch

MOCKS = Path(__file__).parents[3] / "shared" / "kite-mocks"
LTP = struct.pack(">HHIi", 1, 8, 0x102, 157370).hex()
LTP_JSON = {"instrument_token": 258, "mode": "ltp", "tradable": True, "last_price": 1573.7}


def decode(lines: Iterable[str | bytes | None]) -> tuple[list[dict[str, Any]], Summary]:
    written: list[str] = []
    summary = decode_lines(lines, written.append)
    assert all(part.endswith("\n") for part in written)
    return [json.loads(line) for line in "".join(written).splitlines()], summary


def frame_of(*packets: bytes) -> str:
    body = b"".join(struct.pack(">H", len(packet)) + packet for packet in packets)
    return (struct.pack(">H", len(packets)) + body).hex()


def test_an_ltp_packet_carries_a_price_and_no_more() -> None:
    packets, summary = decode([LTP])
    assert packets == [{"frame": 0, **LTP_JSON}]
    assert summary == Summary(frames=1, packets=1, heartbeats=0, anomalies={})
    assert summary.to_json() == '{"frames":1,"packets":1,"heartbeats":0,"anomalies":{}}'


@pytest.mark.parametrize(("length", "mode"), [(28, "quote"), (32, "full")])
def test_an_index_packet(length: int, mode: str) -> None:
    sent = struct.pack(">I6iI", 256265, 2500005, 2550010, 2449995, 2490000, 2480000, 7, 1625461887)
    packets, _ = decode([frame_of(sent[:length])])
    expected: dict[str, Any] = {
        "frame": 0,
        "instrument_token": 256265,
        "mode": mode,
        "tradable": False,
        "last_price": 25000.05,
        "ohlc": {"open": 24900.0, "high": 25500.1, "low": 24499.95, "close": 24800.0},
        "change": (25000.05 - 24800.0) * 100 / 24800.0,
    }
    if mode == "full":
        expected["exchange_timestamp"] = "2021-07-05T10:41:27+05:30"
    assert packets == [expected]


def test_times_are_null_and_change_is_zero_when_there_are_none() -> None:
    index, tradable = struct.pack(">I", 9) + bytes(28), struct.pack(">I", 258) + bytes(180)
    packets, _ = decode([frame_of(index, tradable)])
    assert packets[0]["exchange_timestamp"] is None
    assert packets[1]["exchange_timestamp"] is None
    assert packets[1]["last_trade_time"] is None
    assert [packet["change"] for packet in packets] == [0, 0]


def test_the_latest_time_a_word_holds() -> None:
    packets, _ = decode([frame_of(struct.pack(">I24xI", 9, 2**32 - 1))])
    assert packets[0]["exchange_timestamp"] == "2106-02-07T11:58:15+05:30"


@pytest.mark.parametrize(
    ("segment", "price", "text"),
    [
        (2, 157370, "1573.7"),
        (2, -5, "-0.05"),
        (3, 856012345, "85.6012345"),
        (6, 856012, "85.6012"),
        (12, 1, "0.0001"),
        (2, 2**31 - 1, "21474836.47"),
    ],
)
def test_prices_print_as_the_wire_means_them(segment: int, price: int, text: str) -> None:
    written: list[str] = []
    decode_lines([struct.pack(">HHIi", 1, 8, 256 | segment, price).hex()], written.append)
    assert f'"last_price":{text}}}' in written[0]


@pytest.mark.skipif(not MOCKS.is_dir(), reason="the broker's sample packets are not here")
@pytest.mark.parametrize("mode", ["quote", "full"])
def test_captured_packets_read_as_the_broker_s_own_sample(mode: str) -> None:
    body = base64.b64decode((MOCKS / f"ticker_{mode}.packet").read_text())
    [packet], _ = decode([frame_of(body)])
    sample = json.loads((MOCKS / f"ticker_{mode}.json").read_text())
    del sample["change"]  # the samples hold a difference in rupees, and of one of them a wrong one
    change = packet.pop("change")
    assert change == (packet["last_price"] - 1567.8) * 100 / 1567.8
    renamed = {
        "last_quantity": "last_traded_quantity",
        "average_price": "average_traded_price",
        "volume": "volume_traded",
        "buy_quantity": "total_buy_quantity",
        "sell_quantity": "total_sell_quantity",
        "timestamp": "exchange_timestamp",
    }
    expected = {"frame": 0} | {renamed.get(name, name): value for name, value in sample.items()}
    assert packet == expected


def test_blank_lines_and_comments_are_no_frames() -> None:
    lines = ["", "  \n", "# a comment\n", "\r\n", f"  {LTP.upper()}  # the price\r\n", "\t#", LTP]
    packets, summary = decode(lines)
    assert [packet["frame"] for packet in packets] == [0, 1]
    assert summary == Summary(2, 2, 0, {})


def test_every_other_line_is_a_frame_and_takes_a_number() -> None:
    spaced = " ".join(LTP[at : at + 2] for at in range(0, len(LTP), 2))
    lines = ["00", "xyz", LTP[:-1], None, "0000", LTP[:-2], spaced]
    packets, summary = decode(lines)
    assert packets == [{"frame": 6, **LTP_JSON}]
    anomalies = {"invalid_hex": 2, "oversize_line": 1, "truncated_packet": 1}
    assert summary == Summary(7, 1, 2, anomalies)


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"\x00\x00\n", b"0x0001", "é", "\ud800", "00" * 500_000 + "g", b"0 0"]
)
def test_what_is_not_hex_is_counted(line: str | bytes) -> None:
    packets, summary = decode([line, LTP])
    assert packets == [{"frame": 1, **LTP_JSON}]
    assert summary == Summary(2, 1, 0, {"invalid_hex": 1})


def test_a_megabyte_line_is_one_frame() -> None:
    packets, summary = decode(["0000" + "00" * 500_000])
    assert packets == []
    assert summary == Summary(1, 0, 0, {"trailing_bytes": 1})


def test_no_lines_are_a_summary() -> None:
    assert decode([]) == ([], Summary(0, 0, 0, {}))
    assert decode(read_lines(io.BytesIO(b"")))[1] == Summary(0, 0, 0, {})


@given(st.lists(st.binary() | st.text("0123456789abc #\r\n")))
@settings(max_examples=50)
def test_no_line_raises(lines: list[str | bytes]) -> None:
    packets, summary = decode(lines)
    assert len(packets) == summary.packets
    assert summary.frames <= len(lines)


@given(st.lists(batches(5), max_size=4))
@settings(max_examples=30)
def test_packets_are_numbered_by_their_frame(frames: list[TickBatch]) -> None:
    packets, summary = decode(encode_frame(ticks).hex() for ticks in frames)
    assert [(packet["frame"], packet["instrument_token"]) for packet in packets] == [
        (index, token) for index, ticks in enumerate(frames) for token in ticks.token.tolist()
    ]
    assert summary.frames == len(frames)


def test_lines_are_decoded_as_they_come() -> None:
    written: list[str] = []

    def lines() -> Iterable[str]:
        for count in range(3):
            assert len(written) == count
            yield LTP

    decode_lines(lines(), written.append)
    assert len(written) == 3


def test_a_reader_that_went_away_ends_it() -> None:
    def write(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        decode_lines([LTP], write)


def test_overlong_lines_are_told_and_not_kept() -> None:
    stream = io.BytesIO(b"12345678\n1234567890\n" + b"x" * 50 + b"\n123\n" + b"y" * 18)
    assert list(read_lines(stream, max_line=8)) == [b"12345678\n", None, None, b"123\n", None]
    exact = io.BytesIO(b"12345678")
    assert list(read_lines(exact, max_line=8)) == [b"12345678"]


@pytest.mark.slow
def test_importing_is_light() -> None:
    heavy = "{'numba', 'trio', 'pydantic', 'redis', 'typer', 'vollib', 'structlog', 'httpx'}"
    program = f"import sys, ticker.decode; sys.exit(bool({heavy} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
