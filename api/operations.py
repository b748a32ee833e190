"""A route's handler as a typed function: what it takes and answers stands in its signature.

::

    @blueprint.get("/subscriptions/<token>")
    @requires("read")
    @operation(problems=(404,))
    async def show(token: InstrumentToken) -> SubscriptionRow: ...

``query`` and ``body`` are structs by these names; every other parameter is a part of the path.
The same signature is what ``/openapi.json`` says, so that the two cannot differ.
"""

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import trio
from quart import Response, request

from api.field_errors import explain, show_name
from api.problems import FieldError, Headers, ProblemError

T = TypeVar("T")
Handler = Callable[..., Awaitable[Any]]

JSON: Final = "application/json"
DEADLINE_S: Final = 10.0
"""How long a handler may take. A transaction has five seconds for a connection and five to run;
when PostgreSQL is frozen, the answer is 503 within this."""

_OPERATION: Final = "__api_operation__"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


InstrumentToken = Annotated[
    int, msgspec.Meta(ge=1, le=2**32 - 1, description="The broker's number of an instrument.")
]
AccountId = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_-]{1,50}$(?!\n)",
        extra={"words": "a text of 1 to 50 letters, digits, _ and -"},
    ),
]
"""``$`` alone would let a line feed pass at the end. ``words`` are for whoever sent another."""
Text = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^\x00-\x1f\x7f]{1,100}$(?!\n)",
        extra={"words": "a text of 1 to 100 characters on one line"},
    ),
]
"""A short text on one line."""
Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Parent of what a query string may hold; a name that is not here is refused."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a handler returns if a body alone does not say it all."""

    body: T
    status: int = 200
    headers: Headers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a route takes and answers. ``answer`` is None if ``content_type`` is not JSON."""

    summary: str
    description: str
    path: Mapping[str, Any]
    query: type[msgspec.Struct] | None
    body: type[msgspec.Struct] | None
    answer: Any
    status: int
    also: tuple[int, ...]
    problems: tuple[int, ...]
    headers: Mapping[str, str]
    content_type: str


def operation(
    *,
    status: int = 200,
    also: Iterable[int] = (),
    problems: Iterable[int] = (),
    headers: Mapping[str, str] = MappingProxyType({}),
    content_type: str = JSON,
    deadline_s: float = DEADLINE_S,
) -> Callable[[Handler], Callable[..., Awaitable[Response]]]:
    """Make a view of a typed function.

    It answers with ``status``; ``also``: other statuses with the same body. ``problems``: those
    of its own, besides what every route may answer. ``headers`` of its answers, with a
    description. After ``deadline_s`` it is cancelled and answers 503.
    """

    def make(handler: Handler) -> Callable[..., Awaitable[Response]]:
        described = _describe(
            handler,
            status=status,
            also=tuple(also),
            problems=tuple(problems),
            headers=headers,
            content_type=content_type,
        )

        @functools.wraps(handler)
        async def view(**path: object) -> Response:
            with trio.move_on_after(deadline_s):
                arguments: dict[str, Any] = {
                    name: _convert(path, name, kind) for name, kind in described.path.items()
                }
                query = _read_query(described.query)
                if described.query is not None:
                    arguments["query"] = query
                if described.body is not None:
                    arguments["body"] = await _read_body(described.body)
                return _respond(await handler(**arguments), status)
            raise ProblemError(
                503, f"no answer within {deadline_s:g} s", kind="too-slow", headers=_RETRY
            )

        setattr(view, _OPERATION, described)
        return view

    return make


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """What a view takes and answers, if it was made by ``operation``."""
    described: Operation | None = getattr(view, _OPERATION, None)
    return described


_RETRY: Final = (("Retry-After", "1"),)


def _describe(handler: Handler, **details: Any) -> Operation:
    hints = get_type_hints(handler, include_extras=True)
    answer = hints.pop("return")
    if get_origin(answer) is Answer:
        (answer,) = get_args(answer)
    summary, _, description = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
    return Operation(
        summary=" ".join(summary.split()),
        description=description,
        query=hints.pop("query", None),
        body=hints.pop("body", None),
        answer=None if answer is Response else answer,
        path=hints,
        **details,
    )


def _plain(value: Any) -> Any:
    """Frozen mappings are objects in JSON too."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not for JSON")


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain)


def _respond(answer: Any, status: int) -> Response:
    if isinstance(answer, Response):
        return answer
    if not isinstance(answer, Answer):
        answer = Answer(answer, status)
    response = Response(_ENCODER.encode(answer.body), answer.status, content_type=JSON)
    for name, value in answer.headers:
        response.headers[name] = value
    return response


def _convert(path: Mapping[str, object], name: str, kind: Any) -> Any:
    text = str(path[name])
    _refuse_control(name, text)
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(explain(error, kind, name=name, is_text=True)) from None


def _read_query(kind: type[msgspec.Struct] | None) -> msgspec.Struct | None:
    given: dict[str, str] = {}
    for name, value in request.args.items(multi=True):
        _refuse_control(name, value)
        if name in given:
            raise _field_problem(show_name(name), "is given more than once")
        if value.lower() == "null":  # which msgspec would take for None
            raise _field_problem(show_name(name), "has no value: leave it out")
        given[name] = value
    if kind is None:
        if given:
            name = show_name(next(iter(given)))
            raise _field_problem(name, "is not known here: this route has no parameters")
        return None
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(explain(error, kind, is_text=True)) from None


async def _read_body(kind: type[msgspec.Struct]) -> msgspec.Struct:
    _require_json()
    raw = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    if b"\\u0000" in raw:  # JSON can hold a NUL in this way only, and PostgreSQL in none
        raise _field_problem("", "has a text with a NUL in it, which nothing here can hold")
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(explain(error, kind)) from None
    except msgspec.DecodeError as error:
        says = str(error).removeprefix("JSON is malformed: ") if raw else "it is empty"
        raise ProblemError(400, f"the body is not JSON: {says}") from None
    except UnicodeDecodeError:
        raise ProblemError(400, "the body is not JSON: a text in it is not UTF-8") from None
    except RecursionError:
        raise ProblemError(400, "the body is nested too deeply") from None


def _require_json() -> None:
    """JSON is UTF-8 (RFC 8259), and nothing here unpacks a body."""
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != JSON or charset not in {"utf-8", "utf8", "us-ascii"}:
        raise ProblemError(415, f"the body has to be {JSON}, in UTF-8: Content-Type has to say so")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(
            415, "the body has to come unpacked", headers=(("Accept-Encoding", "identity"),)
        )


def _refuse_control(name: str, text: str) -> None:
    """PostgreSQL takes no NUL in a text; nothing that we look up has a line feed in it."""
    if _CONTROL.search(text):
        raise _field_problem(show_name(name), "has control characters in it")


def _field_problem(field: str, message: str) -> ProblemError:
    return _refusal(FieldError(field, message))


def _refusal(error: FieldError) -> ProblemError:
    """The first thing that does not fit."""
    detail = f"{error.field or 'the body'} {error.message}"
    return ProblemError(422, detail, kind="invalid-request", errors=(error,))
