"""Commands of the optional outputs: last values for who comes late, a stream for who replays."""

from collections import defaultdict

import msgspec

from ticker.publishers.outbox import Parcel
from ticker.publishers.resp import pack


class _Addressee(msgspec.Struct):
    """All of a payload that must be known here."""

    instrument_token: int
    is_mock: bool = False


_decode_addressee = msgspec.json.Decoder(_Addressee).decode


class Outputs(msgspec.Struct, frozen=True):
    """What is written besides PUBLISH; nothing by default.

    ``last_values``: payloads by token in the hash ``{prefix}:last``. ``stream_max_length``: about
    so many payloads are kept in the stream ``{prefix}:stream``, field ``payload``; 0: no stream.
    ``mock_suffix`` is appended to either key for mock payloads, as it is to their channels.
    """

    prefix: str
    last_values: bool = False
    stream_max_length: int = 0
    mock_suffix: str = ""

    def pack(self, parcel: Parcel) -> tuple[bytes, int]:
        """RESP commands for the parcel's messages, and how many commands these are."""
        if not (self.last_values or self.stream_max_length):
            return b"", 0
        hashes: defaultdict[str, list[int | memoryview]] = defaultdict(list)
        streamed: list[bytes] = []
        trim = ("MAXLEN", "~", self.stream_max_length, "*", "payload")
        for payload in parcel.payloads():
            to = _decode_addressee(payload) if self.last_values or self.mock_suffix else None
            suffix = self.mock_suffix if to and to.is_mock else ""
            if self.last_values and to:
                hashes[suffix] += (to.instrument_token, payload)
            if self.stream_max_length:
                streamed.append(pack("XADD", f"{self.prefix}:stream{suffix}", *trim, payload))
        commands = [pack("HSET", f"{self.prefix}:last{at}", *each) for at, each in hashes.items()]
        return b"".join(commands + streamed), len(commands) + len(streamed)
