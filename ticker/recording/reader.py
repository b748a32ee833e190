"""Recordings: raw frames of the feed in a file, with when and on which connection each arrived.

::

    file    = MARK, version (uint16), block ...
    block   = kind (4 bytes), size (uint32), CRC-32 of kind, size and body (uint32), body
    body    = MessagePack, compressed with zlib: a Session, Instruments or Frames, as kind says

Integers are big-endian. A file is only ever appended to, whole blocks at a time: whatever ends the
writer, what lies before its last block is good. A reader that meets a block which is not whole
stops there and says how much it left.

A ``Session`` comes first, and again where a recording was continued. ``Instruments`` come before
the first frame that speaks of them, so that a replay needs no broker; a frame's tokens that nobody
knew are not among them.
"""

import datetime as dt
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import msgspec
import numpy as np

from ticker.errors import ConfigurationError
from ticker.instruments.registry import Instrument
from ticker.kite.wire import PACKET_LENGTHS
from ticker.messages import ConnectionId, Frame

MARK: Final = b"\x89ticker-tape\r\n\x1a\n"
"""First bytes of a recording. Like PNG's, they do not survive a transfer as text."""

VERSION: Final = 1
"""What is written; readers take no other."""

BODY_MAX: Final = 256 * 1024 * 1024
"""The largest body, packed or not, that a reader believes in. Writers stay far below."""

LEVEL: Final = 1
"""Of zlib: the higher ones save a tenth more for several times the work."""

_COUNT_SIZE: Final = 2
"""Bytes of a frame's packet count, which its packets follow."""

_STRIDES: Final = sorted({length + 2 for length in PACKET_LENGTHS.values()})
"""Bytes of the kinds of packets, the prefix with their length included."""

_PREAMBLE: Final = struct.Struct(f">{len(MARK)}sH")
_HEAD: Final = struct.Struct(">4sII")


class Session(msgspec.Struct, frozen=True):
    """A recorder began: when, and whether what it recorded was a simulated market."""

    began_at: dt.datetime
    is_mock: bool


class Instruments(msgspec.Struct, frozen=True):
    """Rows for frames that follow. A row takes the place of an earlier one with its token."""

    rows: tuple[Instrument, ...]


class RecordedFrame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``received_at``: UNIX seconds; ``connection``: index into its block's connections.

    ``data``: the frame's bytes, but with what follows its packet count transposed, as far as it
    fills rows of ``stride`` bytes; 0: as they are. The same bytes of consecutive packets then lie
    side by side, and compress to two thirds in half the time.
    """

    received_at: float
    connection: int
    stride: int
    data: bytes

    @classmethod
    def of(cls, frame: Frame, connection: int) -> "RecordedFrame":
        stride = _stride(frame.data)
        data = _transposed(frame.data, _rows(frame.data, stride), stride)
        return cls(frame.received_at, connection, stride, data)

    def play(self, connections: Sequence[ConnectionId]) -> Frame:
        data = _transposed(self.data, self.stride, _rows(self.data, self.stride))
        return Frame(data, self.received_at, connections[self.connection], is_mock=True)


class Frames(msgspec.Struct, frozen=True):
    """Frames in order of arrival. ``missed``: how many before them could not be recorded."""

    connections: tuple[ConnectionId, ...]
    frames: tuple[RecordedFrame, ...]
    missed: int = 0

    @classmethod
    def of(cls, frames: Sequence[Frame], missed: int = 0) -> "Frames":
        numbers: dict[ConnectionId, int] = {}
        rows = tuple(
            RecordedFrame.of(frame, numbers.setdefault(frame.connection, len(numbers)))
            for frame in frames
        )
        return cls(tuple(numbers), rows, missed)

    def play(self) -> list[Frame]:
        """The frames as the feed would hand them on, but marked as not live."""
        return [frame.play(self.connections) for frame in self.frames]

    def is_sound(self) -> bool:
        """Whether every frame is of a connection, and of a time."""
        return all(
            0 <= frame.connection < len(self.connections)
            and frame.stride >= 0
            and math.isfinite(frame.received_at)
            for frame in self.frames
        )


Block = Session | Instruments | Frames

_KINDS: Final[dict[type[Block], bytes]] = {Session: b"SESS", Instruments: b"INST", Frames: b"FRAM"}
_TYPES: Final = {kind: what for what, kind in _KINDS.items()}


class _DamageError(Exception):
    """What stands in the file is not a whole block; ``is_cut``: because the file ends in it."""

    def __init__(self, what: str, *, is_cut: bool = False) -> None:
        super().__init__(what)
        self.is_cut = is_cut


def pack_preamble() -> bytes:
    """What a recording begins with."""
    return _PREAMBLE.pack(MARK, VERSION)


def pack_block(block: Block) -> bytes:
    """A block as it stands in a file."""
    body = zlib.compress(msgspec.msgpack.encode(block), LEVEL)
    kind = _KINDS[type(block)]
    return _HEAD.pack(kind, len(body), _checksum(kind, body)) + body


class Recording:
    """A recording that is being read, from its beginning; made by ``open_recording``.

    ``position``: where the last whole block that was read ends, in bytes. ``damage`` says why
    reading stopped before the end of the file, None while it did not; ``is_cut`` then tells
    whether it is only that the file ends in the middle of a block, as a crash leaves it.
    ``lost_bytes``: how much of the file was left unread because of it.

    Reading blocks: from async code, in a worker thread.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.position = _PREAMBLE.size
        self.damage: str | None = None
        self.is_cut = False
        self.lost_bytes = 0
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Block]:
        """Every whole block up to the end, or to the first that is not whole."""
        while (block := self._read()) is not None:
            yield block

    def _read(self) -> Block | None:
        if self.damage is not None:
            return None
        try:
            head = self._file.read(_HEAD.size)
            if not head:
                return None
            block = self._read_body(head)
        except _DamageError as error:
            self._stop(str(error), is_cut=error.is_cut)
            return None
        except OSError as error:
            self._stop(f"cannot be read: {error.strerror}", is_cut=False)
            return None
        self.position = self._file.tell()
        return block

    def _read_body(self, head: bytes) -> Block:
        if len(head) < _HEAD.size:
            raise _DamageError("the file ends in the middle of a block", is_cut=True)
        kind, size, checksum = _HEAD.unpack(head)
        if kind not in _TYPES or size > BODY_MAX:
            raise _DamageError("no block begins where one should")
        body = self._file.read(size)
        if len(body) < size:
            raise _DamageError("the file ends in the middle of a block", is_cut=True)
        if _checksum(kind, body) != checksum:
            raise _DamageError("a block's bytes were altered")
        return _unpack(kind, body)

    def _stop(self, damage: str, *, is_cut: bool) -> None:
        self.damage, self.is_cut = damage, is_cut
        with suppress(OSError):
            self.lost_bytes = os.fstat(self._file.fileno()).st_size - self.position


def open_recording(path: Path) -> Recording:
    """Open a recording to read it; it closes as a context manager does.

    Raises ConfigurationError, which names the file, if it cannot be read, is empty, is no
    recording, or one of a version that this program does not know.
    """
    try:
        file = path.open("rb")
        try:
            _check(path, file)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    return Recording(path, file)


def _check(path: Path, file: IO[bytes]) -> None:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise ConfigurationError(f"{path} is not a file")
    preamble = file.read(_PREAMBLE.size)
    if not preamble:
        raise ConfigurationError(f"{path} is empty: no recording")
    if not preamble.startswith(MARK) or len(preamble) < _PREAMBLE.size:
        raise ConfigurationError(f"{path} is not a recording of the ticker's")
    _, version = _PREAMBLE.unpack(preamble)
    if version != VERSION:
        raise ConfigurationError(
            f"{path} is a recording of version {version}; this program reads version {VERSION}"
        )


def _unpack(kind: bytes, body: bytes) -> Block:
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(body, BODY_MAX)
        if not inflate.eof:
            raise _DamageError("a block is incomplete or too large")
        block: Block = msgspec.msgpack.decode(data, type=_TYPES[kind])
    except (zlib.error, msgspec.DecodeError):
        raise _DamageError("a block is not what it claims to be") from None
    if isinstance(block, Frames) and not block.is_sound():
        raise _DamageError("a block is not what it claims to be")
    return block


def _stride(data: bytes) -> int:
    """The length of most packets in a frame, or nearly; 0 where transposing has no use."""
    count = int.from_bytes(data[:_COUNT_SIZE], "big")
    if count < 2:
        return 0
    mean = (len(data) - _COUNT_SIZE) / count
    return next((stride for stride in _STRIDES if stride >= mean), 0)


def _rows(data: bytes, stride: int) -> int:
    """How many rows of so many bytes follow the packet count."""
    return (len(data) - _COUNT_SIZE) // stride if stride else 0


def _transposed(data: bytes, rows: int, columns: int) -> bytes:
    """The frame with its first ``rows`` rows of so many bytes written column by column."""
    end = _COUNT_SIZE + rows * columns
    if min(rows, columns) < 2:
        return data
    table = np.frombuffer(data, np.uint8, rows * columns, _COUNT_SIZE).reshape(rows, columns)
    return data[:_COUNT_SIZE] + table.T.tobytes() + data[end:]


def _checksum(kind: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(kind + len(body).to_bytes(4, "big")))
