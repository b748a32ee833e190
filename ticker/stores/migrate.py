"""Numbered SQL files, applied once each, in order."""

import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import psycopg
from psycopg import errors

from ticker.errors import ConfigurationError
from ticker.stores.database import Database

MIGRATIONS: Final = files("ticker.stores") / "migrations"

NAME: Final = re.compile(r"\d{4}_[a-z0-9_]+\.sql")

LOCK_KEY: Final = 0x7469636B  # "tick": any number, as long as every instance takes the same

TIMEOUT_S: Final = 120.0
"""For one file: it may have to build an index, or to wait for another instance's."""

CREATE_LEDGER: Final = """
CREATE TABLE schema_migrations (
    name TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
"""


async def migrate(database: Database, *, folder: Traversable = MIGRATIONS) -> list[str]:
    """Apply the files that are not applied yet; their names, in order.

    Each is one transaction, under a lock that one instance at a time can have: instances that
    start together apply every file once.

    Raises ConfigurationError if a file differs from what was applied under its name, if the
    database has a migration that ``folder`` does not have (it is newer than this program), or if
    the database's user may not create tables. Raises StoreUnavailableError as ``Database.run``.
    """
    applied: list[str] = []

    def apply_next(connection: psycopg.Connection[Any]) -> str | None:
        return _apply_next(connection, _load_files(folder))

    while name := await database.run(apply_next, timeout_s=TIMEOUT_S, query_type="migrate"):
        applied.append(name)
    return applied


def _load_files(folder: Traversable) -> dict[str, str]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in entries
        if NAME.fullmatch(entry.name)
    }


def _apply_next(connection: psycopg.Connection[Any], texts: Mapping[str, str]) -> str | None:
    """Apply the first file that is not applied; its name, None if there is none."""
    try:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,):
            connection.execute(CREATE_LEDGER)  # which takes a right that is not needed otherwise
        rows = connection.execute("SELECT name, digest FROM schema_migrations").fetchall()
        applied = dict(rows)
        digests = {name: _digest(text) for name, text in texts.items()}
        _require_known(applied, digests)
        name = min(digests.keys() - applied.keys(), default=None)
        if name is None:
            return None
        connection.execute(texts[name].encode())
        connection.execute(
            "INSERT INTO schema_migrations (name, digest) VALUES (%s, %s)", (name, digests[name])
        )
    except errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"the database's user may not change its tables: {error.diag.message_primary}"
        ) from error
    except (errors.DuplicateTable, errors.DuplicateObject) as error:
        raise ConfigurationError(
            f"the database holds what is not this program's: {error.diag.message_primary}; "
            "name a database of its own"
        ) from error
    return name


def _require_known(applied: Mapping[str, str], digests: Mapping[str, str]) -> None:
    if unknown := sorted(applied.keys() - digests.keys()):
        raise ConfigurationError(
            f"the database is newer than this program: it has had {', '.join(unknown)}"
        )
    if changed := sorted(name for name, digest in applied.items() if digests[name] != digest):
        raise ConfigurationError(
            f"{', '.join(changed)} was changed after it had been applied to this database: "
            "put it back, and write a further migration"
        )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
