"""Snapshots on their way out: first in, first out while Redis keeps up, newest only when not.

A queue of slices of the enricher's batches costs nothing per message while all is well. When it
grows too long, or its head too old, it is conflated: see ``ticker.publishers.conflation``.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ticker.messages import ConnectionId, SnapshotBatch
from ticker.publishers.conflation import Gathering, Part, gather, join_column, join_sources

PARTS_MAX: Final = 1000
"""Batches, or parts of them, that wait. One more, and it is time to conflate: each costs about five
microseconds then, however small, and the event loop must not stand still."""


class Tally(NamedTuple):
    """Counts of some messages. ``ticks``: per connection, without re-pricings (source -1)."""

    messages: int
    ticks: Counter[ConnectionId]
    underlyings: int
    """Of the ticks, those on the underlying channel."""


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

    def sift(self, positions: Collection[int]) -> "tuple[Parcel, Parcel]":
        """The messages at these positions, counted from 0, and the others."""
        wanted = frozenset(positions)
        picked: list[Part] = []
        others: list[Part] = []
        begin = 0
        for part in self:
            places = range(begin, begin + part.stop - part.start)
            for is_wanted, run in groupby(places, wanted.__contains__):
                found = [place - begin + part.start for place in run]
                piece = part._replace(start=found[0], stop=found[-1] + 1)
                (picked if is_wanted else others).append(piece)
            begin = places.stop
        return Parcel(picked), Parcel(others)

    def valid(self, now: float) -> "tuple[Parcel, Parcel]":
        """The messages that may still be published at ``now``, UNIX seconds, and the others."""
        is_over = join_column(self, "valid_until") <= now if self else None
        if is_over is None or not is_over.any():
            return self, Parcel()
        over, rest = self.sift(np.flatnonzero(is_over).tolist())
        return rest, over

    def tally(self) -> Tally:
        """What the parcel holds, by connection and kind."""
        if not self:
            return Tally(0, Counter(), 0)
        sources, connections = join_sources(self)
        return _tally(sources, join_column(self, "is_underlying"), connections)

    def oldest_received_at(self) -> float:
        """When the frame of its oldest tick arrived, UNIX seconds. For a parcel that has any."""
        return float(join_column(self, "received_at").min())


class Outbox:
    """The messages that wait to be published: conflated ones first, then those in the queue.

    ``messages_max`` bounds it: one message more and it is full, to be conflated, after which it
    may grow to twice what is left, so that the cost of conflating stays in proportion to what
    arrives. It holds no more than that, or than twice the number of slots if these are more.
    ``PARTS_MAX`` bounds it as well, for the sake of what one conflation costs.
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
        return self._size > self._limit or len(self._parts) > PARTS_MAX

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
        seqs = [] if self._conflated is None else [self._conflated.rows["seq"]]
        if self._parts:
            seqs.append(join_column(self._parts, "seqs"))
        return min(int(each.min()) for each in seqs), max(int(each.max()) for each in seqs)

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
            self._conflated = gather([Gathering.of(parcel), self._conflated])
            self._conflated_since = parcel[0].arrived_at
        self._size += parcel.size

    def conflate(self) -> Tally:
        """Keep the newest message of each slot only; the tally of those that had to go."""
        oldest_at = self.oldest_at
        if oldest_at is None:
            return Tally(0, Counter(), 0)
        newest, gone = self._gather().newest()
        self._conflated, self._conflated_since = newest.compacted(), oldest_at
        self._parts.clear()
        self._size = len(newest)
        self._limit = max(self._messages_max, 2 * self._size)
        return _tally(gone["source"], gone["is_underlying"], newest.connections)

    def _gather(self) -> Gathering:
        gathered = [] if self._conflated is None else [self._conflated]
        if self._parts:
            gathered.append(Gathering.of(self._parts))
        return gather(gathered)


def _tally(
    sources: npt.NDArray[np.int16],
    is_underlying: npt.NDArray[np.bool_],
    connections: tuple[ConnectionId, ...],
) -> Tally:
    kinds = (sources + 1) * 2 + is_underlying  # no tick: 0 and 1, first connection: 2 and 3, ...
    counts = np.bincount(kinds, minlength=2 * len(connections) + 2).tolist()
    ticks = Counter(
        {
            connection: counts[2 * index] + counts[2 * index + 1]
            for index, connection in enumerate(connections, start=1)
            if counts[2 * index] + counts[2 * index + 1]
        }
    )
    return Tally(len(sources), ticks, sum(counts[3::2]))
