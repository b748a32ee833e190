"""Each fault, seen by an independent client over a stream in memory."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import wrap_client_stream

from tests.ticker.simulator.memory_simulator import (
    ACCOUNTS,
    INFY,
    NIFTY_50,
    Client,
    MemorySimulator,
    dump_of_start,
    token_of,
)
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.simulation import SimulatorConfig

CONFIG = SimulatorConfig(accounts=ACCOUNTS, rate_limits=False)
FUTURE = token_of("NIFTY26DECFUT")
KEY = ACCOUNTS[0].api_key
RESOURCE = f"/?api_key={KEY}&access_token={ACCOUNTS[0].access_token}"
UPGRADE = (
    f"GET {RESOURCE} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture
def simulator(nursery: trio.Nursery) -> MemorySimulator:
    return MemorySimulator(nursery, CONFIG)


async def test_half_open_sends_nothing_and_swallows_everything(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(FUTURE)
        await client.gather(0.1)
        await simulator.admin("faults", {"fault": "half_open"})
        before = await _counts(simulator)
        await client.subscribe(INFY)
        with trio.move_on_after(5) as ping:
            await client.connection.ping()
        assert ping.cancelled_caught
        await client.gather(5)
        assert client.frames == []
        assert await _counts(simulator) == before
        (row,) = await simulator.admin("sockets")
    assert list(row["subscriptions"]) == [str(FUTURE)]


async def test_mute_leaves_heartbeats_and_pongs(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(FUTURE)
        await client.gather(0.1)
        await simulator.admin("faults", {"fault": "mute"})
        await client.connection.ping()
        got = await client.gather(5.5)
    assert (len(got.ticks), got.heartbeats) == (0, 5)


async def test_healing_ends_lasting_faults(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await client.subscribe(FUTURE)
        await simulator.admin("faults", {"fault": "mute"})
        await simulator.admin("faults", {"fault": "handshake", "status": 503})
        answer = await simulator.call("DELETE", "/_simulator/faults")
        assert answer is not None
        assert answer.status == 200
        assert len((await client.gather(2)).ticks) > 0
        assert await simulator.admin("faults") == []
        async with simulator.open_client():
            pass


async def test_slow_trickles(autojump_clock: MockClock, simulator: MemorySimulator) -> None:
    async with simulator.open_client() as client:
        await simulator.admin("faults", {"fault": "slow", "bytes_per_s": 100})
        await client.subscribe(*(row.instrument_token for row in dump_of_start().instruments[:20]))
        started = trio.current_time()
        message = await client.connection.get_message()
        assert len(message) > 500
        assert trio.current_time() - started == pytest.approx(len(message) / 100, rel=0.1)


async def test_duplicate_sends_frames_twice(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await simulator.admin("faults", {"fault": "duplicate"})
        await client.subscribe(FUTURE)
        got = await client.gather(3.5)
        frames = [frame for frame in client.frames if len(frame) > 1]
        assert frames[::2] == frames[1::2]
        assert (await _counts(simulator))["packets"] == len(got.ticks) == len(frames)


async def test_fragments_join_to_whole_frames(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client() as client:
        await simulator.admin("faults", {"fault": "fragment", "size": 7})
        await client.subscribe(FUTURE, INFY, NIFTY_50)
        got = await client.gather(0.1)
    assert sorted(got.ticks.token.tolist()) == sorted([FUTURE, INFY, NIFTY_50])
    assert got.anomalies == {}


@pytest.mark.parametrize("code", [1000, 1001, 1011])
async def test_close(autojump_clock: MockClock, simulator: MemorySimulator, code: int) -> None:
    async with simulator.open_client() as client:
        await simulator.admin("faults", {"fault": "close", "code": code})
        with trio.fail_after(1):
            assert await client.wait_closed() == code
    await trio.sleep(0.1)
    assert await simulator.admin("sockets") == []


@pytest.mark.parametrize(
    ("order", "anomaly", "good"),
    [
        ({"fault": "truncated"}, "truncated_packet", 2),
        ({"fault": "junk_frame"}, "truncated_packet", 0),
        ({"fault": "junk_frame", "size": 1000}, "truncated_packet", 0),
        ({"fault": "raw_frame", "hex": "000100"}, "truncated_header", 0),
        ({"fault": "unknown_packet"}, "unknown_packet_length", 3),
        ({"fault": "unknown_packet", "length": 12}, "unknown_packet_length", 3),
        ({"fault": "oversized", "size": 300_000}, "truncated_packet", 0),
    ],
)
async def test_broken_frames_come_once_with_their_good_packets(
    autojump_clock: MockClock,
    simulator: MemorySimulator,
    order: dict[str, object],
    anomaly: str,
    good: int,
) -> None:
    await simulator.admin("market", {"frozen": True})
    async with simulator.open_client() as client:
        await client.subscribe(FUTURE, INFY, NIFTY_50)
        await client.gather(0.1)
        before = await _counts(simulator)
        await simulator.admin("faults", order)
        got = await client.gather(0.1)
        after = await _counts(simulator)
    assert got.anomalies[anomaly] == 1
    assert len(got.ticks) == good == after["packets"] - before["packets"]
    assert (after["broken_frames"], after["frames"]) == (1, before["frames"])


async def test_junk_text(autojump_clock: MockClock, simulator: MemorySimulator) -> None:
    async with simulator.open_client() as client:
        await simulator.admin("faults", {"fault": "junk_text"})
        await simulator.admin("faults", {"fault": "junk_text", "text": '{"type":"order"}'})
        await client.gather(0.1)
    assert client.texts == ["{not json", '{"type":"order"}']


async def test_stall_stops_in_the_middle_of_a_frame(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    await simulator.admin("market", {"frozen": True})
    async with simulator.open_client() as client:
        await client.subscribe(FUTURE)
        await client.gather(0.1)
        await simulator.admin("faults", {"fault": "stall", "seconds": 30})
        got = await client.gather(29)
        assert (len(got.ticks), got.heartbeats) == (0, 0)
        got = await client.gather(1.5)
        assert (len(got.ticks), got.anomalies) == (1, {})


async def test_faults_hit_whom_they_name(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with (
        simulator.open_client() as first,
        simulator.open_client() as second,
        simulator.open_client(ACCOUNTS[1]) as other,
    ):
        assert await simulator.admin("faults", {"fault": "mute", "socket": 2}) == {"sockets": [2]}
        hit = await simulator.admin("faults", {"fault": "junk_text", "api_key": KEY})
        assert hit == {"sockets": [1, 2]}
        for client in (first, second, other):
            await client.subscribe(FUTURE)
        got = [len((await client.gather(0.1)).ticks) for client in (first, second, other)]
        assert got == [1, 0, 1]
        assert [len(client.texts) for client in (first, second, other)] == [1, 1, 0]


@pytest.mark.parametrize("status", [403, 429, 503])
async def test_handshakes_fail_as_often_as_asked(
    autojump_clock: MockClock, simulator: MemorySimulator, status: int
) -> None:
    order = {"fault": "handshake", "status": status, "times": 2, "api_key": KEY}
    await simulator.admin("faults", order)
    async with simulator.open_client(ACCOUNTS[1]):
        pass
    for _ in range(2):
        assert (await simulator.refusal(RESOURCE)).status_code == status
    async with simulator.open_client():
        pass


async def test_handshakes_fail_until_healed(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    await simulator.admin("faults", {"fault": "handshake", "status": 403})
    for _ in range(5):
        assert (await simulator.refusal(RESOURCE)).status_code == 403


@pytest.mark.parametrize("sockets", ["close", "mute", "keep"])
async def test_a_killed_token(
    autojump_clock: MockClock, simulator: MemorySimulator, sockets: str
) -> None:
    async with simulator.open_client() as client, simulator.open_client(ACCOUNTS[1]) as other:
        await client.subscribe(FUTURE)
        await other.subscribe(FUTURE)
        await client.gather(0.1)
        order = {"fault": "kill_token", "api_key": KEY, "sockets": sockets}
        await simulator.admin("faults", order)
        if sockets == "close":
            assert await client.wait_closed() == 1000
        else:
            ticks = (await client.gather(5)).ticks
            assert (len(ticks) > 0) == (sockets == "keep")
        assert len((await other.gather(5)).ticks) > 0
    assert (await simulator.refusal(RESOURCE)).status_code == 403
    assert (await simulator.get("/user/profile"))["error_type"] == "TokenException"


async def test_a_new_token_opens_again(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    await simulator.admin("faults", {"fault": "kill_token"})
    answer = await simulator.admin("faults", {"fault": "new_token", "api_key": KEY})
    resource = f"/?api_key={KEY}&access_token={answer['access_token']}"
    async with simulator.connect() as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(nursery, stream, "simulator", resource)
        assert "instruments_meta" in await Client(connection).next_text()
        nursery.cancel_scope.cancel()


async def test_rest_faults(autojump_clock: MockClock, simulator: MemorySimulator) -> None:
    order: dict[str, Any] = {"fault": "rest", "path": "/quote", "times": 1}
    await simulator.admin("faults", order | {"status": 502, "error_type": "DataException"})
    assert (await simulator.get("/user/profile"))["status"] == "success"
    assert (await simulator.get("/quote/ltp?i=NSE:INFY"))["error_type"] == "DataException"
    assert (await simulator.get("/quote/ltp?i=NSE:INFY"))["status"] == "success"

    await simulator.admin("faults", order | {"status": 503, "body": "html", "delay_s": 20})
    started = trio.current_time()
    answer = await simulator.call("GET", "/quote")
    assert answer is not None
    assert (answer.status, answer.headers["content-type"][:9]) == (503, "text/html")
    assert trio.current_time() - started == 20

    await simulator.admin("faults", order | {"body": "reset"})
    assert await simulator.call("GET", "/quote") is None


async def test_bad_orders_are_refused(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    for body in (
        b"",
        b"{}",
        b'{"fault":"flood"}',
        b'{"fault":"mute","colour":1}',
        b'{"fault":"fragment","size":0}',
        b'{"fault":"slow","bytes_per_s":-1}',
        b'{"fault":"close","code":70000}',
        b'{"fault":"raw_frame","hex":"0"}',
        b'{"fault":"handshake","status":200}',
    ):
        answer = await simulator.call("POST", "/_simulator/faults", body)
        assert answer is not None
        assert answer.status == 400
        assert "error" in answer.json


async def test_more_faults_than_fit_are_refused(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.open_client():
        await simulator.admin("faults", {"fault": "stall"})
        await trio.testing.wait_all_tasks_blocked()
        statuses: Counter[int] = Counter()
        for _ in range(20):
            answer = await simulator.call("POST", "/_simulator/faults", b'{"fault":"stall"}')
            assert answer is not None
            statuses[answer.status] += 1
    assert statuses == {200: 16, 409: 4}


@pytest.mark.slow
async def test_reset_is_a_tcp_reset(nursery: trio.Nursery) -> None:
    config = SimulatorConfig(accounts=ACCOUNTS, port=0)
    address: SimulatorAddress = await nursery.start(partial(serve_simulator, config))
    async with (
        await trio.open_tcp_stream(address.host, address.port) as stream,
        await trio.open_tcp_stream(address.host, address.port) as admin,
    ):
        await stream.send_all(UPGRADE.encode())
        assert b"101" in await stream.receive_some()
        body = b'{"fault":"reset"}'
        head = f"POST /_simulator/faults HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        await admin.send_all(head.encode() + body)
        with pytest.raises(trio.BrokenResourceError) as error, trio.fail_after(5):
            await _read_to_end(stream)
    assert isinstance(error.value.__cause__, ConnectionResetError)
    nursery.cancel_scope.cancel()


async def _read_to_end(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def _counts(simulator: MemorySimulator) -> dict[str, int]:
    (row,) = (await simulator.admin("ledger"))["sockets"]
    return {name: value for name, value in row.items() if isinstance(value, int)}
