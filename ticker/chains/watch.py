"""The ``watch`` command: what a subscriber sees, read from Redis with redis-py."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ticker.chains.watched import Chain
from ticker.errors import RedisUnreachableError
from ticker.publishers.redis import parse_redis_url
from ticker.settings import without_passwords

REFRESH_S: Final = 0.25

WAIT_S: Final = 3.0
"""A subscriber to whom nothing has come for so long is told what is waited for, and where."""


def print_payloads(
    url: str, prefix: str, output: TextIO, notes: TextIO, *, seconds: float | None = None
) -> None:
    """Write every payload of the service's channels as a line of JSON.

    Until interrupted, or for so many seconds. To ``notes`` goes what is waited for, if nothing
    comes.
    """
    began_at = time.monotonic()
    received = 0
    is_told = False
    for data in _messages(url, prefix):
        elapsed_s = time.monotonic() - began_at
        if data is not None:
            received += 1
            output.write(data.decode() + "\n")
            output.flush()
        elif not received and not is_told and elapsed_s > WAIT_S:
            notes.write(f"{_waiting(url, prefix, received)}\n")
            notes.flush()
            is_told = True
        if seconds is not None and elapsed_s > seconds:
            break


def show_chain(
    url: str, prefix: str, chain: Chain, console: Console, *, seconds: float | None = None
) -> None:
    """Keep a table of the chain on the terminal, until interrupted.

    With ``seconds``, gather for so long and print the table once instead. What is waited for is
    said in its place, if nothing comes.
    """
    began_at = time.monotonic()
    received = 0
    shown_at = -math.inf
    with _open_screen(console, is_live=seconds is None) as show:
        for data in _messages(url, prefix):
            if data is not None:
                received += 1
                chain.add(msgspec.json.decode(data))
            now = time.monotonic()
            is_over = seconds is not None and now - began_at > seconds
            if is_over or (seconds is None and now - shown_at >= REFRESH_S):
                lacks = chain.lacks() if is_over or now - began_at > WAIT_S else ""
                waiting = _waiting(url, prefix, received, lacks)
                show(Text(waiting) if lacks else chain.table(time.time()))
                shown_at = now
            if is_over:
                break


@contextmanager
def _open_screen(console: Console, *, is_live: bool) -> Iterator[Callable[[Table | Text], None]]:
    """How to show something: in place of what was there, or below it."""
    if not is_live:
        yield console.print
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        yield lambda what: live.update(what, refresh=True)


def _waiting(url: str, prefix: str, received: int, lacks: str = "") -> str:
    where = f"{prefix}:options and :underlying on {without_passwords(url)}"
    if received:
        return f"{lacks} among {received:,} payloads yet, from {where}"
    return f"nothing yet from {where}: is the service running, and does it publish there?"


def _messages(url: str, prefix: str) -> Iterator[bytes | None]:
    """Payloads as they come; None at least every ``REFRESH_S`` while there are none.

    Raises RedisUnreachableError if the server cannot be used.
    """
    parse_redis_url(url)  # says what is wrong with it
    client = redis.Redis.from_url(
        url, socket_connect_timeout=2, health_check_interval=5, retry=Retry(NoBackoff(), 0)
    )
    try:
        with client, client.pubsub(ignore_subscribe_messages=True) as subscriber:  # type: ignore[no-untyped-call]
            subscriber.subscribe(*(f"{prefix}:{name}" for name in ("options", "underlying")))
            subscriber.subscribe(f"{prefix}:events")
            while True:
                message: dict[str, Any] | None = subscriber.get_message(timeout=REFRESH_S)
                yield message["data"] if message is not None else None
    except redis.RedisError as error:
        raise RedisUnreachableError(
            f"Redis at {without_passwords(url)} cannot be used: {error}"
        ) from None
