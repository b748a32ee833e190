"""The official client's parser and ours on the same frames: equal but for its known faults.

What differs, and is shown here:

* prices: it reads them unsigned, so a negative one becomes a very large one;
* times: it gives naive datetimes of the host's zone, we give offsets;
* never (0): it gives the epoch for a time, we give null;
* a frame cut short, or a wrong count: it raises, and the frame's good packets are lost;
* a packet of unknown length: it skips it without a word, we count it.
"""

import datetime as dt
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kiteconnect import KiteTicker

from tests.ticker.kite.batches import create_batch, kinds
from ticker.decode import decode_lines
from ticker.kite.wire import decode_frames, encode_frame
from ticker.ticks import PacketKind, Row, TickBatch

PRICES = [
    Row.LAST_PRICE,
    Row.AVERAGE_TRADED_PRICE,
    *range(Row.OPEN, Row.CLOSE + 1),
    *range(Row.BIDS + 1, Row.ASKS + 15, 3),
]
TIMES = {"last_trade_time", "exchange_timestamp"}


def parse_officially(frame: bytes) -> list[dict[str, Any]]:
    packets: list[dict[str, Any]] = KiteTicker("key", "token")._parse_binary(frame)
    return packets


def parse_ours(frame: bytes) -> list[dict[str, Any]]:
    written: list[str] = []
    decode_lines([frame.hex()], written.append)
    packets = [msgspec.json.decode(line) for line in "".join(written).splitlines()]
    for packet in packets:
        assert packet.pop("frame") == 0
    return packets


def with_aware_times(packet: dict[str, Any]) -> dict[str, Any]:
    """An official packet with its times, naive and of the host's zone, as instants."""
    return packet | {name: packet[name].astimezone(dt.UTC) for name in TIMES & packet.keys()}


def with_parsed_times(packet: dict[str, Any]) -> dict[str, Any]:
    return packet | {
        name: dt.datetime.fromisoformat(packet[name]) for name in TIMES & packet.keys()
    }


def create_ordinary_batch(kinds: Sequence[int], seed: int) -> TickBatch:
    """Random packets whose prices are not negative and whose times are not 0."""
    ticks = create_batch(kinds, seed)
    ticks.words[PRICES] &= 0x7FFF_FFFF
    for row, carrying in (
        (Row.LAST_TRADE_TIME, ticks.kind == PacketKind.FULL),
        (Row.EXCHANGE_TIMESTAMP, np.isin(ticks.kind, (PacketKind.FULL, PacketKind.INDEX_FULL))),
    ):
        ticks.words[row, carrying] = (ticks.words[row, carrying] & 0x7FFF_FFFF) | 1
    return ticks


@given(kinds(max_size=8), st.integers(0, 2**32), st.booleans())
@settings(max_examples=40)
def test_packets_agree(kinds: list[int], seed: int, closed_at_zero: bool) -> None:
    ticks = create_ordinary_batch(kinds, seed)
    if closed_at_zero:
        ticks.words[Row.CLOSE] = 0
    frame = encode_frame(ticks)
    official = [with_aware_times(packet) for packet in parse_officially(frame)]
    assert [with_parsed_times(packet) for packet in parse_ours(frame)] == official


def test_the_official_client_reads_a_negative_price_unsigned() -> None:
    frame = struct.pack(">HHIi", 1, 8, 0x107, -5)
    assert parse_ours(frame)[0]["last_price"] == -0.05
    assert parse_officially(frame)[0]["last_price"] == (2**32 - 5) / 100


def test_the_official_client_takes_never_for_the_epoch() -> None:
    words = struct.pack(">I6iI", 256265, *[100] * 6, 0)
    frame = struct.pack(">HH", 1, 32) + words
    assert parse_ours(frame)[0]["exchange_timestamp"] is None
    epoch = parse_officially(frame)[0]["exchange_timestamp"]
    assert epoch.tzinfo is None
    assert epoch.timestamp() == 0


def test_the_official_client_loses_a_cut_frame() -> None:
    frame = encode_frame(create_ordinary_batch([PacketKind.FULL] * 3, 0))
    for cut, wrong in ((frame[:-1], "truncated_packet"), (frame[:-186], "packet_count_mismatch")):
        decoded = decode_frames([cut])
        assert len(decoded.ticks) == 2
        assert dict(decoded.anomalies) == {wrong: 1}
    with pytest.raises(struct.error):
        parse_officially(frame[:-186])
    # Cut inside the last packet, it takes the rest for a packet of another kind, or of none.
    assert len(parse_officially(frame[:-1])) == 2


def test_the_official_client_skips_unknown_lengths_in_silence() -> None:
    frame = struct.pack(">HH492sHIi", 2, 492, bytes(492), 8, 0x102, 5)
    assert parse_officially(frame) == parse_ours(frame)
    assert dict(decode_frames([frame]).anomalies) == {"unknown_packet_length": 1}
