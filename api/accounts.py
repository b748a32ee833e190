"""``/trading-accounts`` and ``/login/callback``: accounts, and their daily login."""

from typing import Annotated, Final

import msgspec
from quart import Blueprint

from api.auth import public, requires
from api.operations import AccountId, Query, Text, operation
from ticker.accounts.desk import (
    AccountChange,
    AccountDesk,
    AccountSummary,
    AccountView,
    NewAccount,
)
from ticker.accounts.logins import LoggedIn, LoginPage, Logins
from ticker.errors import InvalidRequestError

LOGIN_DEADLINE_S: Final = 30.0
"""The broker's answer and the token's storing."""


class AccountsQuery(Query, frozen=True):
    active_only: bool = True
    mask_sensitive: Annotated[
        bool, msgspec.Meta(description="Secrets are masked whatever this says.")
    ] = True


class DeleteQuery(Query, frozen=True):
    hard_delete: bool = False


class Deleted(msgspec.Struct, frozen=True):
    success: bool
    account_id: str
    hard_deleted: bool


class Reloaded(msgspec.Struct, frozen=True):
    success: bool
    accounts_loaded: int
    active_accounts: int


class CallbackQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker's redirect brings; it may bring more."""

    request_token: Text | None = None
    status: Text = "success"
    state: Text | None = None
    action: Text | None = None
    type: Text | None = None


def create_accounts_blueprint(desk: AccountDesk, logins: Logins) -> Blueprint:
    """Keep accounts and log them in. No route shows a secret."""
    blueprint = Blueprint("trading_accounts", __name__)

    @blueprint.get("/trading-accounts")
    @requires("admin")
    @operation()
    async def find_accounts(query: AccountsQuery) -> list[AccountView]:
        """Accounts of the settings and of the database, by id, their secrets masked."""
        return await desk.load_all(active_only=query.active_only)

    @blueprint.post("/trading-accounts")
    @requires("admin")
    @operation(status=201, problems=(409,))
    async def create_account(body: NewAccount) -> AccountView:
        """Add an account; it streams at once, or as soon as it has logged in."""
        return await desk.create(body)

    @blueprint.get("/trading-accounts/stats/summary")
    @requires("admin")
    @operation()
    async def summary() -> AccountSummary:
        """How many accounts there are."""
        return await desk.summary()

    @blueprint.post("/trading-accounts/reload")
    @requires("admin")
    @operation()
    async def reload_accounts() -> Reloaded:
        """Read the table anew, for what others have changed in it."""
        found = await desk.reload()
        return Reloaded(True, found.total_accounts, found.active_accounts)

    @blueprint.get("/trading-accounts/<account_id>")
    @requires("admin")
    @operation(problems=(404,))
    async def show_account(account_id: AccountId) -> AccountView:
        """One account, its secrets masked."""
        return await desk.load(account_id)

    @blueprint.put("/trading-accounts/<account_id>")
    @requires("admin")
    @operation(problems=(404, 409))
    async def change_account(account_id: AccountId, body: AccountChange) -> AccountView:
        """Change what is given; the running streams use it at once."""
        return await desk.update(account_id, body)

    @blueprint.delete("/trading-accounts/<account_id>")
    @requires("admin")
    @operation(problems=(404, 409))
    async def delete_account(account_id: AccountId, query: DeleteQuery) -> Deleted:
        """Take an account out of use; with `hard_delete`, forget it and its secrets."""
        await desk.delete(account_id, hard=query.hard_delete)
        return Deleted(True, account_id, query.hard_delete)

    @blueprint.get("/trading-accounts/<account_id>/login-url")
    @requires("admin")
    @operation(problems=(404,))
    async def login_url(account_id: AccountId) -> LoginPage:
        """The broker's page where this account's person logs in, good for ten minutes and once."""
        return logins.create_page(account_id)

    @blueprint.get("/login/callback")
    @public
    @operation(problems=(404, 502, 504), deadline_s=LOGIN_DEADLINE_S)
    async def callback(query: CallbackQuery) -> LoggedIn:
        """Where the broker sends the browser after a login.

        Only the answer to a login page that was asked for here counts, by its `state`, once.
        """
        if query.state is None:
            raise InvalidRequestError("the redirect brings no state", field="state")
        account_id = logins.take_state(query.state)
        if query.status != "success" or query.request_token is None:
            raise InvalidRequestError("the broker says that the login failed", field="status")
        return await logins.complete(account_id, query.request_token)

    return blueprint
