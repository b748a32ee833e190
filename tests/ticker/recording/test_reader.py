"""The format of recordings: what is written is read, and of what is broken the whole part."""

import datetime as dt
import errno
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.synthetic import ALPHA, BETA, MARKET, NOW, Packet, create_frame, create_share
from ticker.errors import ConfigurationError
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import ConnectionId, Frame
from ticker.recording.reader import (
    BODY_MAX,
    MARK,
    VERSION,
    Block,
    Frames,
    Instruments,
    Session,
    open_recording,
    pack_block,
    pack_preamble,
)
from ticker.recording.writer import (
    RecordingWriter,
    Taken,
    create_recording,
    create_session,
)

SESSION = create_session(NOW, is_mock=True)
REGISTRY = InstrumentRegistry(MARKET)
INDEX, FUTURE, CALL, PUT = MARKET[:4]
FRAMES = [
    create_frame([Packet(FUTURE, 25_000.0), Packet(INDEX, 24_990.0)], NOW, ALPHA),
    create_frame([Packet(CALL, 900.0)], NOW + 0.25, BETA),
    create_frame([Packet(CALL, 901.0), Packet(PUT, 40.0)], NOW + 0.5, ALPHA),
]


def write(path: Path, frames: Sequence[Frame] = FRAMES, *, append: bool = False) -> int:
    """Record each frame as a block of its own; the bytes that were cut off before."""
    writer, cut_bytes = create_recording(path, SESSION, append=append)
    for frame in frames:
        writer.write([Taken([frame], REGISTRY)])
    writer.close()
    return cut_bytes


def read(path: Path) -> tuple[list[Block], str | None, int]:
    """Blocks, why reading stopped, and how many bytes were left."""
    with open_recording(path) as recording:
        return list(recording), recording.damage, recording.lost_bytes


def played(path: Path) -> list[Frame]:
    return [frame for block in read(path)[0] if isinstance(block, Frames) for frame in block.play()]


def mocked(frames: Sequence[Frame]) -> list[Frame]:
    return [msgspec.structs.replace(frame, is_mock=True) for frame in frames]


def rows(path: Path) -> list[Any]:
    return [row for block in read(path)[0] if isinstance(block, Instruments) for row in block.rows]


def blocks_end(path: Path) -> list[int]:
    """Where each whole block of a file ends; first, where the first begins."""
    with open_recording(path) as recording:
        return [recording.position, *(recording.position for _ in recording)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feed.tape"


def test_what_is_recorded_is_played_and_marked_as_not_live(path: Path) -> None:
    assert write(path) == 0
    assert played(path) == mocked(FRAMES)
    assert not any(frame.is_mock for frame in FRAMES)
    blocks, damage, lost_bytes = read(path)
    assert (damage, lost_bytes) == (None, 0)
    assert blocks[0] == Session(dt.datetime.fromtimestamp(NOW, dt.UTC), is_mock=True)


frames = st.builds(
    Frame,
    st.binary(max_size=400),
    st.floats(0, 4e9),
    st.builds(ConnectionId, st.text(min_size=1, max_size=8), st.integers(0, 2)),
    st.booleans(),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(frames, max_size=12), st.integers(0, 1000))
def test_any_frames_come_back(some: list[Frame], missed: int) -> None:
    block = Frames.of(some, missed)
    data = pack_block(block)
    body = data[12:]
    again = msgspec.msgpack.decode(zlib.decompress(body), type=Frames)
    assert again == block
    assert again.play() == mocked(some)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.sampled_from((10, 30, 34, 46, 186)), st.binary(max_size=400))
def test_frames_of_packets_come_back_whatever_follows_them(
    count: int, stride: int, rest: bytes
) -> None:
    data = count.to_bytes(2, "big") + bytes(number % 251 for number in range(count * stride)) + rest
    frame = Frame(data, NOW, ALPHA)
    assert Frames.of([frame]).play() == mocked([frame])


def test_packets_of_one_kind_are_packed_to_a_fraction() -> None:
    frame = create_frame([Packet(row, 900.0 + row.exchange_token) for row in MARKET[2:]])
    assert len(pack_block(Frames.of([frame] * 5))) < len(frame.data) / 2


@settings(max_examples=30, deadline=None)
@given(st.lists(frames, max_size=12))
def test_any_bytes_can_be_recorded_as_a_frame(
    tmp_path_factory: pytest.TempPathFactory, some: list[Frame]
) -> None:
    path = tmp_path_factory.mktemp("any") / "feed.tape"
    write(path, some)
    assert played(path) == mocked(some)


def test_instruments_come_before_their_first_frame_and_once(path: Path) -> None:
    write(path)
    kinds = [type(block) for block in read(path)[0]]
    assert kinds == [Session, Instruments, Frames, Instruments, Frames, Instruments, Frames]
    assert sorted(row.key for row in rows(path)) == sorted(
        row.key for row in (FUTURE, INDEX, CALL, PUT)
    )


def test_a_row_that_has_changed_comes_again_and_between_the_frames(path: Path) -> None:
    amended = msgspec.structs.replace(CALL, lot_size=75)
    writer, _ = create_recording(path, SESSION)
    frame = create_frame([Packet(CALL, 900.0)])
    later = InstrumentRegistry([amended, PUT])
    writer.write([Taken([frame], REGISTRY), Taken([frame], later), Taken([frame], later)])
    writer.write([Taken([frame], later)])
    writer.close()
    kinds = [type(block) for block in read(path)[0]]
    assert kinds == [Session, Instruments, Frames, Instruments, Frames, Frames]
    assert rows(path) == [CALL, amended]


def test_an_instrument_that_becomes_known_later_is_written_then(path: Path) -> None:
    stranger = create_share(999, "STRANGER")
    frame = create_frame([Packet(stranger, 10.0)])
    writer, _ = create_recording(path, SESSION)
    writer.write([Taken([frame], REGISTRY)])
    writer.write([Taken([frame], InstrumentRegistry([stranger]))])
    writer.close()
    assert [type(block) for block in read(path)[0]] == [Session, Frames, Instruments, Frames]


def test_missed_frames_are_in_the_recording(path: Path) -> None:
    writer, _ = create_recording(path, SESSION)
    writer.write([Taken(FRAMES[:1], REGISTRY, 3), Taken(FRAMES[1:], REGISTRY, 4)])
    writer.close()
    [block] = [block for block in read(path)[0] if isinstance(block, Frames)]
    assert block.missed == 7


@pytest.mark.slow
def test_cut_anywhere_it_is_read_up_to_the_last_whole_block(path: Path, tmp_path: Path) -> None:
    write(path)
    whole, content, ends = read(path)[0], path.read_bytes(), blocks_end(path)
    cut = tmp_path / "cut.tape"
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        if size < ends[0]:
            with pytest.raises(ConfigurationError, match="is empty" if not size else "recording"):
                open_recording(cut)
            continue
        blocks, damage, lost_bytes = read(cut)
        kept = sum(end <= size for end in ends) - 1
        assert blocks == whole[:kept]
        assert lost_bytes == size - ends[kept]
        assert (damage is None) is (lost_bytes == 0)


def test_a_flipped_bit_anywhere_ends_the_reading_there(path: Path, tmp_path: Path) -> None:
    write(path, FRAMES[:1])
    whole, content, ends = read(path)[0], path.read_bytes(), blocks_end(path)
    broken = tmp_path / "broken.tape"
    for at in range(len(content)):
        altered = bytearray(content)
        altered[at] ^= 1 << at % 8
        broken.write_bytes(altered)
        if at < ends[0]:
            with pytest.raises(ConfigurationError, match="recording"):
                open_recording(broken)
            continue
        blocks, damage, lost_bytes = read(broken)
        kept = sum(end <= at for end in ends) - 1
        assert damage is not None
        assert blocks == whole[:kept]
        assert lost_bytes == len(content) - ends[kept]


@pytest.mark.parametrize(
    "body",
    [
        b"no zlib",
        zlib.compress(b"no msgpack \xc1"),
        zlib.compress(b"\x80"),
        zlib.compress(msgspec.msgpack.encode(SESSION))[:-3],
        zlib.compress(
            msgspec.msgpack.encode(Frames.of(FRAMES)).replace(b"\xa5alpha", b"\xa5ALPHA")[:-4]
        ),
        zlib.compress(msgspec.msgpack.encode({"connections": [], "frames": [[0.0, 0, 0, b""]]})),
        zlib.compress(
            msgspec.msgpack.encode({"connections": [ALPHA], "frames": [[float("nan"), 0, 0, b""]]})
        ),
    ],
)
def test_a_block_with_a_good_sum_and_a_bad_body_ends_the_reading(path: Path, body: bytes) -> None:
    kind = b"FRAM"
    size = struct.pack(">I", len(body))
    path.write_bytes(
        pack_preamble()
        + pack_block(SESSION)
        + kind
        + size
        + struct.pack(">I", zlib.crc32(kind + size + body))
        + body
    )
    blocks, damage, lost_bytes = read(path)
    assert blocks == [SESSION]
    assert damage is not None
    assert lost_bytes == 12 + len(body)


def test_a_size_beyond_belief_is_not_read(path: Path) -> None:
    head = struct.pack(">4sII", b"FRAM", BODY_MAX + 1, 0)
    path.write_bytes(pack_preamble() + head)
    assert read(path) == ([], "no block begins where one should", 12)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"instrument_token,exchange_token\n" * 9, "is not a recording"),
        (MARK[:5], "is not a recording"),
        (MARK.replace(b"\r\n", b"\n") + b"\0\1", "is not a recording"),
        (MARK + struct.pack(">H", VERSION + 1) + bytes(99), f"version {VERSION + 1}"),
    ],
)
def test_what_is_no_recording_of_ours_is_one_clear_error(
    path: Path, content: bytes, said: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        open_recording(path)


def test_what_cannot_be_opened_is_one_clear_error(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"feed\.tape: No such file"):
        open_recording(path)
    with pytest.raises(ConfigurationError, match="Is a directory"):
        open_recording(tmp_path)
    with pytest.raises(ConfigurationError, match="is not a file"):
        open_recording(Path("/dev/null"))
    with pytest.raises(ConfigurationError, match=r"cannot write .*: No such file"):
        create_recording(tmp_path / "absent" / "feed.tape", SESSION)
    with pytest.raises(ConfigurationError, match="cannot write"):
        create_recording(tmp_path, SESSION, append=True)


def test_a_recording_is_not_overwritten(path: Path) -> None:
    write(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="exists already: --append"):
        create_recording(path, SESSION)
    assert path.read_bytes() == before


def test_a_recording_is_continued_and_its_instruments_are_not_repeated(path: Path) -> None:
    write(path, FRAMES[:2])
    assert write(path, FRAMES[2:], append=True) == 0
    assert played(path) == mocked(FRAMES)
    assert len(rows(path)) == 4
    assert sum(isinstance(block, Session) for block in read(path)[0]) == 2


def test_to_continue_what_is_not_there_is_to_begin(path: Path) -> None:
    write(path, append=True)
    assert played(path) == mocked(FRAMES)


@pytest.mark.slow
def test_what_a_crash_left_is_cut_off_before_going_on(path: Path) -> None:
    write(path)
    content, ends = path.read_bytes(), blocks_end(path)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        cut_bytes = write(path, FRAMES[1:2], append=True)
        kept = max((end for end in ends if end <= size), default=0)
        assert cut_bytes == size - kept
        blocks, damage, _ = read(path)
        assert damage is None
        assert isinstance(blocks[-1], Frames)
        assert blocks[-1].play() == mocked(FRAMES[1:2])


def test_what_is_damaged_or_foreign_is_not_continued_and_not_touched(path: Path) -> None:
    write(path)
    altered = bytearray(path.read_bytes())
    altered[blocks_end(path)[2] + 20] ^= 1
    for content, said in ((bytes(altered), "is damaged at byte"), (b"my notes", "not a recording")):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=said):
            create_recording(path, SESSION, append=True)
        assert path.read_bytes() == content


def test_two_processes_do_not_write_one_recording(path: Path) -> None:
    writer, _ = create_recording(path, SESSION)
    with pytest.raises(ConfigurationError, match="is being written by another process"):
        create_recording(path, SESSION, append=True)
    writer.close()
    write(path, append=True)


class SmallDisk:
    """An output that takes so many bytes, in pieces, and then no more."""

    def __init__(self, path: Path, room: int) -> None:
        self._file = path.open("wb", buffering=0)
        self._room = room

    def write(self, data: memoryview, /) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = min(len(data), self._room, 7)
        self._room -= count
        return self._file.write(data[:count])

    def truncate(self, size: int, /) -> int:
        return self._file.truncate(size)

    def close(self) -> None:
        self._file.close()


def write_all(writer: RecordingWriter) -> None:
    for frame in FRAMES:
        writer.write([Taken([frame], REGISTRY)])


def test_a_full_disk_leaves_whole_blocks_only(path: Path) -> None:
    write(path)
    size, ends = path.stat().st_size, blocks_end(path)
    for room in range(ends[1], size, 5):
        writer = RecordingWriter(SmallDisk(path, room))
        writer.begin(SESSION)
        with pytest.raises(OSError, match="No space left"):
            write_all(writer)
        writer.close()
        assert path.stat().st_size == writer.size
        assert writer.size <= room
        _, damage, _ = read(path)
        assert damage is None
        assert played(path) == mocked(FRAMES[: len(played(path))])
