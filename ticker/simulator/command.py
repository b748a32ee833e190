"""The simulator as a foreground program."""

import signal
from collections.abc import Callable
from functools import partial

import trio

from ticker.logs import configure_logging
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.simulation import SimulatorConfig


def run_simulator(config: SimulatorConfig, write: Callable[[str], object]) -> None:
    """Serve until SIGINT or SIGTERM.

    Writes ``api_key=... access_token=... api_secret=...`` for each account, and last
    ``ready rest=... websocket=... redirect=...``, as soon as it listens.
    """
    configure_logging("warning", "auto")
    trio.run(_run, config, write)


async def _run(config: SimulatorConfig, write: Callable[[str], object]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            address: SimulatorAddress = await nursery.start(partial(serve_simulator, config))
            for account in config.accounts:
                write(
                    f"api_key={account.api_key} access_token={account.access_token} "
                    f"api_secret={account.api_secret} user_id={account.user_id}"
                )
            redirect = f" redirect={config.redirect_url}" if config.redirect_url else ""
            write(f"ready rest={address.rest_url} websocket={address.ws_url}{redirect}")
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
