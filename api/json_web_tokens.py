"""JSON Web Tokens of the user service: RS256 only, keys from its JWKS, fetched on Trio."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec
import structlog
import trio

from api.problems import ProblemError
from ticker.errors import ConfigurationError
from ticker.settings import is_loopback
from ticker.stores.api_keys import Scope

KEYS_LIFETIME_S: Final = 3600.0
"""Keys older than this are not used: one that the issuer withdrew works no longer."""
KEYS_REFRESH_S: Final = KEYS_LIFETIME_S / 2
"""Keys older than this are fetched again, so that an outage of the issuer is survived unless it
lasts: now and then one request waits for the issuer, none is refused."""
REFETCH_SPACING_S: Final = 30.0
"""At most one fetch in this time, however many tokens name keys that nobody has heard of."""
FETCH_TIMEOUT_S: Final = 5.0
DOCUMENT_MAX: Final = 256 * 1024
"""Bytes of a JWKS; of a longer one no more is kept, and it is not used."""
KEYS_MAX: Final = 64
"""Keys taken from a JWKS; the rest are ignored."""
TOKEN_MAX: Final = 8 * 1024
"""Characters of a token; a longer one is refused unread."""
LEEWAY_S: Final = 5.0
"""How far our clock and the issuer's may differ."""

ROLE_SCOPES: Final[Mapping[str, tuple[Scope, ...]]] = MappingProxyType(
    {
        "super_admin": ("read", "trade", "admin"),
        "admin": ("read", "trade", "admin"),
        "trader": ("read", "trade"),
        "user": ("read",),
        "viewer": ("read",),
    }
)
"""What the user service's roles may do here; permissions are scopes by their own name."""


class User(msgspec.Struct, frozen=True):
    """Who a token speaks for."""

    user_id: str
    email: str | None
    name: str | None
    roles: tuple[str, ...]
    session_id: str | None
    permissions: tuple[str, ...]

    @property
    def scopes(self) -> frozenset[Scope]:
        """What the roles and permissions come to."""
        found: set[Scope] = set()
        for name in (*self.roles, *self.permissions):
            found.update(ROLE_SCOPES.get(name, ()))
        known: tuple[Scope, ...] = ("read", "trade", "admin")
        return frozenset(found | {scope for scope in known if scope in self.permissions})


class JsonWebTokens:
    """Verifies tokens; the issuer's keys are kept for an hour, and fetched anew in good time."""

    def __init__(self, client: httpx.AsyncClient, url: str, *, issuer: str, audience: str) -> None:
        self._client = client
        self._url = url
        self._issuer = issuer
        self._audience = audience
        self._keys: Mapping[str, jwt.PyJWK] = MappingProxyType({})
        self._fetched_at = -KEYS_LIFETIME_S
        self._tried_at = -REFETCH_SPACING_S
        self._fetching = trio.Lock()

    async def verify(self, token: str) -> User:
        """Who the token speaks for.

        Raises ProblemError: 401 for a token that is not good, 503 while the issuer's keys cannot
        be had.
        """
        key = await self._key(_key_id(token))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise _refusal(f"the token is not valid: {error}") from None
        return _user(claims)

    async def _key(self, key_id: str) -> jwt.PyJWK:
        is_urgent = key_id not in self._keys or self._age_s() >= KEYS_LIFETIME_S
        if self._needs_fetch(key_id) and (is_urgent or not self._fetching.locked()):
            async with self._fetching:
                if self._needs_fetch(key_id):  # another request may have fetched meanwhile
                    await self._fetch()
        if self._age_s() >= KEYS_LIFETIME_S:
            raise ProblemError(
                503, "the keys that tokens are checked with cannot be had", headers=_RETRY
            )
        key = self._keys.get(key_id)
        if key is None:
            raise _refusal("the token names a key that its issuer does not have")
        return key

    def _needs_fetch(self, key_id: str) -> bool:
        is_stale = self._age_s() >= KEYS_REFRESH_S or key_id not in self._keys
        return is_stale and trio.current_time() - self._tried_at >= REFETCH_SPACING_S

    def _age_s(self) -> float:
        return trio.current_time() - self._fetched_at

    async def _fetch(self) -> None:
        self._tried_at = trio.current_time()
        try:
            with trio.fail_after(FETCH_TIMEOUT_S):
                document = await self._read()
            keys = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
            self._keys = _public_keys(keys if isinstance(keys, list) else [])
        except (
            httpx.HTTPError,
            httpx.StreamError,
            trio.TooSlowError,
            msgspec.MsgspecError,
            UnicodeError,
        ) as error:
            log = structlog.get_logger()
            log.warning("jwks_not_fetched", error=type(error).__name__)
            return
        self._fetched_at = trio.current_time()

    async def _read(self) -> bytes:
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise httpx.HTTPError(f"HTTP {response.status_code}")
            document = bytearray()
            async for part in response.aiter_bytes():
                if len(document) <= DOCUMENT_MAX:
                    document += part
        if len(document) > DOCUMENT_MAX:
            raise httpx.HTTPError("the JWKS is too long")
        return bytes(document)


@asynccontextmanager
async def open_json_web_tokens(
    url: str | None, *, issuer: str, audience: str
) -> AsyncIterator[JsonWebTokens | None]:
    """The verifier for the issuer at ``url``; None without a URL. Nothing is fetched yet.

    Raises ConfigurationError unless the URL is https, or http on this machine.
    """
    if url is None:
        yield None
        return
    parts = urlsplit(url)
    local = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if (parts.scheme != "https" and not local) or not parts.hostname:
        raise ConfigurationError(
            "JWT_JWKS_URL: must start with https:// (http:// on loopback only)"
        )
    timeout = httpx.Timeout(FETCH_TIMEOUT_S)
    async with httpx.AsyncClient(
        follow_redirects=False, timeout=timeout, trust_env=False
    ) as client:
        yield JsonWebTokens(client, url, issuer=issuer, audience=audience)


_RETRY: Final = (("Retry-After", "30"),)


def _refusal(detail: str) -> ProblemError:
    challenge = 'Bearer error="invalid_token"'
    return ProblemError(401, detail, headers=(("WWW-Authenticate", challenge),))


def _key_id(token: str) -> str:
    if len(token) > TOKEN_MAX:
        raise _refusal("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise _refusal("the token is malformed") from None
    key_id = header.get("kid")
    if header.get("alg") != "RS256" or not isinstance(key_id, str) or not key_id:
        raise _refusal("the token has to be signed with RS256 and name its key")
    return key_id


def _public_keys(documents: list[Any]) -> Mapping[str, jwt.PyJWK]:
    """The public RSA keys for signatures; anything else in the set is passed over."""
    keys: dict[str, jwt.PyJWK] = {}
    for document in documents[:KEYS_MAX]:
        if not isinstance(document, dict) or document.get("kty") != "RSA" or "d" in document:
            continue
        key_id = document.get("kid")
        if not isinstance(key_id, str) or document.get("use", "sig") != "sig":
            continue
        try:
            keys[key_id] = jwt.PyJWK.from_dict(document, algorithm="RS256")
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
    return MappingProxyType(keys)


def _user(claims: Mapping[str, Any]) -> User:
    def text(name: str) -> str | None:
        value = claims.get(name)
        return value if isinstance(value, str) else None

    def texts(name: str) -> tuple[str, ...]:
        value = claims.get(name)
        items = value if isinstance(value, list) else [value]
        return tuple(item for item in items if isinstance(item, str))

    return User(
        user_id=text("user_id") or str(claims["sub"]),
        email=text("email"),
        name=text("name"),
        roles=(*texts("roles"), *texts("role")),
        session_id=text("session_id"),
        permissions=texts("permissions"),
    )
