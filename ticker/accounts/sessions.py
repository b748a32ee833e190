"""Accounts as the service uses them: who is there, and with which secrets."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from ticker.accounts.credentials import Credentials, TokenState
from ticker.latest import Latest
from ticker.settings import AccountSettings

Source = Literal["settings", "database"]


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One account at work. It ends when the account goes, or gets another api_key or secret.

    ``credentials`` is where a new access token is set: sockets and REST calls use it at once.
    An empty token: somebody has to log in. ``token_file``, if any, is where a token may appear.
    ``configured_hash`` is the fingerprint of the token in the settings, empty without one.
    """

    account_id: str
    credentials: Latest[Credentials]
    api_secret: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    source: Source = "settings"
    configured_hash: bytes = field(default=b"", repr=False)

    @property
    def token_state(self) -> TokenState:
        """Whether a token is there, and whether its day is over; the broker has the last word."""
        return self.credentials.value.token_state


Sessions = Mapping[str, Session]
"""Who is there, by account id; shared as ``Latest[Sessions]``, which keep_accounts alone sets."""


class AccountStatus(msgspec.Struct, frozen=True):
    """What is said of an account. ``expires_at``: UNIX seconds. ``error``: why it cannot be used,
    in which case it has no session.
    """

    account_id: str
    source: Source
    token_state: TokenState = "missing"  # noqa: S105 - a state, not a token
    expires_at: float | None = None
    error: str | None = None


def create_session(account: AccountSettings, now: float) -> Session:
    """The session of an account in the settings. A token in a file has not been read yet.

    ``now``: UNIX seconds, which the token's life is reckoned from, its issue being unknown.
    """
    token = account.access_token.get_secret_value() if account.access_token else ""
    secret = account.api_secret
    return Session(
        account_id=account.account_id,
        credentials=Latest(Credentials(account.api_key.get_secret_value(), token, now)),
        api_secret=secret.get_secret_value() if secret else None,
        token_file=account.access_token_file,
        configured_hash=fingerprint(token),
    )


def describe_session(session: Session) -> AccountStatus:
    """The session as it stands."""
    credentials = session.credentials.value
    return AccountStatus(
        session.account_id, session.source, session.token_state, credentials.expires_at
    )


def fingerprint(secret: str) -> bytes:
    """What tells two secrets of the broker's apart without showing either; empty of nothing.

    They are long and random, so a plain SHA-256 gives nothing away.
    """
    return hashlib.sha256(secret.encode()).digest() if secret else b""
