"""The publisher against a scripted server, on virtual time."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from nurseries.publisher import PublishPolicy
from tests.batches import CONNECTIONS, create_batch
from tests.publisher_rig import EPOCH, PREFIX, LoopTimer, Rig, open_rig, wait_for
from tests.redis_peers import Command, ScriptedRedis, accept_all
from ticker.errors import ConfigurationError
from ticker.messages import Gap


@pytest.fixture
def redis(tmp_path: Path) -> ScriptedRedis:
    return ScriptedRedis(tmp_path / "redis")


def refuse(code: str) -> Callable[[Command], bytes]:
    def respond(command: Command) -> bytes:
        return f"-{code} no\r\n".encode() if command[0] == b"PUBLISH" else accept_all(command)

    return respond


async def test_healthy_redis_gets_all_in_order(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    sources = [0, 1, -1, 2, 0]
    batch = create_batch(
        [1, 2, 3, 0, 1],
        sources=sources,
        connections=CONNECTIONS,
        underlyings=[0],
        received_at=EPOCH - 0.04,
    )
    async with redis.open():
        async with open_rig(redis.url) as rig:
            await rig.feed(batch)
            await rig.feed(create_batch([1, 2, 3], first_seq=6, received_at=EPOCH))
            await trio.sleep(0.1)
        options = [m["seq"] for m in redis.published(f"{PREFIX}:options")]
        assert options == [1, 2, 3, 5, 6, 7, 8]
        assert [m["seq"] for m in redis.published(f"{PREFIX}:underlying")] == [4]
    rig.assert_accounted()
    assert rig.sample("redis_publish_total") == 8
    assert rig.sample("ticks_published_total", tick_type="option") == 6
    assert rig.sample("ticks_published_total", tick_type="underlying") == 1
    assert rig.sample("tick_publish_age_seconds_count") >= 1
    assert rig.status().published == 8
    assert not redis.published(f"{PREFIX}:events")


async def test_after_an_outage_a_gap_comes_first_then_the_newest(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_rig(redis.url) as rig:
        async with redis.open():
            await trio.sleep(0.2)  # the first attempt came before the server
            await rig.feed(create_batch([1, 2]))
            await trio.sleep(0.1)
            assert rig.status().connected
        redis.commands.clear()
        for seq in range(3, 33, 2):
            await rig.feed(create_batch([1, 2], first_seq=seq))
            await trio.sleep(0.1)
        away = rig.status()
        assert away.circuit == "open"
        assert away.last_error == "unreachable"
        open_drops = rig.sample("redis_circuit_open_drops_total")
        for seq in range(33, 43, 2):
            await rig.feed(create_batch([1, 2], first_seq=seq))
        async with redis.open():
            await trio.sleep(3.0)
            assert rig.sample("redis_circuit_open_drops_total") >= open_drops + 10
            assert rig.status().circuit == "closed"
            assert rig.status().last_error is None
    published = [c for c in redis.commands if c[0] == b"PUBLISH"]
    assert published[0][1] == f"{PREFIX}:events".encode()
    (gap,) = redis.published(f"{PREFIX}:events")
    assert (gap["type"], gap["reason"]) == ("gap", "redis")
    assert (gap["from_seq"], gap["to_seq"], gap["conflated"]) == (3, 42, 38)
    assert 1.4 < gap["to_ts"] - gap["from_ts"] < 3.0
    assert [m["seq"] for m in redis.published(f"{PREFIX}:options")] == [41, 42]
    rig.assert_accounted()
    assert rig.sample("feed_gaps_total", reason="redis") >= 1


async def test_circuit_opens_after_failures_and_a_probe_closes_it_early(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    breaker = {"failures": 10, "open_s": 60.0, "tries": 3}
    async with open_rig(redis.url, breaker=breaker) as rig:
        await trio.sleep(1.5)
        assert rig.status().circuit == "open"
        assert rig.sample("redis_circuit_state") == 1
        assert rig.sample("redis_publish_failures_total") == 10
        async with redis.open():
            await wait_for(lambda: rig.status().circuit == "closed", 2.5)
            assert rig.sample("redis_circuit_state") == 0


async def test_failures_do_not_spin(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    redis.respond = lambda command: b"-LOADING Redis is loading the dataset in memory\r\n"
    async with redis.open(), open_rig(redis.url, drain_timeout_s=0.0) as rig:
        for seq in range(1, 101):
            await rig.feed(create_batch([1], first_seq=seq))
            await trio.sleep(0.1)
        assert 10 <= redis.connections <= 30
        assert rig.status().last_error == "LOADING"


@pytest.mark.parametrize("code", ["OOM", "LOADING", "READONLY", "NOAUTH", "MASTERDOWN"])
async def test_a_server_that_cannot_now_gets_the_newest_later(
    code: str, redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    redis.respond = refuse(code)
    async with redis.open(), open_rig(redis.url) as rig:
        for seq in range(1, 41, 2):
            await rig.feed(create_batch([1, 2], first_seq=seq))
            await trio.sleep(0.1)
        assert rig.status().last_error == code
        assert rig.sample("redis_errors_total", error_type=code) > 0
        assert rig.sample("redis_publish_total") == 0
        redis.commands.clear()
        redis.respond = accept_all
        await trio.sleep(2.0)
    rig.assert_accounted()
    assert [m["seq"] for m in redis.published(f"{PREFIX}:options")] == [39, 40]
    assert rig.sample("redis_publish_total") == 2


async def test_one_bad_message_is_dropped_alone(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    def respond(command: Command) -> bytes:
        return b"-ERR no such luck\r\n" if b'"slot": 2' in command[-1] else accept_all(command)

    redis.respond = respond
    async with redis.open():
        async with open_rig(redis.url) as rig:
            await rig.feed(create_batch([1, 2, 3, 2, 4]))
            await trio.sleep(0.1)
        assert redis.connections == 1
    rig.assert_accounted()
    labels = {"account_id": "alpha", "shard": "0", "reason": "refused"}
    assert rig.sample("feed_ticks_dropped_total", **labels) == 2
    assert rig.sample("redis_publish_total") == 3
    assert rig.sample("redis_errors_total", error_type="ERR") == 2


async def test_acknowledged_before_the_connection_broke_is_published(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    answers = 0

    def respond(command: Command) -> bytes | None:
        nonlocal answers
        answers += command[0] == b"PUBLISH"
        is_stuck = command[0] == b"PUBLISH" and answers == 4
        return None if is_stuck else accept_all(command)

    redis.respond = respond
    async with redis.open(), open_rig(redis.url) as rig:
        await rig.feed(create_batch(range(10)))
        await trio.sleep(0.9)
        assert rig.sample("redis_publish_total") == 0
        await trio.sleep(0.15)
        assert rig.sample("redis_publish_total") == 3
        await trio.sleep(2)
    rig.assert_accounted()
    assert rig.sample("redis_publish_total") == 10
    assert rig.sample("redis_errors_total", error_type="timeout") == 1


async def test_a_frozen_redis_is_noticed_without_ticks(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open(), open_rig(redis.url) as rig:
        await trio.sleep(1.0)
        assert rig.status().connected
        redis.respond = lambda command: None
        await trio.sleep(2.0)
        assert not rig.status().connected
        assert rig.status().last_error == "timeout"


async def test_pending_is_bounded_by_the_instruments(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_rig(redis.url, pending_max=100, drain_timeout_s=0.0) as rig:
        for round_ in range(50):
            await rig.feed(create_batch(range(30), first_seq=1 + 30 * round_))
            await trio.sleep(0.01)
            assert rig.status().pending <= 130
        await trio.sleep(1)
        assert rig.status().pending == 30
    rig.assert_accounted()
    labels = {"account_id": "alpha", "shard": "0", "reason": "shutdown"}
    assert rig.sample("feed_ticks_dropped_total", **labels) == 30


async def test_pending_is_bounded_between_attempts_too(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_rig(redis.url, pending_max=100, retry_s=3600.0, drain_timeout_s=0.0) as rig:
        for round_ in range(50):
            await rig.feed(create_batch(range(30), first_seq=1 + 30 * round_))
        await trio.sleep(0.1)
        (connection,) = rig.fed
        assert rig.total("feed_ticks_conflated_total", connection) >= 50 * 30 - 100
    rig.assert_accounted()


async def test_drains_within_its_deadline(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    redis.respond = lambda c: None if c[0] == b"PUBLISH" else accept_all(c)
    async with redis.open():
        async with open_rig(redis.url, drain_timeout_s=5.0) as rig:
            await rig.feed(create_batch(range(20)))
            closed_at = trio.current_time()
        assert 4.9 < trio.current_time() - closed_at < 5.1
    rig.assert_accounted()
    labels = {"account_id": "alpha", "shard": "0", "reason": "shutdown"}
    assert rig.sample("feed_ticks_dropped_total", **labels) == 20


async def test_drains_all_at_once_when_redis_is_there(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open():
        async with open_rig(redis.url) as rig:
            await rig.send_gap.send(Gap("silent", EPOCH, EPOCH + 6, "alpha", 0))
            await rig.feed(create_batch(range(2500)))
            closed_at = trio.current_time()
        assert trio.current_time() - closed_at < 0.1
        assert len(redis.published(f"{PREFIX}:options")) == 2500
        (gap,) = redis.published(f"{PREFIX}:events")
    assert gap["reason"] == "silent"
    assert gap["shard"] == 0
    rig.assert_accounted()


async def test_the_end_waits_for_a_gap_that_is_under_way(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open():
        async with open_rig(redis.url) as rig:
            await wait_for(lambda: rig.status().connected, 1)
            redis.delay_s = 0.2
            await rig.send_gap.send(Gap("silent", EPOCH, EPOCH + 6, "alpha", 0))
            await trio.sleep(0.1)
        assert len(redis.published(f"{PREFIX}:events")) == 1
    assert rig.sample("feed_gaps_total", reason="silent") == 1
    assert rig.sample("feed_gaps_dropped_total", reason="shutdown") == 0


async def test_cancelled_publisher_accounts_for_what_it_held(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    redis.respond = lambda c: None if c[0] == b"PUBLISH" else accept_all(c)
    async with redis.open():
        with trio.move_on_after(0.5):
            async with open_rig(redis.url) as rig:
                await rig.feed(create_batch(range(20)))
                await trio.sleep_forever()
    rig.assert_accounted()


async def test_cancelled_publisher_accounts_for_what_it_had_not_yet_received(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    """Whoever put it into the channel counts it as delivered."""
    with trio.CancelScope() as scope:
        async with open_rig(redis.url) as rig:
            await trio.sleep(0.1)
            for first_seq in (1, 11, 21):
                rig.feed_nowait(create_batch(range(10), first_seq=first_seq))
            for shard in (0, 1, 2):
                rig.send_gap.send_nowait(Gap("silent", EPOCH, EPOCH + 6, "alpha", shard))
            scope.cancel()
    assert sum(rig.fed.values()) == 30
    rig.assert_accounted()
    assert rig.sample("feed_gaps_dropped_total", reason="shutdown") == 3


@pytest.mark.slow
@pytest.mark.parametrize("answer", [None, b"-READONLY no\r\n", b"-ERR no\r\n"])
async def test_many_small_batches_in_an_outage_do_not_hold_the_event_loop(
    answer: bytes | None, redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    """3,000 a second, one tick each, as single-packet frames make them."""
    batches = [
        create_batch([seq % 80], first_seq=seq, connections=CONNECTIONS[seq % 3 :])
        for seq in range(1, 4501)
    ]
    timer = LoopTimer()
    async with redis.open(), open_rig(redis.url, drain_timeout_s=0.0) as rig:
        await wait_for(lambda: rig.status().connected, 1)
        redis.respond = lambda c: answer if c[0] == b"PUBLISH" else accept_all(c)
        redis.delay_s = 0.5
        trio.lowlevel.add_instrument(timer)
        for number, batch in enumerate(batches):
            await rig.feed(batch)
            if number % 30 == 29:
                await trio.sleep(0.01)
        trio.lowlevel.remove_instrument(timer)
    rig.assert_accounted()
    assert rig.sample("redis_publish_total") < len(batches) / 10
    assert 0 < timer.worst_s < 0.02


@pytest.mark.parametrize("leap_s", [3600.0, -3600.0])
async def test_a_leap_of_the_wall_clock_changes_nothing(
    leap_s: float, redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_rig(redis.url) as rig:
        async with redis.open():
            await trio.sleep(0.3)
            redis.delay_s = 0.1
            await rig.feed(create_batch([1, 1, 2]))
            await trio.sleep(0.05)
            await rig.feed(create_batch([1, 1, 2], first_seq=4))
            await trio.sleep(0.01)
            rig.wall_leap_s = leap_s
            await trio.sleep(0.5)
            assert rig.sample("redis_publish_total") == 6
        await trio.sleep(1.5)
        assert rig.status().circuit == "open"
        failures = rig.sample("redis_publish_failures_total")
        rig.wall_leap_s = 2 * leap_s
        await trio.sleep(30)
        assert rig.sample("redis_publish_failures_total") == failures
        redis.delay_s = 0.0
        async with redis.open():
            await trio.sleep(2.5)
            assert rig.status().circuit == "closed"
    rig.assert_accounted()


async def test_what_waits_beyond_an_opening_is_not_published(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    """Mock messages of before Redis went and while it was away; live ones are kept."""
    opening = EPOCH + 10
    async with open_rig(redis.url) as rig:
        async with redis.open():
            await wait_for(lambda: rig.status().connected, 1)
            await rig.feed(create_batch([1, 2], valid_until=opening))
            await trio.sleep(0.1)
            redis.respond = lambda c: None if c[0] == b"PUBLISH" else accept_all(c)
            await rig.feed(create_batch([1, 2], first_seq=3, valid_until=opening))
            await trio.sleep(0.5)
        await rig.feed(create_batch([2, 3], first_seq=5, valid_until=opening))
        await rig.feed(create_batch([4], first_seq=7))
        await trio.sleep_until(11)
        redis.respond = accept_all
        redis.commands.clear()
        async with redis.open():
            await trio.sleep(5)
            assert [m["seq"] for m in redis.published(f"{PREFIX}:options")] == [7]
    rig.assert_accounted()
    labels = {"account_id": "alpha", "shard": "0", "reason": "market_open"}
    assert rig.sample("feed_ticks_dropped_total", **labels) == 3
    assert rig.sample("feed_ticks_conflated_total", account_id="alpha", shard="0") == 1


async def test_the_end_does_not_wait_for_what_is_not_valid_any_more(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open():
        async with open_rig(redis.url) as rig:
            await rig.feed(create_batch(range(2500), valid_until=EPOCH))
            closed_at = trio.current_time()
        assert trio.current_time() - closed_at < 0.1
        assert not redis.published(f"{PREFIX}:options")
    rig.assert_accounted()


async def test_batches_of_one(redis: ScriptedRedis, autojump_clock: trio.testing.MockClock) -> None:
    async with redis.open():
        async with open_rig(redis.url, batch_max=1) as rig:
            await rig.feed(create_batch(range(5)))
        assert rig.sample("tick_batches_flushed_total", batch_type="ticks") == 5


async def test_how_full_the_last_batch_was(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open():
        async with open_rig(redis.url, batch_max=8) as rig:
            await rig.feed(create_batch(range(10)))
        assert rig.sample("tick_batch_fill_rate", batch_type="ticks") == 2 / 8


async def test_last_values_and_stream(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with redis.open():
        async with open_rig(redis.url, last_values=True, stream_max_length=1000) as rig:
            await rig.feed(create_batch([5, 6]))
        hashes = [c for c in redis.commands if c[0] == b"HSET"]
        (command,) = hashes
        assert command[1] == b"ticker:nifty:last"
        assert [command[2], command[4]] == [b"1005", b"1006"]
        adds = [c for c in redis.commands if c[0] == b"XADD"]
        assert [c[:6] for c in adds] == [
            [b"XADD", b"ticker:nifty:stream", b"MAXLEN", b"~", b"1000", b"*"]
        ] * 2
        assert adds[1][7] == command[5]
        assert rig.sample("redis_publish_total") == 2


async def test_gap_events_are_kept_while_redis_is_away(
    redis: ScriptedRedis, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_rig(redis.url) as rig:
        await trio.sleep(0.5)
        await rig.send_gap.send(Gap("closed", EPOCH, EPOCH + 1, "beta", 0))
        async with redis.open():
            await trio.sleep(2)
            reasons = [m["reason"] for m in redis.published(f"{PREFIX}:events")]
            assert reasons == ["redis", "closed"]


async def test_a_bad_url_is_a_configuration_error() -> None:
    rig = Rig("http://user:secret@localhost/0", PublishPolicy())
    with pytest.raises(ConfigurationError) as caught:
        await rig.run()
    assert "secret" not in str(caught.value)


async def test_tls_certificates_are_read_once_for_all_attempts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create, created = ssl.create_default_context, [0]

    def count() -> ssl.SSLContext:
        created[0] += 1
        return create()

    monkeypatch.setattr(ssl, "create_default_context", count)
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"rediss://127.0.0.1:{taken.getsockname()[1]}/0"
        async with open_rig(url, retry_s=0.01, drain_timeout_s=0.0) as rig:
            await wait_for(lambda: rig.sample("redis_publish_failures_total") >= 3, 2)
    assert created == [1]
