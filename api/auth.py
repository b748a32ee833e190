"""Who asks, and what they may: API keys and JSON Web Tokens, denied by default.

Every handler says whom it serves: ``@requires(scope)`` or ``@public``. A route that says nothing
serves nobody.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import msgspec
from quart import g
from werkzeug.datastructures import Headers

from api.json_web_tokens import JsonWebTokens, User
from api.problems import ProblemError
from ticker.stores.api_keys import ApiKey, Scope

Handler = TypeVar("Handler", bound=Callable[..., Any])

SCOPES: Final[tuple[Scope, ...]] = ("read", "trade", "admin")
"""Each includes those before it."""

Need = Scope | Literal["nothing", "undeclared"]
"""What a route needs: a scope, nothing at all, or what nobody has because it does not say."""

_NEED: Final = "__api_need__"


class Principal(msgspec.Struct, frozen=True):
    """Who asks. ``name`` is what logs and rate limits know them by; ``user``: of a token."""

    name: str
    given: frozenset[Scope]
    user: User | None = None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What they may: what they were given, and all that it includes."""
        most = max((SCOPES.index(scope) for scope in self.given), default=-1)
        return SCOPES[: most + 1]


def requires(scope: Scope) -> Callable[[Handler], Handler]:
    """Serve those who have the scope, or one that includes it."""

    def mark(handler: Handler) -> Handler:
        setattr(handler, _NEED, scope)
        return handler

    return mark


def public(handler: Handler) -> Handler:
    """Serve everybody: probes, metrics, documentation and the login's callback."""
    setattr(handler, _NEED, "nothing")
    return handler


def need_of(handler: Callable[..., Any] | None) -> Need:
    """What a handler has declared."""
    need: Need = getattr(handler, _NEED, "undeclared")
    return need


def caller() -> Principal:
    """Who asks, in a handler that needs a scope."""
    principal: Principal = g.principal
    return principal


class Access:
    """Tells who asks by ``X-API-Key`` or ``Authorization: Bearer``, a key or a JSON Web Token.

    ``bootstrap_key``: one key with every scope, for the first start and for emergencies.
    ``find_key``: the key that a text is. ``tokens``: None if tokens are not taken.
    ``is_open``: serve everybody as admin, which settings allow on this machine only.
    """

    def __init__(
        self,
        *,
        bootstrap_key: str | None = None,
        find_key: Callable[[str], ApiKey | None] = lambda _: None,
        tokens: JsonWebTokens | None = None,
        is_open: bool = False,
    ) -> None:
        self._bootstrap = _digest(bootstrap_key) if bootstrap_key else None
        self._find_key = find_key
        self._tokens = tokens
        self._is_open = is_open

    async def identify(self, headers: Headers) -> Principal | None:
        """Who asks; None if they do not say.

        Raises ProblemError: 401 for credentials that are not good, 503 if that cannot be told.
        """
        key = headers.get("X-API-Key")
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        if key is None and scheme.lower() == "bearer":
            bearer = bearer.strip()
            if self._tokens is not None and bearer.count(".") == 2:
                return self._user(await self._tokens.verify(bearer))
            key = bearer
        if key is not None:
            return self._holder(key)
        if self._is_open:
            return Principal("anybody", frozenset({"admin"}))
        if scheme:
            raise self.refusal("Authorization has to be Bearer, with an API key or a token")
        return None

    def refusal(self, detail: str) -> ProblemError:
        """A 401 that says how to ask."""
        return ProblemError(
            401,
            detail,
            headers=(("WWW-Authenticate", "ApiKey"), ("WWW-Authenticate", "Bearer")),
        )

    def _holder(self, text: str) -> Principal:
        if self._bootstrap is not None and hmac.compare_digest(_digest(text), self._bootstrap):
            return Principal("bootstrap", frozenset(SCOPES))
        key = self._find_key(text)
        if key is None:
            raise self.refusal("the API key is not known, was revoked or has expired")
        return Principal(f"key:{key.id}", frozenset(key.scopes))

    def _user(self, user: User) -> Principal:
        return Principal(f"user:{user.user_id}", user.scopes, user)


def _digest(text: str) -> bytes:
    """Of equal length for keys of any length, so that comparing takes the same time for all."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
