"""Frames in, accepted columns out: who each tick is for, and whether it can be true."""

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from ticker.board import Board
from ticker.errors import ConfigurationError
from ticker.greeks.chains import Chains
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import DECIMALS, DIVISORS
from ticker.messages import ConnectionId, Frame
from ticker.mock_market.gate import BoolArray, MockGate
from ticker.snapshots import constant_text
from ticker.ticks import FloatArray, Int32Array, TickBatch, UInt8Array
from ticker.validation import Verdict, validate

DropReason = Literal["invalid", "unknown_instrument", "market_open", "market_closed"]
"""``market_open``: a mock tick after its market had opened. ``market_closed``: a live tick after
the mock market had begun to speak for its underlying."""
ExpiryAt = Callable[[str, dt.date], dt.datetime]
"""Exchange and date to the moment at which contracts of that date expire."""

_STRANGE: Final = int(Verdict.STRANGE)
_INVALID: Final = int(Verdict.INVALID)
_NONE_DROPPED: Final[Mapping[tuple[ConnectionId, DropReason], int]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """Ticks to publish, in order of arrival, and the count of all that were decoded.

    ``slots``: int32 (n,), on the board. ``sources``: int16 (n,), indices into ``connections``.
    ``mocks``: uint8 (c,), by source, 1 where its frames were mock. ``received_at``: float64 (n,),
    UNIX seconds. ``dropped``: by connection and reason; ``violations``: ticks that broke a rule, by
    validation type.
    """

    ticks: TickBatch
    slots: Int32Array
    sources: npt.NDArray[np.int16]
    received_at: FloatArray
    connections: tuple[ConnectionId, ...]
    mocks: UInt8Array
    decoded: Mapping[ConnectionId, int]
    dropped: Mapping[tuple[ConnectionId, DropReason], int]
    violations: Mapping[str, int]


class Intake:
    """Knows which slot a token has, and gives new instruments one.

    ``gate`` decides between live and mock ticks; without one, both pass.

    ``registry`` returns the instruments of now. When it is replaced, a contract keeps its slot,
    and what was learnt in it, though its lot or tick size may be another. A token that is another
    contract now gets a new slot and the old one is retired: exchanges use the tokens of expired
    contracts again.
    """

    def __init__(
        self,
        board: Board,
        chains: Chains,
        registry: Callable[[], InstrumentRegistry],
        expiry_at: ExpiryAt,
        *,
        validates: bool,
        is_strict: bool,
        gate: MockGate | None = None,
    ) -> None:
        self._board = board
        self._chains = chains
        self._load_registry = registry
        self._registry = registry()
        self._expiry_at = expiry_at
        self._validates = validates
        self._is_strict = is_strict
        self._gate = gate
        # live and mock frames of one connection are two sources, and so are their messages
        self._numbers: dict[tuple[ConnectionId, bool], int] = {}
        self._connections: tuple[ConnectionId, ...] = ()
        self._mocks: UInt8Array = np.empty(0, np.uint8)

    @property
    def registry(self) -> InstrumentRegistry:
        """The instruments that the newest ticks were looked up in."""
        return self._registry

    def is_mock(self, source: int) -> bool:
        """Whether a source of the board's rows stands for mock frames; False for none, -1."""
        return source >= 0 and bool(self._mocks[source])

    def accept(self, ticks: TickBatch, frames: Sequence[Frame], now: float) -> Accepted:
        """Sort out what ``frames`` were decoded to; every tick is accepted or counted.

        ``now``: UNIX seconds, when the gate says who speaks.
        """
        # a read-only array is another type: it would have the kernels compiled again in mid-stream
        ticks = TickBatch(ticks.words, ticks.kind.copy(), ticks.frame)
        by_frame = np.array([self._number(frame) for frame in frames], np.int16)
        sources = by_frame[ticks.frame]
        received_at = np.array([frame.received_at for frame in frames])[ticks.frame]
        decoded = self._by_connection(sources)
        slots = self._find(ticks)
        is_dropped = slots < 0
        reasons: dict[DropReason, BoolArray] = {"unknown_instrument": is_dropped}
        violations: Mapping[str, int] = {}
        if self._validates:
            verdicts = validate(ticks, slots, self._board.rows)
            if verdicts.any():
                is_invalid = verdicts >= (_STRANGE if self._is_strict else _INVALID)
                violations = _violations(verdicts)
                reasons = {"invalid": is_invalid, "unknown_instrument": is_dropped & ~is_invalid}
                is_dropped = is_dropped | is_invalid
        is_kept_out = self._keep_out(slots, sources, ~is_dropped, now)
        if is_kept_out is not None:
            is_mock = self._mocks[sources] != 0
            reasons["market_open"] = is_kept_out & is_mock
            reasons["market_closed"] = is_kept_out & ~is_mock
            is_dropped = is_dropped | is_kept_out
        dropped = _NONE_DROPPED
        if is_dropped.any():
            dropped = {
                (connection, reason): count
                for reason, chosen in reasons.items()
                for connection, count in self._by_connection(sources[chosen]).items()
            }
            kept = np.flatnonzero(~is_dropped)
            words = np.ascontiguousarray(ticks.words[:, kept])
            ticks = TickBatch(words, ticks.kind[kept], ticks.frame[kept])
            slots, sources, received_at = slots[kept], sources[kept], received_at[kept]
        return Accepted(
            ticks,
            slots,
            sources,
            received_at,
            self._connections,
            self._mocks,
            decoded,
            dropped,
            violations,
        )

    def _keep_out(
        self,
        slots: Int32Array,
        sources: npt.NDArray[np.int16],
        is_sound: BoolArray,
        now: float,
    ) -> BoolArray | None:
        """Which of the sound ticks the gate does not let through; None for no tick at all.

        Where the speaker changes, what the other one said is forgotten: a forward of live quotes
        and mock ones, or a mock price that a live forward re-prices, would be neither.
        """
        if self._gate is None:
            return None
        rows, names = self._board.rows, self._chains.names
        changed = self._gate.follow(names, now)
        # of ticks that are dropped anyway, nothing is decided: theirs is no first word
        underlyings = np.where(is_sound, rows["underlying"][slots], np.int32(-1))
        is_mock = (self._mocks[sources] != 0) & is_sound
        may_pass, begun = self._gate.pass_ticks(underlyings, is_mock, names, now)
        if changed := changed | begun:
            of = np.isin(rows["underlying"][: len(self._board)], list(changed))
            self._board.forget(np.flatnonzero(of).astype(np.int32))
            self._chains.forget(changed)
        return None if may_pass is None else is_sound & ~may_pass

    def _number(self, frame: Frame) -> int:
        key = frame.connection, frame.is_mock
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._connections)
            self._connections = (*self._connections, frame.connection)
            self._mocks = np.append(self._mocks, np.uint8(frame.is_mock))
        return number

    def _by_connection(self, sources: npt.NDArray[np.int16]) -> Mapping[ConnectionId, int]:
        counts: Counter[ConnectionId] = Counter()
        for connection, count in zip(
            self._connections, np.bincount(sources).tolist(), strict=False
        ):
            if count:
                counts[connection] += count
        return counts

    def _find(self, ticks: TickBatch) -> Int32Array:
        registry = self._load_registry()
        if registry is not self._registry:
            self._registry = registry
            self._follow(registry)
        slots = self._board.find(ticks.token)
        is_unknown = slots < 0
        if is_unknown.any():
            tokens = dict.fromkeys(ticks.token[is_unknown].tolist())
            found = [registry.by_token(token) for token in tokens]
            if known := [instrument for instrument in found if instrument is not None]:
                self._admit(known)
                self._index()
                slots = self._board.find(ticks.token)
        return slots

    def _follow(self, registry: InstrumentRegistry) -> None:
        """Bring the board up to date with a new dump. What the dump lacks stays as it is."""
        board, chains = self._board, self._chains
        others = []
        for slot, old in board.live():
            new = registry.by_token(old.instrument_token)
            if new == old or (new is None and registry.by_key(old.key) is None):
                continue
            if new is not None and _contract(new) == _contract(old):
                board.amend(slot, new, constant_text(new))
                continue
            chains.remove(slot, board.rows[slot])
            board.retire(slot)
            if new is not None:
                others.append(new)
        self._admit(others)
        self._index()

    def _index(self) -> None:
        self._board.index()
        self._chains.index(self._board.rows[: len(self._board)])

    def _admit(self, instruments: Sequence[Instrument]) -> None:
        """Give instruments a slot; ``_index`` is to follow."""
        for instrument in instruments:
            segment = instrument.instrument_token & 0xFF
            slot = self._board.add(
                instrument,
                divisor=int(DIVISORS[segment]),
                decimals=int(DECIMALS[segment]),
                expires_at=self._expires_at(instrument),
                text=constant_text(instrument),
            )
            self._chains.add(slot, instrument, self._board.rows[slot])

    def _expires_at(self, instrument: Instrument) -> float:
        """UNIX seconds; infinity for what does not expire, NaN where the calendar does not tell.

        Without an expiry an option cannot be priced, and its payload says so; its prices go out.
        """
        if instrument.expiry is None:
            return math.inf
        try:
            return self._expiry_at(instrument.exchange, instrument.expiry).timestamp()
        except ConfigurationError:
            return math.nan


def _contract(instrument: Instrument) -> tuple[object, ...]:
    """What a contract is known by, and sorted by on the board and in the chains."""
    return (
        instrument.segment,
        instrument.exchange,
        instrument.underlying,
        instrument.tradingsymbol,
        instrument.expiry,
        instrument.strike,
        instrument.instrument_type,
    )


def _violations(verdicts: npt.NDArray[np.uint8]) -> Mapping[str, int]:
    counts = {
        "schema": int(np.count_nonzero(verdicts == _INVALID)),
        "business_rule": int(np.count_nonzero(verdicts == _STRANGE)),
    }
    return {name: count for name, count in counts.items() if count}
