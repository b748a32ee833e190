"""What the command line does with the database: API keys, and stored secrets under a new key."""

import datetime as dt
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from ticker.accounts.secrets_box import load_secret_box
from ticker.errors import ConfigurationError
from ticker.settings import Settings
from ticker.stores.accounts import AccountStore
from ticker.stores.api_keys import ApiKey, ApiKeyStore, Scope
from ticker.stores.database import Database, open_database
from ticker.stores.migrate import migrate

Say = Callable[[str], None]


def create_key(
    settings: Settings, name: str, scopes: Sequence[Scope], days: int | None, say: Say
) -> None:
    """Make an API key and say it, which can be done once only. ``days``: until it is over.

    Raises ConfigurationError without a database, RequestError and StoreError, as all here do.
    """
    trio.run(partial(run_create_key, settings, name, scopes, days, say))


def list_keys(settings: Settings, say: Say) -> None:
    """Say a line about each API key, newest first."""
    trio.run(run_list_keys, settings, say)


def revoke_key(settings: Settings, key_id: str, say: Say) -> None:
    """End an API key; running instances follow within seconds."""
    trio.run(run_revoke_key, settings, key_id, say)


def rotate_secrets(settings: Settings, say: Say) -> None:
    """Seal every stored secret anew with the first of the configured keys."""
    trio.run(run_rotate_secrets, settings, say)


def migrate_database(settings: Settings, say: Say) -> None:
    """Apply the migrations that the database has not had, and say which they were."""
    trio.run(run_migrate_database, settings, say)


async def run_migrate_database(settings: Settings, say: Say) -> None:
    async with _open_unmigrated(settings) as database:
        applied = await migrate(database)
    for name in applied:
        say(f"applied {name}")
    if not applied:
        say("The database is up to date.")


async def run_create_key(
    settings: Settings, name: str, scopes: Sequence[Scope], days: int | None, say: Say
) -> None:
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(days=days) if days is not None else None
    async with _open_migrated(settings) as database:
        store = ApiKeyStore(database, wall_clock=time.time)
        key, text = await store.create(name, scopes, expires_at=expires_at)
    say(f"{_line(key)}\n\n  {text}\n\nThis is shown once; send it as X-API-Key.")


async def run_list_keys(settings: Settings, say: Say) -> None:
    async with _open_migrated(settings) as database:
        keys = await ApiKeyStore(database, wall_clock=time.time).load_all()
        for key in keys:
            say(_line(key))
        if not keys:
            say("There are none: keys create makes one.")


async def run_revoke_key(settings: Settings, key_id: str, say: Say) -> None:
    async with _open_migrated(settings) as database:
        say(_line(await ApiKeyStore(database, wall_clock=time.time).revoke(key_id)))


async def run_rotate_secrets(settings: Settings, say: Say) -> None:
    box = load_secret_box(settings)
    if box is None:
        raise ConfigurationError("ACCOUNT_ENCRYPTION_KEY is not set: there is no key to seal with")
    async with _open_migrated(settings) as database:
        sealed, lost = await AccountStore(database, box).rotate()
    say(f"{sealed} account(s) are sealed with the first key.")
    if lost:
        raise ConfigurationError(
            f"the secrets of {', '.join(lost)} are sealed with a key that is not among those given"
        )


@asynccontextmanager
async def _open_migrated(settings: Settings) -> AsyncIterator[Database]:
    async with _open_unmigrated(settings) as database:
        await migrate(database)
        yield database


@asynccontextmanager
async def _open_unmigrated(settings: Settings) -> AsyncIterator[Database]:
    if settings.database_url is None:
        raise ConfigurationError(
            "DATABASE_URL is not set: there is no database to work with (a simulated market says "
            "at its start which ENV_FILE has its own)"
        )
    async with open_database(settings.database_url, wall_clock=time.time) as database:
        yield database


def _line(key: ApiKey) -> str:
    words = [key.id, key.name, ",".join(key.scopes), f"created {key.created_at:%Y-%m-%d}"]
    if key.last_used_at:
        words.append(f"last used {key.last_used_at:%Y-%m-%d %H:%M} UTC")
    if key.expires_at:
        words.append(f"until {key.expires_at:%Y-%m-%d %H:%M} UTC")
    if key.revoked_at:
        words.append(f"revoked {key.revoked_at:%Y-%m-%d %H:%M} UTC")
    return "  ".join(words)
