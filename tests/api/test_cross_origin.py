"""Pages of other origins: what a browser is told, and that a real one obeys it."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest
import trio
from quart import Blueprint, Response, request
from quart.typing import ResponseTypes
from quart_trio import QuartTrio
from trio.testing import MockClock

from api.app import assemble
from api.auth import public, requires
from api.cross_origin import ALLOWED_HEADERS
from api.operations import Answer, InstrumentToken, operation
from api.server import serve_api
from tests.api.rig import ask, create_access, get_problem, header

PAGE: Final = "http://localhost:3000"
FOREIGN: Final = "http://localhost:3001"
HEADLESS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    "--no-first-run",
)
PATHS: Final = ["/items/1", "/items", "/items/x", "/open", "/nowhere", "//", "/items/%00?limit=a"]


class Item(msgspec.Struct, frozen=True):
    token: int


def create_shop(origins: tuple[str, ...] = (PAGE,), per_minute: int = 600) -> QuartTrio:
    blueprint = Blueprint("shop", __name__)

    @blueprint.get("/items/<token>")
    @requires("read")
    @operation()
    async def show(token: InstrumentToken) -> Answer[Item]:
        return Answer(Item(token), headers=(("X-Total-Count", "1"),))

    @blueprint.post("/items")
    @requires("trade")
    @operation()
    async def make(body: Item) -> Item:
        return body

    @blueprint.get("/open")
    @public
    @operation()
    async def fail() -> Item:
        raise RuntimeError("of a test")

    return assemble(
        [blueprint], access=create_access(), per_minute=per_minute, body_max=1024, origins=origins
    )


async def preflight(
    app: QuartTrio, path: str, origin: str = PAGE, method: str = "GET", headers: str = "x-api-key"
) -> ResponseTypes:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }
    return await ask(app.test_client(), "OPTIONS", path, headers=asked)


def told(response: ResponseTypes | httpx.Response) -> dict[str, str]:
    """The headers that are for the browser alone."""
    names = {name.lower(): value for name, value in response.headers.items()}
    return {name: text for name, text in names.items() if name.startswith("access-control-")}


async def test_a_preflight_is_answered_the_same_for_whatever_path_and_method() -> None:
    app = create_shop()
    for path in PATHS:
        for method in ("GET", "POST", "DELETE", "BREW"):
            response = await preflight(app, path, method=method)
            assert response.status_code == 204, path
            assert "X-Request-ID" in response.headers
            assert "RateLimit" not in response.headers
            assert told(response) == {
                "access-control-allow-origin": PAGE,
                "access-control-allow-credentials": "true",
                "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE",
                "access-control-allow-headers": ", ".join(ALLOWED_HEADERS),
                "access-control-max-age": "7200",
                "access-control-expose-headers": "Link, RateLimit, RateLimit-Policy, Retry-After, "
                "WWW-Authenticate, X-Request-ID, X-Total-Count",
            }


@pytest.mark.parametrize("origins", [(PAGE,), ()])
async def test_a_foreign_page_does_not_learn_which_routes_there_are(
    origins: tuple[str, ...],
) -> None:
    app = create_shop(origins)
    answers = set()
    for path in PATHS:
        for origin in (FOREIGN, "null", "http://localhost", f"{PAGE}.evil.example", "*"):
            response = await preflight(app, path, origin)
            document = await get_problem(response, 403)
            assert told(response) == {}
            assert response.headers["Vary"] == "Origin"
            answers.add(document["detail"])
    assert answers == {"CORS_ALLOWED_ORIGINS does not name the origin of the page that asks"}


async def test_what_is_no_preflight_is_a_method_that_no_route_takes() -> None:
    client = create_shop().test_client()
    for headers in ({"Origin": PAGE}, {"Access-Control-Request-Method": "GET"}):
        response = await ask(client, "OPTIONS", "/items/1", headers=headers | header())
        await get_problem(response, 405)


async def test_preflights_are_not_counted_and_never_too_many(autojump_clock: MockClock) -> None:
    app = create_shop(per_minute=2)
    client = app.test_client()
    for _ in range(5):
        assert (await preflight(app, "/items/1")).status_code == 204
        assert (await preflight(app, "/items/1", FOREIGN)).status_code == 403
    mine = header() | {"Origin": PAGE}
    statuses = [(await client.get("/items/1", headers=mine)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    without_key = [(await client.get("/items/1")).status_code for _ in range(3)]
    assert without_key == [401, 401, 429]
    assert (await preflight(app, "/items/1")).status_code == 204


async def test_an_answer_is_shared_with_the_pages_that_are_named_and_with_no_other() -> None:
    client = create_shop().test_client()
    for origin, is_shared in ((PAGE, True), (FOREIGN, False), (PAGE.upper(), False), ("", False)):
        headers = header() | ({"Origin": origin} if origin else {})
        response = await client.get("/items/1", headers=headers)
        assert response.status_code == 200
        assert response.headers["Vary"] == "Origin"
        assert (told(response).get("access-control-allow-origin") == PAGE) is is_shared
        assert bool(told(response)) is is_shared


@asynccontextmanager
async def open_server(app: QuartTrio) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_api, app, host="127.0.0.1", port=0, wait_shutdown=trio.sleep_forever)
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_page_can_read_every_error() -> None:
    key = header()
    cases: list[tuple[int, str, str, dict[str, str], bytes | None]] = [
        (401, "GET", "/items/1", {}, None),
        (401, "GET", "/items/1", header("wrong"), None),
        (403, "POST", "/items", header("read-key"), b"{}"),
        (404, "GET", "/nowhere", key, None),
        (405, "DELETE", "/items/1", key, None),
        (413, "POST", "/items", key | {"Content-Type": "application/json"}, b" " * 2000),
        (415, "POST", "/items", key, b"{}"),
        (422, "GET", "/items/x", key, None),
        (431, "GET", "/items/1", {"X-A": "a" * 9000, "X-B": "b" * 9000}, None),
        (500, "GET", "/open", {}, None),
    ]
    async with (
        open_server(create_shop()) as url,
        open_server(create_shop(per_minute=1)) as hasty,
        httpx.AsyncClient(headers={"Origin": PAGE}, timeout=20) as client,
    ):
        asked = await client.options(url, headers={"Access-Control-Request-Method": "GET"})
        assert (asked.status_code, asked.content) == (204, b"")
        assert {"Content-Length", "Content-Type"}.isdisjoint(asked.headers)  # RFC 9110, 8.6
        for status, method, path, headers, body in cases:
            answer = await client.request(method, url + path, headers=headers, content=body)
            assert_readable(answer, status)
        assert (await client.get(f"{hasty}/items/1", headers=key)).status_code == 200
        answer = await client.get(f"{hasty}/items/1", headers=key)
        assert_readable(answer, 429)
        assert "Retry-After" in answer.headers


def assert_readable(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Vary"] == "Origin"
    found = told(answer)
    assert found["access-control-allow-origin"] == PAGE
    assert found["access-control-allow-credentials"] == "true"
    shown = found["access-control-expose-headers"].split(", ")
    assert {"X-Request-ID", "Retry-After", "RateLimit"} <= set(shown)


SCRIPT: Final = """<!doctype html><script>
async function call(method, path, headers, body) {
  try {
    const answer = await fetch("URL" + path,
                               {method, headers, body, credentials: "include"});
    const read = {};
    for (const name of ["X-Request-ID", "RateLimit", "X-Total-Count", "X-Content-Type-Options"])
      read[name] = answer.headers.get(name);
    return {status: answer.status, read, document: await answer.json()};
  } catch (error) { return {refused: error.name}; }
}
(async () => {
  const key = {"X-API-Key": "KEY"}, json = {...key, "Content-Type": "application/json"};
  const found = {
    shown: await call("GET", "/items/7", {...key, "X-Request-ID": "of-the-page"}),
    made: await call("POST", "/items", json, '{"token": 8}'),
    unauthorized: await call("GET", "/items/7", {}),
    unknown: await call("GET", "/nowhere", key),
    invalid: await call("GET", "/items/x", key),
    failed: await call("GET", "/open", {}),
    undeclared: await call("GET", "/items/7", {...key, "X-Else": "1"}),
  };
  await fetch("/found", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""

Found = dict[str, dict[str, object]]


class Pages:
    """The server that a page comes from, and that it tells what it found."""

    def __init__(self) -> None:
        self.url = ""
        self.send, self.receive = trio.open_memory_channel[Found](8)  # one each page
        self.app = QuartTrio(__name__, static_folder=None)
        self.app.add_url_rule("/", view_func=self._page)
        self.app.add_url_rule("/found", view_func=self._found, methods=["POST"])

    async def _page(self) -> Response:
        text = SCRIPT.replace("URL", self.url).replace("KEY", header()["X-API-Key"])
        return Response(text, content_type="text/html")

    async def _found(self) -> str:
        self.send.send_nowait(msgspec.json.decode(await request.get_data(), type=Found))
        return ""


@pytest.fixture
def chromium(tmp_path: Path) -> str:
    """A Chromium that shows a page when it is asked to; some may not run as whoever tests."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no Chromium here")
    profile = f"--user-data-dir={tmp_path / 'trial'}"
    command = [found, *HEADLESS, profile, "--dump-dom", "data:text/html,shown"]
    try:
        shown = subprocess.run(command, capture_output=True, timeout=60, check=False).stdout
    except subprocess.TimeoutExpired:
        shown = b""
    if b"shown" not in shown:
        pytest.skip("the Chromium that is here shows no page")
    return found


@asynccontextmanager
async def open_browser(chromium: str, url: str, profile: Path) -> AsyncIterator[None]:
    command = [
        *(chromium, *HEADLESS, "--remote-debugging-port=0", f"--user-data-dir={profile}", url),
    ]
    quiet = partial(
        trio.run_process, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(quiet)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_browser_lets_a_named_page_in_and_keeps_another_out(
    chromium: str, tmp_path: Path
) -> None:
    pages = Pages()
    async with open_server(pages.app) as there:
        named = there.replace("127.0.0.1", "localhost")
        async with open_server(create_shop((named,))) as pages.url:
            found = {}
            for at, origin in enumerate((named, there)):
                with trio.fail_after(60):
                    async with open_browser(chromium, f"{origin}/", tmp_path / str(at)):
                        found[origin] = await pages.receive.receive()
    mine = found[named]
    assert [mine[name].get("status") for name in mine] == [200, 200, 401, 404, 422, 500, None]
    assert (mine["shown"]["document"], mine["made"]["document"]) == ({"token": 7}, {"token": 8})
    read = mine["shown"]["read"]
    assert isinstance(read, dict)
    assert (read["X-Request-ID"], read["X-Total-Count"]) == ("of-the-page", "1")
    assert read["RateLimit"].startswith('"requests";r=')
    assert read["X-Content-Type-Options"] is None, "is not exposed"
    problem = mine["invalid"]["document"]
    assert isinstance(problem, dict)
    assert problem["errors"][0]["field"] == "token"
    assert mine["undeclared"] == {"refused": "TypeError"}
    assert set(map(str, found[there].values())) == {"{'refused': 'TypeError'}"}
