"""A recording through the engine, as if it were the feed: paced by its own clock, or at full speed.

::

    open_recording → play → engine.process → snapshots → publish

It stands where streams and enricher stand in the service. A batch is processed as of its recorded
time, and the publisher's acknowledgements hold the next one back, so that nothing is conflated as
long as Redis is there: the same recording gives the same payloads, byte for byte.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

import msgspec
import trio

from ticker.engine import Engine, Enriched
from ticker.errors import ConfigurationError
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import SnapshotBatch
from ticker.publishers.outbox import PARTS_MAX
from ticker.publishers.status import PublisherStatus
from ticker.recording.playback import Batch, Pace, Step, play
from ticker.recording.reader import Instruments, Recording, open_recording

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OUTSTANDING_MAX: Final = PARTS_MAX * 9 // 10
"""Messages without an acknowledgement, beyond which no batch is sent: each may be a part in the
publisher's outbox, which conflates when it has more than ``PARTS_MAX``. It is nearly a full batch
of the publisher's, and another one is being computed meanwhile."""

CreateEngine = Callable[[Callable[[], InstrumentRegistry]], Engine]


class ReplayStatus(msgspec.Struct, frozen=True):
    """How far a replay is; counts are totals over all passes.

    ``recorded_at``: UNIX seconds of the newest frame played. ``late_s``: how far behind its pace.
    ``ticks``: decoded; ``dropped`` of them had no payload. ``messages``: payloads, re-pricings
    included. ``missed``: frames that the recorder had to leave out. ``damage``: why the file could
    not be read to its end, and ``lost_bytes`` of it were not. ``is_cut``: it only ends in the
    middle of a block, as a recorder that was killed leaves it.
    """

    passes: int = 0
    frames: int = 0
    ticks: int = 0
    dropped: int = 0
    messages: int = 0
    missed: int = 0
    recorded_at: float | None = None
    late_s: float = 0.0
    damage: str | None = None
    lost_bytes: int = 0
    is_cut: bool = False


class Room:
    """Whether the publisher can take another batch; told by its reports.

    It reports when nothing is under way, so what is outstanding is what it says is pending, and
    what was sent since. One batch may be on its way into the outbox just then: it is not counted.
    """

    def __init__(self, outstanding_max: int = OUTSTANDING_MAX) -> None:
        self._outstanding_max = outstanding_max
        self._outstanding = 0
        self._connected = False
        self._changed = trio.Event()

    def report(self, status: PublisherStatus) -> None:
        """Take note of where the publisher stands."""
        self._outstanding = status.pending
        self._connected = status.connected
        self._changed.set()
        self._changed = trio.Event()

    def note_sent(self, messages: int) -> None:
        """So many messages are about to be sent to the publisher."""
        self._outstanding += messages

    async def wait(self) -> None:
        """Return when Redis is there and not far behind."""
        await trio.lowlevel.checkpoint()
        while not self._connected or self._outstanding > self._outstanding_max:
            await self._changed.wait()


async def replay(
    path: Path,
    snapshots: trio.MemorySendChannel[SnapshotBatch],
    *,
    create_engine: CreateEngine,
    speed: float,
    loop: bool,
    room: Room,
    limiter: trio.CapacityLimiter,
    report: Callable[[ReplayStatus], None],
) -> None:
    """Play the recording, and again and again if ``loop``; close ``snapshots`` at the end.

    ``speed``: recorded seconds a second; infinity for as fast as Redis takes it. Each pass has an
    engine of its own and is the same to the byte, sequence numbers included. A recording that is
    damaged is played as far as it is whole. ``snapshots`` must have no buffer, see ``Room``.

    Raises ConfigurationError if the file cannot be used or holds no frame.
    """
    player = _Player(create_engine, Pace(speed), room, limiter, report)
    async with snapshots:
        while True:
            recording = await trio.to_thread.run_sync(open_recording, path)
            with recording:
                await player.play(recording, snapshots)
            if not player.status.frames:
                raise ConfigurationError(f"{path} holds no frames")
            if not loop:
                return


class _Player:
    """Plays one pass after another."""

    def __init__(
        self,
        create_engine: CreateEngine,
        pace: Pace,
        room: Room,
        limiter: trio.CapacityLimiter,
        report: Callable[[ReplayStatus], None],
    ) -> None:
        self.status = ReplayStatus()
        self._create_engine = create_engine
        self._pace = pace
        self._room = room
        self._limiter = limiter
        self._report = report

    async def play(
        self, recording: Recording, snapshots: trio.MemorySendChannel[SnapshotBatch]
    ) -> None:
        """Play everything that is whole in the recording."""
        registry = InstrumentRegistry(())
        engine = self._create_engine(lambda: registry)
        steps = play(recording)
        step = await self._compute(next, steps, None)
        while step is not None:
            if isinstance(step, Batch):
                late_s = await self._wait_due(step.now)
                enriched, following = await self._compute(_process, engine, step, steps)
                self._note(step, enriched, late_s)
                if enriched.snapshots is not None:
                    await self._send(enriched.snapshots, snapshots)
                step = following
                continue
            if isinstance(step, Instruments):
                registry = await self._compute(_extended, registry, step)
            else:
                self._pace.begin()
            step = await self._compute(next, steps, None)
        self.status = msgspec.structs.replace(
            self.status,
            passes=self.status.passes + 1,
            damage=recording.damage,
            lost_bytes=recording.lost_bytes,
            is_cut=recording.is_cut,
        )
        self._report(self.status)

    async def _compute(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(work, *args, limiter=self._limiter)

    async def _wait_due(self, recorded_at: float) -> float:
        """Return when the batch is due: by how many seconds that is too late."""
        due_at = self._pace.due_at(recorded_at, trio.current_time())
        await trio.sleep_until(due_at)
        return 0.0 if self._pace.is_unpaced else trio.current_time() - due_at

    def _note(self, batch: Batch, enriched: Enriched, late_s: float) -> None:
        before = self.status
        self.status = ReplayStatus(
            passes=before.passes,
            frames=before.frames + len(batch.frames),
            ticks=before.ticks + sum(enriched.decoded.values()),
            dropped=before.dropped + sum(enriched.dropped.values()),
            messages=before.messages,
            missed=before.missed + batch.missed,
            recorded_at=batch.now,
            late_s=late_s,
        )
        self._report(self.status)

    async def _send(
        self, batch: SnapshotBatch, snapshots: trio.MemorySendChannel[SnapshotBatch]
    ) -> None:
        await self._room.wait()
        self._room.note_sent(len(batch))
        await snapshots.send(batch)
        self.status = msgspec.structs.replace(
            self.status, messages=self.status.messages + len(batch)
        )
        self._report(self.status)


def _process(engine: Engine, batch: Batch, steps: Iterator[Step]) -> tuple[Enriched, Step | None]:
    """Process a batch and read what follows it: one way to a thread and back for both."""
    return engine.process(batch.frames, batch.now), next(steps, None)


def _extended(registry: InstrumentRegistry, more: Instruments) -> InstrumentRegistry:
    return InstrumentRegistry(chain(registry, more.rows))
