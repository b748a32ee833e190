"""Tick batches to try the codec on, and a decoder of it that is too simple to be wrong."""

import struct
from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from ticker.ticks import CARRIES, WORDS, PacketKind, Row, TickBatch

LENGTHS = {8: PacketKind.LTP, 44: PacketKind.QUOTE, 184: PacketKind.FULL}
INDEX_LENGTHS = {28: PacketKind.INDEX_QUOTE, 32: PacketKind.INDEX_FULL}
SEGMENTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12)


def create_batch(kinds: Sequence[int], seed: int = 0) -> TickBatch:
    """Packets of these kinds with random words, of known segments, in one frame."""
    random = np.random.default_rng(seed)
    kind = np.array(kinds, np.uint8)
    words = random.integers(-(2**31), 2**31, (WORDS, len(kind)), np.int32)
    tokens = random.integers(0, 2**24, len(kind)) << 8 | random.choice(SEGMENTS, len(kind))
    words[Row.INSTRUMENT_TOKEN] = tokens.astype(np.uint32).view(np.int32)
    words[~CARRIES[kind].T] = 0
    return TickBatch(words, kind, np.zeros(len(kind), np.int32))


def kinds(max_size: int = 40) -> st.SearchStrategy[list[int]]:
    """Kinds of a frame's packets: all the same, or any."""
    kind = st.sampled_from([int(kind) for kind in PacketKind])
    same = st.builds(lambda one, count: [one] * count, kind, st.integers(1, max_size))
    return same | st.lists(kind, max_size=max_size)


def batches(max_size: int = 40) -> st.SearchStrategy[TickBatch]:
    return st.builds(create_batch, kinds(max_size), st.integers(0, 2**32))


def decode_slowly(
    frames: Sequence[bytes],
) -> tuple[list[tuple[int, PacketKind, list[int]]], int, Counter[str]]:
    """Read frames field by field: packets as (frame, kind, words), heartbeats, anomalies."""
    packets: list[tuple[int, PacketKind, list[int]]] = []
    heartbeats = 0
    anomalies: Counter[str] = Counter()
    for index, frame in enumerate(frames):
        if len(frame) <= 1 or frame == bytes(2):
            heartbeats += 1
            continue
        rest = frame[2:]
        for _ in range(int.from_bytes(frame[:2], "big")):
            if len(rest) < 2:
                anomalies["truncated_header" if rest else "packet_count_mismatch"] += 1
                rest = b""
                break
            length = int.from_bytes(rest[:2], "big")
            packet, rest = rest[2 : 2 + length], rest[2 + length :]
            if len(packet) < length:
                anomalies["truncated_packet"] += 1
                break
            if length not in LENGTHS | INDEX_LENGTHS:
                anomalies["unknown_packet_length"] += 1
                continue
            kind, words = _packet(packet)
            if words[0] & 0xFF not in SEGMENTS:
                anomalies["unknown_segment"] += 1
            packets.append((index, kind, words))
        if rest:
            anomalies["trailing_bytes"] += 1
    return packets, heartbeats, anomalies


def _packet(packet: bytes) -> tuple[PacketKind, list[int]]:
    sent = struct.unpack(f">{len(packet) // 4}i", packet)
    if len(packet) in LENGTHS:
        return LENGTHS[len(packet)], [*sent, *[0] * (WORDS - len(sent))]
    words = [0] * WORDS
    words[0], words[1] = sent[0], sent[1]
    words[Row.HIGH], words[Row.LOW], words[Row.OPEN], words[Row.CLOSE] = sent[2:6]
    if len(packet) == 32:
        words[Row.EXCHANGE_TIMESTAMP] = sent[7]
    return INDEX_LENGTHS[len(packet)], words
