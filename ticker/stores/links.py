"""One connection to PostgreSQL, and the three ways of ending what it does."""

import os
import socket
from contextlib import suppress
from threading import Lock
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ticker.errors import ConfigurationError

CONNECT_TIMEOUT_MIN_S: Final = 2
"""The client library takes whole seconds, and two at least."""


class Link:
    """A connection for one thread at a time, which other threads may ``cancel`` and ``cut``.

    Transactions are begun and ended by ``BEGIN`` and ``COMMIT`` in so many words.
    """

    def __init__(self, conninfo: str) -> None:
        """Connect; raises psycopg.OperationalError."""
        # Prepared statements do not survive a pooler between us and the server, nor a migration
        # by another instance.
        self.connection: psycopg.Connection[Any] = psycopg.Connection.connect(
            conninfo, autocommit=True, prepare_threshold=None
        )
        # A descriptor of our own: the library closes its one when it sees the end of the stream,
        # and the number may then be anybody's. Both mean the same socket.
        try:
            self._socket = socket.socket(fileno=os.dup(self.connection.fileno()))
        except OSError as error:
            self.connection.close()
            raise psycopg.OperationalError(f"no descriptor: {error}") from error
        self._lock = Lock()

    @property
    def is_idle(self) -> bool:
        """Whether the connection is there and in no transaction."""
        status = self.connection.info.transaction_status
        return status == psycopg.pq.TransactionStatus.IDLE

    def cancel(self, timeout_s: float) -> None:
        """Ask the server to cancel the query; returns when it has heard, or after the timeout."""
        with suppress(psycopg.Error):
            self.connection.cancel_safe(timeout=timeout_s)

    def cut(self) -> None:
        """End the stream: a thread that waits for the server, even a frozen one, wakes at once."""
        with self._lock, suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up; never waits."""
        self.connection.close()
        with self._lock:
            self._socket.close()


def create_conninfo(url: str, *, connect_timeout_s: float, statement_timeout_s: float) -> str:
    """What to connect with: the URL's own parameters, and our limits beside its ``options``.

    Raises ConfigurationError, without the URL in its text: it may carry a password.
    """
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigurationError("DATABASE_URL: not a PostgreSQL URL") from None
    options = (
        parameters.get("options"),
        f"-c statement_timeout={milliseconds(statement_timeout_s)}",
        "-c timezone=UTC",
    )
    ours: dict[str, str | int] = {
        "connect_timeout": max(CONNECT_TIMEOUT_MIN_S, round(connect_timeout_s)),
        "options": " ".join(str(option) for option in options if option),
        "client_encoding": "UTF8",
    }
    return make_conninfo(url, **{"application_name": "ticker", **parameters, **ours})


def milliseconds(duration_s: float) -> int:
    """For PostgreSQL's timeouts, where 0 would mean none."""
    return max(1, round(duration_s * 1000))
