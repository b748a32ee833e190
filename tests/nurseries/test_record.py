"""The recorder: whatever the disk does, the feed does not wait, and what is missing is counted."""

import errno
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from nurseries.record import BLOCK_BYTES, RecordingStatus, Tap, record
from tests.ticker.synthetic import MARKET, NOW, Packet, create_frame
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import Frame
from ticker.recording.reader import Frames, open_recording
from ticker.recording.writer import RecordingWriter, create_recording, create_session

SESSION = create_session(NOW, is_mock=True)
REGISTRY = InstrumentRegistry(MARKET)
FRAME = create_frame([Packet(MARKET[1], 25_000.0)])


class Disk:
    """An output in memory: fails with ``error``, and hangs while ``hangs`` is held."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.error: OSError | None = None
        self.hangs = threading.Lock()
        self.threads: set[int] = set()
        self.closed = False

    def write(self, data: memoryview, /) -> int:
        self.threads.add(threading.get_ident())
        with self.hangs:
            if self.error is not None:
                self.data += data[:5]
                raise self.error
            self.data += data
        return len(data)

    def truncate(self, size: int, /) -> int:
        del self.data[size:]
        return size

    def close(self) -> None:
        self.closed = True


class Bench:
    """A recorder and what it reported."""

    def __init__(self, tap: Tap, flush_s: float) -> None:
        self.tap = tap
        self.flush_s = flush_s
        self.disk = Disk()
        self.reports: list[RecordingStatus] = []
        self.ended = trio.Event()
        self.writer = RecordingWriter(self.disk)
        self.writer.begin(SESSION)
        self.disk.threads.clear()

    async def run(self) -> None:
        await record(self.tap, self.writer, report=self.reports.append, flush_s=self.flush_s)
        self.ended.set()

    def recorded(self, path: Path) -> list[Frame]:
        path.write_bytes(self.disk.data)
        with open_recording(path) as recording:
            frames = [
                frame for block in recording if isinstance(block, Frames) for frame in block.play()
            ]
        assert recording.damage is None
        return frames


@asynccontextmanager
async def open_bench(tap: Tap | None = None, flush_s: float = 0.01) -> AsyncIterator[Bench]:
    bench = Bench(tap or Tap(), flush_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run)
        await trio.testing.wait_all_tasks_blocked()
        yield bench


async def test_what_was_taken_is_written_when_the_feed_ends(tmp_path: Path) -> None:
    async with open_bench() as bench:
        for _ in range(10):
            bench.tap([FRAME, FRAME], REGISTRY)
        bench.tap.close()
    assert len(bench.recorded(tmp_path / "x")) == 20
    assert bench.disk.closed
    assert threading.get_ident() not in bench.disk.threads, "no file is written on the event loop"
    [report] = bench.reports
    assert report == RecordingStatus(
        frames=20,
        frame_bytes=20 * len(FRAME.data),
        file_bytes=len(bench.disk.data),
        instruments=1,
    )


async def test_a_block_is_written_when_it_is_old_enough(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with open_bench(flush_s=1.0) as bench:
        bench.tap([FRAME], REGISTRY)
        await trio.sleep(0.9)
        assert not bench.reports
        await trio.sleep(0.2)
        while not bench.reports:  # noqa: ASYNC110 - a virtual clock does not wait for threads
            await trio.sleep(0.01)
        assert len(bench.recorded(tmp_path / "x")) == 1
        bench.tap.close()


async def test_a_full_block_is_written_at_once(tmp_path: Path) -> None:
    big = Frame(bytes(BLOCK_BYTES // 2), NOW, FRAME.connection)
    async with open_bench(flush_s=60.0) as bench:
        for _ in range(4):
            bench.tap([big], REGISTRY)
        with trio.fail_after(0.8):
            while len(bench.reports) < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        bench.tap.close()
    assert len(bench.recorded(tmp_path / "x")) == 4


async def test_what_we_made_ourselves_is_not_recorded(tmp_path: Path) -> None:
    made = msgspec.structs.replace(FRAME, is_mock=True)
    async with open_bench() as bench:
        bench.tap([made, FRAME, made], REGISTRY)
        bench.tap([made], REGISTRY)
        bench.tap.close()
    assert len(bench.recorded(tmp_path / "x")) == 1
    assert bench.tap.missed == 0


async def test_a_full_disk_stops_the_recorder_and_nothing_else(tmp_path: Path) -> None:
    async with open_bench() as bench:
        bench.tap([FRAME], REGISTRY)
        with trio.fail_after(5):
            while not bench.reports:  # noqa: ASYNC110
                await trio.sleep(0.01)
            bench.disk.error = OSError(errno.ENOSPC, "No space left on device")
            bench.tap([FRAME, FRAME], REGISTRY)
            await bench.ended.wait()
        bench.tap([FRAME], REGISTRY)  # the feed goes on
        bench.tap([FRAME], REGISTRY)
        bench.tap.close()
    assert bench.disk.closed
    assert bench.reports[-1].failure == "No space left on device"
    assert bench.reports[-1].frames == 1
    assert bench.reports[-1].missed == 2
    assert bench.tap.missed == 4
    assert len(bench.recorded(tmp_path / "x")) == 1, "the file ends with its last whole block"


async def test_a_slow_disk_costs_frames_of_the_recording_and_no_time(tmp_path: Path) -> None:
    room = 5 * len(FRAME.data)
    async with open_bench(Tap(bytes_max=room)) as bench:
        with bench.disk.hangs:
            await fill(bench)
            began_at = trio.current_time()
            for _ in range(1000):
                bench.tap([FRAME], REGISTRY)
            assert trio.current_time() - began_at < 0.5
            assert bench.tap.missed == 995
        bench.tap.close()
    frames = bench.recorded(tmp_path / "x")
    assert len(frames) + bench.tap.missed == 1001
    assert bench.reports[-1].missed == 995


async def fill(bench: Bench) -> None:
    """Until the recorder is stuck in the disk with one frame in hand."""
    bench.tap([FRAME], REGISTRY)
    with trio.fail_after(5):
        while not bench.disk.threads:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_missed_frames_are_told_in_the_recording(tmp_path: Path) -> None:
    async with open_bench(Tap(batches_max=2)) as bench:
        with bench.disk.hangs:
            await fill(bench)
            for _ in range(5):
                bench.tap([FRAME, FRAME], REGISTRY)
        with trio.fail_after(5):
            while len(bench.reports) < 1:  # noqa: ASYNC110
                await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked()
        bench.tap([FRAME], REGISTRY)
        bench.tap.close()
    (path := tmp_path / "x").write_bytes(bench.disk.data)
    with open_recording(path) as recording:
        blocks = [block for block in recording if isinstance(block, Frames)]
    assert sum(block.missed for block in blocks) == bench.tap.missed == 6
    assert sum(len(block.frames) for block in blocks) == 6


async def test_a_disk_that_hangs_holds_up_no_shutdown() -> None:
    with trio.CancelScope() as scope, trio.fail_after(5):
        async with open_bench() as bench:
            bench.disk.hangs.acquire()
            await fill(bench)
            bench.tap.close()
            scope.deadline = trio.current_time() + 0.05
    bench.disk.hangs.release()
    assert scope.cancelled_caught
    assert not bench.ended.is_set()


@pytest.mark.slow
async def test_the_recorder_obeys_the_limits_of_a_real_file(tmp_path: Path) -> None:
    """A file size limit of the process gives the same error on every system: EFBIG."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "limited.tape"
    writer, _ = create_recording(path, SESSION)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    tap, reports = Tap(), list[RecordingStatus]()
    resource.setrlimit(resource.RLIMIT_FSIZE, (writer.size + 100, before[1]))
    try:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await record(tap, writer, report=reports.append)

            nursery.start_soon(run)
            tap([Frame(bytes(range(256)) * 40, NOW, FRAME.connection)] * 3, REGISTRY)
            tap([create_frame([Packet(row, 900.0) for row in MARKET[2:]])], REGISTRY)
            tap.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert reports[-1].failure == "File too large"
    with open_recording(path) as recording:
        assert [type(block).__name__ for block in recording] == ["Session"]
    assert recording.damage is None
    assert tap.missed == 4
