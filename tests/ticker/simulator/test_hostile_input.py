"""What a client sends can harm its own connection only."""

import pytest
import trio
from trio.testing import MockClock

from tests.ticker.simulator.memory_simulator import ACCOUNTS, MemorySimulator
from ticker.simulator.simulation import SimulatorConfig

ACCOUNT = ACCOUNTS[0]
AUTHORIZATION = f"Authorization: token {ACCOUNT.api_key}:{ACCOUNT.access_token}"
SOCKET = f"/?api_key={ACCOUNT.api_key}&access_token={ACCOUNT.access_token}"
UPGRADE = ("Host: x", "Upgrade: websocket", "Connection: Upgrade")
NUMBERS = b'{"a":"subscribe","v":[-1,%d,1e40]}' % 2**70
NINES = "9" * 9000


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode() + body


def get(target: str) -> bytes:
    return request(f"GET {target} HTTP/1.1", "Host: x", AUTHORIZATION)


def post(length: int, body: bytes) -> bytes:
    return request(
        "POST /session/token HTTP/1.1", "Host: x", f"Content-Length: {length}", body=body
    )


def upgrade(*headers: str, version: str = "1.1", body: bytes = b"") -> bytes:
    return request(f"GET {SOCKET} HTTP/{version}", *headers, body=body)


HANDSHAKE = (*UPGRADE, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")

HOSTILE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "OPTIONS of everything": request("OPTIONS * HTTP/1.1", "Host: x"),
    "HEAD": request("HEAD /instruments HTTP/1.1", "Host: x", AUTHORIZATION),
    "bracket in the URL": get("//["),
    "NUL in the path": get("/%00%ff"),
    "header in the redirect": get(
        f"/connect/login?api_key={ACCOUNT.api_key}&redirect=%0d%0aA:%20%e0%a4"
    ),
    "number as key": get(f"/quote?i={NINES}"),
    "number as token": get(f"/instruments/historical/{NINES}/day"),
    "first day of the calendar": get(
        "/instruments/historical/256265/day?from=0001-01-01&to=0001-01-02"
    ),
    "time zone": get("/instruments/historical/256265/day?from=2026-11-19T00:00Z&to=2026-11-19"),
    "date of no calendar": get("/_simulator/market?underlying=NIFTY&expiry=soon"),
    "body that is no text": post(3, b"\xff\xfe\x00"),
    "endless body": post(99_999_999, b"a" * (2 << 20)),
    "body cut short": post(10, b"ab"),
    "upgrade without a host": upgrade(*HANDSHAKE[1:], version="1.0"),
    "upgrade of another version": upgrade(*UPGRADE, "Sec-WebSocket-Version: 7"),
    "upgrade with a bad key": upgrade(
        *UPGRADE, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: A"
    ),
    "frames that are not masked": upgrade(*HANDSHAKE, body=b"\xff\xff\xff\xff nonsense"),
    "text that is not UTF-8": upgrade(*HANDSHAKE, body=b"\x81\x82\0\0\0\0\xff\xfe"),
    "numbers beyond any token": upgrade(
        *HANDSHAKE, body=bytes([0x81, 0x80 | len(NUMBERS), 0, 0, 0, 0]) + NUMBERS
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_input_ends_at_its_connection(
    autojump_clock: MockClock, nursery: trio.Nursery, hostile: bytes
) -> None:
    simulator = MemorySimulator(nursery, SimulatorConfig(accounts=ACCOUNTS))
    async with simulator.connect() as stream:
        await stream.send_all(hostile)
        await stream.send_eof()
        with trio.move_on_after(5):
            while await stream.receive_some():
                pass
    await trio.sleep(0.1)
    assert (await simulator.get("/user/profile"))["status"] == "success"
    assert await simulator.admin("sockets") == []
