"""One step of the mock market: ``python -m tests.benchmarks.mock_market``.

How long 5,000 instruments take to move, to become frames, and to be priced like any other.
"""

import time
from statistics import median

from tests.ticker.mock_market.rig import SPOT, create_market, told
from tests.ticker.synthetic import FUTURE, INDEX, NOW, create_chain, create_market_engine
from ticker.instruments.registry import InstrumentRegistry
from ticker.mock_market.stage import play, sort_out

INSTRUMENTS = 5_000
STEPS = 50


def main() -> None:
    """Print medians over ``STEPS`` steps, milliseconds."""
    chain = create_chain(range(12_500, 37_500, 10))
    rows = [INDEX, FUTURE, *chain][:INSTRUMENTS]
    market, engine = create_market(), create_market_engine(rows)
    engine.warm_up()
    began = time.perf_counter()
    market.admit(rows, {INDEX.instrument_token: told(SPOT)}, NOW)
    seeded_s = time.perf_counter() - began
    carried = sort_out(InstrumentRegistry(rows), [row.instrument_token for row in rows])
    steps, plays, batches = [], [], []
    for second in range(STEPS):
        now = NOW + second
        began = time.perf_counter()
        market.step(now)
        stepped = time.perf_counter()
        frames, _ = play(market, carried, ["NIFTY"], now)
        played = time.perf_counter()
        engine.process(frames, now)
        batches.append(time.perf_counter() - played)
        plays.append(played - stepped)
        steps.append(stepped - began)
    print(f"{len(market)} instruments, medians of {STEPS} steps")
    print(f"  seeding, once           {seeded_s * 1e3:8.2f} ms")
    print(f"  one step                {median(steps) * 1e3:8.2f} ms")
    print(f"  one step and its frames {median(plays) * 1e3:8.2f} ms")
    print(f"  priced and formatted    {median(batches) * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
