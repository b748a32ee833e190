"""What consumers read: priced ticks as JSON payloads, already wrapped in ``PUBLISH`` commands.

Two kinds of message, on two channels. ``{prefix}:options`` carries everything that is traded:
what it is, its price and book, its Greeks with what they were computed from, and where and when
the tick came from. ``{prefix}:underlying`` carries indices: the tick (``last_price``, ``ohlc``
with the *previous session's* close) and, beside it, the day so far as a bar (``open``, ``high``,
``low``, and as ``close`` the last value).

What a packet did not carry is null, never a value of an earlier one; ``depth`` is then left out.
``ts`` is the exchange's time where the packet carries one, else the time of arrival. No null ever
appears as 0.

``iv`` is what ``price``, the last price, implies on ``forward``, whenever that last trade was. An
option that did not tick is priced again when its forward has moved: ``repriced`` is true, the
Greeks and the forward are new, everything else, ``iv`` and times included, is of its last tick.
``underlying_age_s`` and ``forward_age_s`` say how old those prices are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ticker.board import Board, InstrumentClass
from ticker.instruments.registry import Instrument
from ticker.messages import ConnectionId, SnapshotBatch
from ticker.snapshots.formatter import MESSAGE_MAX, MESSAGE_SLACK, NAME_WIDTH, format_messages
from ticker.ticks import FloatArray, Int32Array, UInt8Array

_INDEX: Final = int(InstrumentClass.INDEX)


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """Columns of n messages: ticks in order of arrival, then re-pricings.

    ``ticks``: int32 (n, 46), completed from the board. ``ticked``: how many are ticks.
    ``sources``: int16 (n,), connection of the tick that set the price.
    ``kinds``, ``known``: uint8 (n,), ``PacketKind`` and ``Known`` bits.
    ``greeks``: float64 (9, n); ``statuses``: uint8 (n,).
    """

    ticks: Int32Array
    slots: Int32Array
    sources: npt.NDArray[np.int16]
    kinds: UInt8Array
    known: UInt8Array
    received_at: FloatArray
    greeks: FloatArray
    statuses: UInt8Array
    ticked: int

    def __len__(self) -> int:
        return len(self.slots)


def constant_text(instrument: Instrument) -> bytes:
    """The head of an instrument's payloads: an open JSON object of what never changes."""
    head: dict[str, object] = {
        "symbol": instrument.underlying,
        "token": instrument.instrument_token,
        "instrument_token": instrument.instrument_token,
        "tradingsymbol": instrument.tradingsymbol,
        "segment": instrument.segment,
        "exchange": instrument.exchange,
    }
    if not instrument.is_index:
        head |= {
            "strike": instrument.strike,
            "expiry": instrument.expiry,
            "type": instrument.instrument_type,
            "lot_size": instrument.lot_size,
            "tick_size": instrument.tick_size,
        }
    return msgspec.json.encode(head)[:-1]


def create_names(names: Sequence[str | None]) -> UInt8Array:
    """A table for the formatter: each name as JSON, after its length; uint8 (k, NAME_WIDTH)."""
    table = np.zeros((len(names), NAME_WIDTH), np.uint8)
    for row, name in zip(table, names, strict=True):
        text = msgspec.json.encode(name)
        row[0] = len(text)
        row[1 : 1 + len(text)] = np.frombuffer(text, np.uint8)
    return table


class SnapshotFormatter:
    """Turns batches of messages into ``SnapshotBatch``es; counts the sequence number.

    ``statuses`` and ``sources`` name the codes of Greeks and forwards. ``is_mock``: every message
    is mock, whatever its source. ``mock_suffix``: appended to the channels of mock messages.
    """

    def __init__(
        self,
        channel_prefix: str,
        *,
        statuses: Sequence[str],
        sources: Sequence[str | None],
        is_mock: bool = False,
        mock_suffix: str = "",
        first_seq: int = 1,
    ) -> None:
        self._heads = (
            _command_head(f"{channel_prefix}:options"),
            _command_head(f"{channel_prefix}:underlying"),
            _command_head(f"{channel_prefix}:options{mock_suffix}"),
            _command_head(f"{channel_prefix}:underlying{mock_suffix}"),
        )
        self._status_names = create_names(statuses)
        self._source_names = create_names(sources)
        self._is_mock = is_mock
        self._next_seq = first_seq
        self._connections: tuple[ConnectionId, ...] = ()
        self._accounts = _joined(())

    def format(
        self,
        messages: Messages,
        board: Board,
        groups: npt.NDArray[Any],
        connections: tuple[ConnectionId, ...],
        mocks: UInt8Array,
        now: float,
        mock_until: float = math.inf,
    ) -> SnapshotBatch:
        """Write all messages. ``connections``: what ``messages.sources`` index; ``mocks``: uint8
        (c,), which of these are mock. ``mock_until``: how long their messages are valid.

        The buffer is new for each batch, because it lives until it is published.
        """
        n = len(messages)
        if connections is not self._connections:
            self._connections = connections
            self._accounts = _joined([msgspec.json.encode(each.account_id) for each in connections])
        accounts, account_ends = self._accounts
        board_rows = board.rows
        texts = board_rows["text_end"][messages.slots] - board_rows["text_start"][messages.slots]
        bound = n * (MESSAGE_MAX + self._heads[3].size + accounts.size) + int(texts.sum())
        buffer = np.empty(bound + MESSAGE_SLACK, np.uint8)
        starts = np.empty(n + 1, np.int64)
        payload_starts = np.empty(n, np.int64)
        payload_ends = np.empty(n, np.int64)
        first_seq = self._next_seq
        self._next_seq += n
        format_messages(
            buffer,
            starts,
            payload_starts,
            payload_ends,
            messages.ticks,
            messages.slots,
            messages.sources,
            messages.kinds,
            messages.known,
            messages.received_at,
            messages.greeks,
            messages.statuses,
            messages.ticked,
            board_rows,
            board.words,
            board.texts,
            groups,
            self._heads,
            accounts,
            account_ends,
            self._status_names,
            self._source_names,
            now,
            first_seq,
            np.ones_like(mocks) if self._is_mock else mocks,
        )
        valid_until = np.where(mocks, mock_until, math.inf)[messages.sources]
        sources, received_at = messages.sources, messages.received_at
        if messages.ticked < n:
            sources, received_at = sources.copy(), received_at.copy()
            sources[messages.ticked :] = -1
            received_at[messages.ticked :] = now
        return SnapshotBatch(
            buffer=buffer.data[: int(starts[n])],
            starts=starts,
            payload_starts=payload_starts,
            payload_ends=payload_ends,
            slots=messages.slots,
            sources=sources,
            connections=connections,
            seqs=np.arange(first_seq, first_seq + n, dtype=np.int64),
            received_at=received_at,
            is_underlying=board_rows["instrument_class"][messages.slots] == _INDEX,
            valid_until=valid_until,
        )


def _command_head(channel: str) -> UInt8Array:
    name = channel.encode()
    head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$" % (len(name), name)
    return np.frombuffer(head, np.uint8).copy()


def _joined(parts: Sequence[bytes]) -> tuple[UInt8Array, npt.NDArray[np.int64]]:
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8).copy(), ends
