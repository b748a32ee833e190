"""Commands that show something: live chains, captured frames, trading hours, benchmarks."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ticker.commands.output import writing_to_stdout
from ticker.errors import ConfigurationError

app = typer.Typer()


@app.command()
def watch(
    underlying: Annotated[str, typer.Option(help="Whose chain to show.")] = "NIFTY",
    expiry: Annotated[
        str | None, typer.Option(help="YYYY-MM-DD; the nearest if not given.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print every payload as a line of JSON.")
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option(help="Gather for so long, print the table once (--raw: what came), end."),
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Default: REDIS_URL, or the local market's server.")
    ] = None,
) -> None:
    """Show a live option chain, or raw payloads, as any Redis subscriber sees them."""
    from rich.console import Console

    from ticker.calendar.report import parse_day
    from ticker.chains.watch import print_payloads, show_chain
    from ticker.chains.watched import Chain
    from ticker.environment import load_settings
    from ticker.local.market import LOCAL_REDIS_PORT

    settings = load_settings(redis_url=redis_url)
    url = settings.redis_url or f"redis://127.0.0.1:{LOCAL_REDIS_PORT}/0"
    prefix = settings.publish_channel_prefix
    with writing_to_stdout():
        if raw:
            print_payloads(url, prefix, sys.stdout, sys.stderr, seconds=seconds)
        else:
            chain = Chain(underlying.upper(), expiry and parse_day(expiry).isoformat())
            show_chain(url, prefix, chain, Console(), seconds=seconds)


@app.command()
def decode(
    file: Annotated[
        str, typer.Argument(help="Frames in hex, one a line; - is standard input.")
    ] = "-",
) -> None:
    """Decode captured binary frames: a line of JSON per packet, a summary on standard error.

    Blank lines and # comments are ignored. Malformed input is counted, never fatal.
    """
    from ticker.decode import decode_lines, read_lines

    with writing_to_stdout(), _open_binary(file) as stream:
        summary = decode_lines(read_lines(stream), sys.stdout.write)
        sys.stdout.flush()
        typer.echo(summary.to_json(), err=True)


@app.command()
def calendar(
    day: Annotated[
        str | None, typer.Argument(metavar="[DATE]", help="YYYY-MM-DD; today at the exchanges.")
    ] = None,
) -> None:
    """Show a day's trading hours by segment, and of today also which phase is on.

    Reads MARKET_HOURS_FILE, or the file that comes with the package.
    """
    import datetime as dt

    from ticker.calendar.report import calendar_lines, parse_day
    from ticker.environment import load_settings

    shown = parse_day(day) if day is not None else None
    path = load_settings().market_hours_file
    for line in calendar_lines(dt.datetime.now(dt.UTC), shown, path):
        typer.echo(line)


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Shorter rounds; ends within a minute.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    output: Annotated[Path, typer.Option(help="Where the JSON is written as well.")] = Path(
        "bench.json"
    ),
) -> None:
    """Measure decoding, pricing, publishing and the whole path, each beside its rival."""
    try:
        from tests.benchmarks.report import run_benchmarks
    except ModuleNotFoundError:
        raise ConfigurationError(
            "bench runs from a checkout: tests/benchmarks is not here"
        ) from None
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise ConfigurationError(f"--output: {output} cannot be written")
    run_benchmarks(quick=quick, as_json=as_json, output=output)


def _open_binary(file: str) -> AbstractContextManager[BinaryIO]:
    if file == "-":
        if sys.stdin is None:
            raise ConfigurationError("standard input is closed")
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
