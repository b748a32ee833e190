"""The broker's REST API, typed: sessions, profile, instruments, quotes and candles."""

import datetime as dt
import http.cookiejar
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import httpx
import msgspec

from ticker.accounts.sessions import Session, Sessions
from ticker.calendar.india import INDIA
from ticker.circuit_breaker import CircuitState
from ticker.errors import BrokerBusyError, BrokerError, BrokerResponseError, UnknownAccountError
from ticker.kite.calls import (
    INPUT_EXCEPTION,
    Call,
    Caller,
    Observe,
    OnError,
    RestPolicy,
    ignore_error,
)
from ticker.kite.limits import BrokerClock, RateLimits
from ticker.kite.login import create_checksum
from ticker.kite.models import (
    LAST_PRICE_KEYS_MAX,
    QUOTE_KEYS_MAX,
    Candles,
    Envelope,
    Interval,
    IssuedSession,
    LastPrice,
    OhlcQuote,
    Profile,
    Quote,
    parse_candles,
)
from ticker.latest import Latest

T = TypeVar("T")

USER_AGENT: Final = "ticker/0.1"

_CONNECTIONS_MAX: Final = 32
"""Open at once, of all accounts together; the next call waits for one within its deadline."""


class BrokerRest:
    """One account's calls.

    Every method raises BrokerUnreachableError when there is no usable answer (BrokerTimeoutError:
    none in time), BrokerResponseError when the broker refuses (``error_type`` TokenException:
    somebody has to log in), and BrokerBusyError when our own rate limit or circuit breaker lets no
    call through in time. Reads are repeated after failures that may pass; calls that change
    something never are.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def account_id(self) -> str:
        return self._caller.session.account_id

    @property
    def circuit_state(self) -> CircuitState:
        return self._caller.circuit_state

    @property
    def circuit_failures(self) -> int:
        """Calls that the broker failed, of this session; a refusal is none."""
        return self._caller.circuit_failures

    @property
    def is_ready(self) -> bool:
        """Whether a call would be made at all: a token that holds, and no open circuit."""
        state = self._caller.session.credentials.value.token_state
        return self.circuit_state != "open" and state == "valid"

    async def load_profile(self) -> Profile:
        """Who the account is: the cheapest way to know whether its token holds."""
        call = Call(path="/user/profile", endpoint="profile")
        return await self._caller.read(call, _decoder(Profile))

    def load_instruments(self, exchange: str | None = None) -> AsyncGenerator[bytes, None]:
        """The day's CSV of an exchange, or of all, as it arrives: plain, 64 KiB at most a piece.

        Close it if you do not read to its end (``contextlib.aclosing``).
        """
        path = "/instruments" if exchange is None else f"/instruments/{exchange}"
        return self._caller.stream(Call(path=path, endpoint="instruments"))

    async def load_last_prices(self, keys: Iterable[str]) -> Mapping[str, float]:
        """Last price in rupees by ``EXCHANGE:TRADINGSYMBOL``; a key without data is absent.

        Here and below, keys beyond the broker's maximum are asked for in further calls, which
        have a second each.
        """
        found = await self._quotes("/quote/ltp", keys, LAST_PRICE_KEYS_MAX, LastPrice)
        return {key: quote.last_price for key, quote in found.items()}

    async def load_ohlc(self, keys: Iterable[str]) -> Mapping[str, OhlcQuote]:
        """Last price and the day's range by key."""
        return await self._quotes("/quote/ohlc", keys, LAST_PRICE_KEYS_MAX, OhlcQuote)

    async def load_quotes(self, keys: Iterable[str]) -> Mapping[str, Quote]:
        """Everything the broker shows of an instrument, by key."""
        return await self._quotes("/quote", keys, QUOTE_KEYS_MAX, Quote)

    async def load_candles(
        self,
        token: int,
        interval: Interval,
        since_at: dt.datetime,
        until_at: dt.datetime,
        *,
        continuous: bool = False,
        oi: bool = False,
    ) -> Candles:
        """Candles that open from ``since_at`` to ``until_at``, both aware and both included.

        One call: the broker refuses spans beyond the interval's maximum. ``continuous``: a
        future's expired predecessors before it. The candle that is being formed may be the last.
        """
        call = Call(
            path=f"/instruments/historical/{token}/{interval}",
            endpoint="historical",
            kind="historical",
            query={
                "from": _india(since_at),
                "to": _india(until_at),
                "continuous": int(continuous),
                "oi": int(oi),
            },
        )
        return await self._caller.read(call, partial(parse_candles, oi=oi))

    async def create_session(self, request_token: str, api_secret: str) -> IssuedSession:
        """Exchange what a login ended with for an access token. The token is not set anywhere."""
        api_key = self._caller.session.credentials.value.api_key
        form = {
            "api_key": api_key,
            "request_token": request_token,
            "checksum": create_checksum(api_key, request_token, api_secret),
        }
        call = Call(
            method="POST",
            path="/session/token",
            endpoint="create_session",
            form=form,
            needs_token=False,
        )
        return await self._caller.write(call, _decoder(IssuedSession))

    async def delete_session(self) -> None:
        """Log out: the access token dies, for every program that uses it."""
        credentials = self._caller.session.credentials.value
        query = {"api_key": credentials.api_key, "access_token": credentials.access_token}
        call = Call(method="DELETE", path="/session/token", endpoint="delete_session", query=query)
        await self._caller.write(call, _decoder(bool))

    async def _quotes(
        self, path: str, keys: Iterable[str], most: int, kind: type[T]
    ) -> dict[str, T]:
        decode = _decoder(dict[str, kind])  # type: ignore[valid-type]
        wanted = list(dict.fromkeys(keys))
        found: dict[str, T] = {}
        for at in range(0, len(wanted), most):
            call = Call(
                path=path,
                endpoint="quote",
                kind="quote",
                query={"i": wanted[at : at + most]},
            )
            found |= await self._caller.read(call, decode)
        return found


class Brokers:
    """Every account's REST API, over the connections of one client."""

    def __init__(
        self,
        sessions: Latest[Sessions],
        create_caller: Callable[[Session, RateLimits], Caller],
        wall_clock: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._create_caller = create_caller
        self._clock = BrokerClock(wall_clock)
        # both hold what is of a session that is there, and are thinned out with the sessions
        self._brokers: dict[str, tuple[Session, BrokerRest]] = {}
        self._limits: dict[str, RateLimits] = {}

    def of(self, account_id: str) -> BrokerRest:
        """An account's calls. Raises UnknownAccountError if there is no such account."""
        session = self._sessions.value.get(account_id)
        if session is None:
            raise UnknownAccountError(f"there is no account {account_id!r}", field="account_id")
        known = self._brokers.get(account_id)
        if known is None or known[0] is not session:
            self._forget()
            known = session, BrokerRest(self._caller(session))
            self._brokers[account_id] = known
        return known[1]

    def in_order(self) -> list[BrokerRest]:
        """Every account's calls, those that are ready first."""
        brokers = [self.of(account_id) for account_id in self._sessions.value]
        return sorted(brokers, key=lambda broker: not broker.is_ready)

    async def ask(
        self, question: Callable[[BrokerRest], Awaitable[T]], account_id: str | None = None
    ) -> T:
        """The answer of that account, or of the first that gives one.

        Raises UnknownAccountError if there is no such account, BrokerBusyError if there is none at
        all, and the first one's BrokerError
        if none answers. A refusal that is about the question itself is final.
        """
        brokers = self.in_order() if account_id is None else [self.of(account_id)]
        if not brokers:
            raise BrokerBusyError("there is no account to ask", retry_after_s=5.0)
        errors: list[BrokerError] = []
        for broker in brokers:
            try:
                return await question(broker)
            except BrokerError as error:
                if isinstance(error, BrokerResponseError) and error.error_type == INPUT_EXCEPTION:
                    raise
                errors.append(error)
        raise errors[0]

    def _caller(self, session: Session) -> Caller:
        api_key = session.credentials.value.api_key
        return self._create_caller(
            session, self._limits.setdefault(api_key, RateLimits(self._clock))
        )

    def _forget(self) -> None:
        present = self._sessions.value
        keys = {session.credentials.value.api_key for session in present.values()}
        self._brokers = {name: known for name, known in self._brokers.items() if name in present}
        self._limits = {key: limits for key, limits in self._limits.items() if key in keys}


@asynccontextmanager
async def open_brokers(
    api_root: str,
    sessions: Latest[Sessions],
    *,
    policy: RestPolicy,
    wall_clock: Callable[[], float],
    observe: Observe,
    on_error: OnError = ignore_error,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Brokers]:
    """Every account's REST API; connections are closed on exit. ``transport``: for tests.

    Accounts that come later are found too, and a new access token counts from the next call on.
    """
    # at its usual level this library logs each URL, and that of a logout carries the token
    logging.getLogger("httpx").setLevel(logging.WARNING)
    async with _open_client(api_root, policy.timeout_s, transport) as client:
        create_caller = partial(Caller, client, policy=policy, observe=observe, on_error=on_error)
        yield Brokers(sessions, create_caller, wall_clock)


def _open_client(
    api_root: str, timeout_s: float, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    no_cookies = http.cookiejar.DefaultCookiePolicy(allowed_domains=[])  # they would be shared
    return httpx.AsyncClient(
        base_url=api_root,
        headers={
            "X-Kite-Version": "3",
            "User-Agent": USER_AGENT,
            "Accept-Encoding": "gzip",
        },
        cookies=http.cookiejar.CookieJar(no_cookies),
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=_CONNECTIONS_MAX, keepalive_expiry=30.0),
        follow_redirects=False,
        transport=transport,
    )


def _decoder(kind: type[T]) -> Callable[[bytes], T]:
    envelope = msgspec.json.Decoder(Envelope[kind])  # type: ignore[valid-type]

    def decode(body: bytes) -> T:
        return envelope.decode(body).data

    return decode


def _india(at: dt.datetime) -> str:
    """The broker's wall clock. Raises ValueError for a time without a zone."""
    if at.utcoffset() is None:
        raise ValueError(f"a time without a zone: {at}")
    return f"{at.astimezone(INDIA):%Y-%m-%d %H:%M:%S}"
