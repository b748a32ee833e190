"""Accounts, request tokens and access tokens of the simulated broker."""

import datetime as dt
import hashlib
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ticker.simulator.days import IST

REQUEST_TOKEN_LIFE_S: Final = 300.0
_EXPIRY: Final = dt.time(6, 0)
_ALPHABET: Final = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class SimulatedAccount:
    """Credentials that the simulator accepts; ``access_token`` is valid from the start."""

    api_key: str
    api_secret: str = field(repr=False)
    access_token: str = field(repr=False)
    user_id: str


def create_accounts(seed: int, count: int) -> tuple[SimulatedAccount, ...]:
    """The same credentials for the same seed, the n-th not depending on how many there are."""
    source = random.Random(f"accounts {seed}")
    return tuple(
        SimulatedAccount(
            api_key=_text(source, 16).lower(),
            api_secret=_text(source, 32).lower(),
            access_token=_text(source, 32),
            user_id=f"SM{number:04d}",
        )
        for number in range(1, count + 1)
    )


def _text(source: random.Random, length: int) -> str:
    return "".join(source.choices(_ALPHABET, k=length))


class TokenError(Exception):
    """A session cannot be had; the message is the broker's."""


@dataclass(slots=True)
class _Granted:
    api_key: str
    until: float


class Sessions:
    """Which tokens are good. Request tokens work once and for five minutes.

    ``tokens_expire``: access tokens die at the next 06:00 IST. ``single_session``: a new access
    token kills the account's older ones.
    """

    def __init__(
        self,
        accounts: Sequence[SimulatedAccount],
        *,
        seed: int,
        wall_clock: Callable[[], float],
        tokens_expire: bool,
        single_session: bool,
    ) -> None:
        self._accounts = {account.api_key: account for account in accounts}
        self._random = random.Random(f"tokens {seed}")
        self._wall_clock = wall_clock
        self._tokens_expire = tokens_expire
        self._single_session = single_session
        self._request_tokens: dict[str, _Granted] = {}
        self._access_tokens: dict[str, _Granted] = {}
        for account in accounts:
            self._grant(account.api_key, account.access_token)

    def account(self, api_key: str) -> SimulatedAccount | None:
        return self._accounts.get(api_key)

    def accepts(self, api_key: str, access_token: str) -> bool:
        granted = self._access_tokens.get(access_token)
        return (
            granted is not None
            and granted.api_key == api_key
            and granted.until > self._wall_clock()
        )

    def create_request_token(self, api_key: str) -> str:
        """What the browser is sent back with after a login."""
        now = self._wall_clock()
        self._request_tokens = {
            token: granted for token, granted in self._request_tokens.items() if granted.until > now
        }
        token = _text(self._random, 32)
        self._request_tokens[token] = _Granted(api_key, now + REQUEST_TOKEN_LIFE_S)
        return token

    def exchange(self, api_key: str, request_token: str, checksum: str) -> str:
        """A new access token for a request token; raises TokenError."""
        account = self._accounts.get(api_key)
        granted = self._request_tokens.get(request_token)
        if account is None or granted is None or granted.api_key != api_key:
            raise TokenError("Token is invalid or has expired.")
        proof = hashlib.sha256((api_key + request_token + account.api_secret).encode())
        if checksum != proof.hexdigest():
            raise TokenError("Invalid `checksum`.")
        del self._request_tokens[request_token]
        if granted.until <= self._wall_clock():
            raise TokenError("Token is invalid or has expired.")
        return self.create_access_token(api_key)

    def create_access_token(self, api_key: str) -> str:
        if self._single_session:
            self.revoke_all(api_key)
        token = _text(self._random, 32)
        self._grant(api_key, token)
        return token

    def revoke(self, api_key: str, access_token: str) -> None:
        granted = self._access_tokens.get(access_token)
        if granted is not None and granted.api_key == api_key:
            del self._access_tokens[access_token]

    def revoke_all(self, api_key: str | None) -> None:
        """Kill every access token of an account, or of all."""
        self._access_tokens = {
            token: granted
            for token, granted in self._access_tokens.items()
            if api_key is not None and granted.api_key != api_key
        }

    def _grant(self, api_key: str, token: str) -> None:
        until = self._next_expiry() if self._tokens_expire else float("inf")
        self._access_tokens[token] = _Granted(api_key, until)

    def _next_expiry(self) -> float:
        now = dt.datetime.fromtimestamp(self._wall_clock(), IST)
        expiry = dt.datetime.combine(now.date(), _EXPIRY, IST)
        if expiry <= now:
            expiry += dt.timedelta(days=1)
        return expiry.timestamp()
