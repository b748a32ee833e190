"""A real PostgreSQL for tests: a fresh migrated database each, and a server to be broken."""

import atexit
import os
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import trio

from ticker.local.postgres import open_postgres, open_postgres_child
from ticker.stores.database import (
    Database,
    DatabasePolicy,
    Observe,
    ignore_call,
    open_database,
)
from ticker.stores.migrate import migrate

TEMPLATE = "ticker_template"
POLICY = DatabasePolicy()
numbers = count()


@asynccontextmanager
async def open_test_database(
    policy: DatabasePolicy = POLICY, observe: Observe = ignore_call
) -> AsyncIterator[Database]:
    """A fresh database with every migration applied, on a server that the whole run shares."""
    async with (
        open_test_url() as url,
        open_database(url, policy, wall_clock=time.time, observe=observe) as database,
    ):
        yield database


@asynccontextmanager
async def open_test_url(*, is_migrated: bool = True) -> AsyncIterator[str]:
    """The URL of such a database; or of an empty one."""
    server = await trio.to_thread.run_sync(shared_server)
    name = f"test_{next(numbers)}"
    template = TEMPLATE if is_migrated else "template0"
    await _administer(server.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield with_database(server.url, name)
    finally:
        with trio.CancelScope(shield=True):
            await _administer(server.url, f"DROP DATABASE {name} WITH (FORCE)")


def with_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _administer(url: str, statement: str) -> None:
    def execute() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())

    await trio.to_thread.run_sync(execute)


class SharedServer:
    """A server in a thread of its own, with a loop of its own: tests have one each."""

    def __init__(self) -> None:
        self.url = ""
        self._ready = threading.Event()
        # the child dies with the thread that started it, which is this one
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(60):
            raise TimeoutError("the shared PostgreSQL server did not start")

    def stop(self) -> None:
        self._token.run_sync_soon(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with open_postgres() as url:
            await _administer(url, f"CREATE DATABASE {TEMPLATE}")
            template = with_database(url, TEMPLATE)
            async with open_database(template, POLICY, wall_clock=time.time) as database:
                await migrate(database)
            self.url = url
            self._ready.set()
            await self._stop.wait()


@cache
def shared_server() -> SharedServer:
    """The run's one server, started at the first call and stopped with the interpreter."""
    server = SharedServer()
    server.start()
    atexit.register(server.stop)
    return server


class PostgresServer:
    """A server with a directory of its own, to be stopped, frozen, limited and started again."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        # its socket lies among the data, so that it has the same URL each time
        self.url = f"postgresql://postgres@/postgres?host={directory}"
        self.pid = 0
        self._directory = directory
        self._nursery = nursery
        self._running = trio.CancelScope()
        self._gone = trio.Event()

    async def start(self, *settings: str) -> None:
        """Returns when it takes connections. ``settings``: ``name=value``."""
        self._running, self._gone = trio.CancelScope(), trio.Event()
        await self._nursery.start(self._run, settings)

    async def stop(self) -> None:
        """Shut down in order, hanging up on clients; returns when it is gone."""
        self._running.cancel()
        await self._gone.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does nothing, but the kernel goes on accepting connections for it."""
        pids = [self.pid, *self.backend_pids()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in {*pids, *self.backend_pids()}:
                with suppress(ProcessLookupError):  # its client is gone, and so is it
                    os.kill(pid, signal.SIGCONT)

    def backend_pids(self) -> list[int]:
        """The processes that it started, and that are still there."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(word) for word in found.split()]

    async def _run(
        self,
        settings: tuple[str, ...],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with self._running:
            ours = ("fsync=off", f"unix_socket_directories={self._directory}")
            async with open_postgres_child(
                directory=self._directory, settings=(*ours, *settings)
            ) as (child, _):
                self.pid = child.pid
                task_status.started()
                await trio.sleep_forever()
        self._gone.set()


@asynccontextmanager
async def open_postgres_server() -> AsyncIterator[PostgresServer]:
    """A running server of the test's own, with a directory of its own."""
    # not pytest's tmp_path, where only its owner may go: a superuser's server is somebody else's
    with tempfile.TemporaryDirectory(prefix="ticker-test-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 - before anything runs
        async with trio.open_nursery() as nursery:
            server = PostgresServer(Path(folder) / "data", nursery)
            await server.start()
            yield server
            nursery.cancel_scope.cancel()
