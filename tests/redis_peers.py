"""The far end of a publisher in tests: a scripted server, a subscriber, a slow link."""

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import trio

from ticker.publishers.resp import pack

Command = list[bytes]
Message = dict[str, Any]


def accept_all(command: Command) -> bytes:
    """Answer as a healthy server does, with what a publisher asks."""
    integers = {b"PUBLISH": b":0\r\n", b"HSET": b":1\r\n", b"XADD": b"$3\r\n0-1\r\n"}
    return integers.get(command[0], b"+OK\r\n")


class ScriptedRedis:
    """Listens on a unix socket, records commands, and answers what ``respond`` says.

    An answer of None stops all reading from that connection, as a frozen server does; what
    arrives is read ``delay_s`` later.
    """

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self.commands: list[Command] = []
        self.connections = 0
        self.respond: Callable[[Command], bytes | None] = accept_all
        self.delay_s = 0.0
        self._path = path

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be there for the block; then the socket and all connections are gone."""
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as plain:
            # Trio would bind it in a thread, and a virtual clock does not wait for threads
            plain.bind(str(self._path))
            plain.listen()
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(plain))
            async with trio.open_nursery() as nursery:
                await nursery.start(trio.serve_listeners, self._serve, [listener])
                yield
                nursery.cancel_scope.cancel()
        self._path.unlink()

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        reader = hiredis.Reader()
        async with stream:
            try:
                while data := await stream.receive_some(65536):
                    await trio.sleep(self.delay_s)
                    reader.feed(bytes(data))
                    while (command := reader.gets()) is not False:
                        self.commands.append(command)
                        answer = self.respond(command)
                        if answer is None:
                            await trio.sleep_forever()
                        await stream.send_all(answer or b"")
            except trio.BrokenResourceError:
                return

    def published(self, channel: str) -> list[Message]:
        """Payloads published on this channel, in order, answered or not."""
        return [
            json.loads(command[2])
            for command in self.commands
            if command[:2] == [b"PUBLISH", channel.encode()]
        ]


class Subscriber:
    """Collects what is published on ``prefix:*``, over as many connections as it takes.

    ``messages``: channel's last word, payload and when it came (``trio.current_time()``).
    """

    def __init__(self, url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)
        self._pattern = f"{prefix}:*"
        self.subscribed = trio.Event()
        self.messages: list[tuple[str, Message, float]] = []

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except (OSError, trio.BrokenResourceError):
                await trio.sleep(0.01)

    async def _follow(self) -> None:
        reader = hiredis.Reader()
        async with await trio.open_tcp_stream(*self._address) as stream:
            await stream.send_all(pack("PSUBSCRIBE", self._pattern))
            while data := await stream.receive_some(65536):
                reader.feed(bytes(data))
                while (reply := reader.gets()) is not False:
                    if isinstance(reply, hiredis.ReplyError):
                        raise OSError(str(reply))  # the server is not ready yet
                    if reply[0] == b"psubscribe":
                        self.subscribed.set()
                    else:
                        kind = reply[2].decode().rpartition(":")[2]
                        self.messages.append((kind, json.loads(reply[3]), trio.current_time()))


@asynccontextmanager
async def open_slow_link(
    url: str, *, bytes_per_s: float, delay_s: Callable[[], float], piece: int = 1460
) -> AsyncIterator[str]:
    """A proxy before the server at ``url``: so fast upstream, so late both ways, in pieces."""
    parts = urlsplit(url)

    async def forward(stream: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
        async with stream, far, trio.open_nursery() as nursery:
            nursery.start_soon(_carry, stream, far, bytes_per_s, delay_s, piece, nursery)
            nursery.start_soon(_carry, far, stream, 1e9, delay_s, piece, nursery)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, forward, [listener])
        yield f"redis://127.0.0.1:{listener.socket.getsockname()[1]}/0"
        nursery.cancel_scope.cancel()


async def _carry(
    source: trio.SocketStream,
    sink: trio.SocketStream,
    bytes_per_s: float,
    delay_s: Callable[[], float],
    piece: int,
    link: trio.Nursery,
) -> None:
    send, receive = trio.open_memory_channel[tuple[float, bytes]](1024)

    async def read() -> None:
        free_at = trio.current_time()
        async with send:
            while data := await source.receive_some(piece):
                now = trio.current_time()
                # a sleep is a millisecond at least: sleep once for several small pieces
                free_at = max(free_at, now - 0.005) + len(data) / bytes_per_s
                if free_at > now + 0.002:
                    await trio.sleep_until(free_at)
                await send.send((free_at + delay_s(), bytes(data)))

    async def write() -> None:
        async for due_at, data in receive:
            if due_at > trio.current_time() + 0.002:
                await trio.sleep_until(due_at)
            await sink.send_all(data)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    link.cancel_scope.cancel()
