"""A market-data WebSocket: one stream, one protocol state machine, no task of its own.

The broker authenticates a socket by its query string and by nothing else. The URL is therefore a
secret: it is never kept, and no error raised here shows any of it.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from ticker.accounts.credentials import Credentials
from ticker.errors import (
    ConfigurationError,
    FeedClosedError,
    FeedThrottledError,
    FeedUnreachableError,
    HandshakeRejectedError,
    TokenRejectedError,
)
from ticker.settings import is_loopback

OpenStream = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Connects to a host and port; raises OSError when it cannot."""

RECEIVE_SIZE: Final = 64 * 1024
"""Bytes asked of the stream at once: a burst of small frames then costs one system call."""

MESSAGE_SIZE_MAX: Final = 4 * 1024 * 1024
"""Well above the largest frame, 3,000 full packets in 558,002 bytes."""

CLOSE_TIMEOUT_S: Final = 1.0
"""How long the answer to our close frame is waited for."""

ACCEPTED: Final = 101

_REJECTIONS: Final = {403: TokenRejectedError, 429: FeedThrottledError}

_HEADERS: Final = [(b"X-Kite-Version", b"3"), (b"User-Agent", b"ticker")]


@asynccontextmanager
async def open_feed(
    ws_root: str,
    credentials: Credentials,
    *,
    connect_timeout_s: float = 10.0,
    ssl_context: ssl.SSLContext | None = None,
    open_stream: OpenStream = trio.open_tcp_stream,
) -> AsyncIterator["FeedSocket"]:
    """Connect, shake hands, yield the open socket; its TCP connection ends with the block.

    ``ws_root`` is ``wss://host[:port][/path]``, or ``ws://`` on a loopback address. Certificates
    are always verified, by ``ssl_context`` or against the system's authorities. No task hides in
    here, so what the block raises comes out as it was raised.

    Raises FeedUnreachableError when TCP, TLS or HTTP fails or takes longer than
    ``connect_timeout_s``; TokenRejectedError on 403, FeedThrottledError on 429,
    HandshakeRejectedError on any other status; ConfigurationError for a root, or a TLS context,
    that would give the token away.
    """
    root = _Root.parse(ws_root)
    context = _verifying(ssl_context or ssl.create_default_context()) if root.tls else None
    stream: trio.abc.Stream | None = None
    try:
        try:
            with trio.fail_after(connect_timeout_s):
                stream = await open_stream(root.host, root.port)
                if context is not None:
                    stream = trio.SSLStream(
                        stream, context, server_hostname=root.host, https_compatible=True
                    )
                socket = FeedSocket(stream)
                status = await socket.shake_hands(root, credentials)
        except (trio.TooSlowError, trio.BrokenResourceError, ProtocolError, OSError) as error:
            # Without its cause, whose frames hold the request.
            reason = _reason(error).replace(root.host, "its host")  # anybody may read it
            raise FeedUnreachableError(f"cannot connect to the broker: {reason}") from None
        if status != ACCEPTED:
            raise _REJECTIONS.get(status, HandshakeRejectedError)(status)
        yield socket
        await socket.close()
    finally:
        if stream is not None:
            # Not aclose(): TLS would first send a farewell, for which a dead peer has no room.
            # Shielded, although it never waits: Cancelled would replace the block's own error.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)


class FeedSocket:
    """An open market-data socket. One task receives; any task may send meanwhile.

    A call that is cancelled may leave half a message on the wire: leave ``open_feed`` then.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: Iterator[Event] = iter(())
        self._parts: list[Any] = []
        self._size = 0
        self._sending = trio.StrictFIFOLock()

    async def receive(self) -> bytes | str:
        """The next whole message; pings and the closing handshake are answered on the way.

        Raises FeedClosedError when the peer closes, resets, or breaks the protocol.
        """
        try:
            while True:
                event = await self._next_event()
                if isinstance(event, Message):
                    if event.message_finished and not self._parts:
                        return event.data  # type: ignore[no-any-return]
                    self._add_part(event)
                    if event.message_finished:
                        return self._take_message()
                elif isinstance(event, Ping):
                    await self._send(event.response())
                elif isinstance(event, CloseConnection):
                    with suppress(trio.BrokenResourceError, ProtocolError):
                        await self._send(event.response())
                    raise FeedClosedError(f"the broker closed the socket with code {event.code}")
        except (trio.BrokenResourceError, ProtocolError):
            raise FeedClosedError("the connection to the broker broke") from None

    async def send(self, text: str) -> None:
        """Send one text message. Raises FeedClosedError when the socket has ended."""
        try:
            await self._send(TextMessage(text))
        except (trio.BrokenResourceError, ProtocolError):
            raise FeedClosedError("the connection to the broker broke") from None

    async def shake_hands(self, root: "_Root", credentials: Credentials) -> int:
        """Ask for the upgrade and return the HTTP status of the answer: 101 if it was granted.

        Raises the stream's and the protocol's own errors; their frames may hold the request.
        """
        await self._send(
            Request(
                host=root.authority,
                # Not bound to a name: tracebacks may be rendered with their local variables.
                target=f"{root.path}?api_key={quote(credentials.api_key, safe='')}"
                f"&access_token={quote(credentials.access_token, safe='')}",
                extra_headers=_HEADERS,
            )
        )
        answer = await self._next_event()
        return answer.status_code if isinstance(answer, RejectConnection) else ACCEPTED

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Say goodbye and wait for the answer, no longer than ``timeout_s``; drops what arrives."""
        with trio.move_on_after(timeout_s), suppress(FeedClosedError):
            try:
                await self._send(CloseConnection(code=1000))
            except (trio.BrokenResourceError, ProtocolError):
                return
            while True:
                await self.receive()

    async def _next_event(self) -> Event:
        while True:
            for event in self._events:
                return event
            data = await self._stream.receive_some(RECEIVE_SIZE)
            if not data:
                raise trio.BrokenResourceError("the peer ended the stream")
            self._protocol.receive_data(bytes(data))
            self._events = self._protocol.events()

    def _add_part(self, event: Message[Any]) -> None:
        self._size += len(event.data)
        if self._size > MESSAGE_SIZE_MAX:
            raise FeedClosedError(f"the broker sent a message above {MESSAGE_SIZE_MAX} bytes")
        self._parts.append(event.data)

    def _take_message(self) -> bytes | str:
        parts, self._parts, self._size = self._parts, [], 0
        return "".join(parts) if isinstance(parts[0], str) else b"".join(parts)

    async def _send(self, event: Event) -> None:
        # The lock is first come, first served, so that bytes leave in the order in which the
        # protocol made them, also when a pong and a subscription meet.
        data = self._protocol.send(event)
        async with self._sending:
            await self._stream.send_all(data)


@dataclass(frozen=True, slots=True)
class _Root:
    """Where the broker's sockets are. ``authority`` is what the Host header says."""

    host: str
    port: int
    tls: bool
    path: str
    authority: str

    @classmethod
    def parse(cls, ws_root: str) -> "_Root":
        parts = urlsplit(ws_root)
        tls = parts.scheme == "wss"
        if not parts.hostname or parts.scheme not in {"ws", "wss"}:
            raise ConfigurationError("the broker's WebSocket root must be wss://host[:port]")
        if not tls and not is_loopback(parts.hostname):
            raise ConfigurationError(
                f"the WebSocket root on {parts.hostname} must be wss://: without TLS the access "
                "token would cross the network in the clear"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(
            host=parts.hostname,
            port=parts.port or (443 if tls else 80),
            tls=tls,
            path=parts.path or "/",
            authority=f"{host}:{parts.port}" if parts.port else host,
        )


def _verifying(context: ssl.SSLContext) -> ssl.SSLContext:
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigurationError("the TLS context for the broker must verify its certificate")
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return "no answer in time"
    if isinstance(error, ProtocolError):
        return "it does not speak WebSocket"
    if isinstance(error, trio.BrokenResourceError):
        # trio.SSLStream reports a failed handshake so, with what went wrong as the cause.
        cause = error.__cause__
        return str(cause) if isinstance(cause, ssl.SSLError) else "it closed the connection"
    return str(error)
