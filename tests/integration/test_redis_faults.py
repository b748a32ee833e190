"""A real Valkey that dies, freezes, slows down or refuses, under a steady stream of ticks."""

import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.batches import create_batch
from tests.publisher_rig import PREFIX, Rig, open_rig, wait_for, wall_clock
from tests.redis_peers import Subscriber, open_slow_link
from ticker.errors import ChildExitedError
from ticker.local.valkey import open_valkey_child
from ticker.publishers.redis import open_redis
from ticker.publishers.resp import Replies, pack

pytestmark = pytest.mark.slow

INSTRUMENTS = 20
PATIENCE_S = 0.25  # for a busy machine; a publisher that waits for Redis needs a second


async def feed_steadily(rig: Rig, payload_size: int, interval_s: float = 0.02) -> None:
    """One tick of each instrument every ``interval_s``."""
    first_seq = 1
    while True:
        await rig.feed(
            create_batch(
                range(INSTRUMENTS),
                first_seq=first_seq,
                received_at=wall_clock(),
                payload_size=payload_size,
            )
        )
        first_seq += INSTRUMENTS
        await trio.sleep(interval_s)


@asynccontextmanager
async def open_feed(
    url: str, subscribe_at: str, *, payload_size: int = 1200, **policy: object
) -> AsyncIterator[tuple[Rig, Subscriber]]:
    """A publisher under steady load, and who listens at the far end."""
    subscriber = Subscriber(subscribe_at, PREFIX)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscriber.run)
        async with (
            open_rig(url, patience_s=PATIENCE_S, **policy) as rig,
            trio.open_nursery() as feeding,
        ):
            feeding.start_soon(feed_steadily, rig, payload_size)
            yield rig, subscriber
            feeding.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def ages(subscriber: Subscriber, since: float) -> list[float]:
    """Age in seconds at which each tick arrived, of those that arrived after ``since``."""
    return [
        at - (payload["at"] - wall_clock() + trio.current_time())
        for kind, payload, at in subscriber.messages
        if kind == "options" and at >= since
    ]


def has_failed(rig: Rig) -> bool:
    return rig.status().last_error is not None


async def free_port() -> int:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_killed_and_back() -> None:
    port = await free_port()
    url = f"redis://127.0.0.1:{port}/0"
    async with open_feed(url, url) as (rig, subscriber):
        with pytest.raises(ChildExitedError):  # noqa: PT012 - the block is what must end
            async with open_valkey_child(port=port) as (child, _):
                await subscriber.subscribed.wait()
                await wait_for(lambda: rig.status().published > 200, 3)
                os.kill(child.pid, signal.SIGKILL)
                await trio.sleep_forever()
        assert await wait_for(lambda: not rig.status().connected, 1) <= 1
        await wait_for(lambda: rig.status().circuit == "open", 3)
        await trio.sleep(1)
        assert rig.status().pending <= 2 * INSTRUMENTS

        # right after a probe, so that the subscriber is back before the publisher
        count = len(rig.reports)
        await wait_for(lambda: len(rig.reports) > count, 2)
        before = len(subscriber.messages)
        async with open_valkey_child(port=port):
            assert await wait_for(lambda: len(subscriber.messages) > before, 2) <= 2
            await wait_for(lambda: rig.status().circuit == "closed", 2)
            await wait_for(lambda: len(subscriber.messages) > before + 5 * INSTRUMENTS, 1)
            since = subscriber.messages[before][2]
            assert max(ages(subscriber, since)) < 0.5
        kind, gap, _ = subscriber.messages[before]
        assert kind == "events"
        assert gap["reason"] == "redis"
        assert gap["conflated"] >= 1.0 / 0.02 * INSTRUMENTS / 2
        newest = [payload["seq"] for _, payload, _ in subscriber.messages[before + 1 :]]
        assert gap["from_seq"] <= min(newest)
        assert gap["to_seq"] >= max(newest[:INSTRUMENTS])
    rig.assert_accounted()


async def test_frozen_and_back() -> None:
    async with open_valkey_child() as (child, url), open_feed(url, url) as (rig, subscriber):
        await subscriber.subscribed.wait()
        await wait_for(lambda: rig.status().published > 200, 3)
        os.kill(child.pid, signal.SIGSTOP)
        try:
            assert await wait_for(lambda: not rig.status().connected, 2.5) <= 2
            await trio.sleep(2)
            assert rig.status().pending <= 100 * INSTRUMENTS
        finally:
            os.kill(child.pid, signal.SIGCONT)
        since = trio.current_time()
        await wait_for(lambda: rig.status().connected, 2)
        await wait_for(lambda: len(ages(subscriber, since)) > 10 * INSTRUMENTS, 3)
        # what lay in the server's own socket buffer, one batch, nobody can take back
        stale = [age for age in ages(subscriber, since) if age > 1.0]
        assert len(stale) <= 2 * INSTRUMENTS
    rig.assert_accounted()


@pytest.mark.parametrize(
    ("bytes_per_s", "piece", "payload_size", "delay_s"),
    [(64_000, 1460, 1200, 0.2), (8_000, 1460, 1200, 0.01), (3_000, 1, 100, 0.01)],
    ids=["distant", "narrow", "byte by byte"],
)
async def test_slow_link(bytes_per_s: float, piece: int, payload_size: int, delay_s: float) -> None:
    jitter = random.Random(7)

    def delay() -> float:
        return delay_s * jitter.uniform(0.5, 1.5)

    subscribed_late = 3.0
    async with (
        open_valkey_child() as (_, url),
        open_slow_link(url, bytes_per_s=bytes_per_s, delay_s=delay, piece=piece) as slow_url,
        open_feed(slow_url, url, payload_size=payload_size, drain_timeout_s=0.2) as (
            rig,
            subscriber,
        ),
    ):
        await trio.sleep(subscribed_late)
        since, failures = trio.current_time(), rig.sample("redis_publish_failures_total")
        await trio.sleep(4)
        found = sorted(ages(subscriber, since))
        assert len(found) > 10
        assert found[int(len(found) * 0.99)] <= 1.0
        # before the pace was found, too: what a broken connection had not sent is gone with it
        assert max(ages(subscriber, 0.0)) <= 2.0
        assert rig.status().pending <= 20_000
        assert rig.sample("redis_publish_failures_total") - failures <= 2
    rig.assert_accounted()


async def test_refused_logins_and_clients() -> None:
    async with open_valkey_child() as (_, url), open_redis(url) as admin:
        wrong_url = url.replace("://", "://:wrong@")
        await admin.send(pack("CONFIG", "SET", "requirepass", "right"), Replies(1))
        for refused_url, code in ((url, "NOAUTH"), (wrong_url, "WRONGPASS")):
            async with open_feed(refused_url, url, drain_timeout_s=0.0) as (rig, _):
                await wait_for(partial(has_failed, rig), 2)
                assert rig.status().last_error == code
            rig.assert_accounted()
        await admin.send(pack("CONFIG", "SET", "requirepass", ""), Replies(1))
        await admin.send(pack("CONFIG", "SET", "maxclients", "1"), Replies(1))
        async with open_feed(url, url, drain_timeout_s=0.0) as (rig, _):
            await wait_for(partial(has_failed, rig), 2)
            assert rig.status().last_error == "MAXCLIENTS"
            await admin.send(pack("CONFIG", "SET", "maxclients", "100"), Replies(1))
            await wait_for(lambda: rig.status().published > 0, 2)
    rig.assert_accounted()
