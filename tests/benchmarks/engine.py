"""The engine alone: nanoseconds of one core for each tick, by stage, without sockets or Redis."""

import time
from collections.abc import Callable
from itertools import cycle, islice
from statistics import median
from typing import Any, Final

from tests.ticker.synthetic import (
    NOW,
    Packet,
    create_chain,
    create_frame,
    create_index,
    create_market_engine,
    on_tick,
    true_price,
)
from ticker.engine import Engine
from ticker.kite.wire import decode_frames
from ticker.messages import Frame
from ticker.ticks import PacketKind

PACKETS: Final = (10, 100, 1000)
"""Packets in a frame, all of them full mode with a book."""
FRAMES: Final = (1, 10)
"""Frames in a batch: under load, several."""
FORWARD: Final = 25_031.7


def run(quick: bool) -> dict[str, Any]:
    """Return ``ns_per_tick.{packets}x{frames}.{stage}`` and the payload's mean size."""
    engine = create_market_engine([], reprice_interval_s=0.0)
    engine.warm_up()
    results: dict[str, Any] = {"ns_per_tick": {}}
    for packets in PACKETS:
        for frames in FRAMES:
            if packets * frames <= 1000:
                stages, size = _measure(packets, frames, 5 if quick else 15)
                results["ns_per_tick"][f"{packets}x{frames}"] = stages
                results["payload_bytes"] = size
    return results


def _measure(packets: int, frames: int, rounds: int) -> tuple[dict[str, float], float]:
    """Medians over rounds of some 20,000 ticks each."""
    engine, batch = _create_market(packets, frames)
    stages = _stages(engine, batch)
    ticks = packets * frames
    repeats = max(20_000 // ticks, 1)
    times: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(rounds):
        for name, stage in stages.items():
            started = time.perf_counter()
            for _ in range(repeats):
                stage()
            times[name].append((time.perf_counter() - started) / repeats / ticks * 1e9)
    snapshots = engine.process(batch, NOW).snapshots
    assert snapshots is not None
    size = float((snapshots.payload_ends - snapshots.payload_starts).mean())
    return {name: round(median(each), 1) for name, each in times.items()}, size


def _create_market(packets: int, frames: int) -> tuple[Engine, list[Frame]]:
    """A chain of 500 options in ticks of ``frames`` frames, and an engine that knows them."""
    index = create_index()
    chain = create_chain(range(18_750, 31_250, 50))
    engine = create_market_engine([index, *chain], reprice_interval_s=0.0)
    quotes = [Packet(each, on_tick(true_price(each, FORWARD))) for each in chain]
    engine.process([create_frame([Packet(index, 25_000.0, PacketKind.INDEX_FULL)])], NOW)
    engine.process([create_frame(quotes)], NOW)
    source = cycle(quotes)
    batch = [create_frame([*islice(source, packets)]) for _ in range(frames)]
    return engine, batch


def _stages(engine: Engine, batch: list[Frame]) -> dict[str, Callable[[], object]]:
    data = [frame.data for frame in batch]
    ticks = decode_frames(data).ticks
    accepted = engine._intake.accept(ticks, batch, NOW)
    messages = engine._price(accepted, NOW)
    groups = engine.chains.groups
    return {
        "decode": lambda: decode_frames(data),
        "accept": lambda: engine._intake.accept(ticks, batch, NOW),
        "price": lambda: engine._price(accepted, NOW),
        "format": lambda: engine._formatter.format(
            messages, engine.board, groups, accepted.connections, accepted.mocks, NOW
        ),
        "all": lambda: engine.process(batch, NOW),
    }
