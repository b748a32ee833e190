"""PostgreSQL restarted, killed, frozen, read-only, full: real servers."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from psycopg import errors

from tests.postgres import PostgresServer, open_postgres_server, open_test_database
from tests.publisher_rig import wait_for
from ticker.errors import StoreUnavailableError
from ticker.stores.database import Database, DatabasePolicy, open_database
from ticker.stores.failures import StoreBusyError, translate_error

pytestmark = pytest.mark.slow

Connection = psycopg.Connection[Any]
SLACK_S = 0.3  # of a busy machine
POLICY = DatabasePolicy(pool_size=3, connect_timeout_s=2, statement_timeout_s=1)


@asynccontextmanager
async def open_pair(
    policy: DatabasePolicy = POLICY,
) -> AsyncIterator[tuple[PostgresServer, Database]]:
    """A server, and a database on it whose connections are all open and idle."""
    async with (
        open_postgres_server() as server,
        open_database(server.url, policy, wall_clock=time.time) as database,
    ):
        await database.run(create_table)
        async with trio.open_nursery() as nursery:
            for _ in range(policy.pool_size):
                nursery.start_soon(database.run, partial(sleep, 0.1))
        assert database.status.available
        yield server, database


def create_table(connection: Connection) -> None:
    connection.execute("CREATE TABLE texts (text text)")


def sleep(duration_s: float, connection: Connection) -> None:
    connection.execute("SELECT pg_sleep(%s)", (duration_s,))


def write(connection: Connection) -> None:
    connection.execute("INSERT INTO texts VALUES ('a')")


def count(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM texts").fetchall()[0][0])


async def test_a_restart_costs_no_call_after_it() -> None:
    async with open_pair() as (server, database):
        await server.stop()
        with pytest.raises(StoreUnavailableError):
            await database.run(write)
        assert not database.status.available
        await server.start()
        async with trio.open_nursery() as nursery:  # on every connection that died
            for _ in range(POLICY.pool_size):
                nursery.start_soon(database.run, write)
        assert await database.run(count) == POLICY.pool_size
        assert database.status.available


async def test_a_restart_between_calls_is_not_noticed() -> None:
    async with open_pair() as (server, database):
        await server.stop()
        await server.start()
        assert await database.run(count) == 0
        since = database.status.since
        await database.run(write)
        assert database.status.since == since
        assert database.status.last_error is None


@pytest.mark.parametrize("victim", ["server", "backend"])
async def test_a_call_under_way_is_told(victim: str) -> None:
    async with open_pair() as (server, database):
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(StoreUnavailableError):
                    await database.run(partial(sleep, 0.9))
                told_at.append(trio.current_time())

            told_at: list[float] = []
            nursery.start_soon(call)
            await trio.sleep(0.2)
            ended_at = trio.current_time()
            if victim == "server":
                await server.stop()
            else:
                with psycopg.connect(server.url, autocommit=True) as other:
                    other.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
                    )
        assert told_at[0] - ended_at < 0.4


async def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """To anybody without a word of where it was sought; to the log with all but the password."""
    named = ("127.0.0.1", "user-canary", "name-canary", str(tmp_path))
    there = "postgresql://user-canary:canary@127.0.0.1:9/name-canary"
    for url in (there, f"postgresql://user-canary@/name-canary?host={tmp_path}"):
        async with open_database(url, POLICY, wall_clock=time.time) as database:
            began_at = trio.current_time()
            with pytest.raises(StoreUnavailableError) as caught:
                await database.run(count)
            assert trio.current_time() - began_at < 0.5
            assert ":canary" not in f"{caught.value.detail} {caught.value.__cause__!r}"
            assert any(name in (caught.value.detail or "") for name in named)
            told = f"{caught.value!r} {database.status.last_error}"
            assert not [name for name in named if name in told]
            assert not database.status.available


@pytest.mark.parametrize("calls", [1, 8])
async def test_every_call_to_a_frozen_server_ends_by_its_deadline(calls: int) -> None:
    """Those on open connections, those that connect, and those that wait for their turn."""
    async with open_pair() as (server, database):
        durations: list[float] = []

        async def call() -> None:
            began_at = trio.current_time()
            with pytest.raises(StoreUnavailableError):
                await database.run(count)
            durations.append(trio.current_time() - began_at)

        with server.frozen():
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    for _ in range(calls):
                        nursery.start_soon(call)
            assert not database.status.available
        assert len(durations) == 2 * calls
        assert max(durations) < POLICY.statement_timeout_s + SLACK_S
        thawed_at = trio.current_time()
        await answer_again(database)
        assert trio.current_time() - thawed_at < 1


async def answer_again(database: Database) -> None:
    while True:
        try:
            return await database.probe()
        except StoreUnavailableError:
            await trio.sleep(0.05)


async def test_a_call_frozen_under_way_ends_by_its_deadline() -> None:
    async with open_pair() as (server, database), trio.open_nursery() as nursery:

        async def call() -> None:
            began_at = trio.current_time()
            with pytest.raises(StoreUnavailableError):
                await database.run(partial(sleep, 0.6))
            assert trio.current_time() - began_at < POLICY.statement_timeout_s + SLACK_S
            called.set()

        called = trio.Event()
        nursery.start_soon(call)
        await trio.sleep(0.1)
        with server.frozen():
            await called.wait()


async def test_cancelling_a_call_to_a_frozen_server_returns_soon_and_its_thread_too() -> None:
    policy = DatabasePolicy(pool_size=2, connect_timeout_s=2, statement_timeout_s=60)
    async with open_pair(policy) as (server, database):
        with server.frozen():
            began_at = trio.current_time()
            with trio.move_on_after(0.1):
                await database.run(count)
            assert trio.current_time() - began_at < 0.6 + SLACK_S
            # the thread that waited for an answer has ended, the server is still frozen
            await wait_for(lambda: database.status.in_use == 0, SLACK_S)
            with trio.move_on_after(0.1):
                await database.run(count)
            # and the one that was connecting ends with its own timeout
            await wait_for(lambda: database.status.in_use == 0, 3)


async def test_the_end_of_the_program_waits_for_no_frozen_server() -> None:
    source = """
        import sys, time, trio
        from ticker.stores.database import DatabasePolicy, open_database
        from ticker.errors import StoreUnavailableError

        async def main():
            policy = DatabasePolicy(pool_size=2, connect_timeout_s=60, statement_timeout_s=60)
            async with open_database(sys.argv[1], policy, wall_clock=time.time) as database:
                await database.run(lambda connection: connection.execute("SELECT 1").fetchall())
                print("ready", flush=True)
                sys.stdin.readline()
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(database.run, lambda connection: None)
                    await trio.sleep(0.2)
                    nursery.cancel_scope.cancel()

        trio.run(main)
    """
    code = "\n".join(line.removeprefix("        ") for line in source.splitlines())
    async with open_postgres_server() as server:
        program = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-W", "error", "-c", code, server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with program:
            assert program.stdin is not None
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            with server.frozen():
                began_at = time.monotonic()
                _, complaints = program.communicate("go\n", timeout=20)
                assert time.monotonic() - began_at < 2
        assert (program.returncode, complaints) == (0, "")


async def test_a_read_only_server_is_unavailable_and_back_without_a_restart() -> None:
    async with open_pair() as (server, database):
        set_read_only(server, "on")
        with pytest.raises(StoreUnavailableError, match="read-only"):
            await database.run(write)
        with pytest.raises(StoreUnavailableError, match="read-only"):
            await database.probe()
        assert not database.status.available
        set_read_only(server, "off")
        await answer_again(database)
        await database.run(write)
        assert database.status.available


async def test_a_read_only_connection_is_replaced() -> None:
    """The URL may lead to another server by now."""

    def make_read_only(connection: Connection) -> None:
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")

    async with open_test_database(DatabasePolicy(pool_size=1)) as database:
        await database.run(create_table)
        await database.run(make_read_only)
        with pytest.raises(StoreUnavailableError, match="read-only"):
            await database.run(write)
        await database.run(write)


def set_read_only(server: PostgresServer, value: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as other:
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        other.execute("SELECT pg_reload_conf()")
    time.sleep(0.2)  # until every process has read it


async def test_a_server_that_cannot_write_is_unavailable() -> None:
    """Its files may not grow: the write itself fails, in the kernel, as on a full disk."""
    async with open_pair() as (server, database):
        await server.stop()
        with file_size_limited_to(WAL_SEGMENT_BYTES + 1_000_000):
            await server.start()
        with pytest.raises(StoreUnavailableError, match="internal error") as caught:
            await database.run(write_much, timeout_s=10)
        assert "could not extend file" in (caught.value.detail or "")
        assert not database.status.available
        assert await database.run(count) == 0
        await server.stop()
        await server.start()
        await database.run(write_much, timeout_s=10)
        assert await database.run(count) == 30_000


WAL_SEGMENT_BYTES = 16 * 1024 * 1024


@contextmanager
def file_size_limited_to(size: int) -> Iterator[None]:
    """For the processes that are started meanwhile, and for this one."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def write_much(connection: Connection) -> None:
    connection.execute("INSERT INTO texts SELECT repeat('a', 1000) FROM generate_series(1, 30000)")


async def test_a_server_without_a_free_place_is_unavailable() -> None:
    async with open_pair() as (server, _):
        await server.stop()
        await server.start("max_connections=2", "superuser_reserved_connections=0")
        async with open_database(server.url, POLICY, wall_clock=time.time) as database:
            first, second = psycopg.connect(server.url), psycopg.connect(server.url)
            with first, second, pytest.raises(StoreUnavailableError, match="no connection"):
                await database.run(count)
            with trio.fail_after(5):
                await answer_again(database)


async def test_a_database_without_our_tables_is_unavailable() -> None:
    async with open_test_database() as database:
        with pytest.raises(StoreUnavailableError, match="not have all tables"):
            await database.run(lambda connection: connection.execute("SELECT FROM nowhere"))


async def test_a_server_killed_while_it_is_used_is_found_again() -> None:
    """One of its processes dies: it ends every connection, recovers, and is there again."""
    async with open_pair() as (server, database):
        with psycopg.connect(server.url) as other:
            victim = other.info.backend_pid
            os.kill(victim, signal.SIGKILL)
            killed_at = trio.current_time()
            with pytest.raises(StoreUnavailableError):
                await count_for_ever(database)
            await answer_again(database)
            assert trio.current_time() - killed_at < 5
        await database.run(write)


async def count_for_ever(database: Database) -> None:
    while True:
        await database.run(count)


async def test_threads_are_not_used_up_by_a_frozen_server() -> None:
    async with open_pair() as (server, database):
        with server.frozen():
            before = threading.active_count()
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(expect_unavailable, database)
            assert threading.active_count() <= before + 2 * POLICY.pool_size


async def expect_unavailable(database: Database) -> None:
    with pytest.raises(StoreUnavailableError):
        await database.run(count, timeout_s=0.3)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("connection failed: no route\n\tIs it running?"), "away"),
        (errors.AdminShutdown("terminating"), "away"),
        (errors.CannotConnectNow("starting up"), "away"),
        (errors.ReadOnlySqlTransaction("cannot execute INSERT"), "away"),
        (errors.DiskFull("could not extend file"), "away"),
        (errors.OutOfMemory("out of memory"), "away"),
        (errors.TooManyConnections("sorry"), "away"),
        (errors.IoError("could not write"), "away"),
        (errors.InvalidPassword("password authentication failed"), "away"),
        (errors.IdleInTransactionSessionTimeout("terminating"), "away"),
        (errors.QueryCanceled("statement timeout"), "busy"),
        (errors.LockNotAvailable("lock timeout"), "busy"),
        (errors.DeadlockDetected("deadlock"), "busy"),
        (errors.SerializationFailure("could not serialize"), "busy"),
        (errors.UniqueViolation("duplicate key"), "bug"),
        (errors.UndefinedColumn("no such column"), "bug"),
        (errors.SyntaxError("at or near"), "bug"),
        (errors.InFailedSqlTransaction("aborted"), "bug"),
        (psycopg.InterfaceError("the cursor is closed"), "bug"),
        (psycopg.ProgrammingError("the query has 2 placeholders but 1 parameters"), "bug"),
    ],
)
def test_errors_are_told_apart(error: psycopg.Error, expected: str) -> None:
    translated = translate_error(error)
    kinds: dict[type[Exception], str] = {StoreBusyError: "busy", StoreUnavailableError: "away"}
    assert kinds.get(type(translated), "bug") == expected
    assert (translated is error) == (expected == "bug")
    assert "\n" not in str(translated)
