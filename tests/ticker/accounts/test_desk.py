import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import pytest
from pydantic import SecretStr

from tests.postgres import open_test_database
from ticker.accounts.credentials import Credentials
from ticker.accounts.desk import (
    MASK,
    AccountChange,
    AccountDesk,
    AccountSummary,
    NewAccount,
    mask,
)
from ticker.accounts.secrets_box import SecretBox, create_encryption_key
from ticker.accounts.sessions import Session, Sessions, create_session
from ticker.errors import (
    ConflictError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownAccountError,
)
from ticker.latest import Latest
from ticker.settings import AccountSettings
from ticker.stores.accounts import AccountStore

NOW: Final = dt.datetime(2026, 11, 20, 4, 0, tzinfo=dt.UTC)
BOX: Final = SecretBox([create_encryption_key()])

CONFIGURED: Final = AccountSettings(
    account_id="mine",
    api_key=SecretStr("key-configured-CANARY"),
    access_token=SecretStr("token-configured-CANARY"),
)


@dataclass
class Rig:
    desk: AccountDesk
    sessions: Latest[Sessions]
    changes: Latest[int]
    store: AccountStore


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    async with open_test_database() as database:
        yield create_rig(AccountStore(database, BOX))


def create_rig(store: Any) -> Rig:
    mine = create_session(CONFIGURED, NOW.timestamp())
    sessions: Latest[Sessions] = Latest({"mine": mine})
    changes = Latest(0)
    desk = AccountDesk(sessions, store, changes, wall_clock=NOW.timestamp)
    return Rig(desk, sessions, changes, store)


def new(account_id: str = "a", **values: Any) -> NewAccount:
    fields = {"api_key": f"key-of-{account_id}-CANARY", "api_secret": "s" * 12 + "-secret-CANARY"}
    return NewAccount(account_id, **{**fields, **values})


@pytest.mark.slow
async def test_the_token_of_an_earlier_api_key_is_not_shown_as_the_new_ones() -> None:
    async with open_rig() as rig:
        await rig.desk.create(new())
        at_work = Credentials("key-of-a-CANARY", "t" * 20, NOW.timestamp())
        rig.sessions.set({"a": Session("a", Latest(at_work), source="database")})
        assert (await rig.desk.load("a")).token_state == "valid"
        changed = await rig.desk.update("a", AccountChange(api_key="another"))
        assert (changed.access_token, changed.token_state) == (None, "missing")


@pytest.mark.slow
async def test_accounts_are_created_shown_changed_and_deleted() -> None:
    async with open_rig() as rig:
        created = await rig.desk.create(new(access_token="t" * 20, metadata={"n": 1}))
        assert created == await rig.desk.load("a")
        assert (created.source, created.is_active, created.metadata) == ("database", True, {"n": 1})
        assert created.token_state == "valid"
        assert created.token_expires_at == dt.datetime(2026, 11, 21, 0, 30, tzinfo=dt.UTC)
        assert [view.account_id for view in await rig.desk.load_all()] == ["a", "mine"]

        changed = await rig.desk.update("a", AccountChange(metadata={}, api_key="another"))
        assert (changed.metadata, changed.token_state) == ({}, "missing")

        await rig.desk.delete("a")
        assert [view.account_id for view in await rig.desk.load_all()] == ["mine"]
        assert not (await rig.desk.load("a")).is_active
        assert await rig.desk.summary() == AccountSummary(2, 1, 1)
        await rig.desk.update("a", AccountChange(is_active=True))
        assert await rig.desk.summary() == AccountSummary(2, 2, 0)
        await rig.desk.delete("a", hard=True)
        with pytest.raises(UnknownAccountError):
            await rig.desk.load("a")
        assert rig.changes.value == 5, "each of them was told"
        await rig.desk.reload()
        assert rig.changes.value == 6


@pytest.mark.slow
async def test_no_view_shows_a_secret() -> None:
    async with open_rig() as rig:
        await rig.desk.create(new(access_token="x-token-x-CANARY-x", username="CANARY"))
        views = await rig.desk.load_all(active_only=False)
        shown = msgspec.json.encode(views).decode() + repr(views)
        assert "CANARY" not in shown
        assert [view.api_key for view in views] == [MASK, f"key-{MASK}NARY"]
        assert "CANARY" not in repr(new(access_token="CANARY"))
        assert "CANARY" not in repr(AccountChange(access_token="CANARY"))


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        (None, None),
        ("", None),
        ("short", MASK),
        ("x" * 15, MASK),
        ("abcd56789012wxyz", f"abcd{MASK}wxyz"),
        ("abcd" + "0" * 100 + "wxyz", f"abcd{MASK}wxyz"),
    ],
)
def test_mask_shows_the_ends_of_long_secrets_only(secret: str | None, shown: str | None) -> None:
    assert mask(secret) == shown


@pytest.mark.slow
async def test_ids_and_api_keys_are_taken_once_over_settings_and_database() -> None:
    async with open_rig() as rig:
        await rig.desk.create(new())
        for field, account in (
            ("account_id", new()),
            ("account_id", new("mine")),
            ("api_key", new("b", api_key="key-of-a-CANARY")),
            ("api_key", new("b", api_key="key-configured-CANARY")),
        ):
            with pytest.raises(ConflictError) as caught:
                await rig.desk.create(account)
            assert caught.value.field == field
            assert "CANARY" not in str(caught.value)
        with pytest.raises(ConflictError):
            await rig.desk.update("a", AccountChange(api_key="key-configured-CANARY"))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("account_id", {"account_id": "a b"}),
        ("account_id", {"account_id": ""}),
        ("account_id", {"account_id": "x" * 51}),
        ("account_id", {"account_id": "a\n"}),
        ("api_key", {"api_key": ""}),
        ("api_key", {"api_key": "\u20ac"}),
        ("api_secret", {"api_secret": "x" * 201}),
        ("access_token", {"access_token": "a\r\nHost: b"}),
        ("username", {"username": "\x00"}),
        ("metadata", {"metadata": {"x": "y" * 10_000}}),
    ],
)
async def test_values_that_make_no_sense_are_refused(field: str, values: dict[str, Any]) -> None:
    rig = create_rig(None)
    with pytest.raises(InvalidRequestError) as caught:
        await rig.desk.create(new(**{"account_id": "a", **values}))
    assert caught.value.field == field


@pytest.mark.slow
@pytest.mark.parametrize("text", ["\x00", "\ud800"])
async def test_metadata_that_postgresql_cannot_hold_is_refused(text: str) -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        values: dict[str, Any] = {"api_key": "k", "api_secret": None, "access_token": None}
        with pytest.raises(InvalidRequestError) as caught:
            await store.create("a", **values, username=None, metadata={"x": text}, now=NOW)
        assert caught.value.field == "metadata"


async def test_ids_that_cannot_be_are_of_unknown_accounts() -> None:
    rig = create_rig(None)
    for account_id in ("", "\x00", "a b"):
        with pytest.raises(UnknownAccountError):
            await rig.desk.update(account_id, AccountChange(is_active=False))
        with pytest.raises(UnknownAccountError):
            await rig.desk.delete(account_id)


async def test_accounts_of_the_settings_cannot_be_changed_here() -> None:
    rig = create_rig(None)
    requests: list[Callable[[], Awaitable[object]]] = [
        lambda: rig.desk.update("mine", AccountChange(is_active=False)),
        lambda: rig.desk.delete("mine"),
        lambda: rig.desk.delete("mine", hard=True),
    ]
    for request in requests:
        with pytest.raises(ConflictError):
            await request()
    assert rig.changes.value == 0


async def test_without_a_database_accounts_can_be_seen_and_not_created() -> None:
    rig = create_rig(None)
    (view,) = await rig.desk.load_all()
    assert (view.account_id, view.source, view.token_state) == ("mine", "settings", "valid")
    assert await rig.desk.summary() == AccountSummary(1, 1, 0)
    with pytest.raises(StoreUnavailableError):
        await rig.desk.create(new())
    with pytest.raises(UnknownAccountError):
        await rig.desk.load("a")


@pytest.mark.slow
async def test_token_that_could_not_be_stored_is_shown_all_the_same() -> None:
    async with open_rig() as rig:
        await rig.desk.create(new())
        newest = Credentials("key-of-a-CANARY", "t" * 16, NOW.timestamp() - 5)
        session = Session("a", Latest(replace(newest)), source="database")
        rig.sessions.set({**rig.sessions.value, "a": session})
        view = await rig.desk.load("a")
        assert (view.token_state, view.access_token) == ("valid", f"tttt{MASK}tttt")
