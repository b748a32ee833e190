"""Table ``runtime_settings``: what was switched over the API and outlives a restart."""

import datetime as dt
from typing import Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from ticker.stores.database import Database


class KeptSetting(msgspec.Struct, frozen=True):
    """A value as it was saved; ``at`` in UTC, by PostgreSQL's clock, and ``by`` whom."""

    value: object
    at: dt.datetime
    by: str


class RuntimeSettings:
    """Every method is one transaction and raises StoreUnavailableError as ``Database.run`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, name: str) -> KeptSetting | None:
        """What was saved last; None if nothing was."""

        def load(connection: psycopg.Connection[Any]) -> KeptSetting | None:
            row = connection.execute(
                "SELECT value, updated_at, updated_by FROM runtime_settings WHERE name = %s",
                (name,),
            ).fetchone()
            return None if row is None else _kept(*row)

        return await self._database.run(load, query_type="load_runtime_setting")

    async def claim(self, name: str, value: str) -> object:
        """Save the value if there is none yet; returns what is kept."""

        def claim(connection: psycopg.Connection[Any]) -> object:
            connection.execute(
                "INSERT INTO runtime_settings (name, value, updated_by) "
                "VALUES (%s, %s, 'service') ON CONFLICT (name) DO NOTHING",
                (name, Jsonb(value)),
            )
            row = connection.execute(
                "SELECT value FROM runtime_settings WHERE name = %s", (name,)
            ).fetchone()
            return None if row is None else row[0]

        return await self._database.run(claim, query_type="claim_runtime_setting")

    async def save(self, name: str, value: object, *, by: str) -> KeptSetting:
        """Insert or replace. ``value``: whatever JSON can hold; ``by``: who switched it."""

        def save(connection: psycopg.Connection[Any]) -> KeptSetting:
            rows = connection.execute(
                "INSERT INTO runtime_settings (name, value, updated_by) VALUES (%s, %s, %s) "
                "ON CONFLICT (name) DO UPDATE SET "
                "value = excluded.value, updated_by = excluded.updated_by, updated_at = now() "
                "RETURNING value, updated_at, updated_by",
                (name, Jsonb(value), by),
            ).fetchall()
            return _kept(*rows[0])

        return await self._database.run(save, query_type="save_runtime_setting")


def _kept(value: object, at: dt.datetime, by: str) -> KeptSetting:
    return KeptSetting(value, at.astimezone(dt.UTC), by)
