"""``/api-keys`` and ``/auth/test``: who may call, and as whom one calls."""

import datetime as dt
from typing import Annotated

import msgspec
from quart import Blueprint

from api.auth import caller, requires
from api.json_web_tokens import User
from api.operations import Text, operation
from ticker.stores.api_keys import ApiKey, ApiKeyStore, Scope


class NewApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``expires_at`` with an offset; None: the key works until it is revoked."""

    name: Text
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1, max_length=3)]
    expires_at: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None


class CreatedApiKey(ApiKey, frozen=True, kw_only=True):
    """A key with its text, which is shown here and never again."""

    api_key: str

    def __repr__(self) -> str:
        return f"CreatedApiKey({self.id!r})"


class Greeting(msgspec.Struct, frozen=True):
    """Who asks, and what they may: ``admin`` includes ``trade``, and that ``read``.

    ``user``: its id is the key's if there is no token.
    """

    message: str
    user: User
    scopes: tuple[Scope, ...]
    service: str


def create_api_keys_blueprint(keys: ApiKeyStore) -> Blueprint:
    """Who one is, and the keys of others."""
    blueprint = Blueprint("auth", __name__)

    @blueprint.get("/auth/test")
    @requires("read")
    @operation()
    async def test() -> Greeting:
        """Who asks, as far as the service can tell."""
        who = caller()
        user = who.user or User(who.name, None, None, (), None, ())
        return Greeting("The credentials are good.", user, who.scopes, "ticker")

    @blueprint.post("/api-keys")
    @requires("admin")
    @operation(status=201, problems=(409,))
    async def create_key(body: NewApiKey) -> CreatedApiKey:
        """Create a key. Its text is in this answer only: the service keeps a hash."""
        key, text = await keys.create(body.name, body.scopes, expires_at=body.expires_at)
        return CreatedApiKey(**msgspec.structs.asdict(key), api_key=text)

    @blueprint.get("/api-keys")
    @requires("admin")
    @operation()
    async def find_keys() -> list[ApiKey]:
        """Every key without its text, newest first, revoked ones too."""
        return await keys.load_all()

    @blueprint.delete("/api-keys/<key_id>")
    @requires("admin")
    @operation(problems=(404,))
    async def revoke_key(key_id: Text) -> ApiKey:
        """Revoke a key: here at once, in other instances within seconds."""
        return await keys.revoke(key_id)

    return blueprint
