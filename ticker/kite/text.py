"""The broker's text messages, JSON, in both directions. Strings in, structs out, no I/O.

A client asks (``subscribe``, ``unsubscribe``, ``mode``) and is never answered: success shows only
as ticks. The broker tells of orders, errors and itself. Reading never raises: what cannot be read
becomes an ``UnknownText``, to be counted by its ``kind`` and otherwise ignored.
"""

from collections.abc import Iterable
from operator import index
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from ticker.instruments.registry import TickMode

Token = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class UnknownText(msgspec.Struct, frozen=True):
    """A text message that says nothing to us.

    ``kind``: ``invalid_json``, or ``unknown_text`` for JSON of a type or shape not known here.
    ``excerpt``: its beginning, for a log.
    """

    kind: Literal["invalid_json", "unknown_text"]
    excerpt: str


class OrderUpdate(msgspec.Struct, frozen=True, tag_field="type", tag="order"):
    """An order of this user changed, on whatever platform it was placed.

    ``data``: the broker's order object as it came; the same one may arrive on several sockets.
    """

    data: dict[str, Any]


class BrokerErrorMessage(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """The broker refused a request, or part of it; the socket stays open.

    ``data``: usually a sentence. That it always is one is not documented.
    """

    data: Any = None

    @property
    def text(self) -> str:
        """``data`` as one line for people."""
        return self.data if isinstance(self.data, str) else _encode(self.data)


class BrokerMessage(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    """A broadcast of the broker to its clients' users; ``data`` as for errors."""

    data: Any = None

    @property
    def text(self) -> str:
        """``data`` as one line for people."""
        return self.data if isinstance(self.data, str) else _encode(self.data)


class InstrumentDump(msgspec.Struct, frozen=True):
    """Which instrument dump is current: its number of rows, and a tag that changes with it."""

    count: int
    etag: str


class InstrumentsMeta(msgspec.Struct, frozen=True, tag_field="type", tag="instruments_meta"):
    """First message on a new socket (observed, not documented)."""

    data: InstrumentDump


class AppCode(msgspec.Struct, frozen=True, tag_field="type", tag="app_code", omit_defaults=True):
    """Second message on a new socket (observed, not documented). ``timestamp``: ISO 8601, IST."""

    timestamp: str | None = None


ServerMessage = OrderUpdate | BrokerErrorMessage | BrokerMessage | InstrumentsMeta | AppCode
ServerText = ServerMessage | UnknownText


class Subscribe(msgspec.Struct, frozen=True, tag_field="a", tag="subscribe"):
    """Send these instruments, in the socket's default mode until one is set."""

    tokens: tuple[Token, ...] = msgspec.field(name="v")


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="a", tag="unsubscribe"):
    """Send these instruments no more."""

    tokens: tuple[Token, ...] = msgspec.field(name="v")


class SetMode(msgspec.Struct, frozen=True, tag_field="a", tag="mode"):
    """Send more, or less, of instruments already subscribed to. ``v``: the mode, the tokens."""

    v: tuple[TickMode, tuple[Token, ...]]

    @property
    def mode(self) -> TickMode:
        return self.v[0]

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.v[1]


ClientRequest = Subscribe | Unsubscribe | SetMode

_EXCERPT: Final = 200
_Read = TypeVar("_Read")
_server_messages: Final[msgspec.json.Decoder[ServerMessage]] = msgspec.json.Decoder(ServerMessage)
_client_requests: Final[msgspec.json.Decoder[ClientRequest]] = msgspec.json.Decoder(ClientRequest)


def subscribe(tokens: Iterable[int]) -> str:
    """The request to subscribe. Tokens go out as JSON numbers: the broker ignores strings."""
    return _encode(Subscribe(_integers(tokens)))


def unsubscribe(tokens: Iterable[int]) -> str:
    """The request to unsubscribe."""
    return _encode(Unsubscribe(_integers(tokens)))


def set_mode(mode: TickMode, tokens: Iterable[int]) -> str:
    """The request to set the mode of instruments, which takes effect only if subscribed to."""
    return _encode(SetMode((mode, _integers(tokens))))


def parse_text(text: str | bytes) -> ServerText:
    """Read what the broker sent. Never raises."""
    return _parse(_server_messages, text)


def parse_request(text: str | bytes) -> ClientRequest | UnknownText:
    """Read what a client sent. Never raises."""
    return _parse(_client_requests, text)


def encode_text(message: ServerMessage) -> str:
    """The text the broker would send for this message."""
    return _encode(message)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _integers(tokens: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(index, tokens))  # array scalars become ints; strings and floats TypeErrors


def _parse(decoder: msgspec.json.Decoder[_Read], text: str | bytes) -> _Read | UnknownText:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        return UnknownText("unknown_text", _excerpt(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return UnknownText("invalid_json", _excerpt(text))


def _excerpt(text: str | bytes) -> str:
    start = text[:_EXCERPT]
    return start.decode(errors="replace") if isinstance(start, bytes) else start
