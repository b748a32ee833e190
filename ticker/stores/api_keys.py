"""Table ``api_keys``: who may call the API, and for what.

A key's text is ``tk_<id>_<secret>``. The secret is 256 random bits, of which the table holds the
SHA-256: a slow hash protects passwords, which can be guessed; 2^256 guesses cannot be made at any
speed, and this one is computed for each request.
"""

import datetime as dt
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import msgspec
import psycopg
from psycopg.rows import DictRow, dict_row

from ticker.errors import (
    CapacityError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownItemError,
)
from ticker.stores.database import Database

Scope = Literal["read", "trade", "admin"]

KEYS_MAX: Final = 10_000
"""Keys that are neither revoked nor over, and so the size of the copy in memory. When there are
as many, none is created."""

NAME_LENGTH_MAX: Final = 100

YEAR_MAX: Final = 9000
"""Far from where a time cannot be converted to every zone any more."""

_ID: Final = re.compile(r"[0-9a-f]{16}")
_TEXT: Final = re.compile(r"tk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class ApiKey(msgspec.Struct, frozen=True):
    """A key, without the secret in its text and without that secret's hash. Times are aware UTC."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: dt.datetime
    last_used_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None


class ApiKeyStore:
    """Keys in PostgreSQL, and a copy of the good ones in memory, which ``find`` answers from.

    While PostgreSQL is away the copy stays as it was: keys go on working. A key that is created
    or revoked here counts here at once, and elsewhere after the next ``refresh``. Every coroutine
    raises StoreUnavailableError while PostgreSQL is away.
    """

    def __init__(self, database: Database, *, wall_clock: Callable[[], float]) -> None:
        self._database = database
        self._wall_clock = wall_clock
        self._good: Mapping[str, tuple[bytes, ApiKey]] = MappingProxyType({})
        self._is_read = False
        self._used: dict[str, dt.datetime] = {}  # since the last refresh; at most one per good key

    def find(self, text: str) -> ApiKey | None:
        """The key whose text this is; None if there is none, or it is revoked or over.

        Raises StoreUnavailableError for what may be a key as long as the table was never read.

        Takes the same time whichever part of a secret is wrong.
        """
        found = _TEXT.fullmatch(text)
        expected, key = self._good.get(found[1], _NOBODY) if found else _NOBODY
        secret = found[2] if found else ""
        is_right = hmac.compare_digest(expected, _hash(secret))
        now = self._now()
        if not self._is_read and key is None and found:
            raise StoreUnavailableError("the API keys have not been read yet")
        if not is_right or key is None or (key.expires_at is not None and key.expires_at <= now):
            return None
        self._used[key.id] = now
        return key

    async def create(
        self, name: str, scopes: Sequence[Scope], *, expires_at: dt.datetime | None = None
    ) -> tuple[ApiKey, str]:
        """A new key, and its text, which cannot be had again.

        Raises InvalidRequestError for values that make no sense, and CapacityError when there
        are KEYS_MAX keys already.
        """
        now = self._now()
        if expires_at is not None and not now.year <= expires_at.year <= YEAR_MAX:
            raise InvalidRequestError(
                f"a key ends between now and the year {YEAR_MAX}", field="expires_at"
            )
        key = ApiKey(
            secrets.token_hex(8), name.strip(), tuple(dict.fromkeys(scopes)), now, None, None,
            expires_at and expires_at.astimezone(dt.UTC),
        )  # fmt: skip
        _check(key, now)
        secret = secrets.token_urlsafe(32)
        hashed = _hash(secret)

        def insert(connection: psycopg.Connection[Any]) -> None:
            connection.execute("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE")
            row = connection.execute(f"SELECT count(*) FROM api_keys WHERE {_GOOD}", (now,))  # noqa: S608
            if (row.fetchone() or (0,))[0] >= KEYS_MAX:
                raise CapacityError(f"there are {KEYS_MAX} API keys: revoke some")
            connection.execute(
                """INSERT INTO api_keys (id, name, hash, scopes, created_at, expires_at)
                VALUES (%s, %s, %s, %s, %s, %s)""",
                (key.id, key.name, hashed, list(key.scopes), now, key.expires_at),
            )

        await self._database.run(insert, query_type="api_keys")
        self._good = MappingProxyType({**self._good, key.id: (hashed, key)})
        return key, f"tk_{key.id}_{secret}"

    async def load_all(self) -> list[ApiKey]:
        """The newest KEYS_MAX keys, revoked ones and those that are over too, newest first."""
        query = "SELECT * FROM api_keys ORDER BY created_at DESC, id LIMIT %s"
        return [_key(row) for row in await self._select(query, (KEYS_MAX,))]

    async def revoke(self, key_id: str) -> ApiKey:
        """End a key. Raises UnknownItemError; a key that is revoked already stays as it was."""
        query = """
            UPDATE api_keys SET revoked_at = coalesce(revoked_at, %s) WHERE id = %s RETURNING *"""
        is_one = _ID.fullmatch(key_id) is not None
        rows = await self._select(query, (self._now(), key_id)) if is_one else []
        if not rows:
            raise UnknownItemError(f"there is no API key {key_id!r}", field="id")
        self._good = MappingProxyType({i: good for i, good in self._good.items() if i != key_id})
        self._used.pop(key_id, None)
        return _key(rows[0])

    async def refresh(self) -> None:
        """Read the good keys anew, and note in the table when which key was last used."""
        before = self._good
        used, self._used = self._used, {}
        try:
            if used:
                await self._select(_TOUCH, (list(used), list(used.values())))
            query = f"SELECT * FROM api_keys WHERE {_GOOD} ORDER BY created_at DESC LIMIT %s"  # noqa: S608
            rows = await self._select(query, (self._now(), KEYS_MAX))
        except BaseException:
            self._used = used | self._used
            raise
        self._is_read = True
        if self._good is before:  # else a key was created or revoked while we read: next time
            self._good = MappingProxyType(
                {row["id"]: (bytes(row["hash"]), _key(row)) for row in rows}
            )

    async def _select(self, query: str, values: Sequence[object]) -> list[DictRow]:
        def select(connection: psycopg.Connection[Any]) -> list[DictRow]:
            return connection.cursor(row_factory=dict_row).execute(query, values).fetchall()

        return await self._database.run(select, query_type="api_keys")

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._wall_clock(), dt.UTC)


_GOOD: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > %s)"

_TOUCH: Final = """
    UPDATE api_keys SET last_used_at = used.at
    FROM unnest(%s::text[], %s::timestamptz[]) AS used (id, at)
    WHERE api_keys.id = used.id AND api_keys.last_used_at IS DISTINCT FROM used.at
    RETURNING api_keys.id"""

_NOBODY: Final[tuple[bytes, None]] = (bytes(32), None)
"""What a text is compared with if it names no key: nothing has this hash."""


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _check(key: ApiKey, now: dt.datetime) -> None:
    if not 0 < len(key.name) <= NAME_LENGTH_MAX or not key.name.isprintable():
        raise InvalidRequestError(
            f"a key's name has 1 to {NAME_LENGTH_MAX} printable characters", field="name"
        )
    if not key.scopes or set(key.scopes) - set(get_args(Scope)):
        raise InvalidRequestError(
            f"scopes are one or more of {', '.join(get_args(Scope))}", field="scopes"
        )
    if key.expires_at is not None and key.expires_at <= now:
        raise InvalidRequestError("a key cannot be over before it begins", field="expires_at")


def _key(row: DictRow) -> ApiKey:
    return ApiKey(
        row["id"], row["name"], tuple(row["scopes"]), _utc(row["created_at"]) or row["created_at"],
        _utc(row["last_used_at"]), _utc(row["revoked_at"]), _utc(row["expires_at"]),
    )  # fmt: skip


def _utc(time: dt.datetime | None) -> dt.datetime | None:
    return time and time.astimezone(dt.UTC)
