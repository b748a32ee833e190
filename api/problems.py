"""Errors as RFC 9457 problem documents: no route answers HTML by accident."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import msgspec
import structlog
from quart import Response, g, request
from werkzeug.exceptions import HTTPException

from ticker import errors

PROBLEM_JSON: Final = "application/problem+json"

Headers = tuple[tuple[str, str], ...]


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one parameter or member of the body."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """An RFC 9457 problem document. ``request_id`` is also in the service's log."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: tuple[FieldError, ...] = ()


class ProblemKind(msgspec.Struct, frozen=True):
    """A sort of problem, with a page of its own at ``/problems/{name}``."""

    name: str
    status: int
    title: str
    meaning: str


class ProblemError(Exception):
    """The request ends here, with a problem. ``kind`` is a name in ``KINDS``, or empty."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        headers: Headers = (),
        errors: Iterable[FieldError] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = headers
        self.errors = tuple(errors)


_KINDS: Final = (
    ProblemKind(
        "unknown-instrument",
        404,
        "Unknown instrument",
        "No instrument of today has this token or symbol. Tokens of derivatives change hands after "
        "an expiry: look the contract up with GET /instruments, or with its day if it is gone.",
    ),
    ProblemKind(
        "unknown-account",
        404,
        "Unknown account",
        "There is no such trading account. 422 if it was named in a body or a query.",
    ),
    ProblemKind("unknown-item", 404, "Not found", "Nothing has this id."),
    ProblemKind(
        "no-capacity",
        409,
        "No capacity",
        "The accounts carry no more instruments: each has three sockets of 3,000.",
    ),
    ProblemKind("conflict", 409, "Conflict", "What was to be created exists already."),
    ProblemKind(
        "invalid-request",
        422,
        "Invalid request",
        "The request is well-formed, but a value in it cannot be used; errors names each.",
    ),
    ProblemKind(
        "store-unavailable",
        503,
        "Unavailable for now",
        "PostgreSQL does not answer or takes no writes, or what it is to be asked about is not "
        "loaded yet. Streaming goes on from memory; the request can be repeated later.",
    ),
    ProblemKind(
        "too-slow", 503, "Too slow", "The answer was not there within the time of this route."
    ),
    ProblemKind(
        "not-configured",
        503,
        "Not configured",
        "The service lacks what the answer needs, such as the market hours of a year, or the key "
        "that secrets are stored under. Asking again does not help: a person has to set it.",
    ),
    ProblemKind(
        "broker-busy",
        503,
        "Broker busy",
        "The broker's rate limit leaves no room, or it has failed too often and is left alone for "
        "a while. Retry-After says when to ask again.",
    ),
    ProblemKind(
        "broker-unreachable", 502, "Broker unreachable", "The broker gave no usable answer."
    ),
    ProblemKind(
        "broker-timeout",
        504,
        "Broker too slow",
        "The broker did not answer in time. A read was asked for again as often as time allowed; a "
        "login may have taken effect there, and is to be begun anew.",
    ),
    ProblemKind(
        "broker-refused", 502, "Broker refused", "The broker answered the call with an error."
    ),
    ProblemKind(
        "login-needed",
        503,
        "Account has to log in",
        "The account has no valid access token: they end at 06:00 in India every day. "
        "GET /trading-accounts/{account_id}/login-url says where to log in.",
    ),
    ProblemKind(
        "rate-limited",
        429,
        "Too many requests",
        "The key, or without one the address, has used its requests up. Retry-After says when the "
        "next one is let through.",
    ),
)
KINDS: Final[Mapping[str, ProblemKind]] = MappingProxyType({kind.name: kind for kind in _KINDS})

_OF_ERRORS: Final[Mapping[type[errors.TickerError], str]] = MappingProxyType(
    {
        errors.UnknownInstrumentError: "unknown-instrument",
        errors.UnknownAccountError: "unknown-account",
        errors.UnknownItemError: "unknown-item",
        errors.CapacityError: "no-capacity",
        errors.ConflictError: "conflict",
        errors.RequestError: "invalid-request",
        errors.ConfigurationError: "not-configured",
        errors.StoreError: "store-unavailable",
        errors.BrokerBusyError: "broker-busy",
        errors.BrokerTimeoutError: "broker-timeout",
        errors.BrokerUnreachableError: "broker-unreachable",
        errors.BrokerResponseError: "broker-refused",
    }
)


def describe_error(error: errors.TickerError) -> ProblemError | None:
    """The problem that an error of the domain is; None for one that no request may cause."""
    if isinstance(error, errors.BrokerResponseError) and error.error_type == "TokenException":
        return ProblemError(503, "the account has to log in", kind="login-needed")
    for parent in type(error).__mro__:
        kind = _OF_ERRORS.get(parent)
        if kind is not None:
            break
    else:
        return None
    field = error.field if isinstance(error, errors.RequestError) else None
    headers: Headers = ()
    if isinstance(error, errors.BrokerBusyError):
        headers = (("Retry-After", whole_seconds(error.retry_after_s)),)
    elif isinstance(error, errors.StoreError):
        headers = (("Retry-After", "1"),)
    status = KINDS[kind].status
    if isinstance(error, errors.UnknownAccountError) and "account_id" not in _path():
        status = 422  # the route is right, a value that was sent with it is not
    return ProblemError(
        status,
        str(error),
        kind=kind,
        headers=headers,
        errors=() if field is None else (FieldError(field, str(error)),),
    )


def problem(error: ProblemError) -> Response:
    """The answer: the document, its headers, and the id of the present request."""
    kind = KINDS.get(error.kind)
    document = Problem(
        type=f"/problems/{kind.name}" if kind else "about:blank",
        title=kind.title if kind else _phrase(error.status),
        status=error.status,
        detail=error.detail,
        request_id=g.get("request_id"),
        errors=error.errors,
    )
    response = Response(
        msgspec.json.encode(document), status=error.status, content_type=PROBLEM_JSON
    )
    for name, value in error.headers:
        response.headers.add(name, value)
    return response


def answer_error(error: Exception) -> Response:
    """Answer whatever a handler raised; what is nobody's fault but ours is logged."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ProblemError):
        return problem(error)
    if isinstance(error, HTTPException):
        return _http_problem(error)
    log = structlog.get_logger()
    if isinstance(error, errors.TickerError) and (described := describe_error(error)) is not None:
        if error.detail:
            log.warning("request_refused", error=str(error), detail=error.detail)
        return problem(described)
    log.error("request_failed", exc_info=error)
    detail = "The request could not be handled; the service's log says why."
    return problem(ProblemError(500, detail))


def whole_seconds(seconds: float) -> str:
    """A wait as ``Retry-After`` has it: rounded up, at least one second."""
    return str(max(1, -int(-seconds // 1)))


def _path() -> Mapping[str, object]:
    return request.view_args or {}


_PLAIN: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "the request cannot be understood",
        404: "there is nothing at this path: /docs tells every route",
        405: "this path does not take this method: Allow names those that it takes",
        408: "the body did not arrive in time",
        413: "the body is longer than this service takes",
    }
)
"""The framework's words are for a person who typed a URL."""


def _http_problem(error: HTTPException) -> Response:
    if error.response is not None:
        return problem(ProblemError(error.response.status_code, "Not available here."))
    kept = {"content-type", "content-length"}
    headers = tuple(
        (name, value) for name, value in error.get_headers() if name.lower() not in kept
    )
    detail = _PLAIN.get(error.code or 500) or error.description or error.name
    return problem(ProblemError(error.code or 500, detail, headers=headers))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
