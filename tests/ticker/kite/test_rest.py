"""The REST client: what it makes of every kind of answer, and what it never gives away."""

import gzip
import io
import logging
import time
from contextlib import aclosing

import httpx
import pytest
from trio.testing import MockClock

from tests.rest_brokers import (
    CANARY,
    ONCE,
    PRICES,
    TOKEN_DEAD,
    Calls,
    Handler,
    Pieces,
    answer,
    create_session,
    load,
    open_memory_brokers,
    sessions_of,
)
from ticker.accounts.credentials import Credentials
from ticker.errors import (
    BrokerBusyError,
    BrokerError,
    BrokerResponseError,
    BrokerUnreachableError,
    UnknownAccountError,
)
from ticker.kite.rest import BrokerRest, Brokers, open_brokers


async def test_last_prices_by_key() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.params.get_list("i") == ["NSE:NIFTY 50", "NSE:NOSUCH"]
        assert request.headers["authorization"] == f"token key-{CANARY}:token-{CANARY}"
        assert request.headers["x-kite-version"] == "3"
        return httpx.Response(200, json=PRICES)

    async with open_memory_brokers(handler) as brokers:
        prices = await brokers.of("first").load_last_prices(["NSE:NIFTY 50", "NSE:NOSUCH"])
    assert prices == {"NSE:NIFTY 50": 5.0}


async def test_many_keys_are_asked_for_in_several_calls(autojump_clock: MockClock) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        keys = request.url.params.get_list("i")
        assert len(keys) <= 1000
        quote = {"instrument_token": 1, "last_price": 7}
        return httpx.Response(200, json={"data": dict.fromkeys(keys, quote)})

    async with open_memory_brokers(handler) as brokers:
        prices = await brokers.of("first").load_last_prices(f"NSE:{n % 2500}" for n in range(3000))
    assert len(prices) == 2500


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (200, "<html>maintenance</html>", BrokerUnreachableError),
        (200, "", BrokerUnreachableError),
        (200, "null", BrokerUnreachableError),
        (200, "\xff\xfe", BrokerUnreachableError),
        (200, '{"status": "success"}', BrokerUnreachableError),
        (200, '{"status": "success", "data": {"A": {"last_', BrokerUnreachableError),
        (
            200,
            '{"data": {"A": {"instrument_token": 1, "last_price": "5"}}}',
            BrokerUnreachableError,
        ),
        (503, "<html>down</html>", BrokerUnreachableError),
        (429, "", BrokerResponseError),
        (429, "<html>slow down</html>", BrokerResponseError),
        (429, '{"error_type": "\xff"}', BrokerResponseError),
        (429, '{"more": ' + "[" * 50_000, BrokerResponseError),
        (403, TOKEN_DEAD, BrokerResponseError),
        (500, '{"status":"error","error_type":null}', BrokerResponseError),
        (500, "[]", BrokerUnreachableError),
        (404, "not found", BrokerUnreachableError),
        (302, "", BrokerUnreachableError),
        (400, "{" * 100_000, BrokerUnreachableError),
    ],
)
async def test_every_other_answer_is_a_broker_error(
    status: int, text: str, expected: type[BrokerError]
) -> None:
    with pytest.raises(expected):
        await load(answer(status, text.encode("latin-1")))
    async with open_memory_brokers(answer(status, text.encode("latin-1"))) as brokers:
        if status != 200:
            with pytest.raises(expected):
                [piece async for piece in brokers.of("first").load_instruments("NSE")]


def zipped(text: bytes) -> bytes:
    return gzip.compress(text)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"not gzip at all", "gzip"),
        (zipped(b'{"data": {}}')[:-9], "gzip"),
        (zipped(b'{"data": {}}')[:12] + b"\x00\x01\x02\x03\x04", "gzip"),
        (b"", "gzip"),
        (b'{"data": {}}', "br"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_is_no_answer(body: bytes, encoding: str) -> None:
    handler = raw(body, encoding)
    with pytest.raises(BrokerUnreachableError):
        await load(handler)
    async with open_memory_brokers(handler) as brokers:
        with pytest.raises(BrokerUnreachableError):
            [piece async for piece in brokers.of("first").load_instruments()]


async def test_a_packed_body_is_unpacked() -> None:
    assert await load(raw(zipped(b'{"data": {}}'), "gzip")) == {}


def raw(body: bytes, encoding: str) -> Handler:
    """An answer that httpx does not unpack on the way to us."""

    headers = {"content-encoding": encoding}
    return lambda request: httpx.Response(200, stream=Pieces(body), headers=headers)


@pytest.mark.slow
async def test_a_body_without_an_end_is_given_up() -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=9) as file:
        for _ in range(200):
            file.write(b" " * 1_000_000)
    assert len(bomb.getvalue()) < 1_000_000
    with pytest.raises(BrokerUnreachableError, match="33554432 bytes"):
        await load(raw(bomb.getvalue(), "gzip"))
    async with (
        open_memory_brokers(raw(bomb.getvalue(), "gzip")) as brokers,
        aclosing(brokers.of("first").load_instruments()) as pieces,
    ):
        largest, total = 0, 0
        async for piece in pieces:
            largest, total = max(largest, len(piece)), total + len(piece)
            if total > 10_000_000:
                break
    assert largest <= 65_536


async def test_the_brokers_own_words_are_kept() -> None:
    body = '{"status":"error","error_type":"InputException","message":"bad i","data":null}'
    with pytest.raises(BrokerResponseError) as caught:
        await load(answer(400, body))
    assert (caught.value.status, caught.value.error_type) == (400, "InputException")
    assert "bad i" in str(caught.value)


async def test_a_new_token_is_used_at_once_and_none_makes_no_call() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"data": {"user_id": "AB"}})

    session = create_session("first", "key", "")
    async with open_memory_brokers(handler, sessions=sessions_of(session)) as brokers:
        broker = brokers.of("first")
        with pytest.raises(BrokerResponseError) as caught:
            await broker.load_profile()
        assert (caught.value.status, caught.value.error_type) == (403, "TokenException")
        assert seen == []
        for token in ("morning", "evening"):
            session.credentials.set(Credentials("key", token, time.time()))
            await broker.load_profile()
    assert seen == ["token key:morning", "token key:evening"]


async def test_accounts_come_and_go_and_the_ready_ones_are_first() -> None:
    first, second = (create_session(name, name, "") for name in ("first", "second"))
    sessions = sessions_of(first)
    async with open_memory_brokers(answer(200, "{}"), sessions=sessions) as brokers:
        with pytest.raises(UnknownAccountError) as caught:
            brokers.of("second")
        assert caught.value.field == "account_id"
        sessions.set({"first": first, "second": second})
        second.credentials.set(Credentials("second", "token", time.time()))
        assert [broker.account_id for broker in brokers.in_order()] == ["second", "first"]
        assert brokers.of("first") is brokers.of("first")
        other = create_session("first", "first", "token")
        sessions.set({"first": other})
        assert [broker.is_ready for broker in brokers.in_order()] == [True]
        with pytest.raises(UnknownAccountError):
            brokers.of("second")


async def test_cookies_of_one_account_are_not_sent_for_another() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert "cookie" not in request.headers
        headers = {"set-cookie": "session=secret; Path=/"}
        return httpx.Response(200, json={"data": {"user_id": "AB"}}, headers=headers)

    async with open_memory_brokers(handler) as brokers:
        await brokers.of("first").load_profile()
        await brokers.of("first").load_profile()


async def ask_names(brokers: Brokers) -> str:
    async def question(broker: BrokerRest) -> str:
        return (await broker.load_profile()).user_id

    return await brokers.ask(question)


async def test_the_next_account_is_asked_when_one_does_not_answer() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "one:" in request.headers["authorization"]:
            return httpx.Response(403, text=TOKEN_DEAD)
        return httpx.Response(200, json={"data": {"user_id": "AB"}})

    sessions = sessions_of(*(create_session(name, name, "token") for name in ("one", "two")))
    async with open_memory_brokers(handler, sessions=sessions) as brokers:
        assert await ask_names(brokers) == "AB"
        with pytest.raises(BrokerResponseError):
            await brokers.ask(lambda broker: broker.load_profile(), "one")
        sessions.value["two"].credentials.set(Credentials("two", "", 0))
        with pytest.raises(BrokerResponseError, match=r"x$"):  # the first one's words
            await ask_names(brokers)
    async with open_memory_brokers(handler, sessions=sessions_of()) as brokers:
        with pytest.raises(BrokerBusyError, match="no account"):
            await ask_names(brokers)


async def test_a_question_that_is_wrong_is_asked_once() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(400, json={"error_type": "InputException"})

    sessions = sessions_of(*(create_session(name, name, "token") for name in ("one", "two")))
    async with open_memory_brokers(handler, sessions=sessions) as brokers:
        with pytest.raises(BrokerResponseError):
            await ask_names(brokers)
    assert len(seen) == 1


async def test_no_secret_leaves_with_an_error_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    failures: list[BrokerError] = []

    async def provoke(brokers: Brokers) -> None:
        broker = brokers.of("first")
        for call in (
            broker.load_profile,
            broker.delete_session,
            lambda: broker.create_session(f"request-{CANARY}", f"secret-{CANARY}"),
        ):
            with pytest.raises(BrokerError) as caught:
                await call()
            failures.append(caught.value)

    sessions = sessions_of(create_session("first", f"key-{CANARY}", f"token-{CANARY}"))
    async with open_brokers(
        "http://127.0.0.1:1",
        sessions,
        policy=ONCE,
        wall_clock=time.time,
        observe=Calls().observe,
    ) as brokers:
        await provoke(brokers)
        for token in (f"{CANARY}\n", f"{CANARY}\u20ac\x00"):
            sessions.value["first"].credentials.set(Credentials("key", token, time.time()))
            with pytest.raises(BrokerError) as caught:
                await brokers.of("first").load_profile()
            failures.append(caught.value)
    async with open_memory_brokers(answer(502, "<html>"), policy=ONCE) as brokers:
        await provoke(brokers)
    for error in failures:
        assert CANARY not in repr(error)
        assert error.__suppress_context__
        assert error.__cause__ is None
    assert CANARY not in caplog.text


async def test_a_successful_logout_is_not_logged_with_its_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_memory_brokers(answer(200, '{"status":"success","data":true}')) as brokers:
        await brokers.of("first").delete_session()
    assert CANARY not in caplog.text
