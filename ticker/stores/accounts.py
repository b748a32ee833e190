"""Table ``trading_accounts``: broker accounts, their secrets sealed.

A row of origin ``database`` is an account; one of origin ``settings`` only keeps the access token
of an account that is configured elsewhere.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from ticker.accounts.secrets_box import SecretBox
from ticker.accounts.sessions import Source, fingerprint
from ticker.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    UnknownAccountError,
)
from ticker.stores.database import Database

ACCOUNTS_MAX: Final = 1000
"""Rows that are looked at. An account costs a monthly fee and three sockets: there are a few."""

_SEALED: Final = ("api_key", "api_secret", "access_token", "username")
_ONE_PER_KEY: Final = "trading_accounts_one_per_api_key"
_NO_KEY: Final = "ACCOUNT_ENCRYPTION_KEY is not set, so stored secrets cannot be read"
_OTHER_KEY: Final = "none of the keys in ACCOUNT_ENCRYPTION_KEY opens the stored secrets"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """One account as stored, its secrets opened; ``repr`` shows none of them.

    ``error``: why they cannot be opened, in which case they are empty. Times are aware UTC.
    ``configured_hash``: the fingerprint of the token in the settings that this token came after.
    """

    account_id: str
    origin: Source
    api_key: str = field(repr=False)
    api_secret: str | None = field(repr=False)
    access_token: str | None = field(repr=False)
    token_issued_at: dt.datetime | None
    configured_hash: bytes = field(repr=False)
    username: str | None = field(repr=False)
    is_active: bool
    metadata: Mapping[str, object]
    created_at: dt.datetime
    updated_at: dt.datetime
    error: str | None = None


class AccountStore:
    """Every method raises StoreUnavailableError while PostgreSQL is away; those that write a
    secret raise ConfigurationError without a key to seal it with.
    """

    def __init__(self, database: Database, box: SecretBox | None) -> None:
        self._database = database
        self._box = box

    async def load_all(self) -> list[AccountRow]:
        """Every row by account id; one whose secrets cannot be opened says so in ``error``."""

        def select(connection: psycopg.Connection[Any]) -> list[AccountRow]:
            cursor = connection.cursor(row_factory=dict_row)
            query = "SELECT * FROM trading_accounts ORDER BY account_id LIMIT %s"
            # opened here, in the thread: a tenth of a millisecond for each account
            return [self._open(row) for row in cursor.execute(query, (ACCOUNTS_MAX,))]

        return await self._database.run(select, query_type="accounts")

    async def create(
        self,
        account_id: str,
        *,
        api_key: str,
        api_secret: str | None,
        access_token: str | None,
        username: str | None,
        metadata: Mapping[str, object],
        now: dt.datetime,
    ) -> AccountRow:
        """Add an account. ConflictError if it, or an active one with its api_key, is there."""
        values = {
            **self._seal(
                account_id,
                {
                    "api_key": api_key,
                    "api_secret": api_secret,
                    "access_token": access_token,
                    "username": username,
                },
            ),
            "account_id": account_id,
            "api_key_hash": fingerprint(api_key),
            "token_issued_at": now if access_token else None,
            "metadata": Jsonb(dict(metadata)),
            "created_at": now,
            "updated_at": now,
        }
        # a row that only kept the token of a configured account gives way to the account
        query = f"""
            INSERT INTO trading_accounts ({", ".join(values)})
            VALUES ({", ".join(f"%({name})s" for name in values)})
            ON CONFLICT (account_id) DO UPDATE SET origin = 'database',
                is_active = true, configured_token_hash = '',
                {", ".join(f"{name} = EXCLUDED.{name}" for name in values)}
                WHERE trading_accounts.origin = 'settings'
            RETURNING *"""  # noqa: S608 - the names are this function's own
        row = await self._write(query, values)
        if row is None:
            raise ConflictError(f"account {account_id!r} exists already", field="account_id")
        return self._open(row)

    async def update(
        self, account_id: str, changes: Mapping[str, object], *, now: dt.datetime
    ) -> AccountRow:
        """Replace the named fields: ``api_key``, ``api_secret``, ``access_token``, ``username``,
        ``metadata``, ``is_active``.

        Another api_key takes the old one's access token away. Raises UnknownAccountError, and
        ConflictError for an api_key that another active account has.
        """
        given = dict(changes)
        if "api_key" in given:
            given.setdefault("access_token", None)
        secrets: dict[str, object] = {name: given.pop(name) for name in _SEALED if name in given}
        values: dict[str, object] = {**given, **self._seal(account_id, secrets)}
        if "api_key" in secrets:
            values["api_key_hash"] = fingerprint(str(secrets["api_key"]))
        if "access_token" in secrets:
            values["token_issued_at"] = now if secrets["access_token"] else None
        if "metadata" in values:
            values["metadata"] = Jsonb(values["metadata"])
        values["updated_at"] = now
        query = f"""
            UPDATE trading_accounts SET {", ".join(f"{name} = %({name})s" for name in values)}
            WHERE account_id = %(account_id)s AND origin = 'database'
            RETURNING *"""  # noqa: S608 - the names are this class's own
        row = await self._write(query, values | {"account_id": account_id})
        if row is None:
            raise UnknownAccountError(f"there is no account {account_id!r}", field="account_id")
        return self._open(row)

    async def keep_token(
        self,
        account_id: str,
        *,
        api_key: str,
        access_token: str,
        configured_hash: bytes,
        issued_at: dt.datetime,
    ) -> bool:
        """Keep the newest token of an account, of the settings too, for the next start.

        False, and nothing done, if a stored account of this id has another api_key.
        """
        values = {
            **self._seal(account_id, {"api_key": api_key, "access_token": access_token}),
            "account_id": account_id,
            "api_key_hash": fingerprint(api_key),
            "configured_token_hash": configured_hash,
            "token_issued_at": issued_at,
            "updated_at": issued_at,
        }
        query = f"""
            INSERT INTO trading_accounts (origin, {", ".join(values)})
            VALUES ('settings', {", ".join(f"%({name})s" for name in values)})
            ON CONFLICT (account_id) DO UPDATE SET
                {", ".join(f"{name} = EXCLUDED.{name}" for name in values)}
                WHERE trading_accounts.origin = 'settings'
                OR trading_accounts.api_key_hash = EXCLUDED.api_key_hash
            RETURNING *"""  # noqa: S608 - the names are this function's own
        return await self._write(query, values) is not None

    async def delete(self, account_id: str) -> None:
        """Remove an account's row. Raises UnknownAccountError."""
        query = """
            DELETE FROM trading_accounts
            WHERE account_id = %(account_id)s AND origin = 'database' RETURNING *"""
        if await self._write(query, {"account_id": account_id}) is None:
            raise UnknownAccountError(f"there is no account {account_id!r}", field="account_id")

    async def rotate(self) -> tuple[int, list[str]]:
        """Seal every secret anew with the first key, in one transaction.

        Returns how many rows were, and the accounts whose secrets no key opens: they stay as
        they are. After that the older keys open nothing that is needed.
        """

        def rotate(connection: psycopg.Connection[Any]) -> tuple[int, list[str]]:
            cursor = connection.cursor(row_factory=dict_row)
            rows = cursor.execute("SELECT * FROM trading_accounts FOR UPDATE").fetchall()
            lost: list[str] = []
            for row in rows:
                account_id = str(row["account_id"])
                opened = self._open(row)
                if opened.error is not None:
                    lost.append(account_id)
                    continue
                secrets = {name: getattr(opened, name) for name in _SEALED}
                cursor.execute(
                    """UPDATE trading_accounts SET api_key = %(api_key)s,
                        api_secret = %(api_secret)s, access_token = %(access_token)s,
                        username = %(username)s
                    WHERE account_id = %(account_id)s""",
                    {**self._seal(account_id, secrets), "account_id": account_id},
                )
            return len(rows) - len(lost), sorted(lost)

        return await self._database.run(rotate, query_type="accounts")

    async def _write(self, query: str, values: Mapping[str, object]) -> DictRow | None:
        """The one row that a statement returns, if any."""

        def write(connection: psycopg.Connection[Any]) -> DictRow | None:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(query, values).fetchone()

        try:
            return await self._database.run(write, query_type="accounts")
        except psycopg.DataError:
            # sealed text is plain ASCII, so it can only be that; the cause may quote it
            raise InvalidRequestError(
                "metadata holds characters that cannot be stored", field="metadata"
            ) from None
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name != _ONE_PER_KEY:
                raise
            # the cause is left out: its text shows the key's hash
            raise ConflictError("another account has this api_key", field="api_key") from None

    def _seal(self, account_id: str, secrets: Mapping[str, object]) -> dict[str, str | None]:
        if not secrets:
            return {}
        if self._box is None:
            raise ConfigurationError("no secret can be stored: ACCOUNT_ENCRYPTION_KEY is not set")
        return {
            name: self._box.seal(str(secret), f"{account_id} {name}") if secret else None
            for name, secret in secrets.items()
        }

    def _open(self, row: DictRow) -> AccountRow:
        error = None if self._box else _NO_KEY
        opened: dict[str, str | None] = dict.fromkeys(_SEALED)
        for name in _SEALED:
            if row[name] is not None and self._box is not None:
                opened[name] = self._box.open(row[name], f"{row['account_id']} {name}")
                if opened[name] is None:
                    error = _OTHER_KEY
        if error:
            opened = dict.fromkeys(_SEALED)
        return AccountRow(
            account_id=row["account_id"],
            origin=row["origin"],
            api_key=opened["api_key"] or "",
            api_secret=opened["api_secret"],
            access_token=opened["access_token"],
            token_issued_at=_utc(row["token_issued_at"]),
            configured_hash=bytes(row["configured_token_hash"]),
            username=opened["username"],
            is_active=row["is_active"],
            metadata=row["metadata"],
            created_at=row["created_at"].astimezone(dt.UTC),
            updated_at=row["updated_at"].astimezone(dt.UTC),
            error=error,
        )


def _utc(time: dt.datetime | None) -> dt.datetime | None:
    return time and time.astimezone(dt.UTC)
