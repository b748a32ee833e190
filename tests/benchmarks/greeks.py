"""Pricing: nanoseconds an option, against vollib in the same run, on two threads, beside a loop.

``python -m tests.benchmarks.greeks [--quick]`` prints the result as JSON.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import trio

from tests.ticker.greeks.grids import RATE, market_grid
from ticker.greeks.kernel import FloatArray, GreekRow, GreeksStatus, price_options, warm_up
from ticker.greeks.reference import price_reference

SIZES: Final = (10, 100, 1_000, 10_000)
THREAD_BATCH: Final = 2_000
LOOP_BATCH: Final = 1_000
Task = Callable[[], None]


def create_task(n: int) -> Task:
    """A call that prices n options of the market grid, one expiry after another."""
    grid = market_grid(0.0)
    solvable = np.flatnonzero(grid.time_value >= 0.05)
    lanes = np.resize(solvable, n)
    columns: list[FloatArray] = [column[lanes] for column in grid[:8]]
    price, underlying, strike, years, rate, carry, is_call, half_tick = columns
    flags = is_call.astype(np.uint8)
    out = np.empty((len(GreekRow), n))
    status = np.empty(n, np.uint8)

    def task() -> None:
        price_options(price, underlying, strike, years, rate, carry, flags, half_tick, out, status)

    task()
    if not (status == GreeksStatus.OK).all():
        raise RuntimeError("the benchmark's options are not all priced")
    return task


def measure(task: Task, budget_s: float) -> float:
    """Median seconds a call, over rounds of at least 2 ms that fill the budget."""
    started = time.perf_counter()
    task()
    calls = max(1, round(0.002 / (time.perf_counter() - started)))
    rounds: list[float] = []
    while time.perf_counter() - started < budget_s or len(rounds) < 5:
        begun = time.perf_counter()
        for _ in range(calls):
            task()
        rounds.append((time.perf_counter() - begun) / calls)
    return statistics.median(rounds)


def measure_reference(options: int) -> float:
    """Median seconds an option of vollib: volatility and five Greeks."""
    grid = market_grid(RATE)
    lanes = np.flatnonzero(grid.time_value >= 0.05)[:: max(1, len(grid.price) // options)]
    seconds = []
    for k in lanes:
        inputs = [float(column[k]) for column in grid[:6]]
        is_call = bool(grid.is_call[k])
        started = time.perf_counter()
        price_reference(*inputs, is_call=is_call)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


async def measure_threads(rounds: int, calls: int) -> float:
    """How much faster two worker threads are than one, in batches; from the best of ``rounds``."""
    tasks = [create_task(THREAD_BATCH) for _ in range(2)]
    limiter = trio.CapacityLimiter(2)

    def repeat(task: Task, times: int) -> None:
        for _ in range(times):
            task()

    async def timed(*work: tuple[Task, int]) -> float:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for task, times in work:
                nursery.start_soon(_in_thread, repeat, task, times, limiter)
        return trio.current_time() - started

    alone = together = math.inf
    for _ in range(rounds):
        alone = min(alone, await timed((tasks[0], 2 * calls)))
        together = min(together, await timed((tasks[0], calls), (tasks[1], calls)))
    return alone / together


async def _in_thread(
    function: Callable[[Task, int], None], task: Task, times: int, limiter: trio.CapacityLimiter
) -> None:
    await trio.to_thread.run_sync(function, task, times, limiter=limiter)


async def measure_loop_delay(options_per_s: int, duration_s: float) -> float:
    """99th percentile, in ms, of how late a 1 ms sleep ends beside this load (0: idle)."""
    limiter = trio.CapacityLimiter(2)
    batch = min(LOOP_BATCH, max(1, options_per_s // 50))
    task = create_task(batch)
    delays: list[float] = []

    async def price() -> None:
        due = trio.current_time()
        while True:
            due += batch / options_per_s
            await trio.sleep_until(due)
            await trio.to_thread.run_sync(task, limiter=limiter)

    async with trio.open_nursery() as nursery:
        if options_per_s:
            nursery.start_soon(price)
        end = trio.current_time() + duration_s
        while (due := trio.current_time() + 0.001) < end:
            await trio.sleep_until(due)
            delays.append(trio.current_time() - due)
        nursery.cancel_scope.cancel()
    return float(np.percentile(delays, 99)) * 1e3


def run(quick: bool) -> dict[str, object]:
    """Measure; ``quick`` within about 5 s, otherwise 20 s.

    Keys: ``ns_per_option`` by batch size, all nine outputs; ``vollib_us_per_option``;
    ``ratio_vs_vollib`` at 1,000; ``two_thread_scaling`` at batches of 2,000; ``loop_delay_ms``,
    the 99th percentile beside 0, 5,000 and 100,000 options/s.
    """
    warm_up()
    budget_s, duration_s = (0.2, 0.5) if quick else (1.0, 4.0)
    ns = {str(n): measure(create_task(n), budget_s) / n * 1e9 for n in SIZES}
    vollib_us = measure_reference(400 if quick else 1_500) * 1e6
    scaling = trio.run(measure_threads, 15 if quick else 60, 200)
    delays = {
        str(rate): trio.run(measure_loop_delay, rate, duration_s) for rate in (0, 5_000, 100_000)
    }
    return {
        "ns_per_option": ns,
        "vollib_us_per_option": vollib_us,
        "ratio_vs_vollib": vollib_us * 1e3 / ns["1000"],
        "two_thread_scaling": scaling,
        "loop_delay_ms": delays,
    }


if __name__ == "__main__":
    print(json.dumps(run("--quick" in sys.argv), indent=2))
