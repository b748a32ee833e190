"""A broker account, and the secrets that open its sockets and its REST API."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
import trio

from ticker.settings import Settings


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the broker knows us by. The fields are secrets, so ``repr`` shows neither.

    ``access_token`` is empty until a token has been issued.
    """

    api_key: str = field(repr=False)
    access_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """One account. ``token_file``, if any, is where a new access token will appear."""

    account_id: str
    credentials: Credentials
    token_file: Path | None = None


def create_accounts(settings: Settings) -> tuple[Account, ...]:
    """The accounts that the settings describe. A token in a file has not been read yet."""
    return tuple(
        Account(
            account_id=account.account_id,
            credentials=Credentials(
                api_key=account.api_key.get_secret_value(),
                access_token=account.access_token.get_secret_value()
                if account.access_token
                else "",
            ),
            token_file=account.access_token_file,
        )
        for account in settings.accounts
    )


async def load_credentials(account: Account, known: Credentials | None = None) -> Credentials:
    """The account's newest credentials: ``known`` or the configured ones, with the access token
    that the account's file holds now, if it has one.

    A file that is missing, empty or unreadable changes nothing: it may be about to be replaced.
    """
    credentials = known or account.credentials
    if account.token_file is None:
        return credentials
    try:
        token = (await trio.Path(account.token_file).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        log = structlog.get_logger().bind(account=account.account_id)
        log.debug("token_file_unreadable", error=type(error).__name__)
        return credentials
    return replace(credentials, access_token=token) if token else credentials
