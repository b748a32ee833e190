"""What a log line may show."""

import errno
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
from pydantic import SecretStr

from ticker.accounts.credentials import Credentials
from ticker.logs import LogFormat, configure_logging

CANARY = "c4n4ry"


class Keyed(msgspec.Struct):
    api_key: str


def fail(secret: str) -> None:
    raise ValueError(f"said of {len(secret)} letters")


@contextmanager
def capture(log_format: LogFormat) -> Iterator[io.StringIO]:
    stream, before = io.StringIO(), sys.stderr
    sys.stderr = stream
    try:
        configure_logging("debug", log_format)
        yield stream
    finally:
        sys.stderr = before
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()


def log_json(**values: Any) -> dict[str, Any]:
    with capture("json") as stream:
        structlog.get_logger().info("something", **values)
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


def test_a_line_is_one_json_object_with_level_time_and_context() -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    line = log_json(account="a", shard=2, rate=1.5, none=None)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "something", "level": "info", "request_id": "r-1",
        "account": "a", "shard": 2, "rate": 1.5, "none": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SecretStr(CANARY), "<SecretStr>"),
        (Credentials(CANARY, CANARY), "<Credentials>"),
        (Keyed(CANARY), "<Keyed>"),
        (CANARY.encode(), "<6 bytes>"),
        ({"key": SecretStr(CANARY)}, {"key": "<SecretStr>"}),
        ([Keyed(CANARY), 1], ["<Keyed>", 1]),
        ({SecretStr(CANARY): 1}, {"<SecretStr>": 1}),
        (np.int64(7), 7),
        (Path("/a/b"), "/a/b"),
        (ValueError("said"), "ValueError: said"),
        ([[[[[[["too deep"]]]]]]], [[[[[["<list>"]]]]]]),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_only_plain_values_are_shown(value: object, shown: object, log_format: LogFormat) -> None:
    with capture(log_format) as stream:
        structlog.get_logger().info("something", value=value)
    assert CANARY not in stream.getvalue()
    if log_format == "json":
        assert json.loads(stream.getvalue())["value"] == shown


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values_of_variables(log_format: LogFormat) -> None:
    with capture(log_format) as stream:
        try:
            fail(f"{CANARY}-in-a-variable")
        except ValueError as error:
            structlog.get_logger().error("failed", exc_info=error)
    assert CANARY not in stream.getvalue()
    assert "ValueError: said of" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    try:
        configure_logging("info", "json")
        structlog.get_logger().warning("nobody_reads_this")
    finally:
        structlog.reset_defaults()


def test_a_log_without_a_stream_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    try:
        configure_logging("info", "auto")
        structlog.get_logger().warning("nobody_reads_this")
    finally:
        structlog.reset_defaults()
