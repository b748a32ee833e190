"""Where mock ticks go in a real Valkey: channels, last values and the stream."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
import trio

from tests.integration.live import open_redis_server
from tests.publisher_rig import PREFIX, Rig, open_rig, wait_for
from tests.ticker.synthetic import (
    CHAIN,
    INDEX,
    MARKET,
    NOW,
    Packet,
    create_frame,
    create_market_engine,
)
from ticker.engine import Engine
from ticker.messages import MOCK_CONNECTION, Frame
from ticker.mock_market.gate import MockGate
from ticker.ticks import PacketKind

pytestmark = pytest.mark.slow

TOKENS = {INDEX.instrument_token, CHAIN[40].instrument_token}


def frame(index: float, *, is_mock: bool) -> Frame:
    ticks = [Packet(INDEX, index, PacketKind.INDEX_FULL), Packet(CHAIN[40], 250.0)]
    made = create_frame(ticks, NOW)
    return Frame(made.data, NOW, MOCK_CONNECTION, is_mock=True) if is_mock else made


@asynccontextmanager
async def open_outputs(suffix: str) -> AsyncIterator[tuple[Engine, Rig, Any]]:
    """An engine and a publisher whose optional outputs are on; markets are closed."""
    engine = create_market_engine(
        MARKET,
        gate=MockGate(lambda name, now: True, lambda name, now: math.inf),
        mock_suffix=suffix,
    )
    async with (
        open_redis_server() as server,
        open_rig(
            server.url,
            patience_s=5.0,
            last_values=True,
            stream_max_length=1000,
            mock_suffix=suffix,
        ) as rig,
    ):
        await wait_for(lambda: rig.status().connected, 10)
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            yield engine, rig, client


async def publish(engine: Engine, rig: Rig, *frames: Frame) -> None:
    """Return when Valkey has acknowledged what the frames became."""
    for each in frames:
        batch = engine.process([each], NOW).snapshots
        assert batch is not None
        published = rig.status().published
        await rig.feed(batch)
        await wait_for(lambda: rig.status().published == published + len(batch), 10)  # noqa: B023


def read_hash(client: Any, key: str) -> dict[int, dict[str, Any]]:
    return {int(token): json.loads(text) for token, text in client.hgetall(key).items()}


def read_stream(client: Any, key: str) -> list[dict[str, Any]]:
    return [json.loads(entry["payload"]) for _, entry in client.xrange(key)]


async def test_with_a_suffix_nothing_mock_is_where_live_values_are() -> None:
    async with open_outputs(":mock") as (engine, rig, client):
        with client.pubsub(ignore_subscribe_messages=True) as subscriber:
            subscriber.psubscribe(f"{PREFIX}:*")
            live, mock = frame(25_000.0, is_mock=False), frame(26_000.0, is_mock=True)
            await publish(engine, rig, live, mock)
            heard: list[Any] = []
            with trio.fail_after(10):
                while len(heard) < 4:
                    message = await trio.to_thread.run_sync(subscriber.get_message, True, 0.1)
                    heard += [] if message is None else [message]
        for suffix, is_mock, price in (("", False, 25_000.0), (":mock", True, 26_000.0)):
            own = [message for message in heard if message["channel"].endswith(":mock") is is_mock]
            assert {json.loads(message["data"])["is_mock"] for message in own} == {is_mock}
            last = read_hash(client, f"{PREFIX}:last{suffix}")
            streamed = read_stream(client, f"{PREFIX}:stream{suffix}")
            assert last.keys() == TOKENS
            assert last[INDEX.instrument_token]["last_price"] == price
            assert [row["token"] for row in streamed] == [*last]
            assert {row["is_mock"] for row in (*last.values(), *streamed)} == {is_mock}
        assert {*client.scan_iter()} == {
            f"{PREFIX}:{key}{suffix}" for key in ("last", "stream") for suffix in ("", ":mock")
        }
    rig.assert_accounted()


async def test_without_a_suffix_both_share_their_keys_and_say_what_they_are() -> None:
    async with open_outputs("") as (engine, rig, client):
        await publish(engine, rig, frame(25_000.0, is_mock=False), frame(26_000.0, is_mock=True))
        last = read_hash(client, f"{PREFIX}:last")
        streamed = read_stream(client, f"{PREFIX}:stream")
        assert {row["is_mock"] for row in last.values()} == {True}
        assert [row["is_mock"] for row in streamed] == [False, False, True, True]
        assert {*client.scan_iter()} == {f"{PREFIX}:last", f"{PREFIX}:stream"}
    rig.assert_accounted()
