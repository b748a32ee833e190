"""Whether the database is there, told within seconds, with real servers."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
import trio

from nurseries.keep_store import keep_store
from tests.postgres import open_postgres_server, open_test_database, open_test_url
from tests.publisher_rig import wait_for
from ticker.errors import ConfigurationError, StoreUnavailableError
from ticker.stores.database import Database, DatabasePolicy, DatabaseStatus, open_database
from ticker.stores.runtime_settings import RuntimeSettings

pytestmark = pytest.mark.slow

READY_S = 5.0


class Watch:
    """What the task says."""

    def __init__(self) -> None:
        self.migrated = trio.Event()
        self.reports: list[DatabaseStatus] = []

    async def run(self, database: Database, interval_s: float = 0.2) -> None:
        await keep_store(
            database,
            migrated=self.migrated,
            market="simulated",
            report=self.reports.append,
            interval_s=interval_s,
        )

    def says(self, available: bool) -> Callable[[], bool]:
        """Whether the newest report since now is this."""
        seen = len(self.reports)
        return lambda: len(self.reports) > seen and self.reports[-1].available == available


def drop_everything(connection: psycopg.Connection[Any]) -> None:
    connection.execute("DROP SCHEMA public CASCADE")
    connection.execute("CREATE SCHEMA public")


async def test_an_empty_database_is_migrated() -> None:
    watch = Watch()
    async with (
        open_test_url(is_migrated=False) as url,
        open_database(url, wall_clock=time.time) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch.run, database)
        with trio.fail_after(5):
            await watch.migrated.wait()
        await RuntimeSettings(database).save("name", "value", by="test")
        await wait_for(watch.says(available=True), 1)
        nursery.cancel_scope.cancel()


async def test_a_server_that_comes_later_is_migrated_then() -> None:
    watch = Watch()
    async with open_postgres_server() as server:
        await server.stop()
        async with (
            open_database(server.url, wall_clock=time.time) as database,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(partial(watch.run, database, interval_s=1.0))
            await wait_for(watch.says(available=False), 2)
            assert not watch.migrated.is_set()
            assert watch.reports[-1].last_error == "there is no connection to PostgreSQL"
            await server.start()
            with trio.fail_after(READY_S):
                await watch.migrated.wait()
            nursery.cancel_scope.cancel()


async def test_a_restart_is_seen_and_got_over() -> None:
    watch = Watch()
    async with (
        open_postgres_server() as server,
        open_database(server.url, wall_clock=time.time) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(watch.run, database, interval_s=1.0))
        await wait_for(watch.says(available=True), READY_S)
        for _ in range(2):
            await server.stop()
            await wait_for(watch.says(available=False), 2)
            await server.start()
            took_s = await wait_for(watch.says(available=True), READY_S)
            print(f"ready {took_s:.1f} s after the server")  # noqa: T201
        nursery.cancel_scope.cancel()


async def test_a_frozen_server_is_seen_and_got_over() -> None:
    watch = Watch()
    async with (
        open_postgres_server() as server,
        open_database(server.url, wall_clock=time.time) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(watch.run, database, interval_s=1.0))
        await wait_for(watch.says(available=True), READY_S)
        since = watch.reports[-1].since
        with server.frozen():
            took_s = await wait_for(watch.says(available=False), 6)
            print(f"seen {took_s:.1f} s after it froze")  # noqa: T201
            assert watch.reports[-1].since > since
        took_s = await wait_for(watch.says(available=True), READY_S)
        print(f"ready {took_s:.1f} s after it thawed")  # noqa: T201
        nursery.cancel_scope.cancel()


async def test_a_frozen_server_is_seen_however_many_calls_wait_for_it() -> None:
    """They hold every connection for longer than it may take to tell."""
    policy = DatabasePolicy(pool_size=2, statement_timeout_s=30)
    watch = Watch()
    async with (
        open_postgres_server() as server,
        open_database(server.url, policy, wall_clock=time.time) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(partial(watch.run, database, interval_s=1.0))
        await wait_for(watch.says(available=True), READY_S)

        async def write() -> None:
            with suppress(StoreUnavailableError):
                await database.run(lambda connection: connection.execute("SELECT pg_sleep(30)"))

        for _ in range(5):
            nursery.start_soon(write)
        await wait_for(lambda: (database.status.in_use, database.status.waiting) == (2, 3), READY_S)
        await wait_for(watch.says(available=True), READY_S)  # busy is not away
        with server.frozen():
            took_s = await wait_for(watch.says(available=False), 5)
            print(f"seen {took_s:.1f} s after it froze")  # noqa: T201
        nursery.cancel_scope.cancel()


async def test_a_database_created_anew_is_migrated_anew() -> None:
    watch = Watch()
    async with (
        open_test_url() as url,
        open_database(url, wall_clock=time.time) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch.run, database)
        await wait_for(watch.says(available=True), 2)
        with psycopg.connect(url) as other:
            drop_everything(other)
        settings = RuntimeSettings(database)

        async def is_saved() -> None:
            while True:
                try:
                    await settings.save("name", "value", by="test")
                except StoreUnavailableError:
                    await trio.sleep(0.05)
                else:
                    return

        with trio.fail_after(3):
            await is_saved()
        nursery.cancel_scope.cancel()


async def test_tables_of_a_newer_program_end_the_start_but_not_what_runs() -> None:
    def claim(connection: psycopg.Connection[Any]) -> None:
        connection.execute("INSERT INTO schema_migrations VALUES ('9999_future.sql', 'x')")

    async with open_test_url() as url, open_database(url, wall_clock=time.time) as database:
        watch = Watch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run, database)
            await wait_for(watch.says(available=True), 2)
            await database.run(claim)
            with pytest.raises(StoreUnavailableError):
                await database.run(lambda connection: connection.execute("SELECT FROM nowhere"))
            await wait_for(watch.says(available=True), 2)
            await wait_for(watch.says(available=True), 2)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5), pytest.raises(ConfigurationError, match="9999_future"):
            await Watch().run(database)


async def test_a_database_of_another_market_is_refused() -> None:
    watch = Watch()
    async with open_test_database() as database:
        await RuntimeSettings(database).save("market", "real", by="test")
        with pytest.raises(ConfigurationError, match="real market"):
            await watch.run(database)
