"""What a typed route takes, refuses and answers."""

from typing import Annotated

import msgspec
import pytest
import trio
from quart import Blueprint
from quart_trio import QuartTrio
from trio.testing import MockClock

from api.app import assemble
from api.auth import public, requires
from api.operations import Answer, InstrumentToken, Query, Text, operation
from tests.api.rig import ask, create_access, get_problem, header
from ticker import errors


class EchoQuery(Query, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    text: Text | None = None
    flag: bool = False


class EchoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    numbers: list[Annotated[int, msgspec.Meta(ge=1)]]
    name: str = "x"
    extra: dict[str, object] = {}


class Echo(msgspec.Struct, frozen=True):
    token: int
    query: dict[str, object]


RAISED: dict[str, Exception] = {
    "instrument": errors.UnknownInstrumentError("no such token", field="instrument_token"),
    "item": errors.UnknownItemError("no such thing"),
    "capacity": errors.CapacityError("full", field="account_id"),
    "conflict": errors.ConflictError("is there"),
    "invalid": errors.InvalidRequestError("contradicts", field="expiry"),
    "account": errors.UnknownAccountError("no such account", field="account_id"),
    "store": errors.StoreUnavailableError("PostgreSQL does not answer"),
    "busy": errors.BrokerBusyError("no room", retry_after_s=2.2),
    "unreachable": errors.BrokerUnreachableError("timed out"),
    "refused": errors.BrokerResponseError(400, "InputException", "invalid interval"),
    "token": errors.BrokerResponseError(403, "TokenException", "Incorrect `api_key`"),
    "calendar": errors.ConfigurationError("does not cover 2031"),
    "group": ExceptionGroup("one", [errors.StoreUnavailableError("in a nursery")]),
    "bug": ZeroDivisionError("secret detail"),
    "bugs": ExceptionGroup("two", [ZeroDivisionError(), errors.StoreUnavailableError("x")]),
    "feed": errors.FeedClosedError("no request may cause this"),
}


def create_echo_app(body_max: int = 2048) -> QuartTrio:
    blueprint = Blueprint("echo", __name__)

    @blueprint.get("/echo/<token>")
    @requires("read")
    @operation()
    async def echo(token: InstrumentToken, query: EchoQuery) -> Echo:
        return Echo(token, msgspec.to_builtins(query))

    @blueprint.post("/echo")
    @requires("trade")
    @operation(status=201, headers={"X-Count": "How many."})
    async def take(body: EchoBody) -> Answer[EchoBody]:
        return Answer(body, status=201, headers=(("X-Count", str(len(body.numbers))),))

    @blueprint.get("/raise/<name>")
    @requires("read")
    @operation()
    async def fail(name: Text) -> Echo:
        raise RAISED[name]

    @blueprint.get("/accounts/<account_id>")
    @requires("read")
    @operation()
    async def account(account_id: Text) -> Echo:
        raise RAISED["account"]

    @blueprint.get("/slow")
    @public
    @operation(deadline_s=3)
    async def slow() -> Echo:
        await trio.sleep_forever()

    return assemble([blueprint], access=create_access(), body_max=body_max)


async def test_parameters_become_what_the_signature_says() -> None:
    client = create_echo_app().test_client()
    response = await client.get("/echo/256265?limit=7&flag=true", headers=header())
    assert response.status_code == 200
    assert await response.get_json() == {
        "token": 256265,
        "query": {"limit": 7, "text": None, "flag": True},
    }


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/echo/0", "token"),
        ("/echo/x", "token"),
        ("/echo/4294967296", "token"),
        ("/echo/1?limit=0", "limit"),
        ("/echo/1?limit=11", "limit"),
        ("/echo/1?limit=", "limit"),
        ("/echo/1?limit=5&limit=6", "limit"),
        ("/echo/1?lmit=5", "lmit"),
        ("/echo/1?text=a%00b", "text"),
        ("/echo/1?text=a%0A", "text"),
        ("/echo/1?text=", "text"),
        ("/echo/1?flag=perhaps", "flag"),
        ("/echo/1?text=null", "text"),
    ],
)
async def test_what_does_not_fit_is_named(path: str, field: str) -> None:
    response = await create_echo_app().test_client().get(path, headers=header())
    document = await get_problem(response, 422)
    assert document["type"] == "/problems/invalid-request"
    assert [error["field"] for error in document["errors"]] == [field]


async def test_a_body_that_is_nested_too_deeply_is_no_bug_of_ours() -> None:
    """How deep is too deep, is the interpreter's to say."""
    client = create_echo_app(100_000).test_client()
    for depth in (1_500, 40_000):
        body = b'{"numbers": [1], "extra": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
        headers = header() | {"Content-Type": "application/json"}
        response = await client.post("/echo", data=body, headers=headers)
        assert response.status_code in {201, 400}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"numbers": [1, 0]}', 422, "numbers[1]"),
        (b"{}", 422, "numbers"),
        (b'{"numbers": [], "nmae": 1}', 422, "nmae"),
        (b'{"numbers": [1], "name": null}', 422, "name"),
        (b'{"numbers": [1], "name": "a\\u0000b"}', 422, ""),
        (b"[]", 422, ""),
        (b'{"numbers": [NaN]}', 400, None),
        (b'{"numbers": [1]', 400, None),
        (b"", 400, None),
        (b"\xff", 400, None),
        (b'{"numbers": [' + b"1," * 5000 + b"1]}", 413, None),
    ],
)
async def test_bodies_that_cannot_be_used(body: bytes, status: int, field: str | None) -> None:
    client = create_echo_app(4096).test_client()
    headers = header() | {"Content-Type": "application/json"}
    document = await get_problem(await client.post("/echo", data=body, headers=headers), status)
    assert [error["field"] for error in document["errors"]] == ([] if field is None else [field])


async def test_a_body_is_json_and_says_so() -> None:
    client = create_echo_app().test_client()
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = header() | {"Content-Type": kind}
        await get_problem(await client.post("/echo", data=b"{}", headers=headers), 415)
    headers = header() | {"Content-Type": "application/json; charset=utf-8"}
    response = await client.post("/echo", data=b'{"numbers": [1, 2]}', headers=headers)
    assert (response.status_code, response.headers["X-Count"]) == (201, "2")


@pytest.mark.parametrize(
    ("name", "status", "kind", "field"),
    [
        ("instrument", 404, "unknown-instrument", "instrument_token"),
        ("item", 404, "unknown-item", None),
        ("capacity", 409, "no-capacity", "account_id"),
        ("conflict", 409, "conflict", None),
        ("invalid", 422, "invalid-request", "expiry"),
        ("account", 422, "unknown-account", "account_id"),
        ("store", 503, "store-unavailable", None),
        ("busy", 503, "broker-busy", None),
        ("unreachable", 502, "broker-unreachable", None),
        ("refused", 502, "broker-refused", None),
        ("token", 503, "login-needed", None),
        ("calendar", 503, "not-configured", None),
        ("group", 503, "store-unavailable", None),
        ("bug", 500, None, None),
        ("bugs", 500, None, None),
        ("feed", 500, None, None),
    ],
)
async def test_errors_of_the_domain_have_their_problem(
    name: str, status: int, kind: str | None, field: str | None
) -> None:
    response = await create_echo_app().test_client().get(f"/raise/{name}", headers=header())
    document = await get_problem(response, status)
    assert document["type"] == (f"/problems/{kind}" if kind else "about:blank")
    assert [error["field"] for error in document["errors"]] == ([field] if field else [])
    assert "secret detail" not in str(document)
    assert ("Retry-After" in response.headers) is (name in {"store", "busy", "group"})
    if name == "busy":
        assert response.headers["Retry-After"] == "3"


async def test_an_account_in_the_path_that_is_unknown_is_not_found() -> None:
    response = await create_echo_app().test_client().get("/accounts/nobody", headers=header())
    await get_problem(response, 404)


async def test_a_handler_that_takes_too_long_is_ended(autojump_clock: MockClock) -> None:
    started_at = trio.current_time()
    response = await create_echo_app().test_client().get("/slow")
    document = await get_problem(response, 503)
    assert document["type"] == "/problems/too-slow"
    assert trio.current_time() - started_at == pytest.approx(3)
    assert response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/echo//1", 404),
        ("GET", "/echo/1/", 404),
        ("DELETE", "/echo", 405),
        ("OPTIONS", "/echo", 405),
        ("BREW", "/echo", 405),
    ],
)
async def test_what_is_not_there_is_a_problem_too(method: str, path: str, status: int) -> None:
    client = create_echo_app().test_client()
    response = await ask(client, method, path, headers=header())
    await get_problem(response, status)
    assert ("Allow" in response.headers) is (status == 405)
