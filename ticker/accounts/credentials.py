"""A broker account, and the secrets that open its sockets and its REST API."""

from dataclasses import dataclass, field, replace
from typing import Literal

from ticker.kite.login import token_expiry

TokenState = Literal["missing", "valid", "expired"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the broker knows us by. The key and the token are secrets: ``repr`` shows neither.

    ``access_token`` is empty until a token has been issued. ``issued_at``: when it was, or when
    it was first seen, UNIX seconds. ``is_expired`` is set when its day is over, which makes it
    other credentials: a socket that it has opened is then opened again, so that the broker says
    whether the token still holds.
    """

    api_key: str = field(repr=False)
    access_token: str = field(repr=False)
    issued_at: float | None = field(default=None, compare=False)
    is_expired: bool = False

    @property
    def expires_at(self) -> float | None:
        """When the token's day is over, UNIX seconds; None without a token or its age."""
        if not self.access_token or self.issued_at is None:
            return None
        return token_expiry(self.issued_at)

    @property
    def token_state(self) -> TokenState:
        """Whether there is a token, and whether its day is over."""
        if not self.access_token:
            return "missing"
        return "expired" if self.is_expired else "valid"


def create_credentials(
    api_key: str, access_token: str, issued_at: float | None, now: float
) -> Credentials:
    """Credentials whose token may be of an earlier day. Both times are UNIX seconds."""
    fresh = Credentials(api_key, access_token, issued_at)
    expires_at = fresh.expires_at
    return replace(fresh, is_expired=expires_at is not None and expires_at <= now)
