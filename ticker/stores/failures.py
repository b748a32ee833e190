"""Which of PostgreSQL's errors mean that it cannot serve, and which mean a bug of ours."""

from collections.abc import Mapping
from types import MappingProxyType
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


_SAYINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "08": "there is no connection to PostgreSQL",
        "25": "PostgreSQL ended a transaction that took too long",
        "25006": "PostgreSQL is read-only",
        "28": "PostgreSQL refuses the login",
        "40": "PostgreSQL took the transaction back",
        "42": "PostgreSQL does not have all tables",
        "53": "PostgreSQL has run out of room, memory or connections",
        "55": "what is needed is locked in PostgreSQL",
        "57": "PostgreSQL ended the call, or is about to start or to stop",
        "58": "PostgreSQL cannot use its files",
        "XX": "PostgreSQL reports an internal error",
    }
)
"""What anybody may be told, by an SQLSTATE or its first two characters."""


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
    state = state or "08"
    return kind(_SAYINGS.get(state) or _SAYINGS[state[:2]], detail=_first_line(error))


def _first_line(error: psycopg.Error) -> str:
    """The libraries add hints on further lines, which are for a terminal."""
    line = str(error).strip().partition("\n")[0]
    return line or type(error).__name__
