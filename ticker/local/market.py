"""What a run with nothing configured needs: a Redis-protocol server, a PostgreSQL and a broker of
its own.
"""

import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Final

import structlog
from pydantic import SecretStr

from ticker.accounts.secrets_box import create_encryption_key, has_encryption_key
from ticker.environment import to_env_text
from ticker.local.folders import open_folder
from ticker.local.ports import open_child_on_port
from ticker.local.postgres import open_postgres
from ticker.local.valkey import open_valkey
from ticker.settings import CALLBACK_PATH, DEFAULT_REDIS_URL, AccountSettings, Settings

LOCAL_REDIS_PORT: Final = 6399
"""Where the embedded server listens if the port is free; ``watch`` looks there by default."""

LOCAL_SIMULATOR_PORT: Final = 8765
"""Where the simulator listens if the port is free."""

FOLDER: Final = "ticker-run-settings-"
"""How the folder of a local run's settings is called, up to a random end."""

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
        with open_env_file(ready) if is_local else nullcontext(ready) as found:
            yield found


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
        async with open_valkey(port=LOCAL_REDIS_PORT) as url:
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
    command = [sys.executable, "-m", "ticker", "simulate", "--accounts", "2"]
    command += ["--redirect", _callback_url(settings)]
    async with open_child_on_port(
        lambda port: [*command, "--port", str(port)],
        LOCAL_SIMULATOR_PORT,
        ready=_is_ready,
        name="simulator",
    ) as (child, _):
        words = [
            dict(part.split("=", 1) for part in line.split() if "=" in part) for line in child.head
        ]
        address = next(line for line in words if "rest" in line)
        accounts = tuple(
            AccountSettings(
                account_id=f"sim{number}",
                api_key=SecretStr(line["api_key"]),
                api_secret=SecretStr(line["api_secret"]),
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


@contextmanager
def open_env_file(settings: Settings) -> Iterator[Settings]:
    """Settings that name a file which holds them, for other commands: ``ENV_FILE``."""
    with open_folder(FOLDER) as folder:
        file = folder / "env"
        file.write_text(to_env_text(settings), encoding="utf-8")
        yield settings.model_copy(update={"env_file": file})


def _callback_url(settings: Settings) -> str:
    """Where a login at the simulator leads: to this service. Nowhere if its port is not known."""
    if not settings.port:
        return ""
    host = "127.0.0.1" if settings.host in {"", "0.0.0.0", "::"} else settings.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.port}{CALLBACK_PATH}"


def _is_ready(line: str) -> bool:
    return line.startswith("ready")
