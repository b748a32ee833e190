"""One account's calls: what is repeated, what opens the circuit, what is given up, and when."""

from collections.abc import Callable
from itertools import count

import httpx
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.rest_brokers import (
    ONCE,
    PRICES,
    TOKEN_DEAD,
    Calls,
    Handler,
    MemoryTransport,
    answer,
    create_session,
    load,
    open_memory_brokers,
    sessions_of,
)
from ticker.circuit_breaker import BreakerPolicy
from ticker.errors import (
    BrokerBusyError,
    BrokerError,
    BrokerResponseError,
    BrokerUnreachableError,
)
from ticker.kite.calls import RestPolicy
from ticker.kite.rest import BrokerRest, open_brokers


def failing(times: int, failure: Callable[[], httpx.Response]) -> tuple[Handler, list[str]]:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.method)
        return failure() if len(seen) <= times else httpx.Response(200, json=PRICES)

    return handler, seen


def refuse_connection() -> httpx.Response:
    raise httpx.ConnectError("no route to host")


def break_connection() -> httpx.Response:
    raise httpx.RemoteProtocolError("peer closed")


FAILURES = [
    refuse_connection,
    break_connection,
    lambda: httpx.Response(503, text="<html></html>"),
    lambda: httpx.Response(429),
    lambda: httpx.Response(502, json={"error_type": "DataException", "message": "x"}),
    lambda: httpx.Response(200, text="<html></html>"),
]


@pytest.mark.parametrize("failure", FAILURES)
async def test_reads_are_repeated_after_what_may_pass(
    autojump_clock: MockClock, failure: Callable[[], httpx.Response]
) -> None:
    handler, seen = failing(2, failure)
    assert await load(handler, RestPolicy()) == {"NSE:NIFTY 50": 5.0}
    assert len(seen) == 3
    handler, seen = failing(9, failure)
    with pytest.raises(BrokerError):
        await load(handler, RestPolicy())
    assert len(seen) == 3


@pytest.mark.parametrize("failure", FAILURES)
async def test_what_changes_something_is_never_repeated(
    autojump_clock: MockClock, failure: Callable[[], httpx.Response]
) -> None:
    handler, seen = failing(9, failure)
    async with open_memory_brokers(handler) as brokers:
        with pytest.raises(BrokerError):
            await brokers.of("first").create_session("request", "secret")
        with pytest.raises(BrokerError):
            await brokers.of("first").delete_session()
    assert seen == ["POST", "DELETE"]


@pytest.mark.parametrize("kind", ["TokenException", "InputException"])
async def test_a_refusal_is_not_repeated(autojump_clock: MockClock, kind: str) -> None:
    handler, seen = failing(9, lambda: httpx.Response(403, json={"error_type": kind}))
    with pytest.raises(BrokerResponseError):
        await load(handler, RestPolicy())
    assert len(seen) == 1


async def test_after_a_429_its_class_rests_and_the_others_do_not(
    autojump_clock: MockClock,
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/quote/ltp":
            return httpx.Response(429, headers={"retry-after": "9"})
        return httpx.Response(200, json={"data": {"user_id": "AB"}})

    async with open_memory_brokers(handler, policy=ONCE) as brokers:
        broker = brokers.of("first")
        with pytest.raises(BrokerResponseError):
            await broker.load_last_prices(["A"])
        began = trio.current_time()
        await broker.load_profile()
        assert trio.current_time() - began < 1
        with pytest.raises(BrokerResponseError):
            await broker.load_last_prices(["A"])
        assert 9 <= trio.current_time() - began < 10
        assert broker.circuit_state == "closed"


SLOW = RestPolicy(attempts=1, timeout_s=2, breaker=BreakerPolicy(3, 10.0, 1))


async def test_the_circuit_opens_on_failures_and_lets_one_call_try(
    autojump_clock: MockClock,
) -> None:
    numbers = count()

    def handler(request: httpx.Request) -> httpx.Response:
        return refuse_connection() if next(numbers) < 3 else httpx.Response(200, json=PRICES)

    async with open_memory_brokers(handler, policy=SLOW) as brokers:
        broker = brokers.of("first")
        for _ in range(3):
            assert broker.is_ready
            with pytest.raises(BrokerUnreachableError):
                await broker.load_last_prices(["A"])
        assert not broker.is_ready
        with pytest.raises(BrokerBusyError) as caught:
            await broker.load_last_prices(["A"])
        assert 9 < caught.value.retry_after_s <= 10
        assert next(numbers) == 3
        await trio.sleep(caught.value.retry_after_s)
        await broker.load_last_prices(["A"])
        assert broker.circuit_state == "closed"


async def test_refusals_and_strange_shapes_do_not_open_the_circuit() -> None:
    bodies = {"/user/profile": '{"data": []}', "/session/token": TOKEN_DEAD}

    def handler(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        return httpx.Response(403 if path == "/session/token" else 200, text=bodies[path])

    policy = RestPolicy(attempts=1, breaker=BreakerPolicy(1, 10.0, 1))
    async with open_memory_brokers(handler, policy=policy) as brokers:
        broker = brokers.of("first")
        for _ in range(3):
            with pytest.raises(BrokerUnreachableError):
                await broker.load_profile()
            with pytest.raises(BrokerResponseError):
                await broker.create_session("request", "secret")
        assert broker.circuit_state == "closed"


async def test_half_open_one_call_tries_and_the_rest_are_refused(
    autojump_clock: MockClock,
) -> None:
    is_well = False

    class SlowTransport(MemoryTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await trio.sleep(1)
            return await super().handle_async_request(request)

    def handler(request: httpx.Request) -> httpx.Response:
        if not is_well:
            raise httpx.ConnectError("away")
        return httpx.Response(200, json={"data": {"user_id": "AB"}})

    policy = RestPolicy(attempts=1, breaker=BreakerPolicy(1, 10.0, 1))
    sessions = sessions_of(create_session("first", "k", "t"))
    async with open_brokers(
        "http://127.0.0.1",
        sessions,
        policy=policy,
        wall_clock=trio.current_time,
        observe=Calls().observe,
        transport=SlowTransport(handler),
    ) as brokers:
        broker = brokers.of("first")
        with pytest.raises(BrokerUnreachableError):
            await broker.load_profile()
        await trio.sleep(10)
        is_well = True
        refused: list[BrokerBusyError] = []

        async def call() -> None:
            try:
                await broker.load_profile()
            except BrokerBusyError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
        assert len(refused) == 4
        await broker.load_profile()


class Hanging(httpx.AsyncBaseTransport):
    """Never answers."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError


async def hanging(policy: RestPolicy, use: Callable[[BrokerRest], object]) -> None:
    sessions = sessions_of(create_session("first", "k", "t"))
    async with open_brokers(
        "http://127.0.0.1",
        sessions,
        policy=policy,
        wall_clock=trio.current_time,
        observe=Calls().observe,
        transport=Hanging(),
    ) as brokers:
        await use(brokers.of("first"))  # type: ignore[misc]


@pytest.mark.parametrize(("attempts", "expected_s"), [(1, 7), (3, 22)])
async def test_a_broker_that_does_not_answer_is_given_up(
    autojump_clock: MockClock, attempts: int, expected_s: float
) -> None:
    async def use(broker: BrokerRest) -> None:
        with pytest.raises(BrokerUnreachableError):
            await broker.load_profile()
        assert trio.current_time() - began == pytest.approx(expected_s, abs=1.6)

    began = trio.current_time()
    await hanging(RestPolicy(attempts=attempts), use)


async def test_the_callers_deadline_is_kept_and_told(autojump_clock: MockClock) -> None:
    async def use(broker: BrokerRest) -> None:
        with trio.fail_after(5), pytest.raises(BrokerError):
            await broker.load_profile()
        with trio.fail_after(5), pytest.raises(BrokerError):
            await broker.create_session("request", "secret")
        with trio.fail_after(5), pytest.raises(BrokerError):
            [piece async for piece in broker.load_instruments()]

    await hanging(RestPolicy(), use)


async def test_a_cancelled_call_teaches_the_circuit_nothing(autojump_clock: MockClock) -> None:
    async def use(broker: BrokerRest) -> None:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(broker.load_profile)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert broker.circuit_state == "closed"

    await hanging(RestPolicy(breaker=BreakerPolicy(1, 10.0, 1)), use)


async def test_what_was_called_is_observed() -> None:
    calls = Calls()
    async with open_memory_brokers(answer(200, "{}"), policy=ONCE, calls=calls) as brokers:
        with pytest.raises(BrokerUnreachableError):
            await brokers.of("first").load_profile()
    async with open_memory_brokers(
        lambda request: refuse_connection(), policy=ONCE, calls=calls
    ) as brokers:
        with pytest.raises(BrokerUnreachableError):
            await brokers.of("first").load_profile()
    assert calls.outcomes("profile") == ["200", "unreachable"]
