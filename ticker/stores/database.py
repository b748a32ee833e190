"""PostgreSQL from Trio: each call is one transaction in a worker thread, and ends in time.

The pool is a few lines of our own. psycopg_pool keeps threads that outlive a frozen server, waits
for them when it is closed, and cannot be told to let go of a connection that somebody uses.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import msgspec
import psycopg
import trio
from psycopg import errors

from ticker.errors import StoreUnavailableError
from ticker.stores.calls import Call
from ticker.stores.failures import StoreBusyError, translate_error
from ticker.stores.links import Link, create_conninfo, milliseconds

T = TypeVar("T")

GRACE_S: Final = 0.5
"""How long a query may take to end after the server was asked to cancel it; then the connection
is cut. It is part of a call's time: a call gives up this much before its deadline."""

PROBE_TIMEOUT_S: Final = 2.0
PROBES: Final = 2
"""Connections for probes, beside the pool: calls that hold all of it, for as long as their time
lasts, do not keep a probe from seeing that the server is frozen. One may be held by a probe that
has given up and still connects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePolicy:
    """How many connections there may be, and how long connecting and a call may take."""

    pool_size: int = 4
    connect_timeout_s: float = 5.0
    statement_timeout_s: float = 5.0


class DatabaseStatus(msgspec.Struct, frozen=True):
    """What the calls have shown. ``since``: UNIX seconds at which ``available`` last changed.

    ``last_error`` stays when PostgreSQL is back, to say what it was; anybody may read it.
    ``in_use`` and ``waiting`` count calls, those with a connection and those that wait for one.
    """

    available: bool
    since: float
    last_error: str | None
    pool_size: int
    in_use: int
    waiting: int


Outcome = Literal["success", "rolled_back", "busy", "unavailable", "cancelled"]
"""What became of a call. ``rolled_back``: its own work raised. ``busy``: no connection was free."""

Observe = Callable[[str, Outcome, float], None]
"""Told of each call: its ``query_type``, outcome, and seconds from asking to the end."""


def ignore_call(query_type: str, outcome: Outcome, seconds: float) -> None:
    """Do nothing about what became of a call."""


class Database:
    """A bounded number of connections, opened when needed. Made by ``open_database``."""

    def __init__(
        self,
        conninfo: str,
        policy: DatabasePolicy,
        wall_clock: Callable[[], float],
        observe: Observe,
    ) -> None:
        self._conninfo = conninfo
        self._policy = policy
        self._wall_clock = wall_clock
        self._observe = observe
        # A place is taken for as long as the thread lives, which may be longer than its caller
        # waits. Callers without a place wait for one until their own deadline.
        self._places = trio.CapacityLimiter(policy.pool_size)
        self._probes = trio.CapacityLimiter(PROBES)
        self._cancellers = trio.CapacityLimiter(policy.pool_size + PROBES)
        # never more than places and probes: a thread connects only when there is nothing here
        self._idle: deque[Link] = deque()
        self._available = False
        self._since = wall_clock()
        self._last_error: str | None = None

    @property
    def status(self) -> DatabaseStatus:
        """Whether the last call that PostgreSQL could answer was answered, and the pool's use."""
        return DatabaseStatus(
            available=self._available,
            since=self._since,
            last_error=self._last_error,
            pool_size=self._policy.pool_size,
            in_use=self._places.borrowed_tokens,
            waiting=self._places.statistics().tasks_waiting,
        )

    async def run(
        self,
        work: Callable[[psycopg.Connection[Any]], T],
        *,
        timeout_s: float | None = None,
        query_type: str = "other",
    ) -> T:
        """Call ``work`` with a connection, in a worker thread and in a transaction of its own.

        Commits when ``work`` returns and rolls back when it raises; its result or exception is
        the caller's. ``timeout_s``, by default the policy's ``statement_timeout_s``, is for all
        of it, the wait for a connection included, and the limit of each statement too.
        Cancelling cancels the query in the server and returns within ``GRACE_S``.

        Raises StoreUnavailableError when PostgreSQL is away, frozen, read-only, full, not
        migrated, or does not answer in time. If that happens during the commit, or the call is
        cancelled then, it is not known whether it took effect: write what can be repeated.
        """
        limit_s = self._policy.statement_timeout_s if timeout_s is None else timeout_s
        call = Call(self._places, "BEGIN" if timeout_s is None else _begin_within(timeout_s))
        return await self._observed(query_type, limit_s, call, work)

    async def probe(self) -> None:
        """Return if PostgreSQL answers and takes writes; else raise StoreUnavailableError.

        Waits for no other call. A full disk shows in the writes themselves, not here.
        """
        limit_s = min(PROBE_TIMEOUT_S, self._policy.statement_timeout_s)
        call = Call(self._probes, _begin_within(limit_s))
        await self._observed("probe", limit_s, call, _require_writable)

    async def _observed(
        self,
        query_type: str,
        limit_s: float,
        call: Call,
        work: Callable[[psycopg.Connection[Any]], T],
    ) -> T:
        began_at = trio.current_time()
        outcome: Outcome = "rolled_back"
        try:
            result = await self._run_within(limit_s, call, work)
            outcome = "success"
        except StoreBusyError:
            outcome = "busy"
            raise
        except StoreUnavailableError as error:
            outcome = "unavailable"
            self._note_failure(error)
            raise
        except trio.Cancelled:
            outcome = "cancelled"
            raise
        finally:
            self._observe(query_type, outcome, trio.current_time() - began_at)
        self._note_answer()
        return result

    async def _run_within(
        self, limit_s: float, call: Call, work: Callable[[psycopg.Connection[Any]], T]
    ) -> T:
        with trio.move_on_after(max(limit_s - GRACE_S, limit_s / 2)):
            return await self._run_in_thread(call, work)
        if not call.has_begun:
            raise StoreBusyError(f"no connection was free within {limit_s:g} s")
        raise StoreUnavailableError(f"PostgreSQL did not answer within {limit_s:g} s")

    async def _run_in_thread(self, call: Call, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        token = trio.lowlevel.current_trio_token()

        def transact() -> T:
            try:
                return self._transact(call, work)
            except psycopg.Error as error:
                translated = translate_error(error)
                if translated is error:
                    raise
                raise translated from error
            finally:
                # the loop may be over, and nobody interested any more
                _call_soon(token, call.ended.set)

        try:
            return await trio.to_thread.run_sync(
                transact, abandon_on_cancel=True, limiter=call.places
            )
        except trio.Cancelled:
            # without a link it waits for its turn, or connects: it will see for itself
            if (link := call.abandon()) is not None:
                with trio.move_on_after(GRACE_S, shield=True):
                    await self._cancel(call, link)
                if not call.ended.is_set():
                    link.cut()
                    self.close_idle()  # if one is dead without a sign, so may the others be
            raise

    async def _cancel(self, call: Call, link: Link) -> None:
        """Have the server cancel the query; returns when the thread has ended."""
        await trio.to_thread.run_sync(
            link.cancel, GRACE_S, abandon_on_cancel=True, limiter=self._cancellers
        )
        await call.ended.wait()

    def _transact(self, call: Call, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """The worker thread's part."""
        link = self._begin(call)
        connection = link.connection
        try:
            result = work(connection)
            if connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                # COMMIT would quietly roll back
                raise errors.InFailedSqlTransaction("the work went on after a failed statement")
            connection.execute("COMMIT")
        except errors.ReadOnlySqlTransaction:
            link.close()  # the URL may lead to a writable server by now
            raise
        finally:
            self._put_back(call, link)
        return result

    def _begin(self, call: Call) -> Link:
        """A connection with a transaction begun, on an idle connection or a fresh one."""
        while True:
            call.require_wanted()
            try:
                link, is_fresh = self._idle.pop(), False
            except IndexError:
                link, is_fresh = Link(self._conninfo), True
            call.take(link)
            try:
                link.connection.execute(call.begin)
            except psycopg.OperationalError:
                link.close()
                if is_fresh:
                    raise
                # It had died while idle: nothing was asked of it yet, so ask another.
            else:
                return link

    def _put_back(self, call: Call, link: Link) -> None:
        """Keep the connection if it is good.

        That of an abandoned call is not kept: a request to cancel that is still on its way would
        hit whoever has it next.
        """
        if not link.connection.closed and not link.is_idle and not call.is_abandoned:
            try:
                link.connection.execute("ROLLBACK")
            except psycopg.Error:
                link.close()
        if not (link.is_idle and call.release(self._idle)):
            link.close()

    def close_idle(self) -> None:
        """Close the connections that nobody uses; further ones are opened when needed."""
        with suppress(IndexError):  # worker threads take from it too
            while True:
                self._idle.pop().close()

    def _note_answer(self) -> None:
        if not self._available:
            self._available, self._since = True, self._wall_clock()

    def _note_failure(self, error: StoreUnavailableError) -> None:
        self._last_error = str(error)
        if self._available:
            self._available, self._since = False, self._wall_clock()


@asynccontextmanager
async def open_database(
    url: str,
    policy: DatabasePolicy | None = None,
    *,
    wall_clock: Callable[[], float],
    observe: Observe = ignore_call,
) -> AsyncIterator[Database]:
    """A database for the block; PostgreSQL need not be there.

    ``observe`` is told of each call. Raises ConfigurationError if the URL is none.
    """
    policy = policy or DatabasePolicy()
    conninfo = create_conninfo(
        url,
        connect_timeout_s=policy.connect_timeout_s,
        statement_timeout_s=policy.statement_timeout_s,
    )
    database = Database(conninfo, policy, wall_clock, observe)
    try:
        yield database
    finally:
        database.close_idle()


def _begin_within(timeout_s: float) -> str:
    return f"BEGIN; SET LOCAL statement_timeout = {milliseconds(timeout_s)}"


def _require_writable(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("SHOW transaction_read_only").fetchone()
    if row != ("off",):
        raise errors.ReadOnlySqlTransaction("the server is read-only")


def _call_soon(token: trio.lowlevel.TrioToken, function: Callable[[], object]) -> None:
    try:
        token.run_sync_soon(function)
    except trio.RunFinishedError:
        return
