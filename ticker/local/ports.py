"""Ports of child servers on loopback."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ticker.errors import ChildExitedError
from ticker.local.children import Child, open_child

TRIES: Final = 5
"""How often another port is tried; that a port is taken under our nose is rare."""


@asynccontextmanager
async def open_child_on_port(
    create_command: Callable[[int], Sequence[str]],
    preferred: int,
    *,
    ready: Callable[[str], bool],
    name: str,
) -> AsyncIterator[tuple[Child, int]]:
    """``open_child`` with a port of 127.0.0.1 to listen on: the preferred one, or any free one.

    Somebody may take a port between our look and the child's; then another one is tried.
    """
    for tries_left in reversed(range(TRIES)):
        port = free_port(preferred)
        has_started = False
        try:
            async with open_child(create_command(port), ready=ready, name=name) as child:
                has_started = True
                yield child, port
                return
        except ChildExitedError:
            if has_started or not tries_left or is_free(port):
                raise


def free_port(preferred: int = 0) -> int:
    """The preferred port if nothing listens there, else any free one. OSError if there is none."""
    if preferred and is_free(preferred):
        return preferred
    with _bind(0) as probe:
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen there at this moment."""
    try:
        _bind(port).close()
    except OSError:
        return False
    return True


def _bind(port: int) -> socket.socket:
    probe = socket.socket()
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    except BaseException:
        probe.close()
        raise
    return probe
