"""Hypercorn as one task of our nursery, with its two known hangs closed."""

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import hypercorn.trio.run as hypercorn_run
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio import serve
from hypercorn.trio.tcp_server import TCPServer
from quart_trio import QuartTrio

from ticker.errors import ConfigurationError

GRACE_S: Final = 2.0
"""How long requests in flight may go on after the shutdown trigger."""

SEND_TIMEOUT_S: Final = 2.0
"""A client that reads nothing for this long is disconnected."""


class BoundedTCPServer(TCPServer):
    """Hypercorn 0.18's connection handler, unable to outlive a shutdown.

    Upstream shields ``send_all``, so one client that stops reading holds the whole process for
    ever; and it re-arms the keep-alive timer from a task that Quart-Trio has already cancelled,
    so that the timer never starts and an idle connection costs the whole grace period.
    """

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)
            return
        async with self.send_lock:
            with trio.move_on_after(SEND_TIMEOUT_S, shield=True) as sending:
                try:
                    await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.protocol.handle(Closed())
        if sending.cancelled_caught:
            await self.stream.aclose()


async def serve_api(
    app: QuartTrio,
    *,
    host: str,
    port: int,
    wait_shutdown: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``wait_shutdown`` returns and requests in flight have ended, or their grace.

    ``task_status`` is given the bound URL. End it by the trigger, never by cancelling it: a
    cancelled server drops the requests in flight. Raises ConfigurationError if the address is
    taken.
    """
    listener = _listen(host, port)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # Hypercorn owns, and closes, the descriptor
    config.graceful_timeout = GRACE_S
    config.keep_alive_timeout = 30.0
    config.h11_max_incomplete_size = 16 * 1024
    config.errorlog = None
    config.accesslog = None
    # Hypercorn looks its connection class up in this module and takes no other by argument.
    hypercorn_run.TCPServer = BoundedTCPServer  # type: ignore[attr-defined]
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(
            partial(serve, app, config, shutdown_trigger=wait_shutdown)
        )
        task_status.started(binds[0])


def require_address(host: str, port: int) -> None:
    """Raise ConfigurationError if ``serve_api`` could not listen there at this moment."""
    _listen(host, port).close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while ")[0]  # it repeats the address
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from None
