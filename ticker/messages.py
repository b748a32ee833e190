"""Every message that crosses a channel. Frozen: what was sent is what is read."""

from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

GapReason = Literal[
    "silent", "closed", "unreachable", "rejected", "token_rejected", "throttled", "redis"
]


class ConnectionId(msgspec.Struct, frozen=True, gc=False):
    """One market-data socket: the account's id and the shard's number, from 0."""

    account_id: str
    shard: int

    def __str__(self) -> str:
        return f"{self.account_id}/{self.shard}"


MOCK_CONNECTION: Final = ConnectionId("mock", 0)
"""What the mock market's frames are said to come from."""

FeedState = Literal["idle", "connecting", "live", "backing_off", "waiting_for_token"]


class FeedStatus(msgspec.Struct, frozen=True):
    """Where one connection stands. ``since``, ``live_at``: UNIX seconds; None if never live."""

    connection: ConnectionId
    state: FeedState
    since: float
    live_at: float | None = None
    subscribed: int = 0
    target: int = 0
    reconnects: int = 0
    last_error: str | None = None


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One binary WebSocket message as it arrived. ``received_at``: UNIX seconds.

    ``is_mock``: it was made or replayed by us, and its payloads are to say so.
    """

    data: bytes
    received_at: float
    connection: ConnectionId
    is_mock: bool = False


class Gap(msgspec.Struct, frozen=True, tag="gap", tag_field="type"):
    """A hole that consumers must know of, published on ``{prefix}:events``.

    A feed gap names ``account_id`` and ``shard``: nothing arrived there between ``from_ts`` and
    ``to_ts`` (UNIX seconds). It is sent twice: when it is noticed, with ``ended`` false and
    ``to_ts`` that moment, and when the feed is live again. A publishing gap (reason ``redis``)
    names the sequence numbers between which ``conflated`` ticks were replaced by newer ones of
    their instrument.
    """

    reason: GapReason
    from_ts: float
    to_ts: float
    account_id: str | None = None
    shard: int | None = None
    instruments: int = 0
    from_seq: int | None = None
    to_seq: int | None = None
    conflated: int = 0
    ended: bool = True


FeedSide = Literal["live", "mock", "silent"]
"""Who speaks for a market segment: the broker's feed, the mock market, or nobody."""


class MarketPhase(msgspec.Struct, frozen=True, tag="market_phase", tag_field="type"):
    """What a segment does from ``ts`` on, published on ``{prefix}:events`` at every change.

    ``phase``: a name of ``market_hours``, None where the calendar does not tell; then the segment
    never counts as open, and the mock market keeps silent. ``feed``: whose ticks of the
    segment's instruments are published. ``since``, ``until``: the phase's ends; all times are UNIX
    seconds, None where the calendar does not tell.
    """

    segment: str
    phase: str | None
    is_open: bool
    feed: FeedSide
    ts: float
    since: float | None = None
    until: float | None = None


Event = Gap | MarketPhase
"""What is told on ``{prefix}:events``; ``type`` in the JSON object says which."""


class SnapshotBatch(msgspec.Struct, frozen=True, gc=False):
    """Payloads ready to publish: one buffer, and where each message lies in it.

    ``buffer`` holds, for each of n messages back to back, the RESP command
    ``PUBLISH <channel> <payload>``; command ``i`` is ``buffer[starts[i]:starts[i + 1]]`` and its
    JSON payload ``buffer[payload_starts[i]:payload_ends[i]]``.

    ``starts``: int64 (n + 1,); ``payload_starts``, ``payload_ends``: int64 (n,).
    ``slots``: int32 (n,), the board's slot of the instrument: the key for conflation.
    ``sources``: int16 (n,), the tick's connection as an index into ``connections``; -1 where no
    tick arrived but the forward moved (re-pricing): such a message is not part of the tick
    accounting.
    ``seqs``: int64 (n,), the payloads' sequence numbers: ascending from the enricher, and in any
    order in what was conflated, where a newer message takes the place of an older one.
    ``received_at``: float64 (n,), UNIX seconds at which the tick's frame arrived.
    ``is_underlying``: bool (n,), True for messages on ``{prefix}:underlying``.
    ``valid_until``: float64 (n,), UNIX seconds from which on a message is not to be published: a
    mock one when its market opens, infinity for all others.
    """

    buffer: memoryview
    starts: npt.NDArray[np.int64]
    payload_starts: npt.NDArray[np.int64]
    payload_ends: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int32]
    sources: npt.NDArray[np.int16]
    connections: tuple[ConnectionId, ...]
    seqs: npt.NDArray[np.int64]
    received_at: npt.NDArray[np.float64]
    is_underlying: npt.NDArray[np.bool_]
    valid_until: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.slots)
