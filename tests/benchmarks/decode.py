"""Decoding against the official client's parser, on the same full-mode frames, side by side.

``python -m tests.benchmarks.decode [--quick]``
"""

import json
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
from kiteconnect import KiteTicker

from ticker.kite.wire import decode_frames

PACKETS: Final = (1, 10, 100, 1000)
_ROUND_S: Final = 0.02  # how long one side is timed before it is the other's turn


def run(quick: bool) -> dict[str, object]:
    """Nanoseconds a packet of both and their ratio, by packets per frame.

    Ours gives columns, theirs a dictionary for each packet: what each hands to its user. The two
    take turns in short rounds, so that a busy machine slows both, and medians are compared.
    ``joined_ns_per_packet``: 100 such frames in one call, which is what a busy service does.
    """
    rounds = 7 if quick else 25
    parse_officially = KiteTicker("key", "token")._parse_binary
    ours_ns, official_ns, joined_ns, ratio = {}, {}, {}, {}
    for count in PACKETS:
        frame = create_frame(count)
        assert len(decode_frames([frame]).ticks) == len(parse_officially(frame)) == count
        many = [frame] * 100
        ours, official, joined = _medians(
            rounds,
            partial(decode_frames, [frame]),
            partial(parse_officially, frame),
            partial(decode_frames, many),
        )
        name = str(count)
        ours_ns[name] = round(ours / count, 1)
        official_ns[name] = round(official / count, 1)
        joined_ns[name] = round(joined / count / len(many), 1)
        ratio[name] = round(official / ours, 2)
    return {
        "ns_per_packet": ours_ns,
        "joined_ns_per_packet": joined_ns,
        "official_ns_per_packet": official_ns,
        "ratio": ratio,
    }


def create_frame(count: int) -> bytes:
    """A frame of full packets of option contracts, with the fields in their usual ranges."""
    random = np.random.default_rng(count)
    words = random.integers(0, 2_000_000, (count, 46))
    words[:, 0] = random.integers(35_000, 173_000, count) << 8 | 2
    words[:, [11, 15]] = 1_763_000_000 + random.integers(0, 20_000, (count, 2))
    words[:, 18::3] = random.integers(1, 60, (count, 10)) << 16
    packets = (struct.pack(">H46I", 184, *packet) for packet in words.tolist())
    return struct.pack(">H", count) + b"".join(packets)


def _medians(rounds: int, *sides: Callable[[], object]) -> Sequence[float]:
    """Median nanoseconds of one call of each side."""
    repeats = [max(1, int(_ROUND_S * 1e9 / _time_ns(side, 1))) for side in sides]
    timed: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for times, side, repeat in zip(timed, sides, repeats, strict=True):
            times.append(_time_ns(side, repeat))
    return [statistics.median(times) for times in timed]


def _time_ns(side: Callable[[], object], repeat: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(repeat):
        side()
    return (time.perf_counter_ns() - begin) / repeat


if __name__ == "__main__":
    print(json.dumps(run(quick="--quick" in sys.argv), indent=2))
