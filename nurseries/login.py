"""``python -m ticker login``: one account's daily login, from a terminal."""

import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from ticker.accounts.logins import LoggedIn, LoginPage, Logins
from ticker.accounts.secrets_box import load_secret_box
from ticker.accounts.sessions import Session, Sessions, create_session
from ticker.accounts.stored_sessions import merge_rows
from ticker.errors import ConfigurationError, StoreUnavailableError
from ticker.kite.calls import RestPolicy, ignore_call
from ticker.kite.login import parse_request_token
from ticker.kite.redirect import receive_redirect
from ticker.kite.rest import open_brokers
from ticker.latest import Latest
from ticker.settings import Settings
from ticker.stores.accounts import AccountStore
from ticker.stores.database import open_database
from ticker.stores.migrate import migrate

Say = Callable[[str], None]


def log_in(settings: Settings, account_id: str | None, *, port: int | None, say: Say) -> None:
    """Log an account in and keep its token where the service finds it; a running one does so
    within seconds.

    ``port``: where on 127.0.0.1 the broker's redirect is received, as registered for the api_key;
    None: the redirect's address is pasted. Without ``account_id`` there has to be one account.
    Raises ConfigurationError, RequestError, BrokerError and StoreError.
    """
    trio.run(partial(run_login, settings, account_id, port=port, say=say))


async def run_login(
    settings: Settings,
    account_id: str | None,
    *,
    port: int | None,
    say: Say,
    read_line: Callable[[], Awaitable[str]] | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> LoggedIn:
    """As ``log_in``, on the running loop. ``read_line`` yields what was pasted."""
    async with _open_accounts(settings, account_id, wall_clock) as (present, store):
        session = _choose(present, account_id)
        if session.token_file is None and store is None:
            raise ConfigurationError(
                f"account {session.account_id!r}: there is nowhere to keep its token: set "
                "KITE_<ID>_ACCESS_TOKEN_FILE, or DATABASE_URL and ACCOUNT_ENCRYPTION_KEY"
            )
        if session.token_file is not None:
            _require_folder(session.token_file.parent)
        logins = Logins(
            Latest(present),
            store,
            partial(exchange_once, settings.kite_api_root),
            login_root=settings.kite_login_root,
            wall_clock=wall_clock,
        )
        page = logins.create_page(session.account_id)
        if port is None:
            say(f"Log in here:\n  {page.url}")
            say("Then paste the address that the browser was sent to, or its request_token:")
            request_token = parse_request_token(await (read_line or _read_line)())
        else:
            request_token = await _wait_redirect(page, port, say)
        done = await logins.complete(session.account_id, request_token)
    if not done.is_kept:
        raise StoreUnavailableError(
            f"account {done.account_id!r} is logged in, but its token could not be kept: "
            "log in again when its file or the database can be written"
        )
    say(f"Account {done.account_id!r} is logged in until {done.expires_at:%Y-%m-%d %H:%M} UTC.")
    return done


async def exchange_once(api_root: str, session: Session, request_token: str) -> str:
    """The access token for a request token, over a client of its own. Raises BrokerError."""
    alone: Latest[Sessions] = Latest({session.account_id: session})
    async with open_brokers(
        api_root, alone, policy=RestPolicy(), wall_clock=time.time, observe=ignore_call
    ) as brokers:
        broker = brokers.of(session.account_id)
        issued = await broker.create_session(request_token, session.api_secret or "")
    return issued.access_token


async def _wait_redirect(page: LoginPage, port: int, say: Say) -> str:
    try:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    except OSError as error:
        raise ConfigurationError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
    say(f"Log in here:\n  {page.url}")
    say(f"Waiting for the redirect to http://127.0.0.1:{port}/ ...")
    return await receive_redirect(listeners, page.state)


@asynccontextmanager
async def _open_accounts(
    settings: Settings, account_id: str | None, wall_clock: Callable[[], float]
) -> AsyncIterator[tuple[Mapping[str, Session], AccountStore | None]]:
    """Every account that can be used, and where tokens are kept if not in files.

    An account that is in the settings and has a token file needs no database.
    """
    now = wall_clock()
    present = {account.account_id: create_session(account, now) for account in settings.accounts}
    chosen = present.get(account_id) if account_id else None
    box = load_secret_box(settings)
    if settings.database_url is None or box is None or (chosen and chosen.token_file):
        yield present, None
        return
    async with open_database(settings.database_url, wall_clock=wall_clock) as database:
        await migrate(database)
        store = AccountStore(database, box)
        merged, broken = merge_rows(await store.load_all(), present, now)
        for status in broken:
            sys.stderr.write(f"account {status.account_id!r}: {status.error}\n")
        yield merged, store


def _choose(present: Mapping[str, Session], account_id: str | None) -> Session:
    if not present:
        raise ConfigurationError(
            "no account is configured (KITE_ACCOUNTS, KITE_ACCOUNTS_FILE, or the database with its "
            "key); a simulated market says at its start which ENV_FILE has its accounts"
        )
    names = ", ".join(sorted(present))
    if account_id is None and len(present) == 1:
        return next(iter(present.values()))
    if account_id is None:
        raise ConfigurationError(f"say which account to log in; there are: {names}")
    session = present.get(account_id)
    if session is None:
        raise ConfigurationError(f"there is no account {account_id!r}; there are: {names}")
    return session


def _require_folder(folder: Path) -> None:
    """Said before anybody logs in: a request token can be used once only."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"the access token could not be kept: {folder} cannot be written")


async def _read_line() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
