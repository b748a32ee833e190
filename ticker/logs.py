"""Structured logging: readable lines on a terminal, JSON lines elsewhere; always on stderr."""

import datetime as dt
import enum
import logging
import numbers
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import PurePath
from typing import Any, Final, Literal, TextIO, cast
from uuid import UUID

import structlog

LogFormat = Literal["auto", "console", "json"]

DEPTH_MAX: Final = 6
"""Levels of nesting that are written out; deeper values are named by their type."""

_PLAIN: Final = (str, int, float, bool, type(None))
_AS_TEXT: Final = (dt.date, dt.time, dt.timedelta, PurePath, UUID)
_BESIDE: Final = frozenset({"exc_info", "stack_info"})
"""What structlog itself turns into text, without the values of variables."""


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Set structlog up for the process. Times are UTC, RFC 3339."""
    has_terminal = sys.stderr is not None and sys.stderr.isatty()
    terminal = log_format == "console" or (log_format == "auto" and has_terminal)
    # Rich's tracebacks, the default where it is installed, show the values of all variables.
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            *([] if terminal else [structlog.processors.format_exc_info]),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )


class Unfailing:
    """A stream whose lines may get lost: a full disk, or a reader that has gone, ends no feed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as much as the stream takes; there may be none."""
        if self._stream is not None:
            with suppress(OSError, ValueError):  # ValueError: it is closed
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()


def redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> Mapping[str, Any]:
    """Write plain values only: of credentials, keys, accounts or anything else, the type's name.

    A type does not have to be known to be a secret for its values to stay out of the log. Errors
    are written as their messages, which name no secret; bytes as their number.
    """
    return {
        name: value if name in _BESIDE else _shown(value, DEPTH_MAX)
        for name, value in event.items()
    }


def _shown(value: Any, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, numbers.Integral):  # numpy's
        return int(value)
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth and isinstance(value, Mapping):
        return {str(_shown(key, 0)): _shown(one, depth - 1) for key, one in value.items()}
    if depth and isinstance(value, Sequence | Set):
        return [_shown(one, depth - 1) for one in value]
    return f"<{type(value).__name__}>"
