"""The recorder as a foreground program: the whole service, and beside it the task that records.

::

    run_until_signalled
    ├── run_service             as always; hands each batch of frames to the tap
    ├── record                  tap → file
    └── show

The recorder wraps the service and is no part of it: what befalls the file is of no concern to
streams, publisher and API.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio
from rich.console import Console

from nurseries.record import RecordingStatus, Tap, record
from nurseries.run import run_until_signalled
from nurseries.service import run_service
from nurseries.show_line import show_line
from nurseries.show_status import announce
from ticker.errors import OutputError
from ticker.metrics import Metrics
from ticker.recording.writer import RecordingWriter, create_recording, create_session
from ticker.settings import Settings
from ticker.status import ServiceStatus

DRAIN_S: Final = 5.0
"""How long the last block may take once the service has ended. A disk that hangs is then left."""

MEGABYTE: Final = 1_000_000


def record_until_signalled(
    settings: Settings, path: Path, *, append: bool = False, seconds: float | None = None
) -> None:
    """Run the service and store every frame of its feed in ``path``, until a signal to stop.

    ``append``: go on with a recording that is there. ``seconds``: stop by itself so long after
    the service is up. When the file cannot be written any more the service goes on; that is said
    at once, and at the end by OutputError. Raises ConfigurationError, before anything is started,
    if the file cannot be used. A file in which nothing was recorded is not kept.
    """
    existed = path.exists()
    is_mock = settings.is_mock or settings.is_local_market
    session = create_session(time.time(), is_mock=is_mock)
    writer, cut_bytes = create_recording(path, session, append=append)
    recorder = Recorder(path, writer, cut_bytes, seconds)
    try:
        run_until_signalled(settings, recorder.serve, recorder.show)
    finally:
        if not existed and not recorder.status.frames:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        sys.stdout.write(f"{recorder.summary()}\n")
        sys.stdout.flush()
    if recorder.status.failure is not None:
        raise OutputError(f"{path}: recording stopped early: {recorder.status.failure}")


class Recorder:
    """One recording, from the first batch to its summary."""

    def __init__(
        self, path: Path, writer: RecordingWriter, cut_bytes: int, seconds: float | None
    ) -> None:
        self.status = RecordingStatus(file_bytes=writer.size)
        self._path = path
        self._writer = writer
        self._cut_bytes = cut_bytes
        self._seconds = seconds
        self._tap: Tap | None = None
        self._began_at = 0.0
        self._elapsed_s = 0.0

    async def serve(
        self,
        settings: Settings,
        status: ServiceStatus,
        metrics: Metrics,
        *,
        stop: trio.Event,
        task_status: trio.TaskStatus[str],
    ) -> None:
        """Run the service as ``run_service`` does, recorded."""
        self._tap = tap = Tap()
        async with trio.open_nursery() as sinks:
            sinks.start_soon(partial(record, tap, self._writer, report=self._report))
            async with trio.open_nursery() as nursery:

                async def service(task_status: trio.TaskStatus[str]) -> None:
                    await run_service(
                        settings, status, metrics, stop=stop, tap=tap, task_status=task_status
                    )
                    nursery.cancel_scope.cancel()

                task_status.started(await nursery.start(service))
                self._began_at = trio.current_time()
                if self._seconds is not None:
                    await trio.sleep(self._seconds)
                    stop.set()
            self._elapsed_s = trio.current_time() - self._began_at
            tap.close()
            sinks.cancel_scope.deadline = trio.current_time() + DRAIN_S

    async def show(self, settings: Settings, _status: ServiceStatus, url: str) -> None:
        """Announce where everything is, then show what has been recorded until cancelled."""
        with suppress(OSError):
            sys.stdout.write("".join(f"{line}\n" for line in announce(settings, url)))
            sys.stdout.write(f"{'recording':>12}  {self._path}\n")
            sys.stdout.flush()
        await show_line("recording", self._progress, Console())

    def summary(self) -> str:
        """What was recorded, in a line."""
        return ", ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        status = self.status
        if not status.frames:
            yield f"recorded nothing in {self._elapsed_s:.0f} s"
        else:
            yield (
                f"recorded {status.frames:,} frames in {self._elapsed_s:.0f} s, "
                f"{_megabytes(status.frame_bytes)} of them"
            )
            yield f"{status.instruments:,} instruments"
            yield f"{self._path} has {_megabytes(status.file_bytes)}"
        if self._cut_bytes:
            yield f"{self._cut_bytes:,} bytes of an unfinished block were cut off before"
        if missed := self._tap.missed if self._tap is not None else 0:
            yield f"{missed:,} frames are missing"

    def _progress(self) -> str:
        status = self.status
        if status.failure is not None:
            return f"RECORDING STOPPED: {status.failure}; the service goes on"
        elapsed_s = max(trio.current_time() - self._began_at, 1e-9)
        line = (
            f"{status.frames:,} frames   {_megabytes(status.frame_bytes)} as "
            f"{_megabytes(status.file_bytes)}   {status.frames / elapsed_s:,.0f} frames/s"
        )
        return f"{line}   {status.missed:,} missed: the disk is too slow" if status.missed else line

    def _report(self, status: RecordingStatus) -> None:
        self.status = status


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"
