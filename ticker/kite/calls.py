"""One account's HTTP calls to the broker: turn, circuit, deadline, answer or error.

Nothing secret leaves through an exception: they carry the endpoint, never the query, the headers
or the text of a library's error, which may quote them.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
import msgspec
import trio

from ticker.accounts.sessions import Session
from ticker.circuit_breaker import BreakerPolicy, CircuitState
from ticker.errors import (
    BrokerError,
    BrokerResponseError,
    BrokerTimeoutError,
    BrokerUnreachableError,
)
from ticker.kite.bodies import CLOSE_S, read_body, stream_body
from ticker.kite.circuit import Circuit
from ticker.kite.limits import CallClass, RateLimits, parse_date
from ticker.kite.models import ErrorEnvelope
from ticker.kite.retry import retry_reads

T = TypeVar("T")
Observe = Callable[[str, str, float], None]
"""Told of each call made: endpoint, outcome, seconds without the wait for a turn. The outcome is
the HTTP status, ``unreachable``, or ``cancelled`` by the caller.
"""

TOKEN_EXCEPTION: Final = "TokenException"  # noqa: S105 - a word of the protocol
"""The broker's error_type for a session that has ended: somebody has to log in."""

INPUT_EXCEPTION: Final = "InputException"
"""The broker's error_type for a call that no account may make like this."""

_OK: Final = 200
_FORBIDDEN: Final = 403
TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_GATEWAY_TIMEOUT: Final = 504
_ERROR_BYTES_MAX: Final = 65_536
_LARGE_BYTES: Final = 65_536  # a larger body is decoded in a thread
_MESSAGE_MAX: Final = 300
_HOLD_MAX_S: Final = 60.0
_MARGIN_S: Final = 0.25
"""How long before its caller's deadline a call gives up, so that the caller learns why."""


class RestPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the broker's REST API.

    ``timeout_s``: one HTTP call, to its last byte. ``deadline_s``: a read with its waits and
    ``attempts``, unless its caller has less time. ``hold_s``: how long a class of calls rests
    after a 429 that names no time. ``body_bytes_max``: of any answer but the instrument dump.
    """

    timeout_s: float = 7.0
    deadline_s: float = 30.0
    attempts: int = 3
    hold_s: float = 2.0
    body_bytes_max: int = 33_554_432
    breaker: BreakerPolicy = BreakerPolicy(failures=5, open_s=15.0, tries=1)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``endpoint`` names it in metrics and errors: without arguments."""

    path: str
    endpoint: str
    kind: CallClass = "other"
    method: str = "GET"
    query: Mapping[str, Any] = {}
    form: Mapping[str, str] | None = None
    needs_token: bool = True


OnError = Callable[[str, Call, BrokerError], None]
"""Told of each attempt that failed, or was not made: account, call, why."""


def ignore_call(endpoint: str, outcome: str, seconds: float) -> None:
    """Observe nothing."""


def ignore_error(account_id: str, call: Call, error: BrokerError) -> None:
    """Do nothing about it; whoever called is told."""


class Caller:
    """One account's way to the broker.

    Every method raises BrokerUnreachableError when there is no usable answer, BrokerTimeoutError
    when that is because there was none in time, BrokerResponseError when the broker refuses, or
    would for want of a token, and BrokerBusyError when no call is made: the rate limit's turn does
    not come in time, or the circuit is open.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        session: Session,
        limits: RateLimits,
        *,
        policy: RestPolicy,
        observe: Observe,
        on_error: OnError,
    ) -> None:
        self.session = session
        self._client = client
        self._limits = limits
        self._policy = policy
        self._observe = observe
        self._on_error = on_error
        self._circuit = Circuit(policy.breaker)

    @property
    def circuit_state(self) -> CircuitState:
        return self._circuit.state

    @property
    def circuit_failures(self) -> int:
        return self._circuit.failures

    async def read(self, call: Call, decode: Callable[[bytes], T]) -> T:
        """The answer to a GET, asked for again after failures that may pass, until the deadline:
        the policy's, or the caller's own if that is sooner.
        """
        deadline = self._deadline()

        async def attempt() -> T:
            with self._errors_told(call):
                return await self._attempt(call, decode, deadline)

        return await retry_reads(attempt, attempts=self._policy.attempts, deadline=deadline)

    async def write(self, call: Call, decode: Callable[[bytes], T]) -> T:
        """The answer to a call that changes something: made once, or not at all."""
        with self._errors_told(call):
            return await self._attempt(call, decode, self._deadline())

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        """The plain body of a GET as it arrives, asked for once; to be closed by its reader.

        Each wait for a piece is bounded by ``timeout_s``, the whole by the caller alone.
        """
        with self._errors_told(call):
            response = await self._open(call)
        pieces = stream_body(response)
        try:
            async for piece in pieces:
                yield piece
        except (httpx.HTTPError, BrokerUnreachableError) as error:
            failure = _unreachable(call, error)
            self._circuit.fail(failure)
            with self._errors_told(call):
                raise failure from None
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):
                await pieces.aclose()
                await response.aclose()

    @contextmanager
    def _errors_told(self, call: Call) -> Iterator[None]:
        try:
            yield
        except BrokerError as error:
            self._on_error(self.session.account_id, call, error)
            raise

    def _deadline(self) -> float:
        now = trio.current_time()
        left_s = max(trio.current_effective_deadline() - now, 0.0)
        return now + min(self._policy.deadline_s, left_s - min(_MARGIN_S, left_s / 10))

    async def _attempt(self, call: Call, decode: Callable[[bytes], T], deadline: float) -> T:
        async with self._turn(call, deadline) as outcome:
            with trio.move_on_at(min(deadline, trio.current_time() + self._policy.timeout_s)):
                response = await self._send(call, outcome)
                try:
                    body = await read_body(response, self._policy.body_bytes_max)
                finally:
                    with trio.move_on_after(CLOSE_S, shield=True):
                        await response.aclose()
                if len(body) < _LARGE_BYTES:
                    return decode(body)
                return await trio.to_thread.run_sync(decode, body)
            raise BrokerTimeoutError("no answer in time")

    async def _open(self, call: Call) -> httpx.Response:
        deadline = self._deadline()
        async with self._turn(call, deadline) as outcome:
            with trio.move_on_at(min(deadline, trio.current_time() + self._policy.timeout_s)):
                return await self._send(call, outcome)
            raise BrokerTimeoutError("no answer in time")

    @asynccontextmanager
    async def _turn(self, call: Call, deadline: float) -> AsyncIterator["_Outcome"]:
        """Wait to be let through; afterwards, teach limit, circuit and metrics what came of it."""
        if call.needs_token and not self.session.credentials.value.access_token:
            message = "the account has no access token: somebody has to log in"
            raise BrokerResponseError(_FORBIDDEN, TOKEN_EXCEPTION, message)
        self._circuit.check()
        limit = self._limits.of(call.kind)
        place = await limit.take(deadline)
        outcome = _Outcome()
        try:
            with self._circuit.trial() as trial:
                try:
                    yield outcome
                except BrokerResponseError as error:
                    trial.is_good = error.status < _SERVER_ERROR
                    raise
                except msgspec.ValidationError as error:
                    trial.is_good = True  # the broker is well, we do not understand it
                    raise _unreachable(call, error) from None
                except (
                    httpx.HTTPError,
                    BrokerUnreachableError,
                    ValueError,  # not JSON, not UTF-8
                    RecursionError,  # JSON that is nested too deeply
                ) as error:
                    trial.is_good = False
                    outcome.status = outcome.status or "unreachable"
                    raise _unreachable(call, error) from None
                else:
                    trial.is_good = True
        finally:
            limit.settle(place, outcome.date_s)
            took_s = trio.current_time() - place.sent_at
            self._observe(call.endpoint, outcome.status or "cancelled", took_s)

    async def _send(self, call: Call, outcome: "_Outcome") -> httpx.Response:
        """The answer, its body unread; raises if it is not 200."""
        credentials = self.session.credentials.value
        headers = {}
        if call.needs_token:
            token = f"token {credentials.api_key}:{credentials.access_token}"
            headers = {b"Authorization": token.encode()}  # as bytes: nothing to encode, or quote
        request = self._client.build_request(
            call.method, call.path, params=call.query, data=call.form, headers=headers
        )
        response = await self._client.send(request, stream=True)
        outcome.status = str(response.status_code)
        if "age" not in response.headers:  # a cache's answer has the time of another one
            outcome.date_s = parse_date(response.headers.get("date"))
        if response.status_code == _OK:
            return response
        try:
            if response.status_code == TOO_MANY:
                self._limits.of(call.kind).hold(self._rest_s(response))
            raise _refusal(response.status_code, await read_body(response, _ERROR_BYTES_MAX))
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):
                await response.aclose()

    def _rest_s(self, response: httpx.Response) -> float:
        """How long to rest after a 429."""
        named = response.headers.get("retry-after", "")
        if named.isdecimal() and len(named) < 4:
            return min(max(float(named), 1.0), _HOLD_MAX_S)
        return self._policy.hold_s


@dataclass(slots=True)
class _Outcome:
    status: str = ""
    date_s: int | None = None


def _unreachable(call: Call, error: Exception) -> BrokerUnreachableError:
    """The error without its cause, which may carry the request, headers and all."""
    if isinstance(error, httpx.HTTPError):
        says = type(error).__name__
        if isinstance(error, httpx.NetworkError):  # the operating system's words
            says = f"{says}: {str(error).replace(error.request.url.host, 'the broker')}"
    elif isinstance(error, BrokerUnreachableError):
        says = str(error)
    else:
        says = "the answer is not the protocol's"
    is_late = isinstance(error, httpx.TimeoutException | BrokerTimeoutError)
    return (BrokerTimeoutError if is_late else BrokerUnreachableError)(f"{call.endpoint}: {says}")


def _refusal(status: int, body: bytes) -> BrokerResponseError | BrokerUnreachableError:
    """The broker's own error where there is one; maintenance pages are HTML."""
    if status == _GATEWAY_TIMEOUT:
        return BrokerTimeoutError(f"HTTP {status}")
    try:
        envelope = msgspec.json.decode(body, type=ErrorEnvelope)
    except (ValueError, RecursionError):
        if status == TOO_MANY:
            return BrokerResponseError(status, "NetworkException", "too many requests")
        return BrokerUnreachableError(f"HTTP {status} without an error body")
    message = (envelope.message or "")[:_MESSAGE_MAX]
    return BrokerResponseError(status, envelope.error_type or "GeneralException", message)
