"""A tiny web server on loopback that waits for the broker to redirect a browser to it."""

from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from ticker.kite.login import parse_request_token

REQUEST_TIMEOUT_S: Final = 10.0
"""A browser that connects has this long to say what it wants."""

CONNECTIONS_MAX: Final = 8
"""At a time; more wait to be accepted. Browsers open a few that they never use."""


async def receive_redirect(listeners: Sequence[trio.SocketListener], state: str) -> str:
    """Serve until a browser brings the answer to the login page of this state; its request token.

    Everything else is answered with an error and forgotten: any page in the same browser can
    reach loopback. Raises InvalidRequestError if the answer is that the login failed.
    """
    answers, received = trio.open_memory_channel[str](0)
    places = trio.CapacityLimiter(CONNECTIONS_MAX)
    async with answers, received, trio.open_nursery() as nursery:
        handle = partial(_handle, state=state, answers=answers, places=places)
        nursery.start_soon(trio.serve_listeners, handle, list(listeners))
        query = await received.receive()
        nursery.cancel_scope.cancel()
    return parse_request_token(query)


async def _handle(
    stream: trio.SocketStream,
    *,
    state: str,
    answers: trio.MemorySendChannel[str],
    places: trio.CapacityLimiter,
) -> None:
    async with stream, places:
        try:
            with trio.move_on_after(REQUEST_TIMEOUT_S):
                query = await _answer(stream, state)
                if query is not None:
                    await answers.send(query)
        except (h11.ProtocolError, trio.BrokenResourceError):
            return  # a browser that hung up, or no browser


async def _answer(stream: trio.SocketStream, state: str) -> str | None:
    """Answer one request; the query it came with, if it is the one that is waited for."""
    connection = h11.Connection(h11.SERVER)
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(4096))
    if not isinstance(event, h11.Request):
        return None
    query = urlsplit(event.target.decode("ascii", "replace")).query
    is_ours = parse_qs(query).get("state") == [state]
    text = b"Received: see the terminal. This page can be closed.\n"
    response = h11.Response(
        status_code=200 if is_ours else 404,
        headers=[
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(text) if is_ours else 0)),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ],
    )
    data = connection.send(response) or b""
    if is_ours:
        data += connection.send(h11.Data(text)) or b""
    await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
    return query if is_ours else None
