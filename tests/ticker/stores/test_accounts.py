import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import psycopg
import pytest

from tests.postgres import open_test_database
from ticker.accounts.secrets_box import SecretBox, create_encryption_key
from ticker.accounts.sessions import fingerprint
from ticker.errors import ConfigurationError, ConflictError, UnknownAccountError
from ticker.stores.accounts import AccountRow, AccountStore
from ticker.stores.database import Database

NOW: Final = dt.datetime(2026, 11, 20, 4, 0, tzinfo=dt.UTC)
LATER: Final = NOW + dt.timedelta(minutes=1)
BOX: Final = SecretBox([create_encryption_key()])

pytestmark = pytest.mark.slow


async def create(store: AccountStore, account_id: str = "a", **values: Any) -> AccountRow:
    fields: dict[str, Any] = {
        "api_key": f"key-{account_id}-CANARY",
        "api_secret": "secret-CANARY",
        "access_token": "token-CANARY",
        "username": "user-CANARY",
        "metadata": {"note": "mine"},
        "now": NOW,
    }
    return await store.create(account_id, **{**fields, **values})


async def execute(database: Database, query: str) -> list[tuple[Any, ...]]:
    def work(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
        return connection.execute(query.encode()).fetchall()

    return await database.run(work)


async def test_account_comes_back_as_it_was_stored() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        created = await create(store)
        assert await store.load_all() == [created]
        assert created == AccountRow(
            account_id="a",
            origin="database",
            api_key="key-a-CANARY",
            api_secret="secret-CANARY",
            access_token="token-CANARY",
            token_issued_at=NOW,
            configured_hash=b"",
            username="user-CANARY",
            is_active=True,
            metadata={"note": "mine"},
            created_at=NOW,
            updated_at=NOW,
        )
        bare = await create(store, "b", api_secret=None, access_token=None, username=None)
        assert (bare.api_secret, bare.access_token, bare.username) == (None, None, None)
        assert bare.token_issued_at is None


async def test_no_secret_is_in_the_database_or_in_a_repr() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        row = await create(store)
        await store.keep_token(
            "s",
            api_key="key-s-CANARY",
            access_token="kept-CANARY",
            configured_hash=b"x",
            issued_at=NOW,
        )
        dump = str(await execute(database, "SELECT t::text FROM trading_accounts t"))
        assert dump.count("gAAAAA") == 6, "sealed, all of them"
        assert "CANARY" not in dump
        assert "CANARY" not in repr(row)
        with pytest.raises(ConflictError) as caught:
            await create(store, "b", api_key="key-a-CANARY")
        assert "CANARY" not in repr(caught.value)
        assert fingerprint("key-a-CANARY").hex() not in str(caught.value)
        assert caught.value.__suppress_context__, "the cause's text shows the key's hash"


async def test_id_and_api_key_are_given_once() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        await create(store)
        with pytest.raises(ConflictError) as by_id:
            await create(store, api_key="another")
        assert by_id.value.field == "account_id"
        with pytest.raises(ConflictError) as by_key:
            await create(store, "b", api_key="key-a-CANARY")
        assert by_key.value.field == "api_key"
        await create(store, "c")
        with pytest.raises(ConflictError):
            await store.update("c", {"api_key": "key-a-CANARY"}, now=LATER)
        await store.update("a", {"is_active": False}, now=LATER)
        await create(store, "b", api_key="key-a-CANARY")
        with pytest.raises(ConflictError):
            await store.update("a", {"is_active": True}, now=LATER)


async def test_update_changes_what_is_named_and_nothing_else() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        before = await create(store)
        after = await store.update("a", {"api_secret": "s2", "metadata": {}}, now=LATER)
        assert (after.api_secret, after.metadata) == ("s2", {})
        assert (after.api_key, after.access_token) == (before.api_key, before.access_token)
        assert (after.token_issued_at, after.created_at, after.updated_at) == (NOW, NOW, LATER)
        after = await store.update("a", {"access_token": "t2"}, now=LATER)
        assert (after.access_token, after.token_issued_at) == ("t2", LATER)
        after = await store.update("a", {"api_key": "k2"}, now=LATER)
        assert (after.access_token, after.token_issued_at) == (None, None), "it was the old key's"
        with pytest.raises(UnknownAccountError):
            await store.update("nobody", {"is_active": True}, now=LATER)


async def test_deleted_account_is_gone() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        await create(store)
        await store.delete("a")
        assert await store.load_all() == []
        with pytest.raises(UnknownAccountError):
            await store.delete("a")


async def keep(store: AccountStore, account_id: str, **values: Any) -> bool:
    fields: dict[str, Any] = {
        "api_key": f"key-{account_id}-CANARY",
        "access_token": "kept",
        "configured_hash": b"hash",
        "issued_at": LATER,
    }
    return await store.keep_token(account_id, **{**fields, **values})


async def test_token_is_kept_for_an_account_of_the_settings_without_making_it_stored() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        assert await keep(store, "s", access_token="first")
        assert await keep(store, "s", access_token="second", api_key="new key")
        (row,) = await store.load_all()
        assert (row.origin, row.api_key, row.access_token) == ("settings", "new key", "second")
        assert (row.configured_hash, row.token_issued_at) == (b"hash", LATER)
        with pytest.raises(UnknownAccountError):
            await store.update("s", {"is_active": False}, now=LATER)
        with pytest.raises(UnknownAccountError):
            await store.delete("s")
        created = await create(store, "s", access_token=None)
        assert (created.origin, created.access_token) == ("database", None)
        assert (created.token_issued_at, created.configured_hash) == (None, b"")


async def test_token_is_kept_for_a_stored_account_of_the_same_api_key_only() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        await create(store)
        assert await keep(store, "a")
        assert not await keep(store, "a", api_key="another", access_token="lost")
        (row,) = await store.load_all()
        assert (row.origin, row.access_token, row.api_secret) == (
            *("database", "kept"),
            "secret-CANARY",
        )


@pytest.mark.parametrize(
    ("box", "named"),
    [(None, "is not set"), (SecretBox([create_encryption_key()]), "none of the keys")],
)
async def test_rows_without_their_key_say_so(box: SecretBox | None, named: str) -> None:
    async with open_test_database() as database:
        await create(AccountStore(database, BOX))
        (row,) = await AccountStore(database, box).load_all()
        assert named in (row.error or "")
        assert (row.api_key, row.api_secret, row.access_token, row.username) == (
            *("", None),
            *(None, None),
        )


async def test_one_broken_row_leaves_the_others_readable() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, BOX)
        await create(store, "a")
        await create(store, "b")
        swap = """UPDATE trading_accounts SET username = access_token WHERE account_id = 'a'
            RETURNING 1"""
        await execute(database, swap)
        broken, good = await store.load_all()
        assert broken.error is not None, "a secret in the wrong column is not shown there"
        assert broken.username is None
        assert good.error is None


async def test_without_a_key_no_secret_is_stored_and_other_changes_are() -> None:
    async with open_test_database() as database:
        await create(AccountStore(database, BOX))
        store = AccountStore(database, None)
        for write in (create(store, "b"), keep(store, "c")):
            with pytest.raises(ConfigurationError, match="ACCOUNT_ENCRYPTION_KEY"):
                await write
        with pytest.raises(ConfigurationError, match="ACCOUNT_ENCRYPTION_KEY"):
            await store.update("a", {"api_secret": "s"}, now=LATER)
        assert not (await store.update("a", {"is_active": False}, now=LATER)).is_active
        assert len(await store.load_all()) == 1


async def test_rotation_seals_everything_with_the_first_key() -> None:
    old, new = create_encryption_key(), create_encryption_key()
    async with open_test_database() as database:
        await create(AccountStore(database, SecretBox([old])), "a")
        await keep(AccountStore(database, SecretBox([old])), "s")
        await create(AccountStore(database, BOX), "lost")
        before = {row.account_id: row for row in await readable(database, SecretBox([old]))}
        assert await AccountStore(database, SecretBox([new, old])).rotate() == (2, ["lost"])
        after = {row.account_id: row for row in await readable(database, SecretBox([new]))}
        assert after == before
        assert await readable(database, SecretBox([old])) == []
        (lost,) = await readable(database, BOX)
        assert lost.account_id == "lost", "what cannot be opened stays as it is"


async def readable(database: Database, box: SecretBox) -> list[AccountRow]:
    return [row for row in await AccountStore(database, box).load_all() if row.error is None]


async def test_table_refuses_ids_and_states_that_make_no_sense() -> None:
    async with open_test_database() as database:
        sealed: Mapping[str, str] = {"api_key": "''", "api_key_hash": "''"}
        for values in (
            {"account_id": "'a b'"},
            {"account_id": "''"},
            {"account_id": "'a'", "origin": "'elsewhere'"},
            {"account_id": "'a'", "access_token": "'x'"},
        ):
            given = {**sealed, **values}
            columns, row = ", ".join(given), ", ".join(given.values())
            query = f"INSERT INTO trading_accounts ({columns}) VALUES ({row})"  # noqa: S608
            with pytest.raises(psycopg.errors.CheckViolation):
                await execute(database, query)
