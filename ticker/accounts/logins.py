"""The daily login: from the broker's page to a token that everything uses at once."""

import datetime as dt
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog
import trio

from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.accounts.token_file import save_token
from ticker.errors import (
    BrokerResponseError,
    ConfigurationError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownAccountError,
    UnknownItemError,
)
from ticker.kite.login import create_login_url, token_expiry
from ticker.latest import Latest
from ticker.stores.accounts import AccountStore

Exchange = Callable[[Session, str], Awaitable[str]]
"""Gives a request token to the broker (``POST /session/token``) and returns the access token."""

LOGIN_LIFE_S: Final = 600.0
"""How long a login page waits for its person; the broker's request token lives a few minutes."""

LOGINS_MAX: Final = 100
"""Login pages handed out and not come back yet. When full, the oldest no longer counts."""

KEEP_TIMEOUT_S: Final = 5.0
"""What storing a token may take. It works already, and the caller need not wait for longer."""


class LoginPage(msgspec.Struct, frozen=True):
    """Where to log in. ``state`` comes back in the redirect, and counts until ``expires_at``."""

    account_id: str
    url: str
    state: str
    expires_at: dt.datetime


class LoggedIn(msgspec.Struct, frozen=True):
    """A login that has worked. ``is_kept``: the token outlives a restart of the service."""

    account_id: str
    expires_at: dt.datetime
    is_kept: bool


class Logins:
    """Logs accounts in, one login at a time. ``login_root``: where the broker's page is."""

    def __init__(
        self,
        sessions: Latest[Sessions],
        store: AccountStore | None,
        exchange: Exchange,
        *,
        login_root: str,
        wall_clock: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._exchange = exchange
        self._login_root = login_root
        self._wall_clock = wall_clock
        self._pending: dict[str, tuple[str, float]] = {}
        self._one_at_a_time = trio.Lock()

    def create_page(self, account_id: str) -> LoginPage:
        """A login page. Its state is a secret of whoever asked: the redirect proves to be the
        answer by bringing it. Raises UnknownAccountError, and InvalidRequestError for an account
        without an api_secret.
        """
        session = self._session(account_id)
        until = self._wall_clock() + LOGIN_LIFE_S
        state = secrets.token_urlsafe(24)
        while len(self._pending) >= LOGINS_MAX:
            del self._pending[next(iter(self._pending))]
        self._pending[state] = (account_id, until)
        return LoginPage(
            account_id=account_id,
            url=create_login_url(
                self._login_root, session.credentials.value.api_key, {"state": state}
            ),
            state=state,
            expires_at=dt.datetime.fromtimestamp(until, dt.UTC),
        )

    def take_state(self, state: str) -> str:
        """The account whose login page had this state, which counts once. UnknownItemError."""
        account_id, until = self._pending.pop(state, ("", 0.0))
        if until <= self._wall_clock():
            raise UnknownItemError("no login is waiting for this answer", field="state")
        return account_id

    async def complete(self, account_id: str, request_token: str) -> LoggedIn:
        """Exchange what the redirect brought; the account uses its token before this returns.

        The token is kept where the account's token lives: in its token file if it has one, else
        sealed in the database. If neither takes it, that is said in the answer, not raised.
        Raises UnknownAccountError, InvalidRequestError for a request token that the broker
        refuses, and the other BrokerErrors as they are.
        """
        session = self._session(account_id)
        async with self._one_at_a_time:
            try:
                token = await self._exchange(session, request_token)
            except BrokerResponseError as error:
                if error.error_type not in {"TokenException", "InputException"}:
                    raise
                raise InvalidRequestError(
                    f"the broker refused the login: {error}", field="request_token"
                ) from None
            issued_at = self._wall_clock()
            before = session.credentials.value
            session.credentials.set(Credentials(before.api_key, token, issued_at))
            # The request token is used up: a caller who hangs up here must not lose the result.
            with trio.CancelScope(shield=True):
                is_kept = await keep_token(session, self._store, token, issued_at)
        structlog.get_logger().info("logged_in", account=account_id, is_kept=is_kept)
        expires_at = dt.datetime.fromtimestamp(token_expiry(issued_at), dt.UTC)
        return LoggedIn(account_id, expires_at, is_kept)

    def _session(self, account_id: str) -> Session:
        session = self._sessions.value.get(account_id)
        if session is None:
            raise UnknownAccountError(f"there is no account {account_id!r}", field="account_id")
        if session.api_secret is None:
            raise InvalidRequestError(
                f"account {account_id!r} has no api_secret, which a login needs",
                field="api_secret",
            )
        return session


async def keep_token(
    session: Session, store: AccountStore | None, token: str, issued_at: float
) -> bool:
    """Write a token where the next start finds it, within KEEP_TIMEOUT_S; whether that worked."""
    log = structlog.get_logger().bind(account=session.account_id)
    with trio.move_on_after(KEEP_TIMEOUT_S):
        try:
            if session.token_file is not None:
                await save_token(session.token_file, token)
                return True
            if store is not None:
                return await store.keep_token(
                    session.account_id,
                    api_key=session.credentials.value.api_key,
                    access_token=token,
                    configured_hash=session.configured_hash,
                    issued_at=dt.datetime.fromtimestamp(issued_at, dt.UTC),
                )
        except (OSError, StoreUnavailableError, ConfigurationError) as error:
            log.warning("access_token_not_kept", error=type(error).__name__)
            return False
    return False
