"""The ``watch`` command: what a subscriber sees, read from Redis with redis-py."""

import math
import time
from collections.abc import Iterator
from typing import Any, Final, TextIO

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rich.console import Console
from rich.live import Live

from ticker.chains.watched import Chain
from ticker.errors import RedisUnreachableError
from ticker.publishers.redis import parse_redis_url

REFRESH_S: Final = 0.25


def print_payloads(url: str, prefix: str, output: TextIO, *, seconds: float | None = None) -> None:
    """Write every payload of the service's channels as a line of JSON.

    Until interrupted, or for so many seconds.
    """
    deadline = time.monotonic() + seconds if seconds is not None else math.inf
    for data in _messages(url, prefix):
        if data is not None:
            output.write(data.decode() + "\n")
            output.flush()
        if time.monotonic() > deadline:
            break


def show_chain(
    url: str, prefix: str, chain: Chain, console: Console, *, seconds: float | None = None
) -> None:
    """Keep a table of the chain on the terminal, until interrupted.

    With ``seconds``, gather for so long and print the table once instead.
    """
    messages = _messages(url, prefix)
    if seconds is not None:
        deadline = time.monotonic() + seconds
        for data in messages:
            _take(chain, data)
            if time.monotonic() > deadline:
                break
        console.print(chain.table(time.time()))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        shown = 0.0
        for data in messages:
            _take(chain, data)
            if time.monotonic() - shown >= REFRESH_S:
                live.update(chain.table(time.time()), refresh=True)
                shown = time.monotonic()


def _take(chain: Chain, data: bytes | None) -> None:
    if data is not None:
        chain.add(msgspec.json.decode(data))


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
        raise RedisUnreachableError(f"Redis cannot be used: {error}") from None
