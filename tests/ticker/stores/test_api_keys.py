import datetime as dt
from typing import Any, Final

import psycopg
import pytest
import trio

from tests.postgres import open_test_database
from ticker.errors import (
    CapacityError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownItemError,
)
from ticker.stores import api_keys
from ticker.stores.api_keys import ApiKeyStore
from ticker.stores.database import Database

pytestmark = pytest.mark.slow

NOW: Final = dt.datetime(2026, 11, 20, 4, 0, tzinfo=dt.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


def create_store(database: Database, clock: Clock | None = None) -> ApiKeyStore:
    return ApiKeyStore(database, wall_clock=clock or Clock())


async def test_key_is_found_by_its_text_alone() -> None:
    async with open_test_database() as database:
        store = create_store(database)
        await store.refresh()
        key, text = await store.create("dashboard", ["read", "read", "trade"])
        assert (key.name, key.scopes, key.created_at) == ("dashboard", ("read", "trade"), NOW)
        assert store.find(text) == key
        prefix, key_id, secret = text.split("_", 2)
        assert (prefix, key_id) == ("tk", key.id)
        other = await store.create("other", ["admin"])
        for wrong in (
            *("", "tk", text[:-1], text + "x", text.upper(), f" {text}", f"{text}\n"),
            *(f"tk_{'0' * 16}_{secret}", f"tk_{other[0].id}_{secret}", f"tk_{key_id}_{'A' * 43}"),
            "tk_\u0663" * 16,
        ):
            assert store.find(wrong) is None


async def test_secrets_are_neither_stored_nor_alike() -> None:
    async with open_test_database() as database:
        store = create_store(database)
        made = [await store.create("n", ["read"]) for _ in range(5)]
        texts = [text for _, text in made]
        assert len({text.split("_", 2)[2] for text in texts}) == 5

        def dump(connection: psycopg.Connection[Any]) -> str:
            return str(connection.execute("SELECT k::text FROM api_keys k").fetchall())

        dumped = await database.run(dump)
        for key, text in made:
            assert key.id in dumped
            assert text.split("_", 2)[2] not in dumped + repr(key)


async def test_other_instances_see_keys_and_revocations_with_their_next_refresh() -> None:
    async with open_test_database() as database:
        here, elsewhere = create_store(database), create_store(database)
        await here.refresh()
        await elsewhere.refresh()
        key, text = await here.create("n", ["read"])
        assert elsewhere.find(text) is None
        await elsewhere.refresh()
        assert elsewhere.find(text) == key
        revoked = await here.revoke(key.id)
        assert revoked.revoked_at == NOW
        assert here.find(text) is None, "at once"
        await elsewhere.refresh()
        assert elsewhere.find(text) is None
        await here.refresh()
        assert here.find(text) is None
        assert (await here.revoke(key.id)).revoked_at == NOW, "revoking twice changes nothing"
        assert [row.revoked_at for row in await here.load_all()] == [NOW]
        for unknown in ("0" * 16, "nothing", "\x00", ""):
            with pytest.raises(UnknownItemError):
                await here.revoke(unknown)


async def test_key_ends_at_its_hour_even_without_a_refresh() -> None:
    clock = Clock()
    async with open_test_database() as database:
        store = create_store(database, clock)
        _, text = await store.create("n", ["read"], expires_at=NOW + dt.timedelta(seconds=10))
        assert store.find(text) is not None
        clock.now += 10
        assert store.find(text) is None
        await store.refresh()
        assert store.find(text) is None


async def test_use_is_noted_in_the_table_by_the_next_refresh() -> None:
    clock = Clock()
    async with open_test_database() as database:
        store = create_store(database, clock)
        key, text = await store.create("n", ["read"])
        idle, _ = await store.create("idle", ["read"])
        for _ in range(3):
            clock.now += 1
            store.find(text)
        await store.refresh()
        used = {row.id: row.last_used_at for row in await store.load_all()}
        assert used == {key.id: NOW + dt.timedelta(seconds=3), idle.id: None}


class AwayDatabase(Database):
    """PostgreSQL is away."""

    def __init__(self) -> None:
        pass

    async def run(self, *args: object, **kwargs: object) -> Any:
        await trio.lowlevel.checkpoint()
        raise StoreUnavailableError("away")


async def test_keys_go_on_working_while_the_database_is_away() -> None:
    clock = Clock()
    async with open_test_database() as database:
        store = create_store(database, clock)
        key, text = await store.create("n", ["read"])
        store._database = AwayDatabase()
        clock.now += 1
        assert store.find(text) == key
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await store.refresh()
        with pytest.raises(StoreUnavailableError):
            await store.revoke(key.id)
        store._database = database
        await store.refresh()
        (row,) = await store.load_all()
        assert row.last_used_at == NOW + dt.timedelta(seconds=1), "noted late, not lost"
        store._database = AwayDatabase()
        with pytest.raises(StoreUnavailableError):
            await store.refresh()
        assert store.find(text) is not None


async def test_key_created_during_a_refresh_is_not_forgotten() -> None:
    async with open_test_database() as database:
        store = create_store(database)
        made: list[str] = []

        async def create() -> None:
            made.append((await store.create("n", ["read"]))[1])

        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.refresh)
                nursery.start_soon(create)
                nursery.start_soon(store.refresh)
            assert store.find(made[-1]) is not None


async def test_there_is_an_end_to_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "KEYS_MAX", 2)
    async with open_test_database() as database:
        store = create_store(database)
        first, _ = await store.create("n", ["read"])
        await store.create("n", ["read"])
        with pytest.raises(CapacityError):
            await store.create("n", ["read"])
        await store.revoke(first.id)
        await store.create("n", ["read"])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", {"name": "  "}),
        ("name", {"name": "x" * 101}),
        ("name", {"name": "a\nb"}),
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["read", "root"]}),
        ("expires_at", {"expires_at": NOW}),
        ("expires_at", {"expires_at": dt.datetime.max.replace(tzinfo=dt.UTC)}),
        (
            "expires_at",
            {"expires_at": dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=5)))},
        ),
    ],
)
async def test_keys_that_make_no_sense_are_refused(field: str, values: dict[str, Any]) -> None:
    store = create_store(AwayDatabase())
    given = {"name": "n", "scopes": ["read"], **values}
    with pytest.raises(InvalidRequestError) as caught:
        await store.create(given.pop("name"), given.pop("scopes"), **given)
    assert caught.value.field == field


async def test_a_key_cannot_be_judged_before_the_table_was_read() -> None:
    async with open_test_database() as database:
        _, text = await create_store(database).create("dashboard", ["read"])
        fresh = create_store(database)
        with pytest.raises(StoreUnavailableError):
            fresh.find(text)
        assert fresh.find("nonsense") is None
        await fresh.refresh()
        assert fresh.find(text) is not None
