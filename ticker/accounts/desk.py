"""What the API does with accounts: keep them, and show them without their secrets."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from ticker.accounts.credentials import TokenState, create_credentials
from ticker.accounts.sessions import Session, Sessions, Source
from ticker.errors import (
    ConflictError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownAccountError,
)
from ticker.latest import Latest
from ticker.settings import ACCOUNT_ID
from ticker.stores.accounts import AccountRow, AccountStore

MASK: Final = "********"
MASKED_WHOLLY_BELOW: Final = 16
"""A shorter secret would be half shown by its first and last four characters."""

SECRET_LENGTH_MAX: Final = 200
METADATA_BYTES_MAX: Final = 10_000


class NewAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account to keep. Without ``access_token`` somebody has to log in, which needs
    ``api_secret``.
    """

    account_id: str
    api_key: str
    api_secret: str | None = None
    access_token: str | None = None
    username: str | None = None
    metadata: Mapping[str, object] = {}

    def __repr__(self) -> str:
        return f"NewAccount({self.account_id!r})"


class AccountChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change; None leaves a field as it is. Another api_key drops the access token."""

    api_key: str | None = None
    api_secret: str | None = None
    access_token: str | None = None
    username: str | None = None
    metadata: Mapping[str, object] | None = None
    is_active: bool | None = None

    def __repr__(self) -> str:
        return f"AccountChange({', '.join(self.given())})"

    def given(self) -> dict[str, object]:
        """The fields that are to change."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in fields.items() if value is not None}


class AccountView(msgspec.Struct, frozen=True):
    """An account as it may be shown: secrets are masked, whoever asks and however.

    ``error``: why the account cannot be used.
    """

    account_id: str
    source: Source
    is_active: bool
    api_key: str | None
    api_secret: str | None
    access_token: str | None
    username: str | None
    metadata: Mapping[str, object]
    token_state: TokenState
    token_expires_at: dt.datetime | None
    created_at: dt.datetime | None
    updated_at: dt.datetime | None
    error: str | None = None


class AccountSummary(msgspec.Struct, frozen=True):
    total_accounts: int
    active_accounts: int
    inactive_accounts: int


class AccountDesk:
    """Accounts of the settings can be seen here; those of the database can be changed too.

    Every coroutine raises StoreUnavailableError while PostgreSQL is away, and those that write
    also if there is none; ConfigurationError if there is no key to seal secrets with. A change
    takes effect in the running streams at once, by ``changes``.
    """

    def __init__(
        self,
        sessions: Latest[Sessions],
        store: AccountStore | None,
        changes: Latest[int],
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._changes = changes
        self._wall_clock = wall_clock

    async def create(self, account: NewAccount) -> AccountView:
        """Add an account. ConflictError if its id or its api_key is taken."""
        if not ACCOUNT_ID.fullmatch(account.account_id):
            raise InvalidRequestError(
                "an account's id has 1 to 50 letters, digits, _ and -", field="account_id"
            )
        fields = msgspec.structs.asdict(account)
        self._check(account.account_id, fields)
        if account.account_id in self._configured():
            raise ConflictError(
                f"account {account.account_id!r} is in the settings", field="account_id"
            )
        row = await self._writable().create(**fields, now=self._now())
        self._tell()
        return self._view_row(row)

    async def update(self, account_id: str, change: AccountChange) -> AccountView:
        """Change an account. UnknownAccountError; ConflictError if it is in the settings, or if
        another has the api_key.
        """
        self._require_stored(account_id)
        fields = change.given()
        self._check(account_id, fields)
        row = await self._writable().update(account_id, fields, now=self._now())
        self._tell()
        return self._view_row(row)

    async def delete(self, account_id: str, *, hard: bool = False) -> None:
        """Take an account out of use; ``hard``: and forget it. Raises as ``update``."""
        self._require_stored(account_id)
        if hard:
            await self._writable().delete(account_id)
        else:
            await self._writable().update(account_id, {"is_active": False}, now=self._now())
        self._tell()

    async def load(self, account_id: str) -> AccountView:
        """One account, also one that is not active. Raises UnknownAccountError."""
        for view in await self.load_all(active_only=False):
            if view.account_id == account_id:
                return view
        raise UnknownAccountError(f"there is no account {account_id!r}", field="account_id")

    async def load_all(self, *, active_only: bool = True) -> list[AccountView]:
        """The accounts of the settings and of the database, by id."""
        views = {name: self._view_session(one) for name, one in self._configured().items()}
        for row in await self._store.load_all() if self._store else ():
            if row.origin == "database" and (row.is_active or not active_only):
                views.setdefault(row.account_id, self._view_row(row))
        return [views[name] for name in sorted(views)]

    async def summary(self) -> AccountSummary:
        """How many there are."""
        views = await self.load_all(active_only=False)
        active = sum(view.is_active for view in views)
        return AccountSummary(len(views), active, len(views) - active)

    async def reload(self) -> AccountSummary:
        """Have the table read anew, for changes that were made there by others."""
        self._tell()
        return await self.summary()

    def _configured(self) -> dict[str, Session]:
        present = self._sessions.value
        return {name: one for name, one in present.items() if one.source == "settings"}

    def _require_stored(self, account_id: str) -> None:
        if not ACCOUNT_ID.fullmatch(account_id):
            raise UnknownAccountError(f"there is no account {account_id!r}", field="account_id")
        if account_id in self._configured():
            raise ConflictError(
                f"account {account_id!r} is in the settings: change it there", field="account_id"
            )

    def _check(self, account_id: str, fields: Mapping[str, object]) -> None:
        for name in ("api_key", "api_secret", "access_token", "username"):
            value = fields.get(name)
            if isinstance(value, str) and not _is_sendable(value):
                raise InvalidRequestError(
                    f"{name} has 1 to {SECRET_LENGTH_MAX} printable ASCII characters", field=name
                )
        if len(msgspec.json.encode(fields.get("metadata"))) > METADATA_BYTES_MAX:
            raise InvalidRequestError(
                f"metadata has at most {METADATA_BYTES_MAX} bytes", field="metadata"
            )
        for session in self._configured().values():
            if session.credentials.value.api_key == fields.get("api_key"):
                raise ConflictError("another account has this api_key", field="api_key")

    def _writable(self) -> AccountStore:
        if self._store is None:
            raise StoreUnavailableError("there is no database to keep accounts in")
        return self._store

    def _tell(self) -> None:
        self._changes.set(self._changes.value + 1)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._wall_clock(), dt.UTC)

    def _view_row(self, row: AccountRow) -> AccountView:
        issued_at = row.token_issued_at.timestamp() if row.token_issued_at else None
        stored = create_credentials(
            row.api_key, row.access_token or "", issued_at, self._wall_clock()
        )
        session = self._sessions.value.get(row.account_id)
        known = session.credentials.value if session is not None else stored
        if known.api_key == row.api_key and (known.issued_at or 0) > (issued_at or 0):
            stored = known  # of a login that could not be stored
        return AccountView(
            account_id=row.account_id,
            source="database",
            is_active=row.is_active,
            api_key=mask(row.api_key),
            api_secret=mask(row.api_secret),
            access_token=mask(stored.access_token),
            username=mask(row.username),
            metadata=row.metadata,
            token_state=stored.token_state,
            token_expires_at=_time(stored.expires_at),
            created_at=row.created_at,
            updated_at=row.updated_at,
            error=row.error,
        )

    def _view_session(self, session: Session) -> AccountView:
        credentials = session.credentials.value
        return AccountView(
            account_id=session.account_id,
            source="settings",
            is_active=True,
            api_key=mask(credentials.api_key),
            api_secret=mask(session.api_secret),
            access_token=mask(credentials.access_token),
            username=None,
            metadata={},
            token_state=credentials.token_state,
            token_expires_at=_time(credentials.expires_at),
            created_at=None,
            updated_at=None,
        )


def mask(secret: str | None) -> str | None:
    """A secret as it may be shown: its first and last four characters, if it has many more."""
    if not secret:
        return None
    if len(secret) < MASKED_WHOLLY_BELOW:
        return MASK
    return f"{secret[:4]}{MASK}{secret[-4:]}"


def _is_sendable(value: str) -> bool:
    return 0 < len(value) <= SECRET_LENGTH_MAX and value.isascii() and value.isprintable()


def _time(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
