"""The broker's binary messages: frames to columns and back. Bytes in, arrays out, no I/O.

A frame is big-endian: a u16 number of packets, then for each packet a u16 length and that many
bytes. Nothing pads, closes or checks it. The length alone tells what a packet is::

    8    LTP           44   QUOTE         184  FULL
    28   INDEX_QUOTE   32   INDEX_FULL

Decoding is one strided, byte-swapping copy, from packets of one length to columns. Frames of one
length throughout, which is nearly all of them, are copied as they are, several at a time. Where
lengths are mixed, each packet is first laid out as a full one, and then the same copy runs.

The codec never raises for what it is given to decode. What it cannot use it counts, by kind:

* a frame is counted once, under the first of these that is true of it: ``truncated_packet`` (it
  ends inside a packet), ``truncated_header`` (inside a length), ``packet_count_mismatch`` (it
  ends after a whole packet, with more of them announced), ``trailing_bytes`` (it goes on after
  the last announced packet; what follows is not read);
* a packet is counted as ``unknown_packet_length`` (skipped by its length), or as
  ``unknown_segment`` (delivered, with the divisor that most segments have).

Every complete packet of known length is delivered, whatever else is wrong with its frame.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ticker.ticks import WORDS, FloatArray, Int32Array, PacketKind, Row, TickBatch, UInt8Array

HEARTBEAT: Final = b"\x00"
"""The broker's sign of life: one byte. Its value means nothing, its length everything."""

PACKET_LENGTHS: Final[Mapping[PacketKind, int]] = MappingProxyType(
    {
        PacketKind.LTP: 8,
        PacketKind.QUOTE: 44,
        PacketKind.FULL: 184,
        PacketKind.INDEX_QUOTE: 28,
        PacketKind.INDEX_FULL: 32,
    }
)
"""Bytes of each kind of packet, without its length prefix."""

MAX_PACKETS: Final = 0xFFFF
"""Packets that a frame can announce. The broker sends at most 3,000: one socket's instruments."""

_DECIMALS_BY_SEGMENT: Final = {
    1: 2,  # NSE cash
    2: 2,  # NFO
    3: 7,  # CDS
    4: 2,  # BSE cash
    5: 2,  # BFO
    6: 4,  # BCD: 4 by every official client, 7 by the broker's documentation
    7: 2,  # MCX
    8: 2,  # MCXSX
    9: 2,  # indices
    10: 2,  # NSE auctions
    12: 4,  # NCO
}

DECIMALS: Final[UInt8Array] = np.array(
    [_DECIMALS_BY_SEGMENT.get(segment, 2) for segment in range(256)], np.uint8
)
"""Decimal places of a price on the wire, by segment id, shape (256,); 2 where it is unknown."""

DIVISORS: Final[FloatArray] = 10.0 ** DECIMALS.astype(np.float64)
"""Price on the wire to rupees, by segment id, shape (256,); 100 where it is unknown."""

KNOWN_SEGMENTS: Final = bytes(_DECIMALS_BY_SEGMENT)
"""Ids of the segments that the broker is known to use."""

# Plain tuples, dictionaries and constants: what a frame of one packet costs is their look-ups.
_FULL: Final = PacketKind.FULL
_KINDS: Final = {length: kind for kind, length in PACKET_LENGTHS.items()}
_LENGTHS: Final = tuple(PACKET_LENGTHS[kind] for kind in sorted(PacketKind))
_KIND_BYTES: Final = tuple(bytes([kind]) for kind in sorted(PacketKind))
_WIRE: Final = np.dtype(">i4")
_NATIVE: Final = np.dtype("=i4")
_NO_ANOMALIES: Final[Mapping[str, int]] = MappingProxyType({})
_NO_PACKETS: Final = b"\0\0"
_FULL_STRIDE: Final = _LENGTHS[_FULL] + 2
_BLOCK: Final = 512  # packets copied at a time: their bytes stay in the processor's nearer caches

# Which word of an index packet goes to which row. Its change, which the broker computes, has no
# row: no official client reads it, and its scale is not documented.
_INDEX_CHANGE: Final = 6
_INDEX_WORDS: Final = np.array([0, 1, 4, 2, 3, 5, 7])
_INDEX_ROWS: Final = np.array(
    [
        Row.INSTRUMENT_TOKEN,
        Row.LAST_PRICE,
        Row.OPEN,
        Row.HIGH,
        Row.LOW,
        Row.CLOSE,
        Row.EXCHANGE_TIMESTAMP,
    ]
)
_INDEX_CARRIED: Final = {PacketKind.INDEX_QUOTE: 6, PacketKind.INDEX_FULL: 7}
_INDEX_PACKET: Final = Struct("10s8s4s4s4x4s")  # token and last, high and low, open, close, time
_AS_FULL_PACKET: Final = Struct("10s20x4s8s4s16x4s120x")


class DecodedFrames(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a sequence of binary messages held.

    ``ticks``: every packet, in order of arrival; ``ticks.frame`` is the index of its message.
    ``heartbeats``: messages that said no more than that the broker is there.
    ``anomalies``: malformed input by kind, see the module; empty when all was well.
    """

    ticks: TickBatch
    heartbeats: int
    anomalies: Mapping[str, int]


def divisors(segment: npt.NDArray[np.integer]) -> FloatArray:
    """What to divide wire prices by to get rupees; ``segment``: ids 0..255, any shape."""
    values: FloatArray = DIVISORS[segment]
    return values


def decode_frames(frames: Sequence[bytes]) -> DecodedFrames:
    """Decode binary messages in order of arrival. Never raises, whatever the bytes are."""
    if len(frames) == 1:
        frame = frames[0]
        kind = _uniform_kind(frame)
        if kind is not None:
            return _decode_uniform(frame, kind)
    return _decode_runs(frames)


def _uniform_kind(frame: bytes) -> PacketKind | None:
    """The kind of all packets of a flawless frame; None if it has to be read packet by packet."""
    if len(frame) < 4:
        return None
    length = frame[2] << 8 | frame[3]
    kind = _KINDS.get(length)
    count = frame[0] << 8 | frame[1]
    stride = length + 2
    if kind is None or count == 0 or len(frame) != 2 + count * stride:
        return None
    if count > 1 and (
        frame[2::stride] != frame[2:3] * count or frame[3::stride] != frame[3:4] * count
    ):
        return None
    return kind


def _decode_uniform(frame: bytes, kind: PacketKind) -> DecodedFrames:
    """Decode one flawless frame. For a single packet, every call in here shows."""
    count = frame[0] << 8 | frame[1]
    ticks = TickBatch(
        _columns(frame, 2, kind, count),
        np.frombuffer(_KIND_BYTES[kind] * count, np.uint8),
        np.zeros(count, np.int32),
    )
    unknown = _count_unknown_segments(frame, 2, kind)
    return DecodedFrames(ticks, 0, {"unknown_segment": unknown} if unknown else _NO_ANOMALIES)


def _columns(data: bytes, start: int, kind: PacketKind, count: int) -> Int32Array:
    """Words of ``count`` packets of one kind that lie, with their lengths, from ``start`` on."""
    length = _LENGTHS[kind]
    packets = np.ndarray((length >> 2, count), _WIRE, data, start + 2, (4, length + 2))
    if kind == _FULL:
        if count <= _BLOCK:
            return packets.astype(_NATIVE, "C")
        words = np.empty((WORDS, count), _NATIVE)
        for at in range(0, count, _BLOCK):
            words[:, at : at + _BLOCK] = packets[:, at : at + _BLOCK]
        return words
    words = np.zeros((WORDS, count), _NATIVE)
    if kind in _INDEX_CARRIED:
        carried = _INDEX_CARRIED[kind]
        words[_INDEX_ROWS[:carried]] = packets[_INDEX_WORDS[:carried]]
    else:
        words[: length >> 2] = packets
    return words


def _count_unknown_segments(data: bytes, start: int, kind: PacketKind) -> int:
    segments = data[start + 5 :: _LENGTHS[kind] + 2]  # the low byte of each token
    return len(segments.translate(None, KNOWN_SEGMENTS))


@dataclass(slots=True)
class _Runs:
    """Neighbouring packets of one kind, with their lengths, from all frames in order."""

    data: list[bytes | memoryview] = field(default_factory=list)
    kinds: list[PacketKind] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    def append(self, data: bytes | memoryview, kind: PacketKind, count: int, frame: int) -> None:
        self.data.append(data)
        self.kinds.append(kind)
        self.counts.append(count)
        self.frames.append(frame)


def _decode_runs(frames: Sequence[bytes]) -> DecodedFrames:
    runs = _Runs()
    heartbeats = 0
    anomalies: Counter[str] = Counter()
    for index, frame in enumerate(frames):
        kind = _uniform_kind(frame)
        if kind is not None:
            runs.append(memoryview(frame)[2:], kind, frame[0] << 8 | frame[1], index)
        elif len(frame) < 2 or frame == _NO_PACKETS:
            heartbeats += 1
        else:
            _split_frame(frame, index, runs, anomalies)
    return DecodedFrames(_join_runs(runs, anomalies), heartbeats, anomalies)


def _split_frame(frame: bytes, index: int, runs: _Runs, anomalies: Counter[str]) -> None:
    """Append what can be used of a frame to ``runs`` and count what cannot."""
    end = len(frame)
    missing = frame[0] << 8 | frame[1]
    at = 2
    while missing:
        if end - at < 2:
            anomalies["truncated_header" if at < end else "packet_count_mismatch"] += 1
            return
        length = frame[at] << 8 | frame[at + 1]
        behind = at + 2 + length
        if behind > end:
            anomalies["truncated_packet"] += 1
            return
        count = 1
        if frame[behind : behind + 2] == frame[at : at + 2] and missing > 1:
            count = _run_length(frame, at, length + 2, min(missing, (end - at) // (length + 2)))
            behind = at + count * (length + 2)
        kind = _KINDS.get(length)
        if kind is None:
            anomalies["unknown_packet_length"] += count
        else:
            runs.append(frame[at:behind], kind, count, index)
        missing -= count
        at = behind
    if at < end:
        anomalies["trailing_bytes"] += 1


def _run_length(frame: bytes, at: int, stride: int, most: int) -> int:
    """How many packets from ``at`` on, of ``most`` that fit, have the length of the first.

    The window doubles as long as it holds nothing else: the cost stays in proportion to the
    run, also for a frame made so that every run is short.
    """
    high, low = frame[at : at + 1], frame[at + 1 : at + 2]
    count, window = 1, 8
    while count < most:
        window = min(window, most - count)
        begin, behind = at + count * stride, at + (count + window) * stride
        others = max(
            len(frame[begin:behind:stride].lstrip(high)),
            len(frame[begin + 1 : behind : stride].lstrip(low)),
        )
        count += window - others
        if others:
            break
        window *= 2
    return count


def _join_runs(runs: _Runs, anomalies: Counter[str]) -> TickBatch:
    count = sum(runs.counts)
    if not count:
        return TickBatch(
            np.empty((WORDS, 0), np.int32), np.empty(0, np.uint8), np.empty(0, np.int32)
        )
    if len(set(runs.kinds)) == 1:
        layout = runs.kinds[0]
        data = b"".join(runs.data)
    else:
        layout = PacketKind.FULL
        data = b"".join(map(_as_full_packets, runs.data, runs.kinds))
    unknown = _count_unknown_segments(data, 0, layout)
    if unknown:
        anomalies["unknown_segment"] += unknown
    return TickBatch(
        _columns(data, 0, layout, count),
        np.repeat(np.array(runs.kinds, np.uint8), runs.counts),
        np.repeat(np.array(runs.frames, np.int32), runs.counts),
    )


def _as_full_packets(data: bytes | memoryview, kind: PacketKind) -> bytes | memoryview:
    """A run of packets of one kind with each laid out as, and as long as, a full packet."""
    if kind == _FULL:
        return data
    data = bytes(data)
    stride = _LENGTHS[kind] + 2
    if len(data) > stride:
        each = [data[at : at + stride] for at in range(0, len(data), stride)]
        return b"".join([_as_full_packets(packet, kind) for packet in each])
    if kind not in _INDEX_CARRIED:
        return data.ljust(_FULL_STRIDE, b"\0")
    head, high_low, open_, close, time = _INDEX_PACKET.unpack(data.ljust(34, b"\0"))
    return _AS_FULL_PACKET.pack(head, open_, high_low, close, time)


def encode_frame(ticks: TickBatch) -> bytes:
    """One binary message with these packets in this order: the inverse of decoding one.

    Of each packet the words that its kind carries are sent, an index packet's change as last
    price minus close. ``ticks.frame`` is not looked at. Raises ValueError for more than
    ``MAX_PACKETS`` packets.
    """
    count = len(ticks)
    if count > MAX_PACKETS:
        raise ValueError(f"a frame holds at most {MAX_PACKETS} packets, not {count}")
    kinds = [PacketKind(kind) for kind in np.unique(ticks.kind).tolist()]
    header = count.to_bytes(2, "big")
    if len(kinds) == 1:
        return header + _encode_packets(ticks.words, kinds[0])
    packets = {}
    for kind in kinds:
        data = _encode_packets(ticks.words[:, ticks.kind == kind], kind)
        stride = _LENGTHS[kind] + 2
        packets[int(kind)] = iter([data[at : at + stride] for at in range(0, len(data), stride)])
    return header + b"".join([next(packets[kind]) for kind in ticks.kind.tolist()])


def _encode_packets(words: Int32Array, kind: PacketKind) -> bytes:
    """Packets of one kind with their length prefixes, without the frame's header."""
    length = PACKET_LENGTHS[kind]
    count = words.shape[1]
    data = np.zeros((count, length + 2), np.uint8)
    data[:, 1] = length
    packets = np.ndarray((length // 4, count), _WIRE, data.data, 2, (4, length + 2))
    if kind in _INDEX_CARRIED:
        carried = _INDEX_CARRIED[kind]
        packets[_INDEX_WORDS[:carried]] = words[_INDEX_ROWS[:carried]]
        packets[_INDEX_CHANGE] = words[Row.LAST_PRICE] - words[Row.CLOSE]
    else:
        packets[...] = words[: length // 4]
    return data.tobytes()
