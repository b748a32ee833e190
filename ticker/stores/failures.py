"""Which of PostgreSQL's errors mean that it cannot serve, and which mean a bug of ours."""

from typing import Final

import psycopg
from psycopg import errors

from ticker.errors import StoreUnavailableError

UNAVAILABLE_CLASSES: Final = frozenset({"08", "28", "40", "53", "57", "58", "XX"})
"""Connection, authorisation, rollback by the server, resources (disk, memory, connections),
intervention of an operator or a timeout, system error, internal error: the first two characters
of an SQLSTATE. Appendix A of PostgreSQL's documentation."""

UNAVAILABLE: Final = (
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.TransactionTimeout,
    errors.LockNotAvailable,
    # also what a database says that was created anew, or is not migrated yet
    errors.UndefinedTable,
)

BUSY: Final = (
    errors.QueryCanceled,
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
)
"""The server is there and said so: this call met a lock or took too long, the next need not."""


class StoreBusyError(StoreUnavailableError):
    """PostgreSQL is there, but this call did not get its turn in time."""


def translate_error(error: psycopg.Error) -> Exception:
    """The error to raise in its place; the same one if it is a bug: syntax, types, constraints."""
    state = error.sqlstate
    if state is None:
        # without an SQLSTATE it is the client library that speaks: the connection is gone
        is_unavailable = isinstance(error, psycopg.OperationalError)
    else:
        is_unavailable = state[:2] in UNAVAILABLE_CLASSES or isinstance(error, UNAVAILABLE)
    if not is_unavailable:
        return error
    kind = StoreBusyError if isinstance(error, BUSY) else StoreUnavailableError
    return kind(_first_line(error))


def _first_line(error: psycopg.Error) -> str:
    """The libraries add hints on further lines, which are for a terminal."""
    line = str(error).strip().partition("\n")[0]
    return f"PostgreSQL: {line or type(error).__name__}"
