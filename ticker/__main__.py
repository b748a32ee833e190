"""``python -m ticker``: the command line, and nothing else."""

import sys
from typing import NoReturn

import typer

from ticker.commands import administration, looking, streaming
from ticker.errors import ConfigurationError, TickerError

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


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context, port: streaming.Port = None, host: streaming.Host = None
) -> None:
    if context.invoked_subcommand is None:
        streaming.run(port, host)


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
