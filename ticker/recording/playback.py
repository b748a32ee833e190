"""How a recording is played: which frames go through the engine together, as of when, and when.

What is computed from a frame depends on the frames it is processed with and on the clock. A replay
takes both from the recording alone: two replays, at whatever speed, on whatever machine, compute
the same.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ticker.messages import Frame
from ticker.recording.reader import Block, Frames, Instruments, Session

FRAMES_MAX: Final = 256
BYTES_MAX: Final = 512 * 1024
SPAN_S: Final = 0.002
"""A batch is no larger than this, as it is in the service under load, nor are the arrivals of its
frames further apart."""

SET_BACK_S: Final = 1.0
"""Frames of several connections may arrive a little out of order. Where times go back by more, the
recording machine's clock was set back, and the replay's clock follows."""


class Batch(NamedTuple):
    """Frames to be processed together. ``now``: the clock then, UNIX seconds."""

    frames: list[Frame]
    now: float
    missed: int = 0
    """Frames that arrived before these, or among them, and are not in the recording."""


Step = Session | Instruments | Batch


def play(blocks: Iterable[Block]) -> Iterator[Step]:
    """Everything in a recording, in order; how frames lie in blocks makes no difference."""
    batcher = _Batcher()
    for block in blocks:
        if isinstance(block, Frames):
            batcher.missed += block.missed
            for frame in block.play():
                if not batcher.has_room(frame):
                    yield batcher.take()
                batcher.add(frame)
            continue
        if batcher.frames:
            yield batcher.take()
        if isinstance(block, Session):
            batcher.now = -math.inf  # another day, perhaps another machine
        yield block
    if batcher.frames:
        yield batcher.take()


class _Batcher:
    """The batch that is being put together."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.now = -math.inf
        self.missed = 0
        self._bytes = 0

    def has_room(self, frame: Frame) -> bool:
        if not self.frames:
            return True
        return (
            len(self.frames) < FRAMES_MAX
            and self._bytes < BYTES_MAX
            and abs(frame.received_at - self.frames[0].received_at) <= SPAN_S
        )

    def add(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._bytes += len(frame.data)
        is_set_back = frame.received_at < self.now - SET_BACK_S
        self.now = frame.received_at if is_set_back else max(self.now, frame.received_at)

    def take(self) -> Batch:
        batch = Batch(self.frames, self.now, self.missed)
        self.frames, self.missed, self._bytes = [], 0, 0
        return batch


class Pace:
    """When batches are due, at ``speed`` recorded seconds a second; infinity: always at once.

    A session begins at once, however long after the one before it was recorded, and so does what
    follows a clock that was set back.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._origin: tuple[float, float] | None = None
        self._newest = -math.inf

    @property
    def is_unpaced(self) -> bool:
        """Whether batches follow each other as fast as they can."""
        return math.isinf(self._speed)

    def begin(self) -> None:
        """A session begins."""
        self._origin = None

    def due_at(self, recorded_at: float, now: float) -> float:
        """When a batch of this recorded time is due; ``now`` and the result on one clock."""
        if self._origin is None or recorded_at < self._newest:
            self._origin = (now, recorded_at)
        self._newest = recorded_at
        begun_at, since = self._origin
        return begun_at + (recorded_at - since) / self._speed
