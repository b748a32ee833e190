"""Whatever arrives at the port is answered, with the request's id and never with HTML."""

import json
from functools import partial

import httpx
import pytest
import trio

from api.server import serve_api
from tests.api.rig import BOOTSTRAP, header
from tests.api.test_operations import create_echo_app

KEY = f"X-API-Key: {BOOTSTRAP}\r\n".encode()
JSON = b"Content-Type: application/json\r\n"
SOCKET = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
SOCKET += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def create_request(line: bytes, headers: bytes = KEY, body: bytes = b"") -> bytes:
    close = b"" if b"Upgrade" in headers else b"Connection: close\r\n"
    return (
        line + b" HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n" + close + headers + b"\r\n" + body
    )


def post(body: bytes, headers: bytes = JSON) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return create_request(b"POST /echo", KEY + headers + length, body)


async def exchange(port: int, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """The first answer to what is sent: status, headers in lower case, body."""
    answer = bytearray()
    with trio.fail_after(5):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            while part := await stream.receive_some():
                answer += part
                head, found, body = bytes(answer).partition(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:])
                if found and len(body) >= int(headers.get("content-length", 0)):
                    break
    return int(lines[0].split()[1]), headers, body


PROBLEMS = [
    (create_request(b"GET /nowhere"), 404),
    (create_request(b"GET /nowhere", b"Accept: text/html\r\n"), 404),
    (create_request(b"GET /echo/1/"), 404),
    (create_request(b"GET /echo//1"), 404),
    (create_request(b"GET //evil.example/%2e%2e"), 404),
    (create_request(b"GET /echo/../slow"), 404),
    (create_request(b"GET /echo;a=b"), 404),
    (create_request(b"OPTIONS *"), 404),
    (create_request(b"DELETE /echo"), 405),
    (create_request(b"OPTIONS /echo", b"Origin: http://localhost:3000\r\n"), 405),
    (create_request(b"TRACE /echo"), 405),
    (create_request(b"GET /echo/1", b""), 401),
    (create_request(b"GET /echo/1", "X-API-Key: ключ\r\n".encode()), 401),
    (create_request(b"GET /echo/1", b"Authorization: Bearer \xff.\xff.\xff\r\n"), 401),
    (create_request(b"GET /echo/%00"), 422),
    (create_request(b"GET /echo/%zz"), 422),
    (create_request(b"GET /echo/%ff%fe"), 422),
    (create_request(b"GET /echo/%D9%A3"), 422),
    (create_request(b"GET /echo/1?limit=%ff"), 422),
    (create_request(b"GET /echo/1?=&&="), 422),
    (create_request(b"GET /echo/1?" + b"a" * 3000), 422),
    (create_request(b"GET /echo/1", KEY + b"X-A: %b\r\nX-B: %b\r\n" % (b"a" * 9000, b"b" * 9000)),
     431),
    (post(b"{}", b""), 415),
    (post(b"{}", b"Content-Type: text/plain\r\n"), 415),
    (post(b"{}", b"Content-Type: ;;;=\r\n"), 415),
    (post(b"{}", b"Content-Type: application/json; charset=utf-16\r\n"), 415),
    (post(b"\x1f\x8b", JSON + b"Content-Encoding: gzip\r\n"), 415),
    (post(b"a=b", b"Content-Type: application/x-www-form-urlencoded\r\n"), 415),
    (post(b""), 400),
    (post(b"\xef\xbb\xbf{}"), 400),
    (post(b'{"numbers": [1], "name": "\xff"}'), 400),
    (post(b'{"numbers": [1], "name": "\\ud800"}'), 400),
    (post(b'{"numbers": [NaN]}'), 400),
    (post(b"{" + b" " * 4000 + b"}"), 413),
    (create_request(b"POST /echo", KEY + JSON + b"Content-Length: 99999999999\r\n"), 413),
    (create_request(b"GET /echo/1", SOCKET), 400),
    (create_request(b"GET /ws/ticks", SOCKET), 404),
]  # fmt: skip
REFUSED = [
    b"NONSENSE\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n",
    create_request(b"GET /\x00"),
    create_request("GET /é".encode()),
    create_request(b"POST /echo", KEY + JSON + b"Content-Length: -5\r\n"),
]
"""What is no HTTP: the server says so without a word."""


@pytest.mark.slow
async def test_every_error_is_a_problem_with_the_requests_id() -> None:
    async with trio.open_nursery() as nursery:
        app = create_echo_app()
        serve = partial(serve_api, app, host="127.0.0.1", port=0, wait_shutdown=trio.sleep_forever)
        port = int((await nursery.start(serve)).rpartition(":")[2])
        for data, expected in PROBLEMS:
            status, headers, body = await exchange(port, data)
            assert status == expected, (data[:200], body)
            assert headers["content-type"] == "application/problem+json", data[:200]
            document = json.loads(body)
            assert (document["status"], document["request_id"]) == (expected, "mine")
            assert headers["x-request-id"] == "mine"
            assert ("allow" in headers) is (expected == 405)
            assert "`" not in document["detail"], "the words are a person's"
            if expected == 422:
                assert [error["field"] for error in document["errors"]] != [""], data[:200]
            if data.startswith((b"GET /nowhere", b"GET /echo/%00")):
                await assert_head(port, data, status)
        for data in REFUSED:
            status, headers, body = await exchange(port, data)
            assert (status, body) == (400, b""), data[:200]
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_after_a_body_that_is_too_long_the_client_opens_another_connection() -> None:
    headers = {"X-API-Key": BOOTSTRAP, "Content-Type": "application/json"}
    async with trio.open_nursery() as nursery:
        app = create_echo_app()
        serve = partial(serve_api, app, host="127.0.0.1", port=0, wait_shutdown=trio.sleep_forever)
        url = await nursery.start(serve)
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            for _ in range(10):
                refused = await client.post("/echo", content=b" " * 9000)
                assert refused.status_code == 413
                assert refused.headers["Connection"] == "close"
                granted = await client.get("/echo/1")
                assert granted.status_code == 200
                assert "Connection" not in granted.headers
        nursery.cancel_scope.cancel()


async def test_http_2_is_not_told_to_close() -> None:
    """It has no such header (RFC 9113), and the server of HTTP/2 refuses to send it."""
    client = create_echo_app().test_client()
    headers = header() | {"Content-Type": "application/json"}
    for version, told in (("1.0", "close"), ("1.1", "close"), ("2", None)):
        answer = await client.post("/echo", data=b" " * 9000, headers=headers, http_version=version)
        assert (answer.status_code, answer.headers.get("Connection")) == (413, told), version


async def assert_head(port: int, data: bytes, expected: int) -> None:
    """The same with HEAD is answered likewise, without a body."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data.replace(b"GET", b"HEAD", 1))
        answer = bytearray()
        with trio.fail_after(5):
            while part := await stream.receive_some():
                answer += part
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    assert (int(head.split()[1]), body) == (expected, b"")
