"""The whole path: load generator → WebSocket → the service → PUBLISH acknowledged by Valkey.

The service is the real program in a process of its own, configured by its environment and read
through its own ``/metrics``; the generator and the Redis-protocol server are processes too, so
on two cores they all compete, as they would in production on such a machine.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

PACKETS_PER_FRAME: Final = (10, 100, 1000)
PACED_TICKS_PER_S: Final = 20_000
CHAIN: Final = {"OTM_LEVELS": "60", "OPTION_EXPIRY_WINDOW": "6"}
"""Some two thousand instruments."""


@dataclass(frozen=True)
class Run:
    """One measured window of the service."""

    ticks_per_s: float
    """Published and acknowledged; what was conflated is not in it."""
    priced_share: float
    """Options with a volatility among the ticks published."""
    conflated_share: float
    p50_ms: float
    p99_ms: float
    conflated: int
    dropped: int


@dataclass(frozen=True)
class Market:
    """What the service connects to for REST, and the credentials of its one account."""

    rest: str
    redis: str
    api_key: str
    access_token: str


def run(quick: bool) -> dict[str, object]:
    """Ticks per second at each frame size, latency when paced, and the rival script's rate."""
    window_s = 3.0 if quick else 10.0
    with ExitStack() as stack:
        redis = stack.enter_context(_open_redis())
        market = stack.enter_context(_open_simulator(redis))
        runs: dict[str, Run] = {}
        for packets in PACKETS_PER_FRAME:
            with _open_load(packets, 0) as websocket:
                runs[str(packets)] = measure_service(market, websocket, window_s)
        with _open_load(100, PACED_TICKS_PER_S) as websocket:
            paced = measure_service(market, websocket, window_s)
        with _open_load(100, 0) as websocket:
            script = measure_script(market, websocket, window_s)
    return {
        "ticks_per_s": {packets: each.ticks_per_s for packets, each in runs.items()},
        "priced_share": {packets: each.priced_share for packets, each in runs.items()},
        "conflated_share": {packets: each.conflated_share for packets, each in runs.items()},
        "p50_ms_at_20k": paced.p50_ms,
        "p99_ms_at_20k": paced.p99_ms,
        "paced_ticks_per_s": paced.ticks_per_s,
        "paced_conflated_or_dropped": paced.conflated + paced.dropped,
        "script_ticks_per_s": script,
        "ratio_vs_script": runs["100"].ticks_per_s / script,
    }


def measure_service(market: Market, websocket: str, window_s: float) -> Run:
    """Start the service against a feed, let it settle, and read its metrics over a window."""
    environment = CHAIN | {
        "REDIS_URL": market.redis,
        "KITE_API_ROOT": market.rest,
        "KITE_WS_ROOT": websocket,
        "KITE_ACCOUNTS": "bench",
        "KITE_BENCH_API_KEY": market.api_key,
        "KITE_BENCH_ACCESS_TOKEN": market.access_token,
        "LOG_LEVEL": "error",
    }
    with open_process(["-m", "ticker", "run", "--port", "0"], environment) as output:
        url = wait_line(output, "API").split()[1]
        with httpx.Client(base_url=url, timeout=10) as client:
            _wait_flow(client)
            time.sleep(1.0)
            before, started = read_metrics(client), time.monotonic()
            time.sleep(window_s)
            after, ended = read_metrics(client), time.monotonic()
    return _difference(before, after, ended - started)


def measure_script(market: Market, websocket: str, window_s: float) -> float:
    """Ticks per second of the rival script: the median of its full seconds."""
    tokens = [str(row["instrument_token"]) for row in _chain(market)]
    command = ["-m", "tests.benchmarks.script", "--rest", market.rest, "--websocket", websocket]
    command += ["--redis", market.redis, "--api-key", market.api_key]
    command += ["--access-token", market.access_token, "--tokens", ",".join(tokens)]
    with open_process(command, {}, errors=subprocess.DEVNULL) as output:
        seconds = [json.loads(wait_line(output, "{")) for _ in range(max(3, int(window_s)))]
    return float(statistics.median(second["ticks_per_s"] for second in seconds[1:]))


def _chain(market: Market) -> list[Mapping[str, str]]:
    import csv

    text = httpx.get(f"{market.rest}/instruments/NFO", headers={"X-Kite-Version": "3"}).text
    rows = [row for row in csv.DictReader(text.splitlines()) if row["name"] == "NIFTY"]
    index = {"instrument_token": "256265"}
    return [index, *rows[:1500]]


def _difference(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> Run:
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    published = grown["feed_ticks_published_total"]
    return Run(
        ticks_per_s=published / seconds,
        priced_share=grown["greeks_calculations_total:ok"] / grown["feed_ticks_decoded_total"],
        conflated_share=grown.get("feed_ticks_conflated_total", 0.0)
        / grown["feed_ticks_decoded_total"],
        p50_ms=_quantile(grown, 0.50) * 1000,
        p99_ms=_quantile(grown, 0.99) * 1000,
        conflated=int(grown.get("feed_ticks_conflated_total", 0)),
        dropped=int(grown.get("feed_ticks_dropped_total", 0)),
    )


def _quantile(grown: Mapping[str, float], share: float) -> float:
    """A quantile, in seconds, of the age of a batch's oldest tick when Redis acknowledged it."""
    prefix = "tick_publish_age_seconds_bucket:"
    buckets = sorted(
        (float(name.removeprefix(prefix)), count)
        for name, count in grown.items()
        if name.startswith(prefix)
    )
    wanted = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            inside = (wanted - below) / max(count - below, 1e-9)
            return lower + (min(bound, 60.0) - lower) * inside
        lower, below = bound, count
    return float("nan")


def read_metrics(client: httpx.Client) -> dict[str, float]:
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            part = sample.labels.get("le") or sample.labels.get("status")
            for name in {sample.name, f"{sample.name}:{part}" if part else sample.name}:
                totals[name] = totals.get(name, 0.0) + sample.value
    return totals


def _wait_flow(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while read_metrics(client).get("feed_ticks_published_total", 0.0) < 10_000:
        if time.monotonic() > deadline:
            raise TimeoutError("the service published nothing within a minute")
        time.sleep(0.1)


@contextmanager
def _open_simulator(redis: str) -> Iterator[Market]:
    with open_process(["-m", "ticker", "simulate", "--port", "0"], {}) as output:
        account = dict(word.split("=", 1) for word in wait_line(output, "api_key=").split())
        ready = wait_line(output, "ready").split()
        address = dict(word.split("=", 1) for word in ready[1:])
        yield Market(address["rest"], redis, account["api_key"], account["access_token"])


@contextmanager
def _open_load(packets_per_frame: int, ticks_per_s: float) -> Iterator[str]:
    command = ["-m", "tests.benchmarks.load", "--packets-per-frame", str(packets_per_frame)]
    with open_process([*command, "--ticks-per-s", str(ticks_per_s)], {}) as output:
        yield wait_line(output, "ready").split()[1]


@contextmanager
def _open_redis() -> Iterator[str]:
    with open_process(["-m", "tests.benchmarks.server"], {}) as output:
        yield wait_line(output, "ready").split()[1]


@contextmanager
def open_process(
    arguments: Sequence[str], environment: Mapping[str, str], errors: int | None = None
) -> Iterator[IO[str]]:
    """A Python child; its standard output is yielded, and it is ended on exit."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("KITE_", "REDIS"))
    }
    child = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=inherited | dict(environment),
    )
    try:
        assert child.stdout is not None
        yield child.stdout
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def wait_line(output: IO[str], start: str) -> str:
    for line in output:
        if line.lstrip().startswith(start):
            return line
    raise ChildProcessError(f"the child ended before it said {start!r}")


if __name__ == "__main__":
    print(json.dumps(run(quick="--quick" in sys.argv), indent=2))
