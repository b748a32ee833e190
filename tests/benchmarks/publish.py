"""Publishing: our connection beside the limit, at the same payload size and pipeline depth.

The limit is ``valkey-benchmark`` or ``redis-benchmark`` where one is installed; else the same
pre-encoded pipelines written by a blocking socket, which spends its time in the kernel only.
Run: ``python -m tests.benchmarks.publish [--quick]``.
"""

import csv
import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import trio

from tests.batches import OPTIONS, create_batch
from ticker.local.valkey import open_valkey
from ticker.publishers.outbox import Outbox
from ticker.publishers.redis import RedisConnection, open_redis
from ticker.publishers.resp import Replies

PAYLOAD_BYTES = 1200
DEPTHS = (1000, 100)


def run(quick: bool) -> dict[str, object]:
    """Messages per second, median of alternating rounds, and the fraction of the limit.

    ``fraction_of_limit`` is that at the greater depth, the batch size under load.
    """
    return trio.run(_run, 0.3 if quick else 1.5, 3 if quick else 5)


async def _run(round_s: float, rounds: int) -> dict[str, object]:
    program = shutil.which("valkey-benchmark") or shutil.which("redis-benchmark")
    ours: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    limit: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    async with open_valkey() as url, open_redis(url) as connection:
        for _ in range(rounds):
            for depth in DEPTHS:
                ours[depth].append(await _ours(connection, depth, round_s))
                measure: Callable[[], float]
                if program:
                    measure = _Program(program, url, depth, int(ours[depth][-1] * round_s))
                else:
                    measure = _RawSocket(url, depth, round_s)
                limit[depth].append(await trio.to_thread.run_sync(measure))
    rates = {depth: statistics.median(ours[depth]) for depth in DEPTHS}
    limits = {depth: statistics.median(limit[depth]) for depth in DEPTHS}
    fractions = {str(depth): round(rates[depth] / limits[depth], 3) for depth in DEPTHS}
    return {
        "limit": program or "pre-encoded pipeline on a blocking socket",
        "payload_bytes": PAYLOAD_BYTES,
        "messages_per_s": {str(depth): round(rates[depth]) for depth in DEPTHS},
        "limit_messages_per_s": {str(depth): round(limits[depth]) for depth in DEPTHS},
        "fraction_by_depth": fractions,
        "fraction_of_limit": fractions[str(DEPTHS[0])],
    }


async def _ours(connection: RedisConnection, depth: int, round_s: float) -> float:
    """The publisher's steps for each batch: through the outbox, out, counted."""
    batch = create_batch(range(depth), payload_size=PAYLOAD_BYTES)
    outbox = Outbox(depth)
    sent, began_at = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - began_at) < round_s:
        outbox.add(batch, elapsed_s)
        parcel = outbox.take(depth)
        replies = Replies(parcel.size)
        await connection.send(parcel.commands(), replies)
        parcel.tally()
        sent += replies.answered
    return sent / elapsed_s


class _RawSocket:
    """Send a pipeline, wait in the kernel for as many bytes as its replies have, again."""

    def __init__(self, url: str, depth: int, round_s: float) -> None:
        self._address = urlsplit(url)
        self._depth = depth
        self._round_s = round_s

    def __call__(self) -> float:
        pipeline = create_batch(range(self._depth), payload_size=PAYLOAD_BYTES).buffer
        expected = len(b":0\r\n") * self._depth
        host, port = self._address.hostname or "", self._address.port or 0
        sent, began_at = 0, time.perf_counter()
        with socket.create_connection((host, port)) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # as Trio's streams have it: it helps
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 2**14)
            while (elapsed_s := time.perf_counter() - began_at) < self._round_s:
                link.sendall(pipeline)
                link.recv(expected, socket.MSG_WAITALL)
                sent += self._depth
        return sent / elapsed_s


class _Program:
    """One run of the server's own benchmark, one connection."""

    def __init__(self, program: str, url: str, depth: int, messages: int) -> None:
        parts = urlsplit(url)
        self._command = [program, "-h", parts.hostname or "", "-p", str(parts.port), "--csv"]
        self._command += ["-c", "1", "-P", str(depth), "-n", str(max(messages, depth))]
        self._command += ["PUBLISH", OPTIONS, "x" * PAYLOAD_BYTES]

    def __call__(self) -> float:
        done = subprocess.run(self._command, check=True, capture_output=True, text=True)
        last_line = done.stdout.strip().splitlines()[-1]
        return float(next(csv.reader([last_line]))[1])  # columns: test, requests a second, ...


if __name__ == "__main__":
    print(json.dumps(run(quick="--quick" in sys.argv), indent=2))
