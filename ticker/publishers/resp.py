"""The Redis protocol (RESP2) as far as a publisher needs it, without I/O.

Commands are packed into one buffer and sent without waiting; replies come back in the same order,
so counting them says how far the server got.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, cast

import hiredis

from ticker.errors import RedisReplyError, RedisUnreachableError

_pack_words: Final = cast(
    "Callable[[tuple[str | bytes | int | memoryview, ...]], bytes]", hiredis.pack_command
)

SERVER_STATES: Final = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "DENIED",
        "LOADING",
        "MASTERDOWN",
        "MAXCLIENTS",
        "MISCONF",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "WRONGPASS",
    }
)
"""Codes that speak of the server or of our access to it: any message would have been refused, and
the same message may be taken later. Every other code speaks of the one command."""


class Refusal(NamedTuple):
    """An error reply: the command's place in its pipeline, from 0, and what was said."""

    position: int
    code: str
    text: str


def pack(*words: str | bytes | int | memoryview) -> bytes:
    """One command in RESP."""
    return _pack_words(words)


def error_code(text: str) -> str:
    """The first word of an error reply: ``OOM``, ``LOADING``, ``ERR``, ...

    A server with too many clients says only ``ERR`` before its sentence: ``MAXCLIENTS`` here.
    """
    if text.startswith("ERR max number of clients"):
        return "MAXCLIENTS"
    return text.split(" ", 1)[0].rstrip(":") or "ERR"


class Replies:
    """Counts the replies to ``expected`` pipelined commands as their bytes arrive.

    Made by whoever sends, so that after a failure, or a cancellation, it still tells how many
    commands the server answered: the first ``answered`` ones, of which those in ``refusals``
    with an error.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.answered = 0
        self.refusals: list[Refusal] = []
        # from the first piece that is not plain on: it may hold a part of a reply
        self._reader: hiredis.Reader | None = None
        self._first: tuple[int, float] | None = None
        self._last_at = 0.0

    @property
    def complete(self) -> bool:
        """Whether every command is answered."""
        return self.answered >= self.expected

    def feed(self, data: bytes, now: float) -> None:
        """Count the replies in ``data``, which arrived at ``now`` (seconds on any clock).

        Raises RedisUnreachableError if the peer does not speak RESP, or says more than was asked.
        """
        if self._reader is None and _is_plain(data):
            self.answered += data.count(b"\n")
        else:
            self._parse(data)
        if self.answered > self.expected:
            raise RedisUnreachableError("the server sent more replies than there were commands")
        if self._first is None and self.answered:
            self._first = (self.answered, now)
        self._last_at = now

    def rate(self) -> float | None:
        """Replies a second between the first and the last piece: what the server, or the link to
        it, sustains whatever its latency. None if they came in one piece.
        """
        if self._first is None:
            return None
        count, first_at = self._first
        spread_s = self._last_at - first_at
        return (self.answered - count) / spread_s if spread_s > 0 else None

    def state_error(self) -> RedisReplyError | None:
        """The first refusal that speaks of the server and not of one command."""
        for refusal in self.refusals:
            if refusal.code in SERVER_STATES:
                return RedisReplyError(refusal.code, refusal.text)
        return None

    def _parse(self, data: bytes) -> None:
        if self._reader is None:
            self._reader = hiredis.Reader()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    text = str(reply)
                    self.refusals.append(Refusal(self.answered, error_code(text), text))
                self.answered += 1
        except hiredis.ProtocolError as error:
            raise RedisUnreachableError(f"the server does not speak RESP: {error}") from error


def _is_plain(data: bytes) -> bool:
    """Whether ``data`` is whole one-line replies without an error: then lines are replies."""
    return (
        data[-2:] == b"\r\n"
        and data[:1] in (b":", b"+")
        and b"-" not in data
        and b"$" not in data
        and b"*" not in data
    )
