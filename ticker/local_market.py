"""What a run with nothing configured needs: a Redis-protocol server and a broker of its own."""

import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pydantic import SecretStr

from ticker.children import open_child
from ticker.embedded import open_valkey
from ticker.settings import DEFAULT_REDIS_URL, AccountSettings, Settings

LOCAL_REDIS_PORT: Final = 6399
"""Where the embedded server listens if the port is free; ``watch`` looks there by default."""

LOCAL_SIMULATOR_PORT: Final = 8765
"""Where the simulator listens if the port is free."""


@asynccontextmanager
async def open_redis_server(settings: Settings) -> AsyncIterator[Settings]:
    """Settings that name a Redis server: the configured one, or an embedded one.

    Real accounts without ``REDIS_URL`` use the usual local address: an embedded server is for
    simulated markets only.
    """
    if settings.redis_url is not None:
        yield settings
    elif settings.accounts:
        yield settings.model_copy(update={"redis_url": DEFAULT_REDIS_URL})
    else:
        async with open_valkey(port=free_port(LOCAL_REDIS_PORT)) as url:
            yield settings.model_copy(update={"redis_url": url})


@asynccontextmanager
async def open_market(settings: Settings) -> AsyncIterator[Settings]:
    """Settings that name a broker and accounts: the configured ones, or a simulator's two."""
    if settings.accounts:
        yield settings
        return
    command = [sys.executable, "-m", "ticker", "simulate"]
    command += ["--port", str(free_port(LOCAL_SIMULATOR_PORT)), "--accounts", "2"]
    async with open_child(command, ready=_is_ready, name="simulator") as child:
        words = [
            dict(part.split("=", 1) for part in line.split() if "=" in part) for line in child.head
        ]
        address = next(line for line in words if "rest" in line)
        accounts = tuple(
            AccountSettings(
                account_id=f"sim{number}",
                api_key=SecretStr(line["api_key"]),
                access_token=SecretStr(line["access_token"]),
            )
            for number, line in enumerate((line for line in words if "api_key" in line), start=1)
        )
        yield settings.model_copy(
            update={
                "accounts": accounts,
                "kite_api_root": address["rest"],
                "kite_ws_root": address["websocket"],
            }
        )


def free_port(preferred: int) -> int:
    """The preferred port if nothing listens there, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _is_ready(line: str) -> bool:
    return line.startswith("ready")
