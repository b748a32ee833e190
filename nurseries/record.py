"""The feed to a file, beside everything else and in nobody's way."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import structlog
import trio

from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import Frame
from ticker.recording.writer import RecordingWriter, Taken

BATCHES_MAX: Final = 4096
BYTES_MAX: Final = 64 * 1024 * 1024
"""What may wait to be written, batches and bytes of frames: some ten seconds of a full feed. When
full the disk is too slow: further batches are left out of the recording, and counted in it."""

BLOCK_BYTES: Final = 1024 * 1024
FLUSH_S: Final = 1.0
"""A block is written when it has so many bytes of frames or is so old: what a crash may cost."""


class RecordingStatus(msgspec.Struct, frozen=True):
    """What has been recorded. ``frames``, and their ``frame_bytes``, are in the file, which has
    ``file_bytes`` and rows of so many ``instruments``. ``missed``: frames that are not in it.
    ``failure``: why recording has stopped, None while it goes on.
    """

    frames: int = 0
    frame_bytes: int = 0
    file_bytes: int = 0
    instruments: int = 0
    missed: int = 0
    failure: str | None = None


class Tap:
    """Takes frames as they are processed; never waits. ``missed``: those it had no room for."""

    def __init__(self, batches_max: int = BATCHES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.missed = 0
        self._untold = 0
        self._bytes = 0
        self._bytes_max = bytes_max
        self._send, self._receive = trio.open_memory_channel[Taken](batches_max)

    def __call__(self, frames: Sequence[Frame], registry: InstrumentRegistry) -> None:
        """Take the frames of one batch but those we made ourselves, or count them as missed."""
        frames = [frame for frame in frames if not frame.is_mock]
        size = _size(frames)
        if not frames:
            return
        if self._bytes + size <= self._bytes_max and self._has_room():
            self._send.send_nowait(Taken(frames, registry, self._untold))
            self._bytes += size
            self._untold = 0
        else:
            self.missed += len(frames)
            self._untold += len(frames)

    def close(self) -> None:
        """Say that no frame follows."""
        self._send.close()

    def stop(self) -> None:
        """Say that nobody reads any more: what waits, and all that follows, is missed."""
        self.missed += sum(len(taken.frames) for taken in self._drain())
        self._receive.close()

    async def receive(self) -> Taken:
        """The next batch. Raises trio.EndOfChannel after the last."""
        taken = await self._receive.receive()
        self._bytes -= _size(taken.frames)
        return taken

    def _has_room(self) -> bool:
        queue = self._send.statistics()
        room = queue.current_buffer_used < queue.max_buffer_size or queue.tasks_waiting_receive
        return bool(room and queue.open_receive_channels)

    def _drain(self) -> list[Taken]:
        rest = []
        while self._receive.statistics().current_buffer_used:
            rest.append(self._receive.receive_nowait())
        return rest


async def record(
    tap: Tap,
    writer: RecordingWriter,
    *,
    report: Callable[[RecordingStatus], None],
    flush_s: float = FLUSH_S,
) -> None:
    """Write what ``tap`` takes until it is closed and empty, or the output cannot be written.

    Returns in either case, the output closed; ``report`` gets the totals after each block, and at
    the end why recording has failed, if it has. Writing happens in a worker thread: the disk holds
    up nothing but this task, and a thread that hangs in it is left behind by a cancellation.
    """
    status = RecordingStatus(file_bytes=writer.size, instruments=writer.instruments)
    taken: list[Taken] = []
    try:
        while taken := await _gather(tap, flush_s):
            await trio.to_thread.run_sync(writer.write, taken, abandon_on_cancel=True)
            status = RecordingStatus(
                frames=status.frames + sum(len(part.frames) for part in taken),
                frame_bytes=status.frame_bytes + sum(_size(part.frames) for part in taken),
                file_bytes=writer.size,
                instruments=writer.instruments,
                missed=tap.missed,
            )
            report(status)
        await trio.to_thread.run_sync(writer.close, abandon_on_cancel=True)
    except OSError as error:
        tap.missed += sum(len(part.frames) for part in taken)
        tap.stop()
        with suppress(OSError):
            await trio.to_thread.run_sync(writer.close, abandon_on_cancel=True)
        failure = error.strerror or str(error)
        structlog.get_logger().error("recording_stopped", task="record", error=failure)
        report(msgspec.structs.replace(status, missed=tap.missed, failure=failure))


async def _gather(tap: Tap, flush_s: float) -> list[Taken]:
    """What makes the next block; empty at the end of the input."""
    gathered: list[Taken] = []
    size = 0
    with suppress(trio.EndOfChannel):
        gathered.append(await tap.receive())
        with trio.move_on_after(flush_s):
            while (size := size + _size(gathered[-1].frames)) < BLOCK_BYTES:
                gathered.append(await tap.receive())
    return gathered


def _size(frames: Sequence[Frame]) -> int:
    return sum(len(frame.data) for frame in frames)
