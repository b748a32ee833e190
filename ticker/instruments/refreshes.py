"""Requests for today's instruments, from everywhere, made into one at a time."""

import datetime as dt
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec
import trio

from ticker.kite.text import InstrumentsMeta, ServerText

_DUMPS_REMEMBERED: Final = 16
"""Tags of dumps that sockets have told of; the oldest are forgotten, and then cost a download."""


class RefreshResult(msgspec.Struct, frozen=True):
    """The answer to a request. ``reason``: why nothing, or not everything, was refreshed."""

    force: bool
    refreshed: bool
    reason: str | None = None
    last_refreshed_at: dt.datetime | None = None
    account_used: str | None = None


class InstrumentsStatus(msgspec.Struct, frozen=True):
    """The instruments in use.

    ``loaded_at``: UNIX seconds of the newest change, None before the first. ``days``: by exchange,
    the trading day whose dump is in use. ``rejected``: by exchange, its unusable rows.
    ``problems``: by exchange, why its newest dump is not in use. ``last_error``: why the last
    attempt failed; None if it did not. ``is_stored``: whether PostgreSQL has what is in use;
    ``store_error``: why it does not, or was not read.
    """

    instruments: int = 0
    source: Literal["none", "store", "broker"] = "none"
    loaded_at: float | None = None
    days: Mapping[str, dt.date] = MappingProxyType({})
    rejected: Mapping[str, int] = MappingProxyType({})
    problems: Mapping[str, str] = MappingProxyType({})
    last_error: str | None = None
    is_stored: bool = True
    store_error: str | None = None
    refreshes: int = 0
    failures: int = 0


class Wish:
    """What has been asked for since the last one was taken; everybody who asked shares its end.

    ``force``: refresh although today's instruments are in use, and believe dumps that have shrunk.
    ``is_outdated``: the broker told of another dump.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.force = False
        self.is_outdated = False
        self._result: RefreshResult | None = None
        self._settled = trio.Event()

    def settle(self, result: RefreshResult) -> None:
        """Answer everybody."""
        self._result = result
        self._settled.set()

    async def wait_settled(self) -> RefreshResult:
        """The answer, as soon as there is one."""
        while self._result is None:
            await self._settled.wait()
        return self._result


class Refreshes:
    """Any number of tasks ask, one task serves: requests between two takings are one.

    Nothing queues up: there is one wish at a time beside the one that is being served.
    """

    def __init__(self) -> None:
        self._wish = Wish()
        self._asked = trio.Event()
        self._dumps: deque[tuple[str, int]] = deque(maxlen=_DUMPS_REMEMBERED)

    async def request(self, *, force: bool = False) -> RefreshResult:
        """Return when the next refresh has ended, well or not: within a download's time.

        Without ``force`` nothing is downloaded if today's instruments are in use.
        """
        wish = self._wish
        wish.is_requested = True
        wish.force |= force
        self._asked.set()
        result = await wish.wait_settled()
        return msgspec.structs.replace(result, force=force)

    def note_text(self, text: ServerText) -> None:
        """Take what a socket was told; a dump that none was told of before asks for a refresh.

        The first one does not: it is taken for the one that is in use. Sockets may be told of the
        old and the new dump in turns while the broker's servers change over.
        """
        if not isinstance(text, InstrumentsMeta):
            return
        dump = (text.data.etag, text.data.count)
        if dump in self._dumps:
            return
        is_first = not self._dumps
        self._dumps.append(dump)
        if not is_first:
            self._wish.is_outdated = True
            self._asked.set()

    async def wait_asked(self) -> None:
        """Return when there is something to take."""
        await self._asked.wait()

    def take(self) -> Wish:
        """What has been asked for since the last call; the caller settles it."""
        wish, self._wish = self._wish, Wish()
        self._asked = trio.Event()
        return wish
