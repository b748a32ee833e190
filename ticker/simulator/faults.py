"""What can be made to go wrong, as the messages of the admin route, and the faults in force."""

import random
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal, TypeVar

import msgspec

MAX_FRAME_BYTES: Final = 1 << 26

_Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_FRAME_BYTES)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]
_Refused = Annotated[int, msgspec.Meta(ge=300, le=599)]
_Times = Annotated[int, msgspec.Meta(ge=1)]


class _Fault(msgspec.Struct, frozen=True, tag_field="fault", forbid_unknown_fields=True):
    pass


class _SocketFault(_Fault, frozen=True):
    """Hits the open sockets of ``api_key``, the one socket with that id, or all of them."""

    api_key: str | None = None
    socket: int | None = None


class HalfOpen(_SocketFault, frozen=True, tag="half_open"):
    """TCP stays up; nothing is sent any more and nothing that arrives is looked at."""


class Mute(_SocketFault, frozen=True, tag="mute"):
    """Heartbeats and pongs, but no market data."""


class Slow(_SocketFault, frozen=True, tag="slow"):
    """Everything trickles out at ``bytes_per_s``, in pieces that ignore frame borders."""

    bytes_per_s: _Size = 2000


class Duplicate(_SocketFault, frozen=True, tag="duplicate"):
    """Every frame of market data is sent twice."""


class Fragment(_SocketFault, frozen=True, tag="fragment"):
    """Every binary message is split into WebSocket continuation frames of ``size`` bytes."""

    size: _Size = 100


class Reset(_SocketFault, frozen=True, tag="reset"):
    """TCP RST."""


class Close(_SocketFault, frozen=True, tag="close"):
    """A WebSocket close."""

    code: Annotated[int, msgspec.Meta(ge=1000, le=4999)] = 1001
    reason: str = ""


class TruncatedFrame(_SocketFault, frozen=True, tag="truncated"):
    """One message of market data that ends in the middle of its last packet."""


class JunkFrame(_SocketFault, frozen=True, tag="junk_frame"):
    """One binary message of ``size`` random bytes."""

    size: _Size = 64


class JunkText(_SocketFault, frozen=True, tag="junk_text"):
    """One text message; not JSON unless ``text`` is."""

    text: str = "{not json"


class UnknownPacket(_SocketFault, frozen=True, tag="unknown_packet"):
    """A frame whose first packet has a length of no known kind; good packets follow."""

    length: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 492


class Stall(_SocketFault, frozen=True, tag="stall"):
    """Half a frame now, the other half after ``seconds``; nothing else in between."""

    seconds: _Seconds = 3600.0


class Oversized(_SocketFault, frozen=True, tag="oversized"):
    """One binary message of ``size`` bytes, far above what the protocol can mean."""

    size: _Size = 4 << 20


class RawFrame(_SocketFault, frozen=True, tag="raw_frame"):
    """One binary message of any bytes, given in hexadecimal."""

    hex: str = ""

    def __post_init__(self) -> None:
        bytes.fromhex(self.hex)  # a ValueError here is the sender's


class Handshake(_Fault, frozen=True, tag="handshake"):
    """WebSocket handshakes are refused with ``status``, ``times`` times or until cleared."""

    status: _Refused
    api_key: str | None = None
    times: _Times | None = None


class Rest(_Fault, frozen=True, tag="rest"):
    """REST calls under ``path`` fail: ``envelope`` as the broker's JSON, ``html`` as a proxy's
    page, ``junk`` as any bytes, given in hexadecimal, ``reset`` as a connection that dies after the
    request was read. ``delay_s`` first."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    path: str = "/"
    body: Literal["envelope", "html", "junk", "reset"] = "envelope"
    error_type: str = "GeneralException"
    hex: str = ""
    api_key: str | None = None
    delay_s: _Seconds = 0.0
    times: _Times | None = None

    def __post_init__(self) -> None:
        bytes.fromhex(self.hex)  # a ValueError here is the sender's


class KillToken(_Fault, frozen=True, tag="kill_token"):
    """Access tokens die; what open sockets do about it is not known of the broker: choose."""

    api_key: str | None = None
    sockets: Literal["close", "mute", "keep"] = "close"


class NewToken(_Fault, frozen=True, tag="new_token"):
    """A fresh access token, as if somebody had logged in; the answer holds it."""

    api_key: str


SocketFault = (
    HalfOpen | Mute | Slow | Duplicate | Fragment | Reset | Close | TruncatedFrame | JunkFrame
    | JunkText | UnknownPacket | Stall | Oversized | RawFrame
)  # fmt: skip

Fault = SocketFault | Handshake | Rest | KillToken | NewToken

_Refusal = Handshake | Rest
_R = TypeVar("_R", Handshake, Rest)


def break_frame(frame: bytes, packets: int, fault: SocketFault) -> tuple[bytes, int]:
    """A frame broken in the way of the fault, and how many of its first ``packets`` stay good."""
    match fault:
        case TruncatedFrame():
            return frame[:-3], packets - 1
        case UnknownPacket():
            stranger = fault.length.to_bytes(2, "big") + bytes(fault.length)
            return (packets + 1).to_bytes(2, "big") + stranger + frame[2:], packets
        case Oversized():
            return b"\xff" * fault.size, 0
        case RawFrame():
            return bytes.fromhex(fault.hex), 0
        case JunkFrame():
            return random.Random(fault.size).randbytes(fault.size), 0
        case _:
            raise TypeError(f"{fault} does not break a frame")


class Refusals:
    """Handshakes and REST calls that are to fail, the oldest order first."""

    def __init__(self) -> None:
        self._orders: list[tuple[_Refusal, int | None]] = []

    def add(self, fault: _Refusal) -> None:
        self._orders.append((fault, fault.times))

    def clear(self) -> None:
        self._orders.clear()

    def handshake(self, api_key: str) -> Handshake | None:
        """The fault that hits this handshake, which counts as one of its times."""
        return self._take(Handshake, lambda fault: fault.api_key in (None, api_key))

    def rest(self, path: str, api_key: str | None) -> Rest | None:
        """The fault that hits this call, which counts as one of its times."""
        return self._take(
            Rest, lambda fault: path.startswith(fault.path) and fault.api_key in (None, api_key)
        )

    def _take(self, kind: type[_R], hits: Callable[[_R], bool]) -> _R | None:
        for place, (fault, left) in enumerate(self._orders):
            if isinstance(fault, kind) and hits(fault):
                if left == 1:
                    del self._orders[place]
                elif left is not None:
                    self._orders[place] = (fault, left - 1)
                return fault
        return None

    def table(self) -> list[Mapping[str, object]]:
        """What is in force, for the admin route."""
        return [{**msgspec.to_builtins(fault), "times": left} for fault, left in self._orders]
