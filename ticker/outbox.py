"""Snapshots on their way out: first in, first out while Redis keeps up, newest only when not.

A queue of slices of the enricher's batches costs nothing per message while all is well. When it
grows too long, or its head too old, it is conflated: see ``ticker.conflation``.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ticker.conflation import Gathering, gather
from ticker.messages import ConnectionId, SnapshotBatch


class Tally(NamedTuple):
    """Counts of some messages. ``ticks``: per connection, without re-pricings (source -1)."""

    messages: int
    ticks: Counter[ConnectionId]
    underlyings: int
    """Of the ticks, those on the underlying channel."""


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


class Parcel(tuple[Part, ...]):
    """Messages taken from the outbox, in order."""

    __slots__ = ()

    @property
    def size(self) -> int:
        """The number of messages."""
        return sum(part.stop - part.start for part in self)

    def commands(self) -> bytes | memoryview:
        """All RESP commands back to back; copied only if they lie in several buffers."""
        return self[0].commands() if len(self) == 1 else b"".join(p.commands() for p in self)

    def payloads(self) -> Iterator[memoryview]:
        """The JSON payload of each message."""
        for batch, start, stop, _ in self:
            for begin, end in zip(
                batch.payload_starts[start:stop].tolist(),
                batch.payload_ends[start:stop].tolist(),
                strict=True,
            ):
                yield batch.buffer[begin:end]

    def split(self, count: int) -> "tuple[Parcel, Parcel]":
        """The first ``count`` messages, and the others."""
        first: list[Part] = []
        rest: list[Part] = []
        for part in self:
            middle = min(part.start + count, part.stop)
            count -= middle - part.start
            if middle > part.start:
                first.append(part._replace(stop=middle))
            if middle < part.stop:
                rest.append(part._replace(start=middle))
        return Parcel(first), Parcel(rest)

    def sift(self, indices: Sequence[int]) -> "tuple[Parcel, Parcel]":
        """The messages at these positions, which ascend, and the others."""
        picked: list[Part] = []
        others: list[Part] = []
        rest, cut = self, 0
        for index in indices:
            before, rest = rest.split(index - cut)
            one, rest = rest.split(1)
            others.extend(before)
            picked.extend(one)
            cut = index + 1
        return Parcel(picked), Parcel([*others, *rest])

    def tally(self) -> Tally:
        """What the parcel holds, by connection and kind."""
        ticks: Counter[ConnectionId] = Counter()
        underlyings = 0
        for batch, start, stop, _ in self:
            counts = _count(
                batch.sources[start:stop], batch.is_underlying[start:stop], batch.connections
            )
            underlyings += _add(ticks, counts, batch.connections)
        return Tally(self.size, ticks, underlyings)


class Outbox:
    """The messages that wait to be published: conflated ones first, then those in the queue.

    ``messages_max`` bounds it: one message more and it is full, to be conflated, after which it
    may grow to twice what is left, so that the cost of conflating stays in proportion to what
    arrives. It holds no more than that, or than twice the number of slots if these are more.
    """

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._limit = messages_max
        self._conflated: Gathering | None = None
        self._conflated_since = 0.0
        self._parts: deque[Part] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def is_full(self) -> bool:
        """Whether it is time to ``conflate``."""
        return self._size > self._limit

    @property
    def oldest_at(self) -> float | None:
        """When the message that waits longest arrived; None if nothing waits."""
        if self._conflated is not None:
            return self._conflated_since
        return self._parts[0].arrived_at if self._parts else None

    def seq_range(self) -> tuple[int, int] | None:
        """Lowest and highest sequence number that wait; None if nothing does."""
        if not self._size:
            return None
        seqs = self._gather().rows["seq"]
        return int(seqs.min()), int(seqs.max())

    def add(self, batch: SnapshotBatch, now: float) -> None:
        """Append a batch. ``now``: seconds on any clock that only moves forward."""
        if len(batch):
            self._parts.append(Part(batch, 0, len(batch), now))
            self._size += len(batch)

    def take(self, limit: int) -> Parcel:
        """Remove and return up to ``limit`` messages, those that wait longest first."""
        taken: list[Part] = []
        if self._conflated is not None and limit:
            batch, rest = self._conflated.split(limit)
            taken.append(Part(batch, 0, len(batch), self._conflated_since))
            self._conflated = rest if len(rest) else None
            limit -= len(batch)
        while limit and self._parts:
            part = self._parts.popleft()
            stop = min(part.start + limit, part.stop)
            taken.append(part._replace(stop=stop))
            limit -= stop - part.start
            if stop < part.stop:
                self._parts.appendleft(part._replace(start=stop))
        parcel = Parcel(taken)
        self._size -= parcel.size
        return parcel

    def put_back(self, parcel: Parcel) -> None:
        """Return messages to the head of the queue; newer ones win when it is conflated."""
        if self._conflated is None or not parcel:
            self._parts.extendleft(reversed(parcel))
        else:
            returned = [Gathering.of(part.batch, part.start, part.stop) for part in parcel]
            self._conflated = gather([*returned, self._conflated])
            self._conflated_since = parcel[0].arrived_at
        self._size += parcel.size

    def conflate(self) -> Tally:
        """Keep the newest message of each slot only; the tally of those that had to go."""
        ticks: Counter[ConnectionId] = Counter()
        messages = underlyings = 0
        oldest_at = self.oldest_at
        if oldest_at is not None:
            everything = self._gather()
            newest, gone = everything.newest()
            if len(gone):
                self._conflated, self._conflated_since = newest.compacted(), oldest_at
                self._parts.clear()
                self._size = len(newest)
                messages = len(gone)
                counts = _count(gone["source"], gone["is_underlying"], newest.connections)
                underlyings = _add(ticks, counts, newest.connections)
        self._limit = max(self._messages_max, 2 * self._size)
        return Tally(messages, ticks, underlyings)

    def _gather(self) -> Gathering:
        parts = [Gathering.of(part.batch, part.start, part.stop) for part in self._parts]
        return gather(parts if self._conflated is None else [self._conflated, *parts])


def _count(
    sources: npt.NDArray[np.int16],
    is_underlying: npt.NDArray[np.bool_],
    connections: tuple[ConnectionId, ...],
) -> list[int]:
    """Messages by source, from -1, and by kind: source -1 option, source -1 underlying, ..."""
    kinds = (sources + 1) * 2 + is_underlying
    counts: list[int] = np.bincount(kinds, minlength=2 * len(connections) + 2).tolist()
    return counts


def _add(
    ticks: Counter[ConnectionId], counts: list[int], connections: tuple[ConnectionId, ...]
) -> int:
    """Add what ``_count`` returned to ``ticks``; the number of underlyings among them."""
    for index, connection in enumerate(connections, start=1):
        count = counts[2 * index] + counts[2 * index + 1]
        if count:
            ticks[connection] += count
    return sum(counts[3::2])
