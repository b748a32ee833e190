"""Snapshot batches as the enricher builds them, for tests and benchmarks of what comes after."""

import json
import math
from collections.abc import Sequence

import numpy as np

from ticker.messages import ConnectionId, SnapshotBatch
from ticker.publishers.resp import pack

OPTIONS = "ticker:nifty:options"
UNDERLYING = "ticker:nifty:underlying"
CONNECTIONS = (ConnectionId("alpha", 0), ConnectionId("alpha", 1), ConnectionId("beta", 0))


def create_batch(
    slots: Sequence[int],
    *,
    first_seq: int = 1,
    sources: Sequence[int] | None = None,
    connections: tuple[ConnectionId, ...] = CONNECTIONS[:1],
    underlyings: Sequence[int] = (),
    received_at: float = 0.0,
    payload_size: int = 0,
    valid_until: float = math.inf,
) -> SnapshotBatch:
    """One message for each slot; payloads name ``seq``, ``slot`` and ``received_at``.

    ``underlyings``: slots that go to the underlying channel. Payloads are padded to
    ``payload_size`` bytes.
    """
    commands: list[bytes] = []
    payload_starts: list[int] = []
    starts = [0]
    sizes: list[int] = []
    for seq, slot in enumerate(slots, start=first_seq):
        fields = {"instrument_token": 1000 + slot, "slot": slot, "seq": seq, "at": received_at}
        payload = json.dumps(fields).encode().ljust(payload_size)
        command = pack("PUBLISH", UNDERLYING if slot in underlyings else OPTIONS, payload)
        payload_starts.append(starts[-1] + len(command) - len(payload) - 2)
        sizes.append(len(payload))
        commands.append(command)
        starts.append(starts[-1] + len(command))
    count = len(commands)
    return SnapshotBatch(
        buffer=memoryview(b"".join(commands)),
        starts=np.array(starts, np.int64),
        payload_starts=np.array(payload_starts, np.int64),
        payload_ends=np.array(payload_starts, np.int64) + np.array(sizes, np.int64),
        slots=np.array(slots, np.int32),
        sources=np.array([0] * count if sources is None else sources, np.int16),
        connections=connections,
        seqs=np.arange(first_seq, first_seq + count, dtype=np.int64),
        received_at=np.full(count, received_at),
        is_underlying=np.array([slot in underlyings for slot in slots], np.bool_),
        valid_until=np.full(count, valid_until),
    )
