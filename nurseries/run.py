"""The service as a foreground program: signals, child servers, and what a person sees."""

import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import trio

from api.server import require_address
from nurseries.service import run_service
from nurseries.show_status import show_status
from ticker.local.market import open_surroundings
from ticker.logs import configure_logging
from ticker.metrics import Metrics
from ticker.settings import Settings
from ticker.status import ServiceStatus

SWITCH_INTERVAL_S: Final = 0.0005
"""The loop gets the interpreter back from a worker thread within this; Python's default is 5 ms."""


STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the process manager, and the terminal that was closed."""


Serve = Callable[..., Awaitable[None]]
"""As ``run_service``: settings, status and metrics; ``stop`` and ``task_status`` by name."""
Show = Callable[[Settings, ServiceStatus, str], Awaitable[None]]
"""What a person sees while it serves: settings, status and the API's URL; cancelled at the end."""


def run_until_signalled(
    settings: Settings, serve: Serve = run_service, show: Show = show_status
) -> None:
    """Run the service and, where not configured, its own servers and simulator.

    Returns after a signal to stop, once everything is drained and every child has ended. Raises
    ConfigurationError if the API's address is taken.
    """
    configure_logging(settings.log_level, settings.log_format)
    require_address(settings.host, settings.port)  # before anything else is started
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    trio.run(_run, settings, serve, show)


async def _run(settings: Settings, serve: Serve, show: Show) -> None:
    stop = trio.Event()
    serving = trio.Event()
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey_signals, signals, stop, serving, nursery.cancel_scope)
            async with open_surroundings(settings) as ready:
                status = ServiceStatus(
                    started_at=time.time(),
                    environment=ready.environment,
                    account_ids=tuple(account.account_id for account in ready.accounts),
                )
                await _serve(ready, status, stop, serving, serve, show)
            nursery.cancel_scope.cancel()


async def _serve(
    settings: Settings,
    status: ServiceStatus,
    stop: trio.Event,
    serving: trio.Event,
    serve: Serve,
    show: Show,
) -> None:
    metrics = Metrics()

    async def service(task_status: trio.TaskStatus[str]) -> None:
        await serve(settings, status, metrics, stop=stop, task_status=task_status)
        console.cancel()

    async with trio.open_nursery() as nursery:
        console = nursery.cancel_scope
        url: str = await nursery.start(service)
        serving.set()
        nursery.start_soon(show, settings, status, url)


async def _obey_signals(
    signals: AsyncIterator[int], stop: trio.Event, serving: trio.Event, everything: trio.CancelScope
) -> None:
    """The first signal stops in order, or gives a start-up up; the second does not wait."""
    async for _ in signals:
        if stop.is_set() or not serving.is_set():
            everything.cancel()
        stop.set()
