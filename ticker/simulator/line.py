"""The server's end of one TCP connection, which can be made to misbehave."""

import socket
import struct
from typing import Final

import trio

_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_PIECES_PER_S: Final = 20


class Line:
    """Bytes out. ``half_open``: they go nowhere. ``bytes_per_s``: they trickle, unless None."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.half_open = False
        self.bytes_per_s: int | None = None

    async def send(self, data: bytes) -> bool:
        """Whether the kernel took it all, once that is known; raises what the stream raises."""
        if self.half_open:
            await trio.lowlevel.checkpoint()
            return False
        if self.bytes_per_s is not None:
            return await self._trickle(data, max(self.bytes_per_s // _PIECES_PER_S, 1))
        await self.stream.send_all(data)
        return True

    async def _trickle(self, data: bytes, size: int) -> bool:
        for start in range(0, len(data), size):
            if self.half_open:
                return False
            await self.stream.send_all(data[start : start + size])
            await trio.sleep(1 / _PIECES_PER_S)
        return True

    async def reset(self) -> None:
        """Close so that the peer sees a reset instead of an orderly end."""
        if isinstance(self.stream, trio.SocketStream):
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        await trio.aclose_forcefully(self.stream)
