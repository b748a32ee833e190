"""Writes recordings: see ``ticker.recording.reader`` for what stands in one."""

import datetime as dt
import fcntl
import itertools
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np

from ticker.errors import ConfigurationError
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import decode_frames
from ticker.messages import Frame
from ticker.recording.reader import (
    Block,
    Frames,
    Instruments,
    Session,
    open_recording,
    pack_block,
    pack_preamble,
)
from ticker.ticks import UInt32Array

_NO_TOKENS: Final = np.empty(0, np.uint32)


class Output(Protocol):
    """An unbuffered file, open for writing at its end."""

    def write(self, data: memoryview, /) -> int | None: ...
    def truncate(self, size: int, /) -> int: ...
    def close(self) -> None: ...


class Taken(NamedTuple):
    """Frames as they were processed together, with the instruments of that moment.

    ``missed``: how many before them could not be taken.
    """

    frames: Sequence[Frame]
    registry: InstrumentRegistry
    missed: int = 0


class RecordingWriter:
    """Appends to a recording; one caller at a time.

    Every method may block for as long as the disk does, and raises OSError as the output does:
    after that the file ends with its last whole block, and there is only ``close`` left to call.
    ``size``: bytes of the file; ``instruments``: how many rows it holds.
    """

    def __init__(self, output: Output, size: int = 0, rows: Sequence[Instrument] = ()) -> None:
        self.size = size
        self._output = output
        self._rows = {row.instrument_token: row for row in rows}
        self._registry: InstrumentRegistry | None = None
        self._checked: UInt32Array = _NO_TOKENS  # tokens whose row is that of the registry

    @property
    def instruments(self) -> int:
        return len(self._rows)

    def begin(self, session: Session) -> None:
        """Say that a session begins; in a file of no bytes, that it is a recording."""
        preamble = b"" if self.size else pack_preamble()
        self._append(preamble + pack_block(session))

    def write(self, taken: Sequence[Taken]) -> None:
        """Append frames, and before them the rows of their instruments that it lacks."""
        for _, group in itertools.groupby(taken, key=lambda part: id(part.registry)):
            parts = list(group)
            frames = [frame for part in parts for frame in part.frames]
            missed = sum(part.missed for part in parts)
            blocks: list[Block] = [Frames.of(frames, missed)]
            if rows := self._news(frames, parts[0].registry):
                blocks.insert(0, Instruments(rows))
            self._append(b"".join(map(pack_block, blocks)))
            self._rows |= {row.instrument_token: row for row in rows}

    def close(self) -> None:
        """Close the file. Nothing is left to be written."""
        self._output.close()

    def _news(
        self, frames: Sequence[Frame], registry: InstrumentRegistry
    ) -> tuple[Instrument, ...]:
        """Rows of instruments in these frames that are not, or not so, in the file."""
        if registry is not self._registry:
            self._registry, self._checked = registry, _NO_TOKENS
        tokens = np.unique(decode_frames([frame.data for frame in frames]).ticks.token)
        others = np.setdiff1d(tokens, self._checked, assume_unique=True)
        found = [row for row in map(registry.by_token, others.tolist()) if row is not None]
        self._checked = np.union1d(
            self._checked, np.array([row.instrument_token for row in found], np.uint32)
        )
        return tuple(row for row in found if self._rows.get(row.instrument_token) != row)

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._output.write(rest) or 0 :]
        except OSError:
            with suppress(OSError):
                self._output.truncate(self.size)
            raise
        self.size += len(data)


class Continued(NamedTuple):
    """A writer, and how much of an unfinished block it cut off before it went on."""

    writer: RecordingWriter
    cut_bytes: int


def create_recording(path: Path, session: Session, *, append: bool = False) -> Continued:
    """Create a recording, or with ``append`` go on with the one that is there, if there is one.

    Raises ConfigurationError, which names the file, if it exists already, cannot be written, is
    being written by another process or, to be continued, is no recording or is damaged before its
    last block.
    """
    try:
        continued = _continue(path) if append and path.exists() else _create(path)
        try:
            continued.writer.begin(session)
        except OSError:
            continued.writer.close()
            raise
    except FileExistsError:
        raise ConfigurationError(
            f"{path} exists already: --append goes on with it, or remove it first"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
    return continued


def _create(path: Path) -> Continued:
    output = path.open("xb", buffering=0)
    fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return Continued(RecordingWriter(output), 0)


def _continue(path: Path) -> Continued:
    output = path.open("r+b", buffering=0)
    try:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"{path} is being written by another process") from None
        end = output.seek(0, 2)
        size, rows = (0, []) if _is_unbegun(path) else _scan(path)
        output.truncate(size)
        output.seek(size)
    except BaseException:
        output.close()
        raise
    return Continued(RecordingWriter(output, size, rows), end - size)


def _is_unbegun(path: Path) -> bool:
    """Whether a writer was killed before its first bytes were all there."""
    with path.open("rb") as file:
        head = file.read(len(pack_preamble()))
    return len(head) < len(pack_preamble()) and pack_preamble().startswith(head)


def _scan(path: Path) -> tuple[int, list[Instrument]]:
    """Where the whole blocks of a recording end, and the instruments it holds."""
    rows: dict[int, Instrument] = {}
    with open_recording(path) as recording:
        for block in recording:
            if isinstance(block, Instruments):
                rows |= {row.instrument_token: row for row in block.rows}
    if recording.damage is not None and not recording.is_cut:
        raise ConfigurationError(
            f"{path} is damaged at byte {recording.position} ({recording.damage}): "
            "it can be replayed up to there, but not continued"
        )
    return recording.position, list(rows.values())


def create_session(now: float, *, is_mock: bool) -> Session:
    """A session that begins at ``now``, UNIX seconds."""
    return Session(dt.datetime.fromtimestamp(now, dt.UTC), is_mock)
