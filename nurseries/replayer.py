"""A replay as a foreground program: a recording in, priced payloads on Redis out.

::

    replay_until_signalled
    ├── publish                 as in the service, but waited for: nothing is conflated
    ├── replay
    └── show
"""

import math
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio
from rich.console import Console

from nurseries.policies import create_publish_policy
from nurseries.publisher import PublishPolicy, publish
from nurseries.replay import ReplayStatus, Room, replay
from nurseries.run import STOP_SIGNALS, SWITCH_INTERVAL_S
from nurseries.show_line import show_line
from ticker.engine import create_engine
from ticker.errors import ConfigurationError, RecordingDamagedError
from ticker.instruments.registry import InstrumentRegistry
from ticker.local.market import open_redis_server
from ticker.logs import configure_logging
from ticker.messages import Event, SnapshotBatch
from ticker.metrics import Metrics
from ticker.publishers.status import PublisherStatus
from ticker.recording.reader import open_recording
from ticker.settings import DEFAULT_REDIS_URL, REAL_ENVIRONMENTS, Settings, without_passwords

TIMEOUT_S: Final = 10.0
"""Deadline of a batch, unless a longer one is configured: nobody waits for these ticks, and one
that is sent again would be there twice."""

PENDING_MAX: Final = 10_000_000
"""The replay waits for acknowledgements long before the publisher would have to conflate."""


def replay_until_signalled(settings: Settings, path: Path, *, speed: float, loop: bool) -> None:
    """Publish what a recording holds, ``speed`` recorded seconds a second, and say what it was.

    Where no Redis server is configured, one of its own runs as long as the replay. Returns at the
    end of the recording, or after a signal to stop, once all that was played is published.

    Raises ConfigurationError if the file cannot be used, and in an environment of live markets:
    a consumer would get old prices between those of now. Raises RecordingDamagedError, when all
    that is whole has been played, for a file that is damaged, and not just cut by a crash.
    """
    if settings.environment in REAL_ENVIRONMENTS:
        raise ConfigurationError(
            f"ENVIRONMENT is {settings.environment}: a replay would mix old prices with live ones"
        )
    with open_recording(path):
        pass  # told before anything is started
    configure_logging(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    replayer = Replayer(settings, path, speed=speed, loop=loop)
    trio.run(replayer.run)
    with suppress(OSError):
        sys.stdout.write(f"{replayer.summary()}\n")
        sys.stdout.flush()
    if replayer.status.damage is not None and not replayer.status.is_cut:
        raise RecordingDamagedError(f"{path} is damaged: {replayer.status.damage}")


def parse_speed(text: str) -> float:
    """``max`` or a number above 0. Raises ConfigurationError for anything else."""
    try:
        speed = math.inf if text.lower() == "max" else float(text)
    except ValueError:
        speed = math.nan
    if not speed > 0 or (math.isinf(speed) and text.lower() != "max"):
        raise ConfigurationError(f"--speed: {text!r} is neither a number above 0 nor max")
    return speed


def create_replay_policy(settings: Settings) -> PublishPolicy:
    """How to publish what nobody is in a hurry for: as configured, but waiting, not conflating."""
    policy = create_publish_policy(settings)
    return msgspec.structs.replace(
        policy,
        timeout_s=max(policy.timeout_s, TIMEOUT_S),
        pending_max=PENDING_MAX,
        pending_age_max_s=math.inf,
    )


class Replayer:
    """One replay, from its start to its summary."""

    def __init__(self, settings: Settings, path: Path, *, speed: float, loop: bool) -> None:
        self.status = ReplayStatus()
        self.publisher = PublisherStatus()
        self._settings = settings
        self._path = path
        self._speed = speed
        self._loop = loop
        self._room = Room()
        self._began_at: float | None = None
        self._elapsed_s = 0.0

    async def run(self) -> None:
        """Replay to Redis until the end or a signal."""
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                playing = trio.CancelScope()
                nursery.start_soon(self._obey_signals, signals, playing, nursery.cancel_scope)
                engine = create_engine(self._settings, lambda: InstrumentRegistry(()))
                await trio.to_thread.run_sync(engine.warm_up, abandon_on_cancel=True)
                is_local = self._settings.is_local_market
                async with (
                    open_redis_server(self._settings, is_local=is_local) as settings,
                    trio.open_nursery() as console,
                ):
                    console.start_soon(self._show, settings)
                    await self.play(settings, playing)
                    console.cancel_scope.cancel()
                nursery.cancel_scope.cancel()

    async def play(self, settings: Settings, playing: trio.CancelScope) -> None:
        """Replay to the server that ``settings`` name; ``playing`` is cancelled to end early."""
        send, snapshots = trio.open_memory_channel[SnapshotBatch](0)
        send_events, events = trio.open_memory_channel[Event](0)
        send_events.close()  # what befell the feed while it was recorded is not in a recording
        self._began_at = began_at = trio.current_time()
        async with trio.open_nursery() as sinks:
            sinks.start_soon(
                partial(
                    publish,
                    snapshots,
                    events,
                    url=settings.redis_url or DEFAULT_REDIS_URL,
                    prefix=settings.publish_channel_prefix,
                    policy=create_replay_policy(settings),
                    metrics=Metrics(),
                    report=self._report_publisher,
                    wall_clock=time.time,
                )
            )
            with playing:
                await replay(
                    self._path,
                    send,
                    create_engine=partial(create_engine, settings),
                    speed=self._speed,
                    loop=self._loop,
                    room=self._room,
                    limiter=trio.CapacityLimiter(1),
                    report=self._report,
                )
        self._elapsed_s = trio.current_time() - began_at

    async def _obey_signals(
        self, signals: AsyncIterator[int], playing: trio.CancelScope, everything: trio.CancelScope
    ) -> None:
        """The first signal stops in order, or gives a start-up up; the second does not wait."""
        async for _ in signals:
            if playing.cancel_called or self._began_at is None:
                everything.cancel()
            playing.cancel()

    async def _show(self, settings: Settings) -> None:
        shown = without_passwords(settings.redis_url or DEFAULT_REDIS_URL)
        with suppress(OSError):
            for name, text in (("replaying", self._path), ("Redis", shown)):
                sys.stdout.write(f"{name:>12}  {text}\n")
            sys.stdout.flush()
        await show_line("replaying", self._progress, Console())

    def summary(self) -> str:
        """What was replayed, in a line."""
        return ", ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        status = self.status
        rate = status.ticks / max(self._elapsed_s, 1e-9)
        yield (
            f"replayed {status.frames:,} frames, {status.ticks:,} ticks in {self._elapsed_s:.1f} s "
            f"({rate:,.0f} ticks/s)"
        )
        yield f"{self.publisher.published:,} payloads published"
        if unpublished := status.messages - self.publisher.published:
            yield f"{unpublished:,} payloads not published (Redis was away or refused them)"
        if status.dropped:
            yield f"{status.dropped:,} ticks invalid or of unknown instruments"
        if status.missed:
            yield f"{status.missed:,} frames missing in the recording"
        if status.damage is not None:
            yield f"the last {status.lost_bytes:,} bytes not readable: {status.damage}"

    def _progress(self) -> str:
        status, publisher = self.status, self.publisher
        if not publisher.connected:
            return f"waiting for Redis: {publisher.last_error or 'connecting'}"
        if status.recorded_at is None:
            return "reading"
        recorded = datetime.fromtimestamp(status.recorded_at, UTC)
        late = f"   {status.late_s:.1f} s late" if status.late_s > 1.0 else ""
        turn = f"   pass {status.passes + 1}" if self._loop else ""
        return (
            f"{recorded:%Y-%m-%d %H:%M:%S} UTC   {status.frames:,} frames   "
            f"{publisher.published:,} published{late}{turn}"
        )

    def _report(self, status: ReplayStatus) -> None:
        self.status = status

    def _report_publisher(self, status: PublisherStatus) -> None:
        self.publisher = status
        self._room.report(status)
