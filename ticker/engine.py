"""From frames to payloads: decode, validate, remember, price, format; one call per batch.

Plain synchronous code for a worker thread. Nearly all of its time is spent in compiled functions
and array operations that release the GIL; Python runs per batch, and once per new instrument.
"""

import datetime as dt
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from ticker.board import Board, InstrumentClass, Known, apply_ticks
from ticker.calendar.market_hours import expiry_at
from ticker.greeks.chains import Chains
from ticker.greeks.forward import ForwardSource
from ticker.greeks.pricing import STATUS_NAMES, Pricer, Profile
from ticker.instruments.registry import InstrumentRegistry
from ticker.intake import Accepted, DropReason, ExpiryAt, Intake
from ticker.kite.wire import decode_frames
from ticker.messages import ConnectionId, Frame, SnapshotBatch
from ticker.mock_market.gate import MockGate
from ticker.rehearsal import ACT_S, OPENS_AT, create_acts, create_cast, expires_at
from ticker.settings import Settings
from ticker.snapshots import Messages, SnapshotFormatter
from ticker.ticks import WORDS, Int32Array, PacketKind, Row, UInt8Array

_SOURCE_NAMES: Final = (None, *(source.name.lower() for source in list(ForwardSource)[1:]))
_CLASS_NAMES: Final = tuple(what.name.lower() for what in InstrumentClass)
_FULL: Final = int(PacketKind.FULL)
_INDEX: Final = int(InstrumentClass.INDEX)
_OPTION: Final = int(InstrumentClass.OPTION)
_LAST_PRICE: Final = int(Row.LAST_PRICE)
_PRICE: Final = int(Known.PRICE)


@dataclass(frozen=True, slots=True, eq=False)
class Enriched:
    """What became of a batch of frames.

    ``decoded`` and ``dropped`` count ticks by connection; what was decoded and not dropped is a
    message of ``snapshots`` (None if there is none). ``violations`` counts ticks that broke a
    rule, by validation type; ``classes`` accepted ticks, and ``depths`` those with a book, by
    instrument class; ``greeks`` options by status, re-priced ones included. ``index_prices``:
    rupees, of the indices that ticked. ``pricing_s``: how long forwards and Greeks took.
    ``oldest_at``: arrival of the oldest accepted tick, UNIX seconds, NaN if there is none.
    """

    snapshots: SnapshotBatch | None
    decoded: Mapping[ConnectionId, int]
    dropped: Mapping[tuple[ConnectionId, DropReason], int]
    heartbeats: int
    anomalies: Mapping[str, int]
    violations: Mapping[str, int]
    classes: Mapping[str, int]
    depths: Mapping[str, int]
    greeks: Mapping[str, int]
    index_prices: Mapping[str, float]
    repriced: int
    pricing_s: float
    oldest_at: float


@dataclass(frozen=True, slots=True, eq=False)
class Newest:
    """An instrument's newest values. ``words``: int32 (46,), its packet, completed by earlier ones.

    ``price``: rupees. ``forward``: of an option, what it is priced from, rupees, NaN if unknown.
    ``is_mock``: they are not the market's.
    """

    price: float
    words: Int32Array
    forward: float
    is_mock: bool


class Engine:
    """The board, the chains and what is computed from them. One caller at a time.

    A payload says ``is_mock`` where its newest tick came in a mock frame, and where the whole
    engine is told so. See ``Intake``, ``Pricer`` and ``SnapshotFormatter`` for the arguments.
    """

    def __init__(
        self,
        registry: Callable[[], InstrumentRegistry],
        *,
        expiry_at: ExpiryAt,
        channel_prefix: str,
        profile: Profile = Profile.PARITY,
        interest_rate: float | None = None,
        reprice_interval_s: float = 1.0,
        validates: bool = True,
        is_strict: bool = False,
        is_mock: bool = False,
        mock_suffix: str = "",
        gate: MockGate | None = None,
    ) -> None:
        self.board = Board()
        self._is_mock = is_mock
        self.chains = Chains()
        self._now = -math.inf
        self._gate = gate
        self._intake = Intake(
            self.board,
            self.chains,
            registry,
            expiry_at,
            validates=validates,
            is_strict=is_strict,
            gate=gate,
        )
        self._pricer = Pricer(
            profile,
            interest_rate,
            reprice_interval_s=reprice_interval_s,
        )
        self._formatter = SnapshotFormatter(
            channel_prefix,
            statuses=STATUS_NAMES,
            sources=_SOURCE_NAMES,
            is_mock=is_mock,
            mock_suffix=mock_suffix,
        )

    @property
    def registry(self) -> InstrumentRegistry:
        """The instruments that the newest batch was looked up in."""
        return self._intake.registry

    def process(self, frames: Sequence[Frame], now: float) -> Enriched:
        """Take frames in order of arrival; ``now``: UNIX seconds, what expiry is counted from.

        Every tick becomes a message or is counted as dropped. After them come re-pricings, a
        bounded number, of groups that no sweep was due for earlier as well: there is no timer,
        because a forward moves only when something ticks.
        """
        decoded = decode_frames([frame.data for frame in frames])
        with self.board.lock:
            self._follow_clock(now)
            accepted = self._intake.accept(decoded.ticks, frames, now)
            started = time.perf_counter()
            messages = self._price(accepted, now)
            pricing_s = time.perf_counter() - started
            mock_until = self._gate.mock_until if self._gate else math.inf
        snapshots = None
        if len(messages):
            snapshots = self._formatter.format(
                messages,
                self.board,
                self.chains.groups,
                accepted.connections,
                accepted.mocks,
                now,
                mock_until,
            )
        what = self.board.rows["instrument_class"][messages.slots]
        ticked = what[: messages.ticked]
        return Enriched(
            snapshots=snapshots,
            decoded=accepted.decoded,
            dropped=accepted.dropped,
            heartbeats=decoded.heartbeats,
            anomalies=decoded.anomalies,
            violations=accepted.violations,
            classes=_counts(_CLASS_NAMES, ticked),
            depths=_counts(_CLASS_NAMES, ticked[accepted.ticks.kind == _FULL]),
            greeks=_counts(STATUS_NAMES, messages.statuses[what == _OPTION]),
            index_prices=self._prices(messages.slots[what == _INDEX]),
            repriced=len(messages) - messages.ticked,
            pricing_s=pricing_s,
            oldest_at=float(accepted.received_at.min()) if messages.ticked else math.nan,
        )

    def is_mock(self, source: int) -> bool:
        """Whether what came from this source of the board's rows is not the market's."""
        return self._is_mock or self._intake.is_mock(source)

    def newest(self, tokens: Sequence[int]) -> Mapping[int, Newest]:
        """What is on record of these instruments between two batches, by token.

        Left out is what has no price. Waits for the batch in hand, a few milliseconds: from async
        code, call it in a worker thread.
        """
        board = self.board
        with board.lock:
            slots = board.find(np.array(tokens, np.uint32))
            found = slots[slots >= 0]
            found = found[(board.rows["known"][found] & _PRICE) != 0]
            rows, words = board.rows[found], board.words[found]
            groups = self.chains.groups
            forwards = np.full(len(found), np.nan)
            grouped = rows["group"] >= 0
            forwards[grouped] = groups["forward"][rows["group"][grouped]]
        mocks = map(self._intake.is_mock, rows["source"].tolist())
        prices = words[:, _LAST_PRICE] / rows["divisor"]
        each = zip(
            rows["token"].tolist(), prices.tolist(), words, forwards.tolist(), mocks, strict=True
        )
        return {token: Newest(*values) for token, *values in each}

    def warm_up(self) -> None:
        """Compile, or load from the cache, everything that ``process`` calls, and run it once.

        Takes seconds the first time on a machine, then a fraction of one. Done before the first
        socket opens, so that no tick waits for a compiler. This engine's state is not touched.
        """
        cast = create_cast()
        engine = Engine(lambda: cast, expiry_at=expires_at, channel_prefix="rehearsal")
        for act, frames in enumerate(create_acts()):
            engine.process(frames, OPENS_AT + act * ACT_S)

    def _price(self, accepted: Accepted, now: float) -> Messages:
        """Write ticks to the board; price them and what their forwards moved."""
        n = len(accepted.slots)
        board = self.board
        words = np.empty((n, WORDS), np.int32)
        known = np.empty(n, np.uint8)
        slots, sources = accepted.slots, accepted.sources
        kinds = accepted.ticks.kind
        received_at = np.minimum(accepted.received_at, now)  # the clock may have been set back
        apply_ticks(
            accepted.ticks.words,
            kinds,
            slots,
            sources,
            received_at,
            board.rows,
            board.words,
            words,
            known,
        )
        repriced = self._pricer.move_forwards(slots, board.rows, self.chains, now)
        if len(repriced):
            rows = board.rows[repriced]
            words = np.concatenate([words, board.words[repriced]])
            slots = np.concatenate([slots, repriced])
            sources = np.concatenate([sources, rows["source"]])
            kinds = np.concatenate([kinds, rows["kind"]])
            known = np.concatenate([known, rows["known"]])
            received_at = np.concatenate([received_at, rows["received_at"]])
        greeks, statuses = self._pricer.price(words, slots, board.rows, self.chains, now, ticked=n)
        return Messages(
            words, slots, sources, kinds, known, received_at, greeks, statuses, ticked=n
        )

    def _follow_clock(self, now: float) -> None:
        """Where the clock was set back, what is on record is set back too, and ages stay true."""
        if now < self._now:
            self.board.set_back(self._now - now)
            self.chains.set_back(self._now - now)
        self._now = now

    def _prices(self, slots: Int32Array) -> Mapping[str, float]:
        """Last prices by symbol, rupees."""
        board = self.board
        return {
            board.instruments[slot].underlying: float(
                board.words[slot, _LAST_PRICE] / board.rows[slot]["divisor"]
            )
            for slot in set(slots.tolist())
        }


def create_engine(
    settings: Settings,
    registry: Callable[[], InstrumentRegistry],
    *,
    gate: MockGate | None = None,
) -> Engine:
    """An engine as configured. ``registry`` is asked for the instruments of now at each batch.

    ``gate``: decides between the feed and the mock market; without one, every frame passes.
    Raises ConfigurationError if the file of market hours cannot be used.
    """
    until = partial(expiry_at, path=settings.market_hours_file)
    until("NFO", dt.date(2026, 12, 29))  # a file that cannot be used is told now
    return Engine(
        registry,
        expiry_at=until,
        channel_prefix=settings.publish_channel_prefix,
        profile=Profile(settings.option_greeks_profile),
        interest_rate=settings.option_greeks_interest_rate,
        reprice_interval_s=settings.option_reprice_interval_seconds,
        validates=settings.tick_validation_enabled,
        is_strict=settings.tick_validation_strict,
        is_mock=settings.is_mock,
        mock_suffix=settings.mock_channel_suffix,
        gate=gate,
    )


def _counts(names: Sequence[str], codes: UInt8Array) -> Mapping[str, int]:
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts, strict=True) if count}
