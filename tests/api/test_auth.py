"""Who is let in, for what, how often; and what a request leaves behind."""

import json

import pytest
import structlog
import trio
from quart import Blueprint
from quart_trio import QuartTrio
from trio.testing import MockClock

from api.app import assemble
from api.auth import Access, caller, public, requires
from api.operations import operation
from api.rate_limits import BUCKETS_MAX, RateLimits
from tests.api.rig import BOOTSTRAP, ask, create_access, get_problem, header
from ticker.errors import StoreUnavailableError
from ticker.stores.api_keys import ApiKey

Seen = list[tuple[str, str, int]]


def create_guarded_app(
    access: Access | None = None, *, per_minute: int = 600, seen: Seen | None = None
) -> QuartTrio:
    blueprint = Blueprint("guarded", __name__)

    @blueprint.get("/read")
    @requires("read")
    @operation()
    async def read() -> str:
        return caller().name

    @blueprint.post("/trade")
    @requires("trade")
    @operation()
    async def trade() -> str:
        return caller().name

    @blueprint.delete("/admin/<name>")
    @requires("admin")
    @operation()
    async def admin(name: str) -> str:
        return caller().name

    @blueprint.get("/undeclared")
    async def undeclared() -> str:
        return "served"

    @blueprint.get("/open")
    @public
    @operation()
    async def open_to_all() -> str:
        return "served"

    @blueprint.get("/livez")
    @public
    async def livez() -> str:
        return "alive"

    def observe(method: str, route: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        if seen is not None:
            seen.append((method, route, status))

    return assemble(
        [blueprint], access=access or create_access(), per_minute=per_minute, observe=observe
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/read"), ("HEAD", "/read"), ("POST", "/trade"), ("DELETE", "/admin/x"),
     ("GET", "/undeclared")],
)  # fmt: skip
async def test_without_a_key_nothing_is_served_but_what_is_public(method: str, path: str) -> None:
    client = create_guarded_app().test_client()
    response = await ask(client, method, path)
    assert response.status_code == 401
    assert response.headers.getlist("WWW-Authenticate")[0] == "ApiKey"
    assert (await client.get("/open")).status_code == 200
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("key", "served"),
    [
        ("no-key", set()),
        ("read-key", {"/read"}),
        ("trade-key", {"/read", "/trade"}),
        ("read+trade-key", {"/read", "/trade"}),
        ("admin-key", {"/read", "/trade", "/admin/x"}),
        ("read+admin-key", {"/read", "/trade", "/admin/x"}),
        ("trade+admin-key", {"/read", "/trade", "/admin/x"}),
        ("read+trade+admin-key", {"/read", "/trade", "/admin/x"}),
        (BOOTSTRAP, {"/read", "/trade", "/admin/x"}),
    ],
)
async def test_a_key_opens_what_its_scopes_include(key: str, served: set[str]) -> None:
    client = create_guarded_app().test_client()
    for method, path in (("GET", "/read"), ("POST", "/trade"), ("DELETE", "/admin/x")):
        response = await ask(client, method, path, headers=header(key))
        assert response.status_code == (200 if path in served else 403), path
    await get_problem(await client.get("/undeclared", headers=header(key)), 403)


@pytest.mark.parametrize(
    "key", ["", "wrong", BOOTSTRAP + "x", BOOTSTRAP[:-1], "schlüssel", "x" * 9000]
)
async def test_a_key_that_is_not_good_is_refused(key: str) -> None:
    client = create_guarded_app().test_client()
    response = await client.get("/read", headers=header(key))
    document = await get_problem(response, 401)
    assert "API key" in document["detail"]
    assert not key or key not in document["detail"]


async def test_a_bearer_may_be_an_api_key() -> None:
    client = create_guarded_app().test_client()
    for scheme in ("Bearer", "bearer"):
        response = await client.get("/read", headers={"Authorization": f"{scheme} {BOOTSTRAP}"})
        assert (await response.get_json()) == "bootstrap"
    for wrong in ("Basic eDp5", "Bearer", "Bearer a.b.c", "Digest x"):
        response = await client.get("/read", headers={"Authorization": wrong})
        await get_problem(response, 401)


async def test_no_key_is_good_without_a_bootstrap_key_and_a_store() -> None:
    client = create_guarded_app(Access()).test_client()
    for key in ("", "None", BOOTSTRAP):
        await get_problem(await client.get("/read", headers=header(key)), 401)


async def test_an_open_service_serves_all_that_is_declared() -> None:
    client = create_guarded_app(Access(is_open=True)).test_client()
    assert (await client.delete("/admin/x")).status_code == 200
    await get_problem(await client.get("/undeclared"), 403)
    await get_problem(await client.get("/read", headers=header("wrong")), 401)


async def test_a_key_has_so_many_requests_a_minute_and_not_one_more(
    autojump_clock: MockClock,
) -> None:
    client = create_guarded_app(per_minute=60).test_client()
    statuses = [
        (await client.get("/read", headers=header("read-key"))).status_code for _ in range(70)
    ]
    assert statuses == [200] * 60 + [429] * 10
    response = await client.get("/read", headers=header("read-key"))
    document = await get_problem(response, 429)
    assert document["type"] == "/problems/rate-limited"
    assert response.headers["Retry-After"] == "1"
    assert response.headers["RateLimit-Policy"] == '"requests";q=60;w=60'
    assert response.headers["RateLimit"] == '"requests";r=0;t=60'

    other = await client.get("/read", headers=header("read+trade-key"))
    assert other.status_code == 200, "each key has its own"
    assert other.headers["RateLimit"] == '"requests";r=59;t=1'
    await trio.sleep(1)
    assert (await client.get("/read", headers=header("read-key"))).status_code == 200


async def test_whoever_has_no_good_key_is_counted_by_address(autojump_clock: MockClock) -> None:
    client = create_guarded_app(per_minute=10).test_client()
    asked = [("/read", {}), ("/read", header("wrong")), ("/open", {}), ("/nowhere", {})]
    for number in range(10):
        path, headers = asked[number % 4]
        assert (await client.get(path, headers=headers)).status_code != 429
    for path, headers in asked:
        await get_problem(await client.get(path, headers=headers), 429)
    assert (await client.get("/livez")).status_code == 200, "probes are not limited"
    good = await client.get("/read", headers=header())
    assert good.status_code == 200, "a good key does not suffer from its neighbours"


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),  # a customer's addresses are 2^64
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("<local>", "<local>", True),
    ],
)
async def test_an_address_is_a_network_where_addresses_are_plenty(
    autojump_clock: MockClock, first: str, second: str, is_one: bool
) -> None:
    client = create_guarded_app(per_minute=1).test_client()
    statuses = []
    for address in (first, second):
        scope = {"client": (address, 1)}
        response = await client.get("/read", headers=header("wrong"), scope_base=scope)
        statuses.append(response.status_code)
    assert statuses == [401, 429 if is_one else 401]


async def test_guesses_are_counted_before_the_keys_have_been_read(
    autojump_clock: MockClock,
) -> None:
    def find_none(text: str) -> ApiKey | None:
        raise StoreUnavailableError("the API keys have not been read yet")

    client = create_guarded_app(Access(find_key=find_none), per_minute=3).test_client()
    statuses = [(await client.get("/read", headers=header("guess"))).status_code for _ in range(5)]
    assert statuses == [503, 503, 503, 429, 429]


async def test_requests_at_once_have_no_more_than_those_in_turn(autojump_clock: MockClock) -> None:
    client = create_guarded_app(per_minute=20).test_client()
    statuses: list[int] = []

    async def call() -> None:
        response = await client.get("/read", headers=header("read-key"))
        statuses.append(response.status_code)
        if response.status_code == 429:
            assert response.headers["Retry-After"] == "3"

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(call)
    assert (statuses.count(200), statuses.count(429)) == (20, 30)
    await trio.sleep(2.9)
    assert (await client.get("/read", headers=header("read-key"))).status_code == 429
    await trio.sleep(0.2)  # Retry-After has passed
    assert (await client.get("/read", headers=header("read-key"))).status_code == 200


async def test_the_table_of_limits_is_bounded(autojump_clock: MockClock) -> None:
    limits = RateLimits(60)
    for _ in range(30):
        limits.take_nowait("busy")
    for number in range(BUCKETS_MAX + 100):
        limits.take_nowait(f"address:{number}")
        if number % 1000 == 0:
            limits.take_nowait("busy")
    assert len(limits._buckets) == BUCKETS_MAX
    assert limits.take_nowait("busy").remaining < 30, "who asks often is not forgotten"


@pytest.mark.parametrize("given", ["a-B.9_" * 4, "x" * 128])
async def test_a_request_keeps_the_id_it_brings(given: str) -> None:
    client = create_guarded_app().test_client()
    response = await client.get("/read", headers={"X-Request-ID": given})
    assert (await get_problem(response, 401))["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "<script>", 'a"b'])
async def test_an_id_that_could_do_harm_is_replaced(given: str) -> None:
    client = create_guarded_app().test_client()
    first, second = [
        (await client.get("/open", headers={"X-Request-ID": given})).headers["X-Request-ID"]
        for _ in range(2)
    ]
    assert len(first) == len(second) == 36
    assert first != second


async def test_each_request_is_one_line_and_one_observation_without_what_it_holds(
    lines: list[structlog.typing.EventDict],
) -> None:
    seen: Seen = []
    client = create_guarded_app(seen=seen).test_client()
    headers = header() | {"X-Request-ID": "r-1"}
    await client.delete("/admin/s3cret-name?token=s3cret", headers=headers)
    await client.get("/nowhere/s3cret", headers=header("s3cret"))
    await ask(client, "S3CRET", "/read")
    assert [(line["method"], line["route"], line["status"], line["caller"]) for line in lines] == [
        ("DELETE", "/admin/<name>", 422, "bootstrap"),
        ("GET", "unknown", 404, None),
        ("other", "unknown", 405, None),
    ]
    assert lines[0]["request_id"] == "r-1"
    assert lines[1]["request_id"] != "r-1", "the context does not leak into the next request"
    assert seen == [
        ("DELETE", "/admin/<name>", 422), ("GET", "unknown", 404), ("other", "unknown", 405)
    ]  # fmt: skip
    assert "s3cret" not in json.dumps(lines).lower()


async def test_headers_are_bounded() -> None:
    client = create_guarded_app().test_client()
    response = await client.get("/read", headers=header() | {"X-Long": "x" * 17_000})
    await get_problem(response, 431)


async def test_answers_cannot_be_sniffed_or_stored() -> None:
    response = await create_guarded_app().test_client().get("/read", headers=header())
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in response.headers
