"""Commands that stream: the service, its recorder and replay, the simulator."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

app = typer.Typer()

Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Port of the API; 0: any free one. Default: PORT, or 8080."
    ),
]
Host = Annotated[str | None, typer.Option(help="Address of the API. Default: HOST, or 127.0.0.1.")]


@app.command()
def run(port: Port = None, host: Host = None) -> None:
    """Run the service until Ctrl-C or SIGTERM (the default command).

    Settings come from the environment and a .env file: REDIS_URL, KITE_ACCOUNTS and
    KITE_<ID>_API_KEY / KITE_<ID>_ACCESS_TOKEN (or _ACCESS_TOKEN_FILE), FO_UNDERLYINGS, ...; the
    README lists them. What is not configured is simulated.
    """
    _leave_when_signalled()
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
        Literal["near", "full", "whole"],
        typer.Option(help="Instruments listed: some thousands, 45,000 or 100,000."),
    ] = "near",
    rate: Annotated[
        float, typer.Option(min=0.01, max=100, help="Ticks per second of each instrument.")
    ] = 1.0,
    speed: Annotated[
        float, typer.Option(min=0.01, max=10_000, help="Market seconds per second.")
    ] = 1.0,
    accounts: Annotated[int, typer.Option(min=1, max=50, help="How many accounts it knows.")] = 2,
    market_hours: Annotated[
        bool,
        typer.Option("--market-hours", help="Keep the exchanges' hours; else never close."),
    ] = False,
    redirect: Annotated[
        str,
        typer.Option(help="Where a login leads, as registered with the broker; '': JSON instead."),
    ] = "http://127.0.0.1:8080/login/callback",
) -> None:
    """Run the Kite simulator alone: login, REST and market-data WebSocket on one port.

    Prints the credentials it accepts, a line per account. Any Kite Connect client can use it. Its
    login page asks for no password: it redirects at once, with a request token.
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
        market_hours=market_hours,
        redirect_url=redirect or None,
    )
    run_simulator(config, typer.echo)


@app.command()
def record(
    file: Annotated[Path, typer.Argument(help="Where to; must not exist yet, or see --append.")],
    append: Annotated[
        bool, typer.Option("--append", help="Go on with a recording that is there.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Record for so long, then stop by itself.")
    ] = None,
    port: Port = None,
    host: Host = None,
) -> None:
    """Run the service and store every raw frame of its feed in FILE, with when it arrived.

    Also stored is what is known of the instruments, so that `ticker replay` needs no broker. Until
    Ctrl-C or SIGTERM. A disk that is full or slow costs frames of the recording, and is said; it
    costs the service nothing.
    """
    _leave_when_signalled()
    from ticker.kernel_cache import use_kernel_cache

    use_kernel_cache()
    from nurseries.recorder import record_until_signalled
    from ticker.environment import load_settings

    settings = load_settings(port=port, host=host)
    record_until_signalled(settings, file, append=append, seconds=seconds)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A recording, made by `ticker record`.")],
    speed: Annotated[
        str,
        typer.Option(metavar="N|max", help="Recorded seconds a second; max: as Redis takes it."),
    ] = "1",
    loop: Annotated[bool, typer.Option("--loop", help="Again and again, until stopped.")] = False,
    redis_url: Annotated[
        str | None, typer.Option(help="Default: REDIS_URL, or a server of its own.")
    ] = None,
) -> None:
    """Decode, price and publish a recording as if it were the feed, marked is_mock: true.

    Two replays of a file publish the same, byte for byte. Nothing is conflated: Redis is waited
    for. No broker is needed, and no account.
    """
    _leave_when_signalled()
    from ticker.kernel_cache import use_kernel_cache

    use_kernel_cache()
    from nurseries.replayer import parse_speed, replay_until_signalled
    from ticker.environment import load_settings

    wanted = parse_speed(speed)
    replay_until_signalled(load_settings(redis_url=redis_url), file, speed=wanted, loop=loop)


def _leave_when_signalled() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)  # until the service receives them itself


def _leave(_number: int, _frame: object) -> NoReturn:
    """Asked to stop before anything has started."""
    sys.exit(0)
