"""``python -m ticker``: the command line, and nothing else."""

import sys
from typing import Annotated, Final, NoReturn

import typer

from ticker import __version__
from ticker.commands import administration, looking, streaming
from ticker.errors import ConfigurationError, TickerError

INTERRUPTED: Final = 130
"""Exit code of what was given up by Ctrl-C, as shells have it."""

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
for commands in (streaming, looking, administration):
    app.add_typer(commands.app)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ticker {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    port: streaming.Port = None,
    host: streaming.Host = None,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=show_version, help="Print the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        streaming.run(port, host)


def main() -> NoReturn:
    """Run the command line.

    A TickerError is one line on standard error and Ctrl-C none, never a traceback.
    """
    code = 0  # an exit inside of except* would itself become a part of a group
    try:
        app(standalone_mode=True)
    except* ConfigurationError as group:
        _tell(group)
        code = 2
    except* TickerError as group:
        _tell(group)
        code = code or 1
    except* KeyboardInterrupt:
        code = code or INTERRUPTED
    sys.exit(code)


def _tell(group: BaseExceptionGroup[TickerError]) -> None:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    detail = error.detail if isinstance(error, TickerError) else None
    typer.echo(f"ticker: {error}" + (f": {detail}" if detail else ""), err=True)


if __name__ == "__main__":
    main()
