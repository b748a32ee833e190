"""What a run with nothing configured needs: a Redis-protocol server, a PostgreSQL and a broker of
its own.
"""

import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from pydantic import SecretStr

from ticker.accounts.secrets_box import create_encryption_key, has_encryption_key
from ticker.local.children import open_child
from ticker.local.postgres import open_postgres
from ticker.local.valkey import open_valkey
from ticker.settings import DEFAULT_REDIS_URL, AccountSettings, Settings

LOCAL_REDIS_PORT: Final = 6399
"""Where the embedded server listens if the port is free; ``watch`` looks there by default."""

LOCAL_SIMULATOR_PORT: Final = 8765
"""Where the simulator listens if the port is free."""

LOCAL_KEY: Final = "local-"
"""How the API key of a simulated market begins: it is made for the run, and may be shown."""


@asynccontextmanager
async def open_surroundings(settings: Settings) -> AsyncIterator[Settings]:
    """Settings that name all servers: those that are not configured run for the block.

    The market is simulated if no account can come from anywhere.
    """
    is_local = settings.is_local_market
    async with (
        open_redis_server(settings, is_local=is_local) as with_redis,
        open_database_server(with_redis, is_local=is_local) as with_database,
        open_market(with_database, is_local=is_local) as ready,
    ):
        yield ready


@asynccontextmanager
async def open_redis_server(settings: Settings, *, is_local: bool) -> AsyncIterator[Settings]:
    """Settings that name a Redis server: the configured one, or an embedded one.

    Real accounts without ``REDIS_URL`` use the usual local address: an embedded server is for
    simulated markets only.
    """
    if settings.redis_url is not None:
        yield settings
    elif not is_local:
        yield settings.model_copy(update={"redis_url": DEFAULT_REDIS_URL})
    else:
        async with open_valkey(port=free_port(LOCAL_REDIS_PORT)) as url:
            yield settings.model_copy(update={"redis_url": url})


@asynccontextmanager
async def open_database_server(settings: Settings, *, is_local: bool) -> AsyncIterator[Settings]:
    """Settings that name a PostgreSQL: the configured one, or an embedded one.

    That keeps its data in ``DATABASE_DIR``, without one for as long as the block. An embedded
    server is enough for one service on one machine; what it lacks is a backup.
    """
    if settings.database_url is not None:
        yield settings
        return
    if settings.database_dir is None and not is_local:
        structlog.get_logger().warning(
            "nothing_is_kept",
            reason="neither DATABASE_URL nor DATABASE_DIR is set: subscriptions, accounts and "
            "logins that come over the API end with this run",
        )
    async with open_postgres(directory=settings.database_dir) as url:
        changes: dict[str, object] = {"database_url": url}
        if settings.database_dir is None and not has_encryption_key(settings):
            # what it seals does not outlive the database
            changes["account_encryption_key"] = SecretStr(create_encryption_key())
        yield settings.model_copy(update=changes)


@asynccontextmanager
async def open_market(settings: Settings, *, is_local: bool) -> AsyncIterator[Settings]:
    """Settings that name a broker and accounts: the configured ones, or a simulator's two.

    A simulator never closes, so no mock market speaks in its stead at night. Its API has a key of
    this run's own, to be shown, if none is configured.
    """
    if not is_local:
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
                "kite_login_root": address["rest"],
                "enable_mock_data": False,
                "api_key": settings.api_key or SecretStr(LOCAL_KEY + secrets.token_urlsafe(24)),
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
