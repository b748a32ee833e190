"""Recording and replaying: how large, how dear, how fast.

``python -m tests.benchmarks.recording [--quick]``
"""

import datetime as dt
import json
import math
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import numpy as np
import trio

from nurseries.record import RecordingStatus, Tap, record
from nurseries.replayer import Replayer
from nurseries.run import SWITCH_INTERVAL_S
from ticker.engine import create_engine
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import encode_frame
from ticker.local.valkey import open_valkey
from ticker.messages import ConnectionId, Frame
from ticker.recording.reader import Frames, open_recording
from ticker.recording.writer import Taken, create_recording, create_session
from ticker.settings import Settings
from ticker.ticks import WORDS, PacketKind, Row, TickBatch

INSTRUMENTS: Final = 1000
PACKETS: Final = 100
"""In a frame: a busy socket's."""
BEGAN_AT: Final = dt.datetime(2026, 11, 20, 5, tzinfo=dt.UTC).timestamp()
EXPIRY: Final = dt.date(2026, 11, 24)
CONNECTION: Final = ConnectionId("bench", 0)
TICKS_PER_S: Final = 20_000
"""Of a feed of 20,000 instruments, by which costs are told as parts of a core."""


def run(quick: bool) -> dict[str, object]:
    """Bytes, time and ticks per second, on frames of full packets of a chain on the move."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    ticks = 100_000 if quick else 400_000
    frames = create_frames(ticks // PACKETS)
    registry = create_registry()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.tape"
        write_s = _write(path, frames, registry)
        size = path.stat().st_size
        read_s = _read(path)
        replayed = trio.run(_replay, path)
    raw = sum(len(frame.data) for frame in frames)
    tap_us, stall_ms = trio.run(_tap, frames, registry)
    return {
        "mb_per_million_ticks": round(size / ticks, 1),
        "wire_bytes_per_tick": round(raw / ticks, 1),
        "by_zlib_level": _levels(frames[: 20_000 // PACKETS]),
        "write_us_per_tick": round(write_s / ticks * 1e6, 3),
        "write_core_at_20k_ticks_per_s": round(write_s / ticks * TICKS_PER_S, 4),
        "read_ticks_per_s": round(ticks / read_s),
        "tap_us_per_batch": round(tap_us, 2),
        "loop_stall_while_recording_ms": round(stall_ms, 2),
        "replay_ticks_per_s": round(replayed),
    }


def create_registry() -> InstrumentRegistry:
    """Calls and puts of one underlying, at the strikes around 25,000."""
    rows = []
    for number in range(INSTRUMENTS):
        strike, kind = 12_500.0 + 50.0 * (number // 2), ("CE", "PE")[number % 2]
        token = 40_000 + number << 8 | 2
        symbol = f"NIFTY26NOV{strike:.0f}{kind}"
        name = ("NIFTY", EXPIRY, strike, 0.05, 65, kind, "NFO-OPT", "NFO")
        rows.append(Instrument(token, token >> 8, symbol, *name))
    return InstrumentRegistry(rows)


def create_frames(count: int) -> list[Frame]:
    """Each instrument in turn; prices walk, volumes grow, half the book's levels change."""
    random = np.random.default_rng(1)
    words = np.zeros((WORDS, INSTRUMENTS), np.int64)
    words[Row.INSTRUMENT_TOKEN] = (40_000 + np.arange(INSTRUMENTS)) << 8 | 2
    words[Row.LAST_PRICE] = random.integers(100, 20_000, INSTRUMENTS) * 5
    words[Row.VOLUME_TRADED] = random.integers(0, 10_000_000, INSTRUMENTS)
    words[Row.OI] = words[Row.OI_DAY_HIGH] = random.integers(0, 5_000_000, INSTRUMENTS) * 65
    frames = []
    for number in range(count):
        at = BEGAN_AT + number * PACKETS / TICKS_PER_S
        chosen = np.arange(number * PACKETS, (number + 1) * PACKETS) % INSTRUMENTS
        words[:, chosen] = _moved(words[:, chosen], int(at), random)
        batch = TickBatch(
            np.ascontiguousarray(words[:, chosen].astype(np.int32)),
            np.full(PACKETS, PacketKind.FULL, np.uint8),
            np.zeros(PACKETS, np.int32),
        )
        frames.append(Frame(encode_frame(batch), at, CONNECTION))
    return frames


def _moved(
    words: np.ndarray[tuple[int, ...], np.dtype[np.int64]], at: int, random: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    words = words.copy()
    n = words.shape[1]
    price = np.maximum(words[Row.LAST_PRICE] + random.integers(-3, 4, n) * 5, 5)
    words[Row.LAST_PRICE] = words[Row.AVERAGE_TRADED_PRICE] = price
    words[Row.LAST_TRADED_QUANTITY] = random.integers(1, 20, n) * 65
    words[Row.VOLUME_TRADED] += words[Row.LAST_TRADED_QUANTITY]
    words[[Row.TOTAL_BUY_QUANTITY, Row.TOTAL_SELL_QUANTITY]] = random.integers(0, 500_000, (2, n))
    words[[Row.OPEN, Row.CLOSE]] = price
    words[Row.HIGH], words[Row.LOW] = price + 500, np.maximum(price - 500, 5)
    words[[Row.LAST_TRADE_TIME, Row.EXCHANGE_TIMESTAMP]] = at
    for side, step in ((Row.BIDS, -5), (Row.ASKS, 5)):
        for level in range(5):
            row = side + 3 * level
            changes = random.random(n) < 0.5
            words[row] = np.where(changes, random.integers(1, 200, n) * 65, words[row])
            words[row + 1] = np.maximum(price + step * (level + 1), 5)
            words[row + 2] = np.where(changes, random.integers(1, 60, n) << 16, words[row + 2])
    return words


def _levels(frames: Sequence[Frame]) -> dict[str, dict[str, float]]:
    """What each level of compression saves, and costs."""
    body = msgspec.msgpack.encode(Frames.of(frames))
    ticks = len(frames) * PACKETS
    found = {}
    for level in (0, 1, 3, 6):
        elapsed_s, packed = _timed(lambda level=level: zlib.compress(body, level))  # type: ignore[misc]
        found[str(level)] = {
            "bytes_per_tick": round(len(packed) / ticks, 1),
            "us_per_tick": round(elapsed_s / ticks * 1e6, 3),
        }
    return found


def _timed(work: Callable[[], bytes]) -> tuple[float, bytes]:
    times = []
    for _ in range(5):
        began_s = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began_s)
    return median(times), result


def _write(path: Path, frames: Sequence[Frame], registry: InstrumentRegistry) -> float:
    """Seconds of this thread's CPU for the whole recording, in blocks of a megabyte."""
    writer, _ = create_recording(path, create_session(BEGAN_AT, is_mock=True))
    writer.write([Taken(frames[:1], registry)])
    began_s = time.thread_time()
    for start in range(1, len(frames), 56):
        writer.write([Taken(frames[start : start + 56], registry)])
    elapsed_s = time.thread_time() - began_s
    writer.close()
    return elapsed_s


def _read(path: Path) -> float:
    began_s = time.perf_counter()
    with open_recording(path) as recording:
        for block in recording:
            if isinstance(block, Frames):
                block.play()
    return time.perf_counter() - began_s


async def _tap(frames: Sequence[Frame], registry: InstrumentRegistry) -> tuple[float, float]:
    """Microseconds of a call of the tap; the longest the event loop stood still, milliseconds."""
    times, stall_s = [], 0.0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.tape"
        writer, _ = create_recording(path, create_session(BEGAN_AT, is_mock=True))
        tap, reports = Tap(), list[RecordingStatus]()
        async with trio.open_nursery() as nursery:

            async def recorder() -> None:
                await record(tap, writer, report=reports.append)

            nursery.start_soon(recorder)
            for frame in frames[:400]:  # two seconds of the feed
                began_s = time.perf_counter()
                tap([frame], registry)
                times.append(time.perf_counter() - began_s)
                due_at = trio.current_time() + PACKETS / TICKS_PER_S
                await trio.sleep_until(due_at)
                stall_s = max(stall_s, trio.current_time() - due_at)
            tap.close()
        assert reports[-1].missed == 0
    return median(times) * 1e6, stall_s * 1e3


async def _replay(path: Path) -> float:
    """Ticks per second from the file to Redis's acknowledgement, as fast as it goes."""
    settings = Settings()
    create_engine(settings, lambda: InstrumentRegistry(())).warm_up()
    rates = []
    async with open_valkey() as url:
        for _ in range(2):
            replayer = Replayer(
                settings.model_copy(update={"redis_url": url}), path, speed=math.inf, loop=False
            )
            began_at = trio.current_time()
            await replayer.play(settings.model_copy(update={"redis_url": url}), trio.CancelScope())
            assert replayer.status.messages == replayer.publisher.published
            rates.append(replayer.status.ticks / (trio.current_time() - began_at))
    return max(rates)


if __name__ == "__main__":
    print(json.dumps(run(quick="--quick" in sys.argv), indent=2))
