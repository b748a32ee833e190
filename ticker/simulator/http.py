"""HTTP/1.1 over a Trio stream: requests in, responses out, and the way over to a WebSocket."""

import gzip
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import msgspec
import trio

MAX_BODY_BYTES: Final = 1 << 20
_RECEIVE_BYTES: Final = 1 << 16
_GZIP_FROM_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """``query`` and ``form`` keep every value of a repeated key; header names are lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    raw: h11.Request

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode("utf-8", "replace"), keep_blank_values=True)

    @property
    def is_upgrade(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    is_gzipped: bool = False


def json_response(content: object, status: int = 200) -> HttpResponse:
    return HttpResponse(status, msgspec.json.encode(content))


def text_response(status: int, text: str, content_type: str = "text/plain") -> HttpResponse:
    return HttpResponse(status, text.encode(), f"{content_type}; charset=utf-8")


class HttpConnection:
    """The server's side of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER)

    async def read_request(self) -> HttpRequest | None:
        """The next request; None when the client has gone or what it sends is not HTTP."""
        try:
            if self._h11.our_state is h11.DONE:
                self._h11.start_next_cycle()
            return await self._read_request()
        except h11.RemoteProtocolError as error:
            if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self.write(text_response(error.error_status_hint, "Bad Request"), None)
            return None
        except h11.LocalProtocolError:
            return None  # the last exchange closed the connection

    async def write(self, response: HttpResponse, request: HttpRequest | None) -> None:
        """Send a response, gzipped if the client takes it and it is worth it."""
        headers = [("Content-Type", response.content_type), *response.headers]
        body = response.body
        takes_gzip = request is not None and "gzip" in request.headers.get("accept-encoding", "")
        if response.is_gzipped and not takes_gzip:
            body = gzip.decompress(body)
        elif response.is_gzipped or (takes_gzip and len(body) >= _GZIP_FROM_BYTES):
            body = body if response.is_gzipped else gzip.compress(body, 1)
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(body))))
        if request is not None and request.method == "HEAD":
            body = b""
        head = h11.Response(status_code=response.status, headers=headers)
        parts = (head, h11.Data(data=body), h11.EndOfMessage())
        await self._stream.send_all(b"".join(self._h11.send(part) or b"" for part in parts))

    @property
    def unread(self) -> bytes:
        """What the client sent behind its upgrade request."""
        return self._h11.trailing_data[0]

    async def _read_request(self) -> HttpRequest | None:
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        body = bytearray()
        while True:
            part = await self._next_event()
            if isinstance(part, h11.EndOfMessage):
                return _parse(event, bytes(body))
            if not isinstance(part, h11.Data):
                return None
            body += part.data
            if len(body) > MAX_BODY_BYTES:
                raise h11.RemoteProtocolError("body too large", error_status_hint=413)

    async def _next_event(self) -> object:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self._stream.receive_some(_RECEIVE_BYTES)))
        return event


def _parse(head: h11.Request, body: bytes) -> HttpRequest:
    try:
        target = urlsplit(head.target.decode("ascii", "replace"))
    except ValueError as error:
        raise h11.RemoteProtocolError("not a URL") from error
    return HttpRequest(
        method=head.method.decode(),
        path="/" + unquote(target.path).removeprefix("/"),
        query=parse_qs(target.query, keep_blank_values=True),
        headers={name.decode(): value.decode("latin-1") for name, value in head.headers},
        body=body,
        raw=head,
    )
