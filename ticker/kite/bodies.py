"""Bodies of HTTP answers, read without trusting their size or their compression."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from typing import Final

import httpx
import trio

from ticker.errors import BrokerUnreachableError

PIECE_BYTES: Final = 65_536
"""The most that is unpacked at once: a bomb grows by this, not by what it holds."""

CLOSE_S: Final = 1.0
"""The most that closing a connection may take."""

_GZIP: Final = 31  # zlib's window bits for a gzip header


class _Unpacker:
    """Gzip in, plain pieces out."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    @property
    def is_whole(self) -> bool:
        return self._stream.eof

    def feed(self, packed: bytes) -> Iterator[bytes]:
        while True:
            piece = self._stream.decompress(packed, PIECE_BYTES)
            if piece:
                yield piece
            packed = self._stream.unconsumed_tail
            if len(piece) < PIECE_BYTES and not packed:
                return


async def stream_body(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The plain body in pieces of at most ``PIECE_BYTES`` or one read.

    Raises httpx.HTTPError when the connection breaks, and BrokerUnreachableError when what came is
    not, or not wholly, what its headers say.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity"):
        raise BrokerUnreachableError(f"an encoding that was not asked for: {encoding[:20]}")
    unpacker = _Unpacker() if encoding == "gzip" else None
    raw = response.aiter_raw()
    try:
        async for packed in raw:
            if unpacker is None:
                yield packed
            else:
                for piece in unpacker.feed(packed):
                    yield piece
    except zlib.error:
        raise BrokerUnreachableError("a body that cannot be unpacked") from None
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await _abandon(response, raw)
    if unpacker is not None and not unpacker.is_whole:
        raise BrokerUnreachableError("a compressed body that ends early")


async def _abandon(response: httpx.Response, raw: AsyncIterator[bytes]) -> None:
    """Close the connection, unless all has been read, and end the library's generators.

    They are nested, and only the outermost would be closed; a read from a closed connection ends
    them all, after what they have buffered.
    """
    with suppress(httpx.HTTPError):
        await response.aclose()
        async for _ in raw:
            pass


async def read_body(response: httpx.Response, most_bytes: int) -> bytes:
    """The whole plain body. Raises as ``stream_body`` does, and for more than ``most_bytes``."""
    body = bytearray()
    async with aclosing(stream_body(response)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > most_bytes:
                raise BrokerUnreachableError(f"a body of more than {most_bytes} bytes")
    return bytes(body)
