"""Commands of the optional outputs: last values for who comes late, a stream for who replays."""

import msgspec

from ticker.publishers.outbox import Parcel
from ticker.publishers.resp import pack


class _Addressee(msgspec.Struct):
    """All of a payload that must be known here."""

    instrument_token: int


_decode_addressee = msgspec.json.Decoder(_Addressee).decode


class Outputs(msgspec.Struct, frozen=True):
    """What is written besides PUBLISH; nothing by default.

    ``last_values``: payloads by token in the hash ``{prefix}:last``. ``stream_max_length``: about
    so many payloads are kept in the stream ``{prefix}:stream``, field ``payload``; 0: no stream.
    """

    prefix: str
    last_values: bool = False
    stream_max_length: int = 0

    def pack(self, parcel: Parcel) -> tuple[bytes, int]:
        """RESP commands for the parcel's messages, and how many commands these are."""
        commands: list[bytes] = []
        if self.last_values and parcel:
            words: list[int | memoryview] = []
            for payload in parcel.payloads():
                words += (_decode_addressee(payload).instrument_token, payload)
            commands.append(pack("HSET", f"{self.prefix}:last", *words))
        if self.stream_max_length:
            head = ("XADD", f"{self.prefix}:stream", "MAXLEN", "~", self.stream_max_length, "*")
            commands.extend(pack(*head, "payload", payload) for payload in parcel.payloads())
        return b"".join(commands), len(commands)
