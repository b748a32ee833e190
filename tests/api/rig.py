"""What the tests of the API share: keys, an app of a few routes, problems as documents."""

import datetime as dt
from typing import Any, Final

import quart.typing
from quart.testing.utils import sentinel
from quart.typing import ResponseTypes

from api.auth import Access
from api.problems import PROBLEM_JSON
from ticker.stores.api_keys import ApiKey, Scope

BOOTSTRAP: Final = "bootstrap-key-of-the-tests"
CREATED_AT: Final = dt.datetime(2026, 8, 3, tzinfo=dt.UTC)


def find_key(text: str) -> ApiKey | None:
    """A key for each set of scopes: ``read-key``, ``read+trade-key``; ``no-key`` has none."""
    name, _, kind = text.rpartition("-")
    if kind != "key":
        return None
    scopes: tuple[Scope, ...] = tuple(
        scope for scope in ("read", "trade", "admin") if scope in name.split("+")
    )
    return ApiKey(id=name, name=name, scopes=scopes, created_at=CREATED_AT)


def create_access() -> Access:
    return Access(bootstrap_key=BOOTSTRAP, find_key=find_key)


def header(text: str = BOOTSTRAP) -> dict[str, str]:
    return {"X-API-Key": text}


async def ask(
    client: quart.typing.TestClientProtocol,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    json: object = None,
) -> ResponseTypes:
    """Any method; ``json`` None: no body."""
    body = sentinel if json is None else json
    return await client.open(path, method=method, headers=headers, json=body)


async def get_problem(response: ResponseTypes, status: int) -> dict[str, Any]:
    """The document of a problem with this status, having what every one has."""
    assert response.status_code == status
    assert response.content_type == PROBLEM_JSON
    document: dict[str, Any] = await response.get_json()
    assert document["status"] == status
    assert document["request_id"] == response.headers["X-Request-ID"]
    assert document["title"]
    assert document["type"] == "about:blank" or document["type"].startswith("/problems/")
    return document


async def get_json(client: quart.typing.TestClientProtocol, path: str, **headers: str) -> Any:
    response = await client.get(path, headers=header() | headers)
    assert response.status_code == 200, await response.get_data()
    return await response.get_json()
