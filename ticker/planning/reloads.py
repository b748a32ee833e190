"""Reloads of the plan: who asked, what became of it, and when what was added first ticked.

The API and the tasks request, the reload task takes and settles, anybody looks up. One event
loop, one writer of each step: there is nothing to lock.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import msgspec
import trio

HISTORY_MAX: Final = 1000
"""Settled reloads that are remembered; the oldest is forgotten for the next."""

TOKENS_MAX: Final = 100_000
"""Instruments that the remembered reloads name together. Beyond it the oldest reloads are
forgotten early; the newest stays, whatever its size."""

REASONS_MAX: Final = 16
"""Different reasons that one reload lists; further ones take part in it without being named."""

PATIENCE_S: Final = 60.0
"""How long the first tick of an added instrument is looked out for. The broker sends the last
values on subscribing, so what has not ticked by then may not tick for hours."""


class ReloadState(msgspec.Struct, frozen=True, kw_only=True):
    """One reload. Times are UNIX seconds.

    ``added``, ``removed``: tokens that the plan carries since, or no more; ``unplaced``: wanted,
    but no account had room. ``first_tick_at``: arrival of the first tick of those added, within
    a quarter of a second, as far as they have ticked. ``error``: why it failed.
    """

    reload_id: str
    state: Literal["pending", "applied", "failed"]
    reasons: tuple[str, ...]
    requested_at: float
    applied_at: float | None = None
    error: str | None = None
    added: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    unplaced: tuple[int, ...] = ()
    first_tick_at: Mapping[int, float] = MappingProxyType({})

    @property
    def is_complete(self) -> bool:
        """Whether nothing more is to come: it failed, or all that it added has ticked."""
        if self.state == "applied":
            return len(self.first_tick_at) == len(self.added)
        return self.state == "failed"


class Reloads:
    """The ledger of reloads. ``wall_clock``: UNIX seconds."""

    def __init__(
        self,
        wall_clock: Callable[[], float],
        *,
        history_max: int = HISTORY_MAX,
        tokens_max: int = TOKENS_MAX,
    ) -> None:
        self._wall_clock = wall_clock
        self._history_max = history_max
        self._tokens_max = tokens_max
        self._prefix = f"{int(wall_clock() * 1000):x}"  # ids of an earlier run mean nothing here
        self._number = 0
        self._requests = 0
        self._open: str | None = None  # requested and not yet taken
        self._taken: str | None = None  # taken and not yet settled
        self._states: dict[str, ReloadState] = {}
        self._settled: deque[str] = deque()
        self._tokens = 0
        self._awaited: dict[str, float] = {}  # applied, not all ticked: monotonic deadline
        self._changed = trio.Event()

    def request(self, reason: str) -> str:
        """Ask for a reload and return its id; never blocks.

        Whoever asks before the reload task takes it shares the id: each of them is served by
        everything that is in the store at that moment.
        """
        self._requests += 1
        state = self._states[self._open] if self._open else None
        if state is None:
            self._number += 1
            state = ReloadState(
                reload_id=f"{self._prefix}-{self._number}",
                state="pending",
                reasons=(),
                requested_at=self._wall_clock(),
            )
        if reason not in state.reasons and len(state.reasons) < REASONS_MAX:
            state = msgspec.structs.replace(state, reasons=(*state.reasons, reason))
        self._states[state.reload_id] = state
        self._open = state.reload_id
        self._wake()
        return state.reload_id

    async def wait_requested(self, *, debounce_s: float = 0.0, at_most_s: float = 0.0) -> None:
        """Return once a reload has been asked for, and then nobody asked for ``debounce_s``.

        Under requests without a pause, ``at_most_s`` after the first that this call saw.
        """
        while self._open is None:
            await self._changed.wait()
        with trio.move_on_after(at_most_s):
            while True:
                seen = self._requests
                with trio.move_on_after(debounce_s) as pause:
                    while self._requests == seen:
                        await self._changed.wait()
                if pause.cancelled_caught:
                    break
        await trio.lowlevel.checkpoint()

    def take(self) -> str:
        """The id of what has been requested; later requests open another one.

        Raises LookupError if nothing has been.
        """
        if self._open is None:
            raise LookupError("no reload has been requested")
        self._taken, self._open = self._open, None
        return self._taken

    @property
    def is_pending(self) -> bool:
        """Whether a reload has been asked for, or is being made."""
        return self._open is not None or self._taken is not None

    def settle(
        self,
        reload_id: str,
        *,
        added: Sequence[int] = (),
        removed: Sequence[int] = (),
        unplaced: Sequence[int] = (),
        error: str | None = None,
    ) -> ReloadState:
        """Record what became of a reload that was taken; with an error, it failed.

        To be called just before the plan is set, so that no tick is older than ``applied_at``.
        """
        now = self._wall_clock()
        self._taken = None
        state = msgspec.structs.replace(
            self._states[reload_id],
            state="applied" if error is None else "failed",
            applied_at=now if error is None else None,
            error=error,
            added=tuple(added),
            removed=tuple(removed),
            unplaced=tuple(unplaced),
        )
        self._states[reload_id] = state
        self._settled.append(reload_id)
        self._tokens += _size(state)
        if not state.is_complete:
            self._awaited[reload_id] = trio.current_time() + PATIENCE_S
        self._forget()
        self._wake()
        return state

    def awaited(self) -> Mapping[int, float]:
        """What was added and has not ticked, with the UNIX time from which a tick counts."""
        now = trio.current_time()
        for reload_id, until in list(self._awaited.items()):
            if now >= until:
                del self._awaited[reload_id]
        found: dict[int, float] = {}
        for reload_id in self._awaited:
            state = self._states[reload_id]
            since = state.applied_at or -math.inf
            for token in state.added:
                if token not in state.first_tick_at:
                    found.setdefault(token, since)
        return found

    def note_ticks(self, received_at: Mapping[int, float]) -> None:
        """Tell when instruments ticked, token to UNIX seconds, as far as it is not known yet."""
        for reload_id in list(self._awaited):
            state = self._states[reload_id]
            since = state.applied_at or -math.inf
            first = {
                token: received_at[token]
                for token in state.added
                if token not in state.first_tick_at and received_at.get(token, -math.inf) >= since
            }
            if not first:
                continue
            merged = MappingProxyType({**state.first_tick_at, **first})
            state = msgspec.structs.replace(state, first_tick_at=merged)
            self._states[reload_id] = state
            if state.is_complete:
                del self._awaited[reload_id]
            self._wake()

    async def wait_awaited(self) -> None:
        """Return as soon as there are instruments whose first tick is looked out for."""
        await trio.lowlevel.checkpoint()
        while not self._awaited:
            await self._changed.wait()

    def find(self, reload_id: str) -> ReloadState | None:
        """How a reload stands; None if there was none, or it has been forgotten."""
        return self._states.get(reload_id)

    @property
    def newest(self) -> ReloadState | None:
        """The reload that was settled last."""
        return self._states[self._settled[-1]] if self._settled else None

    async def wait(self, reload_id: str, timeout_s: float) -> ReloadState | None:
        """How a reload stands once it is complete, or after ``timeout_s``; None as in ``find``."""
        with trio.move_on_after(timeout_s):
            while (state := self.find(reload_id)) is not None and not state.is_complete:
                await self._changed.wait()
        await trio.lowlevel.checkpoint()
        return self.find(reload_id)

    def _forget(self) -> None:
        while len(self._settled) > 1 and (
            len(self._settled) > self._history_max or self._tokens > self._tokens_max
        ):
            oldest = self._settled.popleft()
            self._awaited.pop(oldest, None)
            self._tokens -= _size(self._states.pop(oldest))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _size(state: ReloadState) -> int:
    return len(state.added) + len(state.removed) + len(state.unplaced)
