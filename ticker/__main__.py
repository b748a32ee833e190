"""``python -m ticker``: the command line, and nothing else.

It alone composes the three packages. Heavy imports stay inside the commands that need them, so
that ``--help`` and ``decode`` start at once.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NoReturn

import typer

from ticker.errors import ConfigurationError, OutputError, TickerError

app = typer.Typer(
    name="ticker",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Streams Kite Connect market data, prices every option tick and publishes to Redis.\n\n"
        "Without a command it runs the service. With nothing configured that is a complete local "
        "market: a Kite simulator, a Redis-protocol server and the service itself. Set REDIS_URL "
        "and KITE_ACCOUNTS for the real ones."
    ),
)

Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Port of the API; 0: any free one. Default: PORT, or 8080."
    ),
]
Host = Annotated[str | None, typer.Option(help="Address of the API. Default: HOST, or 127.0.0.1.")]


@app.callback(invoke_without_command=True)
def default(context: typer.Context, port: Port = None, host: Host = None) -> None:
    if context.invoked_subcommand is None:
        run(port, host)


@app.command()
def run(port: Port = None, host: Host = None) -> None:
    """Run the service until Ctrl-C or SIGTERM (the default command).

    Settings come from the environment and a .env file: REDIS_URL, KITE_ACCOUNTS and
    KITE_<ID>_API_KEY / KITE_<ID>_ACCESS_TOKEN (or _ACCESS_TOKEN_FILE), FO_UNDERLYINGS, ...; the
    README lists them. What is not configured is simulated.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # until the service receives them itself
    from ticker.kernel_cache import use_kernel_cache

    use_kernel_cache()
    from nurseries.run import run_until_signalled
    from ticker.environment import load_settings

    run_until_signalled(load_settings(port=port, host=host))


@app.command()
def simulate(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="REST and WebSocket on one port; 0: any free one.")
    ] = 8765,
    seed: Annotated[int, typer.Option(help="Same seed and date: same market.")] = 1,
    instruments: Annotated[
        Literal["near", "full"], typer.Option(help="Size of the instrument dump.")
    ] = "near",
    rate: Annotated[
        float, typer.Option(min=0.01, max=100, help="Ticks per second and instrument.")
    ] = 1.0,
    speed: Annotated[
        float, typer.Option(min=0.01, max=10_000, help="Market seconds per second.")
    ] = 1.0,
    accounts: Annotated[int, typer.Option(min=1, max=50, help="How many accounts it knows.")] = 2,
) -> None:
    """Run the Kite simulator alone: login, REST and market-data WebSocket on one port.

    Prints the credentials it accepts, a line per account. Any Kite Connect client can use it.
    """
    from ticker.simulator.command import run_simulator
    from ticker.simulator.sessions import create_accounts
    from ticker.simulator.simulation import SimulatorConfig

    config = SimulatorConfig(
        port=port,
        seed=seed,
        instruments=instruments,
        rate=rate,
        speed=speed,
        accounts=create_accounts(seed, accounts),
    )
    run_simulator(config, typer.echo)


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

    from ticker.calendar_report import parse_day
    from ticker.chain import Chain
    from ticker.local_market import LOCAL_REDIS_PORT
    from ticker.environment import load_settings
    from ticker.watch import print_payloads, show_chain

    settings = load_settings(redis_url=redis_url)
    url = settings.redis_url or f"redis://127.0.0.1:{LOCAL_REDIS_PORT}/0"
    prefix = settings.publish_channel_prefix
    with _writing_to_stdout():
        if raw:
            print_payloads(url, prefix, sys.stdout, seconds=seconds)
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

    with _writing_to_stdout(), _open_binary(file) as stream:
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

    from ticker.calendar_report import calendar_lines, parse_day
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
    run_benchmarks(quick=quick, as_json=as_json, output=output)


def _leave(_number: int, _frame: object) -> NoReturn:
    """Asked to stop before anything has started."""
    sys.exit(0)


@contextmanager
def _writing_to_stdout() -> Iterator[None]:
    """Ctrl-C, and a reader who has seen enough (`... | head`), end a command without an error."""
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed")
    try:
        yield
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # What is still buffered goes nowhere, instead of failing once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"cannot write: {error.strerror}") from None


def _open_binary(file: str) -> AbstractContextManager[BinaryIO]:
    if file == "-":
        if sys.stdin is None:
            raise ConfigurationError("standard input is closed")
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None


def main() -> NoReturn:
    """Run the command line; a TickerError is one line on standard error, never a traceback."""
    try:
        app(standalone_mode=True)
    except* ConfigurationError as group:
        _fail(group, 2)
    except* TickerError as group:
        _fail(group, 1)
    sys.exit(0)


def _fail(group: BaseExceptionGroup[TickerError], code: int) -> NoReturn:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    typer.echo(f"ticker: {error}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
