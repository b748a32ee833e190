from contextlib import suppress

import pytest
import trio
import trio.testing

from ticker.errors import InvalidRequestError
from ticker.kite.redirect import receive_redirect


async def ask(port: int, request: bytes) -> bytes:
    """Send the bytes, say that this is all, and return the answer."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        answer = b""
        with suppress(trio.BrokenResourceError):  # hung up on, having said too much
            while piece := await stream.receive_some():
                answer += piece
        return answer


async def receive(requests: list[bytes], state: str = "right") -> tuple[str, list[bytes]]:
    """The request token found among the requests, and the answers to those before it."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    tokens: list[str] = []

    async def wait() -> None:
        tokens.append(await receive_redirect(listeners, state))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            answers = [await ask(port, request) for request in requests]
    return tokens[0], answers


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


RIGHT = get("/any/path?action=login&status=success&request_token=tok&state=right")


async def test_junk_and_strangers_are_answered_and_forgotten() -> None:
    requests = [
        b"\x16\x03\x01\x00\xa5 not http at all\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        get("/favicon.ico"),
        get("/?request_token=forged"),
        get("/?request_token=forged&state=wrong"),
        get("/?request_token=forged&state=wrong&state=right"),
        get("/" + "x" * 100_000),
        RIGHT,
    ]
    token, answers = await receive(requests)
    assert token == "tok"
    assert [answer.split(b" ")[1:2] for answer in answers[2:6]] == [[b"404"]] * 4
    assert answers[-1].startswith(b"HTTP/1.1 200 ")
    assert b"tok" not in answers[-1]


async def test_browser_that_says_nothing_holds_nobody_up() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with await trio.open_tcp_stream("127.0.0.1", port):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_redirect, listeners, "right")
                await ask(port, RIGHT)


async def test_failed_login_is_told() -> None:
    refused = get("/?status=cancelled&request_token=&state=right")
    with pytest.RaisesGroup(InvalidRequestError, flatten_subgroups=True):
        await receive([refused])
