"""The market-data socket, seen by trio-websocket over a stream in memory."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import WebSocketConnection, wrap_client_stream

from tests.ticker.simulator.memory_simulator import (
    ACCOUNTS,
    INFY,
    NIFTY_50,
    START,
    MemorySimulator,
    dump_of_start,
    token_of,
)
from ticker.kite.wire import DecodedFrames, decode_frames
from ticker.simulator.simulation import SimulatorConfig
from ticker.simulator.websocket import SocketTerms
from ticker.ticks import PacketKind, Row

CONFIG = SimulatorConfig(accounts=ACCOUNTS)
OPTION = token_of("NIFTY26NOV27000CE")
KEY = ACCOUNTS[0].api_key
RESOURCE = f"/?api_key={KEY}&access_token={ACCOUNTS[0].access_token}"


@pytest.fixture
def simulator(nursery: trio.Nursery) -> MemorySimulator:
    return MemorySimulator(nursery, CONFIG)


async def test_a_socket_opens_with_the_two_texts(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        meta, code = client.greetings
    assert meta["type"] == "instruments_meta"
    assert meta["data"]["count"] == len(dump_of_start().instruments)
    assert len(meta["data"]["etag"]) == 26
    assert code == {"type": "app_code", "timestamp": "2026-11-20T11:00:00+05:30"}


async def test_an_idle_socket_has_a_heartbeat_each_second(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        got = await client.gather(5.5)
    assert [len(frame) for frame in client.frames] == [1] * 5
    assert got.heartbeats == 5


async def test_a_bare_subscribe_gives_quote_mode_at_once(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(NIFTY_50, INFY)
        got = await client.gather(0.1)
    assert _kinds(got) == {NIFTY_50: PacketKind.INDEX_QUOTE, INFY: PacketKind.QUOTE}


async def test_each_mode_has_its_packets(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(NIFTY_50, INFY, OPTION)
        await client.set_mode("full", NIFTY_50, OPTION)
        await client.set_mode("ltp", INFY)
        await client.gather(0.1)
        got = await client.gather(30)
        assert set(_kinds(got).items()) == {
            (NIFTY_50, PacketKind.INDEX_FULL),
            (OPTION, PacketKind.FULL),
            (INFY, PacketKind.LTP),
        }
        await client.set_mode("ltp", NIFTY_50)
        assert _kinds(await client.gather(0.1)) == {NIFTY_50: PacketKind.LTP}


async def test_a_mode_comes_with_a_fresh_packet(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    await simulator.admin("market", {"frozen": True})
    async with simulator.open_client() as client:
        await client.subscribe(INFY)
        assert _kinds(await client.gather(0.1)) == {INFY: PacketKind.QUOTE}
        await client.set_mode("full", INFY)
        assert _kinds(await client.gather(0.1)) == {INFY: PacketKind.FULL}
        await client.set_mode("full", INFY)
        assert len((await client.gather(5)).ticks) == 0


async def test_a_frame_holds_all_changes_and_nothing_else(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    tokens = [row.instrument_token for row in dump_of_start().instruments[:2000]]
    async with simulator.open_client() as client:
        await client.subscribe(*tokens)
        snapshot = await client.gather(0.5)
        assert sorted(snapshot.ticks.token.tolist()) == sorted(tokens)
        assert len(client.frames) == 1
        step = await client.gather(1)
    assert sum(len(frame) > 1 for frame in client.frames) == 1
    before = dict(zip(snapshot.ticks.token.tolist(), snapshot.ticks.words.T.tolist(), strict=True))
    for token, words in zip(step.ticks.token.tolist(), step.ticks.words.T.tolist(), strict=True):
        assert words[: Row.CLOSE + 1] != before[token][: Row.CLOSE + 1]
    assert 0 < len(step.ticks) < len(tokens)


async def test_a_stopped_market_sends_its_snapshot_and_then_heartbeats(
    autojump_clock: MockClock,
    simulator: MemorySimulator,
) -> None:
    await simulator.admin("market", {"frozen": True})
    async with simulator.open_client() as client:
        await client.subscribe(NIFTY_50)
        got = await client.gather(4.5)
        assert (len(got.ticks), got.heartbeats) == (1, 4)
        await simulator.admin("market", {"steps": 3})
        got = await client.gather(0.5)
        assert len(got.ticks) == 1


async def test_large_news_is_split_into_frames(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    terms = SocketTerms(packets_per_frame=100)
    simulator = MemorySimulator(nursery, replace(CONFIG, socket_terms=terms))
    tokens = [row.instrument_token for row in dump_of_start().instruments[:250]]
    async with simulator.open_client() as client:
        await client.subscribe(*tokens)
        got = await client.gather(0.1)
    assert Counter(got.ticks.frame.tolist()) == {0: 100, 1: 100, 2: 50}


async def test_tokens_beyond_the_limit_are_refused_alone(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    tokens = [row.instrument_token for row in dump_of_start().instruments[:3005]]
    async with simulator.open_client() as client:
        await client.subscribe(*tokens[:2999])
        await client.subscribe(*tokens)
        got = await client.gather(0.1)
        assert sorted(set(got.ticks.token.tolist())) == sorted(tokens[:3000])
        error = json.loads(client.texts[0])
        assert error["type"] == "error"
        assert all(str(token) in error["data"] for token in tokens[3000:])
        assert len(client.texts) == 1
        (row,) = await simulator.admin("sockets")
    assert list(map(int, row["subscriptions"])) == tokens[:3000]


async def test_tokens_in_quotes_are_ignored_without_a_word(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(str(INFY), True, 1.5, None, NIFTY_50)
        got = await client.gather(0.1)
        assert got.ticks.token.tolist() == [NIFTY_50]
        (row,) = await simulator.admin("sockets")
    assert list(row["subscriptions"]) == [str(NIFTY_50)]
    assert client.texts == []


async def test_unsubscribed_tokens_fall_silent(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(NIFTY_50, INFY)
        await client.command("unsubscribe", [NIFTY_50])
        await client.gather(0.1)
        got = await client.gather(5)
        assert NIFTY_50 not in got.ticks.token.tolist()
        assert INFY in got.ticks.token.tolist()


async def test_a_mode_for_what_is_not_subscribed_does_nothing(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.set_mode("full", NIFTY_50)
        await client.subscribe(INFY)
        got = await client.gather(3)
        assert set(got.ticks.token.tolist()) == {INFY}
        (row,) = await simulator.admin("sockets")
    assert row["subscriptions"] == {str(INFY): "quote"}


async def test_unknown_tokens_take_up_room_and_never_tick(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(123456, INFY)
        await client.set_mode("ltp", 123456)
        got = await client.gather(0.1)
        (row,) = await simulator.admin("sockets")
    assert got.ticks.token.tolist() == [INFY]
    assert row["subscriptions"] == {"123456": "ltp", str(INFY): "quote"}


@pytest.mark.parametrize("text", ["{", "[]", '{"a":"subscribe"}', '{"a":"mode","v":["best",[1]]}'])
async def test_nonsense_is_answered_with_an_error_text(
    autojump_clock: MockClock, simulator: MemorySimulator, text: str
) -> None:
    async with simulator.open_client() as client:
        await client.connection.send_message(text)
        await client.gather(0.1)
        await client.subscribe(INFY)
        assert len((await client.gather(0.1)).ticks) == 1
    assert [json.loads(text)["type"] for text in client.texts] == ["error"]


async def test_a_ping_is_answered(autojump_clock: MockClock, simulator: MemorySimulator) -> None:
    async with simulator.open_client() as client:
        with trio.fail_after(1):
            await client.connection.ping(b"are you there")


async def test_closing_is_answered_and_forgotten(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        with trio.fail_after(1):
            await client.connection.aclose(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert await simulator.admin("sockets") == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        (f"?api_key={KEY}", 400),
        (f"?api_key={KEY}&access_token=", 400),
        (f"?api_key={KEY}&access_token=wrong", 403),
        (f"?api_key={KEY}&access_token={ACCOUNTS[1].access_token}", 403),
        (f"?api_key=nobody&access_token={ACCOUNTS[0].access_token}", 403),
    ],
)
async def test_bad_handshakes_are_refused(
    autojump_clock: MockClock,
    simulator: MemorySimulator,
    nursery: trio.Nursery,
    query: str,
    status: int,
) -> None:
    refusal = await simulator.refusal(f"/{query}")
    assert refusal.status_code == status
    if status == 403:
        assert refusal.body == b"Authentication failed"


async def test_the_fourth_socket_of_a_key_is_refused(
    autojump_clock: MockClock, simulator: MemorySimulator, nursery: trio.Nursery
) -> None:
    for _ in range(3):
        await _open(simulator, nursery)
    refusal = await simulator.refusal(RESOURCE)
    assert refusal.status_code == 429
    async with simulator.open_client(ACCOUNTS[1]):
        assert len(await simulator.admin("sockets")) == 4


async def test_the_fourth_socket_can_push_out_the_oldest(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    simulator = MemorySimulator(nursery, replace(CONFIG, fourth_socket="drop_oldest"))
    sockets = [await _open(simulator, nursery) for _ in range(4)]
    await trio.sleep(0.1)
    assert [socket.closed is None for socket in sockets] == [False, True, True, True]
    assert [row["socket"] for row in await simulator.admin("sockets")] == [2, 3, 4]


async def test_the_fourth_socket_can_be_allowed(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    simulator = MemorySimulator(nursery, replace(CONFIG, fourth_socket="allow"))
    for _ in range(4):
        await _open(simulator, nursery)
    assert len(await simulator.admin("sockets")) == 4


async def test_the_ledger_equals_what_the_client_got(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(NIFTY_50, INFY, OPTION)
        await client.set_mode("full", OPTION)
        await client.set_mode("ltp", INFY)
        got = await client.gather(10.5)
        kinds = Counter(got.ticks.kind.tolist())
        (row,) = (await simulator.admin("ledger"))["sockets"]
    assert row["packets"] == len(got.ticks)
    assert row["frames"] == len(client.frames) - got.heartbeats
    assert row["ltp"] == kinds[PacketKind.LTP]
    assert row["quote"] == kinds[PacketKind.INDEX_QUOTE] + kinds[PacketKind.QUOTE]
    assert row["full"] == kinds[PacketKind.FULL]
    assert (row["texts"], row["heartbeats"]) == (2, got.heartbeats)
    await trio.sleep(0.1)
    (row,) = (await simulator.admin("ledger"))["sockets"]
    assert (row["open"], row["packets"]) == (False, len(got.ticks))


async def test_a_client_that_does_not_read_holds_up_nobody(
    autojump_clock: MockClock, simulator: MemorySimulator, nursery: trio.Nursery
) -> None:
    tokens = [row.instrument_token for row in dump_of_start().instruments[:1000]]
    stuck = await wrap_client_stream(
        nursery, simulator.connect(lockstep=True), "simulator", RESOURCE, message_queue_size=0
    )
    await stuck.send_message(json.dumps({"a": "subscribe", "v": tokens}))
    async with simulator.open_client() as client:
        await client.subscribe(*tokens)
        got = await client.gather(20.5)
        assert len(set(got.ticks.frame.tolist())) == 21
        behind, _ = (await simulator.admin("ledger"))["sockets"]
        assert behind["frames"] <= 4
        await simulator.admin("market", {"frozen": True})
    last = got
    with trio.move_on_after(2):
        while True:
            message = await stuck.get_message()
            last = (
                decode_frames([message])
                if isinstance(message, bytes) and len(message) > 1
                else last
            )
    # what waited was not a queue of old frames: the market as it stands came after at most a few
    behind = (await simulator.admin("ledger"))["sockets"][-1]
    assert behind["frames"] <= 6
    newest = simulator.simulation.market.words[Row.LAST_PRICE]
    for token, price in zip(
        last.ticks.token.tolist(), last.ticks.words[Row.LAST_PRICE], strict=True
    ):
        assert newest[simulator.simulation.market.position(token)] == price


async def test_speed_makes_market_time_run(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    simulator = MemorySimulator(nursery, replace(CONFIG, speed=60, rate=2))
    async with simulator.open_client() as client:
        await client.subscribe(OPTION)
        await client.set_mode("full", OPTION)
        await client.gather(0.1)
        got = await client.gather(10)
    times = got.ticks.unsigned(Row.EXCHANGE_TIMESTAMP)
    assert len(times) == 20
    assert times[-1] == pytest.approx(START + 600, abs=31)


async def _open(simulator: MemorySimulator, nursery: trio.Nursery) -> WebSocketConnection:
    return await wrap_client_stream(
        nursery, simulator.connect(), "simulator", RESOURCE, message_queue_size=100
    )


def _kinds(got: DecodedFrames) -> dict[int, int]:
    return dict(zip(got.ticks.token.tolist(), got.ticks.kind.tolist(), strict=True))
