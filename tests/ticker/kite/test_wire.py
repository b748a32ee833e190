"""Frames to columns and back: every kind, any bytes, and what is counted."""

import base64
import struct
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.kite.batches import SEGMENTS, batches, create_batch, decode_slowly
from ticker.kite.wire import (
    DECIMALS,
    DIVISORS,
    HEARTBEAT,
    MAX_PACKETS,
    PACKET_LENGTHS,
    DecodedFrames,
    decode_frames,
    divisors,
    encode_frame,
)
from ticker.ticks import CARRIES, WORDS, PacketKind, Row, TickBatch

MOCKS = Path(__file__).parents[4] / "shared" / "kite-mocks"
BROKEN_FRAME = {
    "truncated_packet",
    "truncated_header",
    "packet_count_mismatch",
    "trailing_bytes",
}


def frame_of(*packets: bytes, announced: int | None = None) -> bytes:
    count = len(packets) if announced is None else announced
    return struct.pack(">H", count) + b"".join(
        struct.pack(">H", len(packet)) + packet for packet in packets
    )


def ltp(token: int, price: int = 100) -> bytes:
    return struct.pack(">Ii", token, price)


def assert_same(decoded: TickBatch, expected: TickBatch) -> None:
    np.testing.assert_array_equal(decoded.words, expected.words)
    np.testing.assert_array_equal(decoded.kind, expected.kind)


def assert_agrees_with_slow(frames: list[bytes]) -> DecodedFrames:
    decoded = decode_frames(frames)
    packets, heartbeats, anomalies = decode_slowly(frames)
    ticks = decoded.ticks
    assert ticks.words.dtype == np.int32
    assert ticks.kind.dtype == np.uint8
    assert ticks.frame.dtype == np.int32
    assert ticks.words.shape == (WORDS, len(packets))
    assert ticks.words.flags.c_contiguous
    assert ticks.frame.tolist() == [frame for frame, _, _ in packets]
    assert ticks.kind.tolist() == [kind for _, kind, _ in packets]
    assert ticks.words.T.tolist() == [words for _, _, words in packets]
    assert decoded.heartbeats == heartbeats
    assert dict(decoded.anomalies) == dict(anomalies)
    return decoded


@st.composite
def damaged_frames(draw: st.DrawFn) -> bytes:
    """A good frame with something cut out, put in, changed, or a false count."""
    frame = encode_frame(draw(batches(12)))
    at = draw(st.integers(0, len(frame)))
    until = draw(st.integers(at, min(len(frame), at + 200)))
    junk = draw(st.binary(max_size=12))
    if draw(st.booleans()):
        frame = frame[:at] + junk + frame[until:]
    if draw(st.booleans()):
        frame = struct.pack(">H", draw(st.integers(0, 40))) + frame[2:]
    return frame


@st.composite
def framed_junk(draw: st.DrawFn) -> bytes:
    """Packets of any length, often a known one, in any order, and in runs."""
    lengths = st.sampled_from([*PACKET_LENGTHS.values(), 0, 1, 7, 264, 440]) | st.integers(0, 600)
    runs = draw(st.lists(st.tuples(lengths, st.integers(1, 30)), max_size=8))
    data = draw(st.binary(min_size=600, max_size=600))
    return frame_of(*[data[:length] for length, count in runs for _ in range(count)])


any_frame = st.one_of(
    batches().map(encode_frame), damaged_frames(), framed_junk(), st.binary(max_size=64)
)


@given(batches())
@settings(max_examples=60)
def test_decoding_inverts_encoding(ticks: TickBatch) -> None:
    decoded = decode_frames([encode_frame(ticks)])
    assert_same(decoded.ticks, ticks)
    assert not decoded.anomalies
    assert not decoded.ticks.frame.any()


@pytest.mark.parametrize("kind", list(PacketKind))
@pytest.mark.parametrize("count", [1, 2, 3, 511, 512, 513, 1100])
def test_uniform_frames_of_every_size_round_trip(kind: PacketKind, count: int) -> None:
    ticks = create_batch([kind] * count)
    frame = encode_frame(ticks)
    assert len(frame) == 2 + count * (2 + PACKET_LENGTHS[kind])
    assert_same(decode_frames([frame]).ticks, ticks)


@given(st.lists(any_frame, max_size=4))
@settings(max_examples=60)
def test_any_frames_are_read_as_the_obvious_decoder_reads_them(frames: list[bytes]) -> None:
    assert_agrees_with_slow(frames)


@given(st.lists(any_frame, min_size=1, max_size=5))
@settings(max_examples=60)
def test_frames_decode_together_as_they_do_alone(frames: list[bytes]) -> None:
    together = decode_frames(frames)
    alone = [decode_frames([frame]) for frame in frames]
    np.testing.assert_array_equal(
        together.ticks.words, np.concatenate([one.ticks.words for one in alone], axis=1)
    )
    assert together.ticks.kind.tolist() == [kind for one in alone for kind in one.ticks.kind]
    assert together.ticks.frame.tolist() == [
        index for index, one in enumerate(alone) for _ in range(len(one.ticks))
    ]
    assert together.heartbeats == sum(one.heartbeats for one in alone)
    assert Counter(together.anomalies) == sum(
        (Counter(one.anomalies) for one in alone), start=Counter()
    )


@given(any_frame)
@settings(max_examples=80)
def test_every_announced_packet_and_every_bad_frame_is_accounted_for(frame: bytes) -> None:
    decoded = decode_frames([frame])
    broken = sum(decoded.anomalies.get(kind, 0) for kind in BROKEN_FRAME)
    assert broken <= 1
    if decoded.heartbeats:
        assert not len(decoded.ticks)
        assert not decoded.anomalies
        return
    announced = int.from_bytes(frame[:2], "big")
    accounted = len(decoded.ticks) + decoded.anomalies.get("unknown_packet_length", 0)
    cut = broken and not decoded.anomalies.get("trailing_bytes")
    assert accounted < announced if cut else accounted == announced


@pytest.mark.parametrize("kind", list(PacketKind))
def test_several_uniform_frames_are_one_batch(kind: PacketKind) -> None:
    counts = [1, 4, 2, 600]
    ticks = create_batch([kind] * sum(counts))
    ends = np.cumsum(counts)
    frames = []
    for end, count in zip(ends, counts, strict=True):
        part = slice(end - count, end)
        frames.append(
            encode_frame(TickBatch(ticks.words[:, part], ticks.kind[part], ticks.frame[part]))
        )
    decoded = decode_frames([frames[0], HEARTBEAT, *frames[1:]])
    assert_same(decoded.ticks, ticks)
    assert decoded.heartbeats == 1
    assert decoded.ticks.frame.tolist() == [0] + [2] * 4 + [3] * 2 + [4] * 600


def test_nothing_to_decode_is_an_empty_batch() -> None:
    decoded = assert_agrees_with_slow([])
    assert len(decoded.ticks) == 0


@pytest.mark.parametrize("frame", [b"", b"\x00", b"\x01", b"\xff", b"\x00\x00"])
def test_messages_without_a_packet_are_heartbeats(frame: bytes) -> None:
    decoded = decode_frames([frame])
    assert (decoded.heartbeats, len(decoded.ticks), dict(decoded.anomalies)) == (1, 0, {})


@pytest.mark.parametrize("frame", [b"\x00\x01", b"\x00\x01\x00", b"\x00\x00\x00"])
def test_cut_or_overlong_headers_are_not_heartbeats(frame: bytes) -> None:
    decoded = decode_frames([frame])
    assert decoded.heartbeats == 0
    assert sum(decoded.anomalies.values()) == 1


def test_a_truncated_frame_keeps_its_complete_packets() -> None:
    kinds = [PacketKind.FULL, PacketKind.INDEX_FULL, PacketKind.FULL, PacketKind.LTP] * 2
    ticks = create_batch(kinds)
    frame = encode_frame(ticks)
    ends = 2 + np.cumsum([PACKET_LENGTHS[kind] + 2 for kind in kinds])
    for size in range(2, len(frame)):
        decoded = decode_frames([frame[:size]])
        complete = int((ends <= size).sum())
        assert len(decoded.ticks) == complete
        np.testing.assert_array_equal(decoded.ticks.words, ticks.words[:, :complete])
        into = size - int(ends[complete - 1] if complete else 2)
        kind = ("packet_count_mismatch", "truncated_header")[into] if into < 2 else None
        assert dict(decoded.anomalies) == {kind or "truncated_packet": 1}


def test_what_follows_the_announced_packets_is_not_read() -> None:
    decoded = decode_frames([frame_of(ltp(258), ltp(514), announced=1)])
    assert decoded.ticks.token.tolist() == [258]
    assert dict(decoded.anomalies) == {"trailing_bytes": 1}


def test_too_large_a_count_costs_no_packet() -> None:
    decoded = decode_frames([frame_of(ltp(258), ltp(514), announced=3)])
    assert decoded.ticks.token.tolist() == [258, 514]
    assert dict(decoded.anomalies) == {"packet_count_mismatch": 1}


def test_packets_of_unknown_length_are_skipped_by_their_length() -> None:
    junk = [bytes(length) for length in (492, 0, 0, 9, 65535)]
    decoded = decode_frames([frame_of(ltp(258), *junk, ltp(514), b"", ltp(770))])
    assert decoded.ticks.token.tolist() == [258, 514, 770]
    assert dict(decoded.anomalies) == {"unknown_packet_length": 6}


def test_a_length_prefix_of_which_only_the_low_byte_matches_ends_a_run() -> None:
    longer = bytes(256 + 8)
    decoded = decode_frames([frame_of(*[ltp(258)] * 20, longer, *[ltp(258)] * 20)])
    assert len(decoded.ticks) == 40
    assert dict(decoded.anomalies) == {"unknown_packet_length": 1}


@pytest.mark.parametrize(
    "lengths", [(44, 8, 80), (8, 0, 16), (44, 300, 8, 0, 0, 0, 0, 0), (184, 184, 8, 360)]
)
@pytest.mark.parametrize("filling", [0, 8, 44, 184])
def test_a_frame_of_a_uniform_one_s_size_need_not_be_one(
    lengths: tuple[int, ...], filling: int
) -> None:
    frame = frame_of(*[bytes([filling]) * length for length in lengths])
    assert len(frame) == 2 + len(lengths) * (2 + lengths[0])
    assert_agrees_with_slow([frame])


def test_unknown_segments_are_delivered_and_counted() -> None:
    tokens = [1 << 8 | segment for segment in range(256)]
    decoded = decode_frames([frame_of(*map(ltp, tokens))])
    assert decoded.ticks.token.tolist() == tokens
    assert dict(decoded.anomalies) == {"unknown_segment": 256 - len(SEGMENTS)}
    mixed = decode_frames([frame_of(ltp(2), ltp(0), bytes(27) + b"\x00", ltp(11))])
    assert dict(mixed.anomalies) == {"unknown_segment": 3}


def test_divisors_by_segment() -> None:
    odd = {3: 10_000_000.0, 6: 10_000.0, 12: 10_000.0}
    for segment in range(256):
        assert DIVISORS[segment] == odd.get(segment, 100.0)
        assert 10.0 ** int(DECIMALS[segment]) == DIVISORS[segment]
    ticks = decode_frames([frame_of(ltp(259), ltp(262), ltp(265))]).ticks
    assert divisors(ticks.segment).tolist() == [1e7, 1e4, 100.0]


def test_prices_are_signed_and_the_rest_is_not() -> None:
    ticks = decode_frames([frame_of(ltp(0xFFFF_FF07, -12_345))]).ticks
    assert ticks.signed(Row.LAST_PRICE).tolist() == [-12_345]
    assert ticks.token.tolist() == [0xFFFF_FF07]
    assert ticks.segment.tolist() == [7]


@pytest.mark.parametrize("fellow", [b"", ltp(258)])
def test_index_packets_order_their_prices_differently(fellow: bytes) -> None:
    sent = struct.pack(">I6iI", 256265, 25_000, 25_500, 24_500, 24_900, 24_800, 200, 1_700_000_000)
    for packet, kind in ((sent[:28], PacketKind.INDEX_QUOTE), (sent, PacketKind.INDEX_FULL)):
        decoded = decode_frames([frame_of(packet, *[fellow] * bool(fellow))])
        ticks = decoded.ticks
        assert ticks.kind[0] == kind
        carried = {row: int(ticks.words[row, 0]) for row in Row if ticks.words[row, 0]}
        expected = {
            Row.INSTRUMENT_TOKEN: 256265,
            Row.LAST_PRICE: 25_000,
            Row.HIGH: 25_500,
            Row.LOW: 24_500,
            Row.OPEN: 24_900,
            Row.CLOSE: 24_800,
        }
        if kind is PacketKind.INDEX_FULL:
            expected[Row.EXCHANGE_TIMESTAMP] = 1_700_000_000
        assert carried == expected
        alone = TickBatch(ticks.words[:, :1], ticks.kind[:1], ticks.frame[:1])
        assert encode_frame(alone) == frame_of(packet)


def test_what_a_kind_does_not_carry_is_not_sent() -> None:
    words = np.arange(1, WORDS + 1, dtype=np.int32)[:, None].repeat(len(PacketKind), axis=1)
    words[0] = 258
    kind = np.arange(len(PacketKind), dtype=np.uint8)
    decoded = decode_frames([encode_frame(TickBatch(words, kind, np.zeros(5, np.int32)))])
    np.testing.assert_array_equal(decoded.ticks.words != 0, CARRIES.T)


def test_the_largest_frame_of_a_socket() -> None:
    ticks = create_batch([PacketKind.FULL] * 3000)
    frame = encode_frame(ticks)
    assert len(frame) == 558_002
    assert_same(decode_frames([frame]).ticks, ticks)


def test_a_frame_cannot_announce_more_than_its_header_holds() -> None:
    ticks = create_batch([PacketKind.LTP] * MAX_PACKETS)
    assert_same(decode_frames([encode_frame(ticks)]).ticks, ticks)
    with pytest.raises(ValueError, match="65535"):
        encode_frame(create_batch([PacketKind.LTP] * (MAX_PACKETS + 1)))


def test_time_stays_in_proportion_when_every_run_is_short() -> None:
    def decoding_time(count: int) -> float:
        frame = frame_of(*[b"", b"", b"x"] * count)
        begin = time.perf_counter()
        decoded = decode_frames([frame])
        elapsed = time.perf_counter() - begin
        assert decoded.anomalies == {"unknown_packet_length": 3 * count}
        return elapsed

    few, many = (min(decoding_time(count) for _ in range(3)) for count in (2_000, 20_000))
    assert many < 30 * few  # about 10 times; reading ahead to the end each time makes it 100


@pytest.mark.skipif(not MOCKS.is_dir(), reason="the broker's sample packets are not here")
def test_captured_packets() -> None:
    quote, full = (
        base64.b64decode((MOCKS / f"ticker_{mode}.packet").read_text())
        for mode in ("quote", "full")
    )
    ticks = decode_frames([frame_of(quote, full)]).ticks
    assert ticks.kind.tolist() == [PacketKind.QUOTE, PacketKind.FULL]
    assert ticks.token.tolist() == [408065, 408065]
    assert ticks.signed(Row.LAST_PRICE).tolist() == [157315, 157370]
    assert ticks.unsigned(Row.VOLUME_TRADED).tolist() == [1175986, 1192471]
    assert ticks.signed(Row.CLOSE).tolist() == [156780, 156780]
    assert ticks.unsigned(Row.EXCHANGE_TIMESTAMP).tolist() == [0, 1625461887]
    depth = ticks.words[Row.BIDS :, 1].reshape(2, 5, 3)
    assert depth[0, :, 0].tolist() == [5, 140, 2, 219, 50]
    assert depth[1, :, 1].tolist() == [157370, 157375, 157385, 157390, 157395]
    assert (depth[0, :, 2] >> 16).tolist() == [1, 2, 1, 7, 1]
    assert encode_frame(ticks) == frame_of(quote, full)
