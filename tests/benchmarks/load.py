"""A load generator: the simulator's market over a real WebSocket, encoded ahead of time.

A program of its own, so that it shares no interpreter with what it measures. It steps the
simulated market, encodes what the subscribed instruments do in full mode, and repeats that for
ever, paced or as fast as the receiver takes it. Sending costs it next to nothing, which leaves
the two cores to the service and to Redis.
"""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from ticker.kite.text import Subscribe, parse_request
from ticker.kite.wire import encode_frame
from ticker.simulator.dump import create_dump, dump_date
from ticker.simulator.market import Market
from ticker.ticks import TickBatch

STEPS: Final = 20
"""Market steps encoded; they repeat."""

QUIET_S: Final = 0.5
"""Subscriptions are complete when no message came for this long."""

CHUNK_BYTES: Final = 1 << 16
"""Sent at once when not paced."""


def encode_steps(market: Market, tokens: list[int], packets_per_frame: int) -> list[bytes]:
    """WebSocket messages of all steps, header included, in order."""
    positions = np.array(
        [place for token in tokens if (place := market.position(token)) is not None]
    )
    modes = np.full(len(positions), 2, dtype=np.uint8)
    messages = []
    for _ in range(STEPS):
        market.advance(market.now + 1)
        batch = market.batch(positions, modes)
        for start in range(0, len(batch), packets_per_frame):
            part = slice(start, start + packets_per_frame)
            frame = encode_frame(
                TickBatch(
                    np.ascontiguousarray(batch.words[:, part]), batch.kind[part], batch.frame[part]
                )
            )
            messages.append(_message(frame))
    return messages


def _message(frame: bytes) -> bytes:
    """A server's binary message is not masked, so its bytes do not depend on the connection."""
    if len(frame) < 126:
        return bytes((0x82, len(frame))) + frame
    if len(frame) < 1 << 16:
        return b"\x82\x7e" + len(frame).to_bytes(2, "big") + frame
    return b"\x82\x7f" + len(frame).to_bytes(8, "big") + frame


async def serve_load(
    stream: trio.SocketStream, *, market: Market, packets_per_frame: int, ticks_per_s: float
) -> None:
    """One connection: handshake, subscriptions until quiet, then load until it closes."""
    connection = WSConnection(ConnectionType.SERVER)
    tokens: list[int] = []
    try:
        while True:
            with trio.move_on_after(QUIET_S if tokens else 60) as waiting:
                connection.receive_data(await stream.receive_some() or None)
            if waiting.cancelled_caught:
                break
            for event in connection.events():
                if isinstance(event, Request):
                    await stream.send_all(connection.send(AcceptConnection()))
                elif isinstance(event, TextMessage):
                    request = parse_request(event.data)
                    if isinstance(request, Subscribe):
                        tokens.extend(request.tokens)
        messages = await trio.to_thread.run_sync(encode_steps, market, tokens, packets_per_frame)
        if ticks_per_s > 0:
            await _send_paced(stream, messages, packets_per_frame / ticks_per_s)
        else:
            await _send_all_out(stream, messages)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def _send_paced(stream: trio.SocketStream, messages: list[bytes], interval_s: float) -> None:
    due = trio.current_time()
    for message in _forever(messages):
        due += interval_s
        await trio.sleep_until(due)
        await stream.send_all(message)


async def _send_all_out(stream: trio.SocketStream, messages: list[bytes]) -> None:
    chunk = bytearray()
    for message in _forever(messages):
        chunk += message
        if len(chunk) >= CHUNK_BYTES:
            await stream.send_all(chunk)
            chunk = bytearray()


def _forever(messages: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from messages


async def main(seed: int, packets_per_frame: int, ticks_per_s: float) -> None:
    """Serve on a free port, printed as ``ready ws://...``; ``ticks_per_s`` 0 is all out."""
    now = time.time()
    market = Market(seed, create_dump(seed, dump_date(now)), now)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    print(f"ready ws://127.0.0.1:{port}", flush=True)
    await trio.serve_listeners(
        partial(
            serve_load,
            market=market,
            packets_per_frame=packets_per_frame,
            ticks_per_s=ticks_per_s,
        ),
        listeners,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--packets-per-frame", type=int, default=100)
    parser.add_argument("--ticks-per-s", type=float, default=0.0)
    arguments = parser.parse_args()
    trio.run(main, arguments.seed, arguments.packets_per_frame, arguments.ticks_per_s)
