"""What is told of calls to the broker that fail: each attempt by kind, and the circuit's count."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from trio.testing import MockClock

from tests.rest_brokers import Calls, Handler, Pieces, open_memory_brokers
from ticker.circuit_breaker import BreakerPolicy
from ticker.errors import BrokerError
from ticker.kite.calls import RestPolicy
from ticker.kite.error_kinds import error_kind
from ticker.kite.rest import BrokerRest

ONCE = RestPolicy(attempts=1, breaker=BreakerPolicy(2, 10.0, 1))


def answer(status: int, **body: str) -> Handler:
    return lambda request: httpx.Response(status, json=body)


def fail(error: type[httpx.HTTPError]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error("x")

    return handler


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(BrokerError):
        yield


KINDS: list[tuple[Handler, str, int]] = [
    (answer(403, error_type="TokenException"), "TokenException", 0),
    (answer(400, error_type="InputException"), "InputException", 0),
    (answer(502, error_type="DataException"), "DataException", 1),
    (answer(500, error_type="<made up 4711>"), "other", 1),
    (lambda request: httpx.Response(429), "NetworkException", 0),
    (lambda request: httpx.Response(503, text="<html></html>"), "unreachable", 1),
    (fail(httpx.ConnectError), "unreachable", 1),
    (fail(httpx.ReadTimeout), "timeout", 1),
    (answer(200), "unreachable", 0),
]


@pytest.mark.parametrize(("handler", "kind", "failures"), KINDS)
async def test_an_error_is_told_once_by_kind(handler: Handler, kind: str, failures: int) -> None:
    calls = Calls()
    async with open_memory_brokers(handler, policy=ONCE, calls=calls) as brokers:
        broker = brokers.of("first")
        with refused():
            await broker.load_profile()
    assert [(name, call.endpoint, error_kind(error)) for name, call, error in calls.failed] == [
        ("first", "profile", kind)
    ]
    assert broker.circuit_failures == failures


async def test_every_attempt_counts_and_so_does_one_that_the_circuit_stops(
    autojump_clock: MockClock,
) -> None:
    calls = Calls()
    policy = RestPolicy(attempts=3, breaker=BreakerPolicy(2, 60.0, 1))
    async with open_memory_brokers(fail(httpx.ConnectError), policy=policy, calls=calls) as brokers:
        broker = brokers.of("first")
        with refused():
            await broker.load_profile()
        with refused():
            await broker.create_session("request", "secret")
    kinds = [error_kind(error) for _, _, error in calls.failed]
    assert kinds == ["unreachable", "unreachable", "busy", "busy"]
    assert broker.circuit_failures == 2


def break_off(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, stream=Pieces(b"no gzip"), headers={"content-encoding": "gzip"})


async def read_all(broker: BrokerRest) -> None:
    async for _ in broker.load_instruments():
        pass


@pytest.mark.parametrize("handler", [fail(httpx.ConnectError), break_off])
async def test_a_download_that_fails_at_once_or_later_is_told_once(
    handler: Callable[[httpx.Request], httpx.Response],
) -> None:
    calls = Calls()
    async with open_memory_brokers(handler, policy=ONCE, calls=calls) as brokers:
        with refused():
            await read_all(brokers.of("first"))
        assert brokers.of("first").circuit_failures == 1
    assert [call.endpoint for _, call, _ in calls.failed] == ["instruments"]


async def test_what_succeeds_is_no_error() -> None:
    calls = Calls()
    async with open_memory_brokers(
        lambda request: httpx.Response(200, json={"data": {"user_id": "AB"}}), calls=calls
    ) as brokers:
        await brokers.of("first").load_profile()
        assert brokers.of("first").circuit_failures == 0
    assert calls.failed == []
