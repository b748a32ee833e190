"""Tokens of the user service, its keys served by an issuer of our own."""

import base64
import functools
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
import jwt
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from quart import Blueprint
from trio.testing import MockClock

from api.app import assemble
from api.auth import Access, caller, requires
from api.json_web_tokens import (
    FETCH_TIMEOUT_S,
    KEYS_LIFETIME_S,
    KEYS_REFRESH_S,
    REFETCH_SPACING_S,
    JsonWebTokens,
    open_json_web_tokens,
)
from api.operations import operation
from api.problems import ProblemError
from ticker.errors import ConfigurationError

ISSUER, AUDIENCE = "user_service", "trading_platform"


@functools.cache
def private_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def create_jwk(name: str, **changes: object) -> dict[str, object]:
    document = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private_key(name).public_key()))
    return {**document, "kid": name, "use": "sig", "alg": "RS256", **changes}


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Issuer:
    """An ASGI application that serves a JWKS, and counts how often it was asked."""

    def __init__(self, *names: str) -> None:
        self.keys: list[object] = [create_jwk(name) for name in names]
        self.status = 200
        self.delay_s = 0.0
        self.body: bytes | None = None
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await trio.sleep(self.delay_s)
        body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
        headers = [(b"location", b"http://elsewhere/")] if self.status == 302 else []
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def tokens(self) -> JsonWebTokens:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self))
        return JsonWebTokens(client, "http://issuer/jwks", issuer=ISSUER, audience=AUDIENCE)


def create_token(
    name: str = "one",
    /,
    *,
    headers: Mapping[str, object] | None = None,
    algorithm: str = "RS256",
    key: object = None,
    **claims: object,
) -> str:
    given = {
        "sub": "u-1", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 300, **claims
    }  # fmt: skip
    present = {claim: value for claim, value in given.items() if value is not None}
    return jwt.encode(
        present,
        key or private_key(name),  # type: ignore[arg-type]
        algorithm=algorithm,
        headers={"kid": name, **(headers or {})},
    )


async def refuse(tokens: JsonWebTokens, token: str, status: int = 401) -> str:
    with pytest.raises(ProblemError) as caught:
        await tokens.verify(token)
    assert caught.value.status == status
    if status == 401:
        assert dict(caught.value.headers)["WWW-Authenticate"].startswith("Bearer")
    return caught.value.detail


async def test_a_token_says_who_asks_and_what_they_may() -> None:
    user = (
        await Issuer("one")
        .tokens()
        .verify(
            create_token(
                email="a@b.c",
                name="A",
                roles=["trader", "unheard-of"],
                session_id="s",
                permissions=["admin"],
            )
        )
    )
    assert (user.user_id, user.email, user.name, user.session_id) == ("u-1", "a@b.c", "A", "s")
    assert user.scopes == {"read", "trade", "admin"}


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"roles": ["user"]}, {"read"}),
        ({"roles": "trader"}, {"read", "trade"}),
        ({"role": "admin"}, {"read", "trade", "admin"}),
        ({"roles": ["super_admin"]}, {"read", "trade", "admin"}),
        ({"permissions": ["trade", "delete_everything"]}, {"trade"}),
        ({"roles": {"admin": True}, "permissions": 7}, set()),
    ],
)
async def test_roles_and_permissions_become_scopes(
    claims: dict[str, Any], scopes: set[str]
) -> None:
    user = await Issuer("one").tokens().verify(create_token(**claims))
    assert user.scopes == scopes


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: create_token(exp=int(time.time()) - 60), id="expired"),
        pytest.param(lambda: create_token(nbf=int(time.time()) + 60), id="not yet"),
        pytest.param(lambda: create_token(exp=None), id="for ever"),
        pytest.param(lambda: create_token(iss="somebody"), id="issuer"),
        pytest.param(lambda: create_token(iss=None), id="no issuer"),
        pytest.param(lambda: create_token(aud="something"), id="audience"),
        pytest.param(lambda: create_token(aud=None), id="no audience"),
        pytest.param(lambda: create_token(sub=None), id="nobody"),
        pytest.param(lambda: create_token("two", headers={"kid": "one"}), id="another's key"),
        pytest.param(lambda: create_token(headers={"kid": "unknown"}), id="unknown key"),
        pytest.param(lambda: create_token(headers={"kid": ""}), id="no key"),
        pytest.param(lambda: create_token(algorithm="RS512"), id="RS512"),
        pytest.param(lambda: create_token(algorithm="HS256", key="k" * 32), id="HS256"),
        pytest.param(lambda: create_token()[:-6] + "AAAAAA", id="signature"),
        pytest.param(lambda: "a.b.c", id="nonsense"),
        pytest.param(lambda: "e30.e30.", id="unsigned"),
        pytest.param(lambda: f"{create_token()[:20]}.{'x' * 9000}.y", id="long"),
    ],
)
async def test_a_token_that_is_not_good_is_refused(token: Any) -> None:
    await refuse(Issuer("one").tokens(), token())


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    secret = (
        private_key("one")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    head, body, _ = create_token().split(".")
    for algorithm in ("HS256", "RS256"):
        head = encode(json.dumps({"alg": algorithm, "kid": "one", "typ": "JWT"}).encode())
        signature = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
        await refuse(Issuer("one").tokens(), f"{head}.{body}.{encode(signature)}")


async def test_keys_are_fetched_once_until_they_are_half_an_hour_old(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer("one")
    tokens = issuer.tokens()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(tokens.verify, create_token())
    assert issuer.asked == 1
    await trio.sleep(KEYS_REFRESH_S - 1)
    await tokens.verify(create_token())
    assert issuer.asked == 1
    issuer.keys = [create_jwk("two")]
    await trio.sleep(2)
    await refuse(tokens, create_token())
    assert issuer.asked == 2, "a key that was withdrawn works no longer"


async def test_an_issuer_that_is_away_is_noticed_only_if_it_stays_away(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer("one")
    tokens = issuer.tokens()
    token = create_token(exp=int(time.time()) + 100_000)
    fetched_at = trio.current_time()
    await tokens.verify(token)
    issuer.delay_s = 3600.0  # it takes calls, and says nothing
    await trio.sleep(KEYS_REFRESH_S)
    asked = issuer.asked
    durations: list[float] = []

    async def verify() -> None:
        began_at = trio.current_time()
        await tokens.verify(token)
        durations.append(trio.current_time() - began_at)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(verify)
    assert sorted(durations)[:-1] == [0.0] * 9, "one of them asks, nobody waits for it"
    assert issuer.asked == asked + 1
    await trio.sleep(fetched_at + KEYS_LIFETIME_S - 10 - trio.current_time())
    await tokens.verify(token)
    await trio.sleep(REFETCH_SPACING_S)
    await refuse(tokens, token, 503)
    issuer.delay_s = 0.0
    await trio.sleep(REFETCH_SPACING_S)
    await tokens.verify(token)


async def test_an_unknown_key_is_looked_for_but_not_by_every_token(
    autojump_clock: MockClock,
) -> None:
    issuer = Issuer("one")
    tokens = issuer.tokens()
    await tokens.verify(create_token())
    issuer.keys.append(create_jwk("two"))
    for _ in range(10):
        await refuse(tokens, create_token("two"))
    assert issuer.asked == 1
    await trio.sleep(REFETCH_SPACING_S)
    await tokens.verify(create_token("two"))
    assert issuer.asked == 2


async def test_without_keys_it_cannot_be_told_and_recovers(autojump_clock: MockClock) -> None:
    issuer = Issuer("one")
    tokens = issuer.tokens()
    for status, delay_s, body in (
        (500, 0.0, None), (302, 0.0, None), (200, 0.0, b"<html>"), (200, 0.0, b"[]"),
        (200, 0.0, b"\xff"), (200, 0.0, b"{" + b" " * 300_000 + b"}"), (200, 60.0, None),
    ):  # fmt: skip
        issuer.status, issuer.delay_s, issuer.body = status, delay_s, body
        started_at = trio.current_time()
        await refuse(tokens, create_token(), 503)
        assert trio.current_time() - started_at <= FETCH_TIMEOUT_S
        await trio.sleep(REFETCH_SPACING_S)
    issuer.status, issuer.delay_s, issuer.body = 200, 0.0, None
    assert (await tokens.verify(create_token())).user_id == "u-1"


async def test_only_public_signing_keys_are_taken() -> None:
    issuer = Issuer("one")
    issuer.keys = [
        *("text", 7, {}, {"kty": "RSA"}, {"kty": "oct", "kid": "one", "k": "eA"}),
        create_jwk("one", use="enc"),
        create_jwk("one", n="!"),
        json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private_key("one"))) | {"kid": "one"},
    ]
    await refuse(issuer.tokens(), create_token())
    issuer.keys.append(create_jwk("one"))
    assert (await issuer.tokens().verify(create_token())).user_id == "u-1"


@pytest.mark.parametrize("url", ["http://issuer.example/jwks", "ftp://x", "https://", "jwks"])
async def test_keys_come_over_https_only(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        async with open_json_web_tokens(url, issuer=ISSUER, audience=AUDIENCE):
            pass


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/jwks", "https://issuer.example/jwks", None])
async def test_a_verifier_opens_without_its_issuer(url: str | None) -> None:
    async with open_json_web_tokens(url, issuer=ISSUER, audience=AUDIENCE) as tokens:
        assert (tokens is None) is (url is None)


async def test_a_route_takes_a_token_as_it_takes_a_key() -> None:
    blueprint = Blueprint("mine", __name__)

    @blueprint.get("/mine")
    @requires("trade")
    @operation()
    async def mine() -> str:
        return caller().name

    access = Access(bootstrap_key="k", tokens=Issuer("one").tokens())
    client = assemble([blueprint], access=access).test_client()
    statuses = []
    for token in (create_token(roles=["trader"]), create_token(), "a.b.c", "k"):
        response = await client.get("/mine", headers={"Authorization": f"Bearer {token}"})
        statuses.append(response.status_code)
    assert statuses == [200, 403, 401, 200]
