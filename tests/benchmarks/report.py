"""All benchmarks in one run: a table for people, JSON for machines."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.benchmarks import decode, greeks, pipeline, publish

Benchmark = Callable[[bool], dict[str, Any]]

BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "decode": decode.run,
    "greeks": greeks.run,
    "publish": publish.run,
    "pipeline": pipeline.run,
}

AIMS: Final[Mapping[str, tuple[str, float]]] = {
    "decode.ratio.1": (">=", 5),
    "decode.ratio.1000": (">=", 100),
    "greeks.ns_per_option.1000": ("<=", 100),
    "greeks.ratio_vs_vollib": (">=", 300),
    "greeks.two_thread_scaling": (">=", 1.7),
    "publish.fraction_of_limit": (">=", 0.5),
    "pipeline.ticks_per_s.100": (">=", 150_000),
    "pipeline.p99_ms_at_20k": ("<=", 10),
    "pipeline.ratio_vs_script": (">=", 15),
}


def run_benchmarks(*, quick: bool, as_json: bool, output: Path) -> None:
    """Run all, say on standard error which is running, print the result and write ``output``."""
    progress = Console(stderr=True)
    results: dict[str, Any] = {
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
        }
    }
    for name, benchmark in BENCHMARKS.items():
        with progress.status(f"measuring {name} ..."):
            results[name] = benchmark(quick)
    output.write_text(json.dumps(results, indent=2) + "\n")
    if as_json:
        Console().print_json(data=results)
    else:
        Console().print(create_table(results))
        Console().print(f"written to {output}")


def create_table(results: Mapping[str, Any]) -> Table:
    """Every figure by its dotted name, beside the aim it is held against where there is one."""
    table = Table(title="Benchmarks: medians and ratios of one run", title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("aim", justify="right")
    table.add_column("")
    for name, value in _flatten("", results):
        if not isinstance(value, int | float):
            continue
        relation, aim = AIMS.get(name, ("", 0.0))
        reached = value >= aim if relation == ">=" else value <= aim
        mark = "" if not relation else "[green]reached[/]" if reached else "[red]missed[/]"
        table.add_row(name, f"{value:,.4g}", f"{relation} {aim:,g}" if relation else "", mark)
    return table


def _flatten(prefix: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [
            row
            for key, part in value.items()
            for row in _flatten(f"{prefix}.{key}" if prefix else str(key), part)
        ]
    return [(prefix, value)]
