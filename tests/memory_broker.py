"""A market-data broker in memory: a real WebSocket server (trio-websocket) on virtual time.

It is the independent peer of the streams' tests. Its table of subscriptions is the truth about
what a socket carries, and it counts every breach of the limits that the real broker enforces.
"""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import trio
import trio.testing
from trio_websocket import ConnectionClosed, wrap_server_stream

from ticker.accounts.credentials import Credentials

CREDENTIALS: Final = Credentials("key-CANARY", "token/CANARY+1 &x")
HEARTBEAT: Final = b"\x00"
TICK: Final = b"\x00\x01\x00\x08\x00\x00\x01\x00\x00\x00\x00\x01"
"""A frame with one packet in ltp mode."""


class ClientStream(trio.abc.Stream):
    """The client's end of a connection in memory; ``network`` knows whether it was closed."""

    def __init__(self, pipe: trio.abc.Stream, network: "MemoryNetwork") -> None:
        self._pipe = pipe
        self._network = network
        network.open.add(self)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._pipe.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._pipe.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._pipe.receive_some(max_bytes)

    async def aclose(self) -> None:
        self._network.open.discard(self)
        await self._pipe.aclose()


class MemoryNetwork:
    """Joins callers of ``open_stream`` to a handler of WebSocket requests in this process."""

    def __init__(self, nursery: trio.Nursery, handler: Callable[[Any], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._handler = handler
        self.attempts: list[float] = []
        self.open: set[ClientStream] = set()

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        client, server = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, server)
        return ClientStream(client, self)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            with suppress(ConnectionClosed):
                await self._handler(await wrap_server_stream(nursery, stream))
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


class BrokerSocket:
    """One accepted connection. ``table``: what it carries. A mute one keeps TCP up, no more."""

    def __init__(self, connection: Any, credentials: Credentials) -> None:
        self.credentials = credentials
        self.table: dict[int, str] = {}
        self.messages: list[Any] = []
        self.mute = False
        self._connection = connection
        self._close_code: int | None = None
        self._ended = trio.Event()

    async def send(self, message: bytes | str) -> None:
        if not self.mute:
            with suppress(ConnectionClosed):
                await self._connection.send_message(message)

    def close(self, code: int) -> None:
        """Close the WebSocket in the orderly way."""
        self._close_code = code
        self._ended.set()

    def reset(self) -> None:
        """End the TCP connection without a word."""
        self._ended.set()

    async def run(self, limit: int, lifetime_s: float) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_heartbeats)
            nursery.start_soon(self._obey, limit)
            with trio.move_on_after(lifetime_s):
                await self._ended.wait()
            if self._close_code is not None:
                await self._connection.aclose(self._close_code)
            nursery.cancel_scope.cancel()

    async def _send_heartbeats(self) -> None:
        while True:
            await self.send(HEARTBEAT)
            await trio.sleep(1)

    async def _obey(self, limit: int) -> None:
        with suppress(ConnectionClosed):
            while True:
                self._apply(json.loads(await self._connection.get_message()), limit)
                await self.send(TICK)
        self._ended.set()

    def _apply(self, message: dict[str, Any], limit: int) -> None:
        self.messages.append(message)
        value = message["v"]
        if message["a"] == "subscribe":
            self.table |= {token: "default" for token in value if token not in self.table}
        elif message["a"] == "unsubscribe":
            for token in value:
                del self.table[token]
        else:
            mode, tokens = value
            self.table |= {token: mode for token in tokens if token in self.table}
        assert len(self.table) <= limit, "above the limit of a socket"


class MemoryBroker:
    """Accepts sockets with good tokens, and resets each after ``lifetime_s``.

    ``status``, if set, refuses every handshake.
    """

    def __init__(self, nursery: trio.Nursery, *, limit: int = 3000) -> None:
        self.network = MemoryNetwork(nursery, self._handle)
        self.good_tokens = {CREDENTIALS.access_token}
        self.status: int | None = None
        self.lifetime_s = math.inf
        self.sockets: list[BrokerSocket] = []
        self.accepted = 0
        self._limit = limit

    async def _handle(self, request: Any) -> None:
        query = parse_qs(urlsplit(request.path).query, strict_parsing=True)
        credentials = Credentials(query["api_key"][0], query["access_token"][0])
        known = credentials.access_token in self.good_tokens
        status = self.status or (101 if known else 403)
        if status != 101:
            await request.reject(status, body=b"refused")
            return
        socket = BrokerSocket(await request.accept(), credentials)
        self.accepted += 1
        self.sockets.append(socket)
        try:
            await socket.run(self._limit, self.lifetime_s)
        finally:
            self.sockets.remove(socket)


@asynccontextmanager
async def open_memory_broker(*, limit: int = 3000) -> AsyncIterator[MemoryBroker]:
    """A broker for the length of the block, by the end of which its clients have hung up."""
    async with trio.open_nursery() as nursery:
        broker = MemoryBroker(nursery, limit=limit)
        yield broker
        assert not broker.network.open
        nursery.cancel_scope.cancel()
