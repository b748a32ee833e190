"""The replay: the recording's own batches, clock and pace, and no more than the publisher takes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from nurseries.replay import ReplayStatus, Room, replay
from tests.ticker.synthetic import (
    ALPHA,
    BETA,
    FUTURE,
    INDEX,
    MARKET,
    NOW,
    Packet,
    chain_packets,
    create_frame,
    create_share,
    expiry_at,
    payloads,
)
from ticker.engine import Engine
from ticker.errors import ConfigurationError
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import Frame, SnapshotBatch
from ticker.publishers.status import PublisherStatus
from ticker.recording.writer import Taken, create_recording, create_session

# strikes are floats as in a dump: "24000.0" in payloads, also of what was written and read
ROWS = [msgspec.structs.replace(row, strike=float(row.strike)) for row in MARKET]
REGISTRY = InstrumentRegistry(ROWS)
SPOT = [Packet(INDEX, 25_000.0), Packet(FUTURE, 25_050.0)]
MORNING = [
    create_frame(SPOT, NOW, ALPHA),
    create_frame(chain_packets(), NOW + 0.001, BETA),
    create_frame([Packet(INDEX, 25_040.0), Packet(FUTURE, 25_090.0)], NOW + 2.0, ALPHA),
    create_frame(chain_packets(25_071.7)[:20], NOW + 5.0, BETA),
]


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_engine(lambda: REGISTRY).warm_up()


def write(path: Path, *sessions: Sequence[Frame]) -> Path:
    for frames in sessions:
        writer, _ = create_recording(path, create_session(NOW, is_mock=False), append=True)
        writer.write([Taken(frames, REGISTRY, missed=1)])
        writer.close()
    return path


class Publisher:
    """Takes what is replayed. ``holds``: it acknowledges nothing."""

    def __init__(self) -> None:
        self.room = Room()
        self.batches: list[tuple[float, SnapshotBatch]] = []
        self.pending = 0
        self.holds = False
        self.send, self._receive = trio.open_memory_channel[SnapshotBatch](0)
        self.report(connected=True)

    def report(self, *, connected: bool) -> None:
        self.room.report(PublisherStatus(connected=connected, pending=self.pending))

    async def run(self) -> None:
        async for batch in self._receive:
            self.batches.append((trio.current_time(), batch))
            self.pending += len(batch)
            if not self.holds:
                self.acknowledge()

    def acknowledge(self) -> None:
        self.pending = 0
        self.report(connected=True)

    def payloads(self) -> list[dict[str, Any]]:
        return [payload for _, batch in self.batches for payload in payloads(batch)]

    def bytes(self) -> list[bytes]:
        return [bytes(batch.buffer) for _, batch in self.batches]


async def run(
    path: Path,
    publisher: Publisher,
    reports: list[ReplayStatus] | None = None,
    *,
    speed: float = math.inf,
    loop: bool = False,
) -> None:
    told: list[ReplayStatus] = [] if reports is None else reports
    await replay(
        path,
        publisher.send,
        create_engine=create_engine,
        speed=speed,
        loop=loop,
        room=publisher.room,
        limiter=trio.CapacityLimiter(1),
        report=told.append,
    )


def create_engine(registry: Any) -> Engine:
    return Engine(registry, expiry_at=expiry_at, channel_prefix="ticker:nifty")


async def play(path: Path, *, speed: float = math.inf) -> tuple[Publisher, ReplayStatus]:
    publisher, reports = Publisher(), list[ReplayStatus]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        await run(path, publisher, reports, speed=speed)
    return publisher, reports[-1]


async def test_a_recording_is_priced_and_published_without_a_broker(tmp_path: Path) -> None:
    publisher, status = await play(write(tmp_path / "x", MORNING))
    published = publisher.payloads()
    ticks = 2 + 82 + 2 + 20
    assert len(published) >= ticks
    assert status == ReplayStatus(
        passes=1,
        frames=4,
        ticks=ticks,
        messages=len(published),
        missed=1,
        recorded_at=NOW + 5.0,
    )
    assert [row["seq"] for row in published] == list(range(1, len(published) + 1))
    priced = [row for row in published if row.get("greeks_status") == "ok"]
    assert len(priced) > 80
    assert {row["received_ts"] for row in published} <= {frame.received_at for frame in MORNING}


async def test_what_is_published_is_what_the_engine_made_of_it_live(tmp_path: Path) -> None:
    """Batches as the recording tells them, each as of the time of its newest frame."""
    engine = create_engine(lambda: REGISTRY)
    frames = [msgspec.structs.replace(frame, is_mock=True) for frame in MORNING]
    live = [
        engine.process(frames[:2], NOW + 0.001),
        engine.process(frames[2:3], NOW + 2.0),
        engine.process(frames[3:], NOW + 5.0),
    ]
    expected = [bytes(each.snapshots.buffer) for each in live if each.snapshots is not None]
    publisher, _ = await play(write(tmp_path / "x", MORNING))
    assert publisher.bytes() == expected


async def test_every_payload_says_that_it_is_not_live(tmp_path: Path) -> None:
    publisher, _ = await play(write(tmp_path / "x", MORNING))
    assert all(row["is_mock"] is True for row in publisher.payloads())


async def test_two_replays_are_the_same_to_the_byte_at_any_speed(tmp_path: Path) -> None:
    path = write(tmp_path / "x", MORNING, MORNING)
    plays = [(await play(path, speed=speed))[0].bytes() for speed in (math.inf, math.inf, 1000.0)]
    assert plays[0] == plays[1] == plays[2]


async def test_frames_are_played_at_the_pace_of_their_arrival(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    path = write(tmp_path / "x", MORNING)
    for speed in (1.0, 10.0, 0.5):
        began_at = trio.current_time()
        publisher, _ = await play(path, speed=speed)
        offsets = [0.001 - 0.001, 2.0 - 0.001, 5.0 - 0.001]
        assert [at - began_at for at, _ in publisher.batches] == pytest.approx(
            [offset / speed for offset in offsets], abs=1e-6
        )


async def test_hours_between_sessions_are_not_waited_for(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    evening = [
        msgspec.structs.replace(frame, received_at=frame.received_at + 36_000) for frame in MORNING
    ]
    began_at = trio.current_time()
    publisher, status = await play(write(tmp_path / "x", MORNING, evening), speed=1.0)
    assert publisher.batches[-1][0] - began_at == pytest.approx(2 * 5.0, abs=0.1)
    assert status.recorded_at == NOW + 36_005.0


async def test_a_loop_plays_it_again_and_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "x", MORNING)
    once = (await play(path))[0].bytes()
    publisher, reports = Publisher(), list[ReplayStatus]()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)

            async def loop() -> None:
                await run(path, publisher, reports, loop=True)

            nursery.start_soon(loop)
            while len(publisher.batches) < 3 * len(once):  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert publisher.bytes()[: 3 * len(once)] == 3 * once
    assert reports[-1].passes >= 2
    assert reports[-1].frames >= 3 * len(MORNING)


async def test_a_publisher_that_is_behind_holds_the_replay_back(tmp_path: Path) -> None:
    frames = [create_frame(chain_packets(), NOW + number, ALPHA) for number in range(40)]
    path = write(tmp_path / "x", frames)
    publisher = Publisher()
    publisher.holds = True
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            nursery.start_soon(run, path, publisher)
            seen = -1
            while seen != (seen := len(publisher.batches)) or not seen:  # noqa: ASYNC110
                await trio.sleep(0.2)
            assert 900 < publisher.pending < 1100
            publisher.holds = False
            publisher.acknowledge()
    assert len(publisher.batches) == 40


async def test_nothing_is_played_while_redis_is_away(tmp_path: Path) -> None:
    path = write(tmp_path / "x", MORNING)
    publisher = Publisher()
    publisher.report(connected=False)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            nursery.start_soon(run, path, publisher)
            await trio.sleep(0.2)
            assert not publisher.batches
            publisher.report(connected=True)
    assert publisher.payloads()


async def test_instruments_that_change_or_are_unknown(tmp_path: Path) -> None:
    stranger = create_share(999, "STRANGER")
    amended = msgspec.structs.replace(FUTURE, lot_size=75)
    path = tmp_path / "x"
    writer, _ = create_recording(path, create_session(NOW, is_mock=False))
    frame = create_frame([Packet(FUTURE, 25_050.0), Packet(stranger, 10.0)])
    later = create_frame([Packet(FUTURE, 25_060.0)], NOW + 1)
    writer.write([Taken([frame], REGISTRY), Taken([later], InstrumentRegistry([amended, INDEX]))])
    writer.close()
    publisher, status = await play(path)
    assert (status.ticks, status.dropped) == (3, 1)
    assert [row["lot_size"] for row in publisher.payloads()] == [65, 75]


async def test_a_damaged_recording_is_played_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "x", MORNING[:1])
    whole = path.stat().st_size
    write(path, MORNING[1:])
    path.write_bytes(path.read_bytes()[:-10])
    publisher, status = await play(path)
    assert len(publisher.batches) == 1
    assert status.damage == "the file ends in the middle of a block"
    assert 0 < status.lost_bytes < path.stat().st_size - whole
    assert status.is_cut, "as a crash leaves it"
    altered = bytearray(path.read_bytes())
    altered[whole + 20] ^= 0xFF
    path.write_bytes(altered)
    publisher, status = await play(path)
    assert len(publisher.batches) == 1
    assert status.damage == "a block's bytes were altered"
    assert not status.is_cut


async def test_a_recording_without_frames_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    create_recording(path, create_session(NOW, is_mock=False)).writer.close()
    with pytest.raises(ConfigurationError, match="holds no frames"):
        await run(path, Publisher(), loop=True)
    with pytest.raises(ConfigurationError, match="No such file"):
        await run(tmp_path / "absent", Publisher())
