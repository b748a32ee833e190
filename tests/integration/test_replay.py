"""Replays to a real server: what a subscriber gets is the recording's, to the byte, each time."""

import hashlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
import trio
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from nurseries.replayer import Replayer, parse_speed, replay_until_signalled
from tests.integration.live import RedisServer, open_redis_server
from tests.integration.program import run_ticker
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
    create_market_engine,
)
from ticker.errors import ConfigurationError
from ticker.instruments.registry import InstrumentRegistry
from ticker.recording.writer import Taken, create_recording, create_session
from ticker.settings import Settings

pytestmark = pytest.mark.slow

SECONDS = 60
TICKS = SECONDS * 43


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    create_market_engine(MARKET).warm_up()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a chain: two frames a second, the underlying on the move, half the options."""
    path = tmp_path_factory.mktemp("replay") / "minute.tape"
    registry = InstrumentRegistry(MARKET)
    writer, _ = create_recording(path, create_session(NOW, is_mock=False))
    for second in range(SECONDS):
        forward = 25_000.0 + 3.1 * second
        spot = [Packet(INDEX, forward - 40), Packet(FUTURE, forward)]
        frames = [
            create_frame(spot, NOW + second, ALPHA),
            create_frame(chain_packets(forward)[second % 2 :: 2], NOW + second + 0.4, BETA),
        ]
        writer.write([Taken(frames, registry)])
    writer.close()
    return path


class Subscriber:
    """The digest of everything published, in order, channels included."""

    def __init__(self) -> None:
        self.subscribed = trio.Event()
        self.digest = hashlib.sha256()
        self.messages = 0
        self.last = b""

    def run(self, url: str) -> None:
        retry = Retry(ConstantBackoff(0.02), 500)
        with (
            redis.Redis.from_url(url, retry=retry) as client,
            client.pubsub() as subscriber,
        ):
            subscriber.subscribe("ticker:nifty:options", "ticker:nifty:underlying")
            while True:
                trio.from_thread.check_cancelled()
                message = subscriber.get_message(timeout=0.1)
                if message is not None and message["type"] == "subscribe":
                    trio.from_thread.run_sync(self.subscribed.set)
                elif message is not None:
                    self.digest.update(message["channel"] + b"\0" + message["data"] + b"\0")
                    self.last = message["data"]
                    self.messages += 1


@asynccontextmanager
async def subscribed(url: str) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            await trio.to_thread.run_sync(subscriber.run, url)

        nursery.start_soon(follow)
        await subscriber.subscribed.wait()
        yield subscriber
        before = -1
        while before != (before := subscriber.messages):  # noqa: ASYNC110
            await trio.sleep(0.3)
        nursery.cancel_scope.cancel()


async def replay(
    server: RedisServer, path: Path, *, speed: float = math.inf
) -> tuple[Replayer, Subscriber]:
    settings = Settings(redis_url=server.url)
    replayer = Replayer(settings, path, speed=speed, loop=False)
    async with subscribed(server.url) as subscriber:
        with trio.fail_after(60):
            await replayer.play(settings, trio.CancelScope())
    return replayer, subscriber


async def test_replays_are_the_same_to_the_byte_as_a_subscriber_gets_them(path: Path) -> None:
    async with open_redis_server() as server:
        plays = [await replay(server, path, speed=speed) for speed in (math.inf, math.inf, 30.0)]
    for replayer, subscriber in plays:
        status = replayer.status
        assert status.ticks == TICKS
        assert status.messages > TICKS, "re-pricings too"
        assert replayer.publisher.published == subscriber.messages == status.messages
        assert b'"is_mock":true' in subscriber.last
    assert len({subscriber.digest.hexdigest() for _, subscriber in plays}) == 1


async def test_a_slow_server_is_waited_for_and_nothing_is_conflated(path: Path) -> None:
    async with open_redis_server() as server:
        settings = Settings(redis_url=server.url)
        replayer = Replayer(settings, path, speed=math.inf, loop=False)

        async def stutter() -> None:
            while True:
                await trio.sleep(0.02)
                server.freeze()
                await trio.sleep(0.4)  # longer than what conflates in a live service
                server.thaw()

        async with subscribed(server.url) as subscriber:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stutter)
                    await replayer.play(settings, trio.CancelScope())
                    nursery.cancel_scope.cancel()
            server.thaw()
        expected = (await replay(server, path))[1]
    assert subscriber.messages == replayer.status.messages
    assert subscriber.digest.hexdigest() == expected.digest.hexdigest()


async def test_what_an_outage_costs_is_said(path: Path) -> None:
    async with open_redis_server() as server:
        settings = Settings(redis_url=server.url)
        replayer = Replayer(settings, path, speed=60.0, loop=False)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(replayer.play, settings, trio.CancelScope())
                while replayer.status.frames < 20:  # noqa: ASYNC110
                    await trio.sleep(0.005)
                server.kill()
                await trio.sleep(0.5)
                played = replayer.status.frames
                await trio.sleep(0.5)
                assert replayer.status.frames <= played + 1, "it waits"
                server.start()
    assert replayer.status.frames == 2 * SECONDS
    lost = replayer.status.messages - replayer.publisher.published
    assert 0 <= lost < 3000
    assert ("not published" in replayer.summary()) is (lost > 0)


async def test_a_stop_in_the_middle_publishes_what_was_played(path: Path) -> None:
    async with open_redis_server() as server:
        settings = Settings(redis_url=server.url)
        replayer = Replayer(settings, path, speed=1.0, loop=True)
        playing = trio.CancelScope()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(replayer.play, settings, playing)
                while replayer.status.frames < 2:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                playing.cancel()
    assert replayer.status.messages == replayer.publisher.published > 0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast", ""])
def test_a_speed_that_makes_no_sense_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--speed"):
        parse_speed(text)


def test_speeds() -> None:
    assert [parse_speed(text) for text in ("1", "0.5", "max", "MAX")] == [
        1,
        0.5,
        math.inf,
        math.inf,
    ]


@pytest.mark.parametrize(("is_altered", "code"), [(True, 1), (False, 0)])
def test_a_damaged_recording_is_told_by_the_exit_code_too(
    path: Path, tmp_path: Path, is_altered: bool, code: int
) -> None:
    """What is whole is played. The end that a crash has cut off is no damage."""
    damaged, data = tmp_path / "x.tape", bytearray(path.read_bytes())
    if is_altered:
        data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data[:-5])
    ended = run_ticker(["replay", str(damaged), "--speed", "max"])
    assert ended.returncode == code
    output = ended.stdout.decode()
    assert "payloads published" in output
    assert "bytes not readable" in output
    assert (f"ticker: {damaged} is damaged" in ended.stderr.decode()) is is_altered
    assert "Traceback" not in ended.stderr.decode()


def test_a_replay_is_refused_where_live_prices_are_published(path: Path) -> None:
    settings = Settings().model_copy(update={"environment": "production"})
    with pytest.raises(ConfigurationError, match="ENVIRONMENT is production"):
        replay_until_signalled(settings, path, speed=1.0, loop=False)
