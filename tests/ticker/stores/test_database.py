"""Calls against a server that is well."""

import gc
import threading
import time
from functools import partial
from typing import Any

import psycopg
import pytest
import trio
import trio.testing
from psycopg import errors

from tests.postgres import open_test_database, open_test_url
from ticker.errors import ConfigurationError, StoreUnavailableError
from ticker.stores.database import GRACE_S, DatabasePolicy, open_database
from ticker.stores.failures import StoreBusyError

pytestmark = pytest.mark.slow

Connection = psycopg.Connection[Any]


def backend_pid(connection: Connection) -> int:
    return connection.info.backend_pid


def sleep_long(connection: Connection) -> None:
    connection.execute("SELECT pg_sleep(30)")


def create_table(connection: Connection) -> None:
    connection.execute("CREATE TABLE numbers (number integer UNIQUE)")


def load_numbers(connection: Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT number FROM numbers ORDER BY 1")]


def add(number: int, connection: Connection) -> None:
    connection.execute("INSERT INTO numbers VALUES (%s)", (number,))


def count_sleepers(connection: Connection) -> int:
    rows = connection.execute(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() "
        "AND state = 'active' AND query LIKE '%%pg_sleep%%' AND pid <> pg_backend_pid()"
    )
    return rows.rowcount


async def test_a_call_is_one_transaction() -> None:
    async with open_test_database() as database:
        await database.run(create_table)
        await database.run(lambda connection: add(1, connection))

        def add_and_fail(connection: Connection) -> None:
            add(2, connection)
            raise KeyError("a bug")

        with pytest.raises(KeyError):
            await database.run(add_and_fail)
        assert await database.run(load_numbers) == [1]


async def test_bugs_are_raised_as_they_are_and_cost_no_connection() -> None:
    async with open_test_database() as database:
        await database.run(create_table)
        await database.run(lambda connection: add(1, connection))
        pid = await database.run(backend_pid)
        with pytest.raises(errors.UniqueViolation):
            await database.run(lambda connection: add(1, connection))
        with pytest.raises(errors.SyntaxError):
            await database.run(lambda connection: connection.execute("SELEKT 1"))
        assert await database.run(backend_pid) == pid
        assert database.status.available


async def test_going_on_after_a_failed_statement_is_a_bug() -> None:
    def swallow(connection: Connection) -> None:
        add(1, connection)
        with pytest.raises(errors.UniqueViolation):
            add(1, connection)

    async with open_test_database() as database:
        await database.run(create_table)
        with pytest.raises(errors.InFailedSqlTransaction):
            await database.run(swallow)
        assert await database.run(load_numbers) == []


async def test_cancelling_returns_at_once_and_ends_the_query() -> None:
    async with open_test_database(DatabasePolicy(pool_size=2)) as database:
        for _ in range(5):  # more than there are places
            began_at = trio.current_time()
            with trio.move_on_after(0.1) as scope:
                await database.run(sleep_long)
            assert scope.cancelled_caught
            assert trio.current_time() - began_at < 0.1 + GRACE_S / 2
        with trio.fail_after(1):
            assert await database.run(count_sleepers) == 0
        assert database.status.available
        assert database.status.in_use == 0


async def test_the_connection_of_a_cancelled_call_is_not_used_again() -> None:
    """A request to cancel that arrives late would hit the next query on it."""
    async with open_test_database(DatabasePolicy(pool_size=1)) as database:
        pid = await database.run(backend_pid)
        with trio.move_on_after(0.1):
            await database.run(sleep_long)
        assert await database.run(backend_pid) != pid


async def test_cancelling_who_waits_for_a_connection_disturbs_nobody() -> None:
    async with open_test_database(DatabasePolicy(pool_size=1)) as database:
        results: list[int] = []

        async def load() -> None:
            results.append(await database.run(slow_number))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await trio.sleep(0.1)
            began_at = trio.current_time()
            with trio.move_on_after(0.05):
                await database.run(backend_pid)
            assert trio.current_time() - began_at < 0.3
        assert results == [7]


def slow_number(connection: Connection) -> int:
    rows = connection.execute("SELECT 7 FROM pg_sleep(0.4)").fetchall()
    return int(rows[0][0])


async def test_callers_share_the_connections_there_are() -> None:
    policy = DatabasePolicy(pool_size=3)
    async with open_test_database(policy) as database:
        seen: list[int] = []

        async def call() -> None:
            seen.append(await database.run(slow_pid))

        async with trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(call)
            await trio.sleep(0.15)
            status = database.status
        assert len(seen) == 7
        assert len(set(seen)) == 3
        assert (status.pool_size, status.in_use, status.waiting) == (3, 3, 4)
        assert (database.status.in_use, database.status.waiting) == (0, 0)


def slow_pid(connection: Connection) -> int:
    connection.execute("SELECT pg_sleep(0.2)")
    return backend_pid(connection)


async def test_who_gets_no_connection_in_time_is_told_so_and_the_store_is_not_called_away() -> None:
    async with open_test_database(DatabasePolicy(pool_size=1)) as database:
        await database.run(backend_pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.run, slow_number)
            await trio.sleep(0.05)
            with pytest.raises(StoreBusyError, match="no connection was free"):
                await database.run(backend_pid, timeout_s=0.2)
            assert database.status.available
            assert database.status.last_error is None


async def test_a_statement_that_takes_too_long_is_ended_by_the_server() -> None:
    policy = DatabasePolicy(statement_timeout_s=10)
    async with open_test_database(policy) as database:
        await database.run(backend_pid)

        def sleep_too_long(connection: Connection) -> None:
            connection.execute("SET LOCAL statement_timeout = 200")
            sleep_long(connection)

        began_at = trio.current_time()
        with pytest.raises(StoreBusyError, match="ended the call"):
            await database.run(sleep_too_long)
        assert 0.2 <= trio.current_time() - began_at < 1.0
        assert database.status.available


@pytest.mark.parametrize("timeout_s", [0.5, 2.0])
async def test_a_call_ends_by_its_deadline(timeout_s: float) -> None:
    async with open_test_database() as database:

        def sleep_often(connection: Connection) -> None:
            while True:  # each statement is short: only the deadline ends this
                connection.execute("SELECT pg_sleep(0.05)")

        began_at = trio.current_time()
        with pytest.raises(StoreUnavailableError):
            await database.run(sleep_often, timeout_s=timeout_s)
        assert trio.current_time() - began_at <= timeout_s


async def test_a_call_may_be_given_more_time_than_others() -> None:
    async with open_test_database(DatabasePolicy(statement_timeout_s=0.3)) as database:
        with pytest.raises(StoreUnavailableError):
            await database.run(slow_number)
        assert await database.run(slow_number, timeout_s=5) == 7
        with pytest.raises(StoreUnavailableError):
            await database.run(slow_number)


async def test_times_are_aware_and_in_utc_whatever_the_server_prefers() -> None:
    def prefer_india(connection: Connection) -> None:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'".encode())

    async with open_test_database() as database:
        await database.run(prefer_india)
        database.close_idle()
        rows = await database.run(lambda connection: connection.execute("SELECT now()").fetchall())
        assert str(rows[0][0].tzinfo) == "UTC"
        assert abs(rows[0][0].timestamp() - time.time()) < 5


async def test_every_call_is_told_with_its_outcome_and_duration() -> None:
    seen: list[tuple[str, str, float]] = []
    policy = DatabasePolicy(pool_size=1)
    async with open_test_database(policy, lambda *told: seen.append(told)) as database:
        await database.run(slow_number, query_type="slow")
        with pytest.raises(errors.SyntaxError):
            await database.run(lambda connection: connection.execute("SELEKT"), query_type="wrong")
        await database.probe()
        with pytest.raises(StoreUnavailableError):
            await database.run(sleep_long, timeout_s=0.2, query_type="long")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(database.run, sleep_long, query_type="given up"))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(StoreBusyError):
                await database.run(backend_pid, timeout_s=0.1, query_type="late")
            nursery.cancel_scope.cancel()
    assert [told[:2] for told in seen] == [
        ("slow", "success"),
        ("wrong", "rolled_back"),
        ("probe", "success"),
        ("long", "unavailable"),
        ("late", "busy"),
        ("given up", "cancelled"),
    ]
    assert seen[0][2] >= 0.4


async def test_nothing_is_left_behind() -> None:
    """No thread of our own, and no connection."""
    before = threading.active_count()
    async with open_test_url() as url:
        async with open_database(url, wall_clock=time.time) as database:
            await database.run(backend_pid)
            with trio.move_on_after(0.1):
                await database.run(sleep_long)
        with psycopg.connect(url) as connection:
            await trio.sleep(0.1)
            rows = connection.execute(
                "SELECT FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            assert rows.rowcount == 0
    gc.collect()  # a connection that was not closed says so, and warnings are errors
    # Trio keeps idle threads for ten seconds; they wait for work, ours would wait for a server
    assert all(thread.name.startswith("Trio thread") for thread in threading.enumerate()[before:])


async def test_a_url_that_is_none_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with open_database("postgresql://u:canary@[::1", wall_clock=time.time):
            pass
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_options_of_the_url_are_kept() -> None:
    async with (
        open_test_url() as url,
        open_database(f"{url}&options=-c%20work_mem%3D1234kB", wall_clock=time.time) as database,
    ):

        def show(connection: Connection) -> list[str]:
            names = ("work_mem", "statement_timeout", "TimeZone")
            rows = [connection.execute(f"SHOW {name}".encode()).fetchall() for name in names]
            return [row[0][0] for row in rows]

        assert await database.run(show) == ["1234kB", "5s", "UTC"]
