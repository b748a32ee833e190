"""Newest values only: which messages are superseded, and where the bytes of the others lie.

A conflated message is a row of numbers that point into the buffer it came in; superseding one
copies nothing. A buffer is let go when nothing in it is wanted any more, and what is wanted of a
buffer that is mostly dead is copied out, so that all buffers together hold at most twice the bytes
of the newest value per slot. The copying is in proportion to what was superseded, and no single
conflation of many instruments stalls the event loop. Batches of a single message are common, so
columns are joined once for all parts: nothing but a slice is paid for each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ticker.messages import ConnectionId, SnapshotBatch

IntArray = npt.NDArray[np.int64]
Rows = npt.NDArray[Any]
"""Structured array, ``ROW`` each."""

ROW: Final = np.dtype(
    [
        ("origin", np.int32),
        ("begin", np.int64),
        ("end", np.int64),
        ("payload_start", np.int64),
        ("payload_end", np.int64),
        ("slot", np.int32),
        ("source", np.int16),
        ("seq", np.int64),
        ("received_at", np.float64),
        ("is_underlying", np.bool_),
        ("valid_until", np.float64),
    ]
)
"""``origin``: index of the buffer that the four offsets are of; the others as in SnapshotBatch."""


_COLUMNS: Final = {
    "begin": "starts",
    "payload_start": "payload_starts",
    "payload_end": "payload_ends",
    "slot": "slots",
    "seq": "seqs",
    "received_at": "received_at",
    "is_underlying": "is_underlying",
    "valid_until": "valid_until",
}


class Part(NamedTuple):
    """Messages ``start`` to ``stop`` of a batch; ``arrived_at``: seconds on the caller's clock."""

    batch: SnapshotBatch
    start: int
    stop: int
    arrived_at: float

    def commands(self) -> memoryview:
        """The messages' RESP commands, not copied."""
        starts = self.batch.starts
        return self.batch.buffer[int(starts[self.start]) : int(starts[self.stop])]


@dataclass(frozen=True, slots=True, eq=False)
class Gathering:
    """Messages of several buffers, in the order in which they are to go out."""

    rows: Rows
    buffers: tuple[memoryview, ...]
    connections: tuple[ConnectionId, ...]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> "Gathering":
        """All messages of the parts, of which there is one at least."""
        sizes = [stop - start for _, start, stop, _ in parts]
        rows = np.empty(sum(sizes), ROW)
        rows["origin"] = np.repeat(np.arange(len(parts)), sizes)
        rows["end"] = np.concatenate(
            [b.starts[start + 1 : stop + 1] for b, start, stop, _ in parts]
        )
        for field, name in _COLUMNS.items():
            rows[field] = join_column(parts, name)
        rows["source"], connections = join_sources(parts)
        return cls(rows, tuple([part.batch.buffer for part in parts]), connections)

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, count: int) -> "tuple[SnapshotBatch, Gathering]":
        """The first ``count`` messages, copied into a batch of their own, and the others."""
        rows = self.rows[:count]
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(rows["end"] - rows["begin"], out=starts[1:])
        moved = starts[:-1] - rows["begin"]
        batch = SnapshotBatch(
            buffer=memoryview(_join(rows, self.buffers)),
            starts=starts,
            payload_starts=rows["payload_start"] + moved,
            payload_ends=rows["payload_end"] + moved,
            slots=rows["slot"].copy(),
            sources=rows["source"].copy(),
            connections=self.connections,
            seqs=rows["seq"].copy(),
            received_at=rows["received_at"].copy(),
            is_underlying=rows["is_underlying"].copy(),
            valid_until=rows["valid_until"].copy(),
        )
        return batch, Gathering(self.rows[count:], self.buffers, self.connections)

    def newest(self) -> "tuple[Gathering, Rows]":
        """The newest message of each slot, and the rows of those that had to go.

        A slot keeps its place: where its oldest message stood, the newest one stands. So a busy
        instrument is not passed over for ever because it is never the one that waits longest.
        """
        kept = _newest(self.rows["slot"])
        gone = np.ones(len(self.rows), np.bool_)
        gone[kept] = False
        return Gathering(self.rows[kept], self.buffers, self.connections), self.rows[gone]

    def compacted(self) -> "Gathering":
        """The same messages without the buffers, or the greater part of them, that hold none."""
        rows = self.rows.copy()
        live = np.bincount(
            rows["origin"], weights=rows["end"] - rows["begin"], minlength=len(self.buffers)
        )
        held = np.array([buffer.nbytes for buffer in self.buffers])
        is_kept = (live > 0) & (2 * live >= held)
        moving = np.flatnonzero(~is_kept[rows["origin"]])
        fresh = _join(rows[moving], self.buffers)

        kept = np.flatnonzero(is_kept)
        index = np.full(len(held), len(kept), np.int32)  # what moves goes to the one after these
        index[kept] = np.arange(len(kept))
        sizes = rows["end"][moving] - rows["begin"][moving]
        shift = np.cumsum(sizes) - sizes - rows["begin"][moving]
        for name in ("begin", "end", "payload_start", "payload_end"):
            rows[name][moving] += shift
        rows["origin"] = index[rows["origin"]]
        buffers = [self.buffers[origin] for origin in kept.tolist()]
        return Gathering(rows, (*buffers, memoryview(fresh)), self.connections)


def join_column(parts: Sequence[Part], name: str) -> npt.NDArray[Any]:
    """A column of the batches that has an entry for each message, for all messages of the parts."""
    return np.concatenate([getattr(batch, name)[start:stop] for batch, start, stop, _ in parts])


def join_sources(
    parts: Sequence[Part],
) -> tuple[npt.NDArray[np.int16], tuple[ConnectionId, ...]]:
    """The column ``sources``, and the connections that it indexes: those of all parts."""
    sources: npt.NDArray[np.int16] = join_column(parts, "sources")
    several = dict.fromkeys(part.batch.connections for part in parts)
    if len(several) == 1:
        return sources, parts[0].batch.connections
    connections = tuple(dict.fromkeys(chain.from_iterable(several)))
    table: list[int] = []
    begins = {}
    for own in several:
        table.append(-1)  # found by -1, no connection
        begins[own] = len(table)
        table += map(connections.index, own)
    begin = np.repeat(
        [begins[part.batch.connections] for part in parts],
        [stop - start for _, start, stop, _ in parts],
    )
    return np.array(table, np.int16)[begin + sources], connections


def gather(parts: Iterable[Gathering]) -> Gathering:
    """All messages of the parts, in order, under one set of connections."""
    parts = list(parts)
    connections = tuple(dict.fromkeys(chain.from_iterable(part.connections for part in parts)))
    rows = np.concatenate([part.rows for part in parts])
    begin = buffers = 0
    for part in parts:
        own = rows[begin : begin + len(part)]
        own["origin"] += buffers
        if part.connections != connections:
            own["source"] = _index(part.connections, connections)[own["source"]]
        begin += len(part)
        buffers += len(part.buffers)
    return Gathering(rows, tuple(chain.from_iterable(part.buffers for part in parts)), connections)


def _index(
    part: tuple[ConnectionId, ...], whole: tuple[ConnectionId, ...]
) -> npt.NDArray[np.int16]:
    """Place in ``whole`` of each connection of ``part``; -1, no connection, finds the last: -1."""
    return np.array([*map(whole.index, part), -1], np.int16)


def _newest(slots: npt.NDArray[np.int32]) -> IntArray:
    """Position of the last message of each slot, in the order of each slot's first message.

    Of repeated indices in an assignment, NumPy keeps the last.
    """
    positions = np.arange(len(slots))
    first = np.zeros(int(slots.max(initial=-1)) + 1, np.int64)
    last = np.full(len(first), -1, np.int64)
    last[slots] = positions
    first[slots[::-1]] = positions[::-1]
    used = np.flatnonzero(last >= 0)
    return last[used[np.argsort(first[used])]]


def _join(rows: Rows, buffers: tuple[memoryview, ...]) -> bytes:
    origins, begins, ends = (rows[name].tolist() for name in ("origin", "begin", "end"))
    return b"".join(
        [
            buffers[origin][begin:end]
            for origin, begin, end in zip(origins, begins, ends, strict=True)
        ]
    )
