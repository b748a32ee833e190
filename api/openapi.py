"""The API's OpenAPI 3.1 document, made from the routes' own signatures."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from quart import Quart

from api.auth import Need, need_of
from api.operations import JSON, Operation, operation_of
from api.problems import PROBLEM_JSON, Problem

Json = dict[str, Any]

_PART: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_SCHEMAS: Final = "#/components/schemas/{name}"
_SECURITY: Final = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a JSON Web Token of the user service (RS256).",
    },
}
_ALL_HEADERS: Final = {
    "X-Request-ID": "The request's own id, or the one that it was given.",
    "RateLimit": "Requests left, and seconds until all are allowed again.",
}
_EVERYWHERE: Final = (422, 429, 431, 500, 503)
_TEXTS: Final = frozenset({"summary", "description"})
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

DESCRIPTION: Final = """\
Steers the ticker: which instruments are streamed over which accounts, and what is known of them.

Errors are problem documents (RFC 9457) whose `errors` name the fields at fault. Every answer
carries `X-Request-ID`. Times are answered with their offset; `/history` alone takes one without,
as India's. Dates are India's; prices are in rupees."""


def _any_schema(kind: type) -> Json:
    """``object`` stands for anything that JSON can hold."""
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError(f"{kind} has no schema")


class _Route(msgspec.Struct, frozen=True):
    path: str
    method: str
    need: Need
    name: str
    described: Operation


def create_document(app: Quart) -> Json:
    """The OpenAPI document of all routes that were made by ``operation``."""
    routes = sorted(_routes(app), key=lambda route: (route.path, route.method))
    types = [kind for route in routes for kind in _types(route.described)]
    found, components = msgspec.json.schema_components(
        [*types, Problem], ref_template=_SCHEMAS, schema_hook=_any_schema
    )
    schemas = iter(found)
    paths: dict[str, Json] = {}
    for route in routes:
        own = [next(schemas) for _ in _types(route.described)]
        paths.setdefault(route.path, {})[route.method.lower()] = _describe(route, own, components)
    queries = {route.described.query for route in routes if route.described.query}
    for query in queries:  # it stands in each route as parameters
        components.pop(query.__name__, None)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "ticker", "version": "1", "description": DESCRIPTION},
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in sorted({route.name for route in routes})],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }
    return cast("Json", _marked_down(document))


def _marked_down(part: Any) -> Any:
    """Docstrings as the CommonMark that such a document holds: one backtick, and no indent."""
    if isinstance(part, list):
        return [_marked_down(each) for each in part]
    if not isinstance(part, dict):
        return part
    return {
        name: (
            inspect.cleandoc(value).replace("``", "`")
            if name in _TEXTS and isinstance(value, str)
            else _marked_down(value)
        )
        for name, value in part.items()
    }


def _routes(app: Quart) -> Iterator[_Route]:
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        described = operation_of(view)
        if described is None:
            continue
        for method in sorted(_METHODS & set(rule.methods or ())):
            path = _PART.sub(r"{\1}", rule.rule)
            tag = rule.endpoint.partition(".")[0].replace("_", " ")
            yield _Route(path, method, need_of(view), tag, described)


def _types(described: Operation) -> list[Any]:
    """What of a route has a schema, in this order: answer, body, query, parts of the path."""
    bodies = (described.answer, described.body, described.query)
    return [*(kind for kind in bodies if kind is not None), *described.path.values()]


def _describe(route: _Route, own: Sequence[Json], components: Mapping[str, Json]) -> Json:
    described, schemas = route.described, iter(own)
    answer = next(schemas) if described.answer is not None else {"type": "string"}
    body = next(schemas) if described.body is not None else None
    parameters: list[Json] = []
    if described.query is not None:
        next(schemas)
        parameters = list(_query_parameters(components[described.query.__name__]))
    for name, schema in zip(described.path, schemas, strict=True):
        parameters.insert(0, _parameter(name, "path", schema, required=True))
    result: Json = {
        "tags": [route.name],
        "summary": described.summary,
        "operationId": f"{route.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', route.path)}",
        "responses": _responses(route, answer, has_parameters=bool(parameters)),
    }
    if described.description:
        result["description"] = described.description
    if parameters:
        result["parameters"] = parameters
    if body is not None:
        result["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    if route.need == "nothing":
        result["security"] = []
    else:
        result["security"] = [{"ApiKey": []}, {"Bearer": []}]
        result["x-scope"] = route.need
    return result


def _query_parameters(schema: Json) -> Iterator[Json]:
    required = schema.get("required", ())
    for name, kind in schema["properties"].items():
        yield _parameter(name, "query", kind, required=name in required)


def _parameter(name: str, place: str, schema: Json, *, required: bool) -> Json:
    """A parameter. None is not a value that a query can hold: leaving it out says that."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
        schema = {**kinds[0], **rest}
    found: Json = {"name": name, "in": place, "required": required, "schema": schema}
    description = schema.get("description")
    return found | {"description": description} if description else found


def _responses(route: _Route, answer: Json, *, has_parameters: bool) -> Json:
    described = route.described
    headers = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in {**_ALL_HEADERS, **described.headers}.items()
    }
    content = {described.content_type: {"schema": answer}}
    found: Json = {
        str(status): {"description": _phrase(status), "headers": headers, "content": content}
        for status in (described.status, *described.also)
    }
    for status in sorted(_problems(route, has_parameters=has_parameters)):
        answered = found.setdefault(str(status), {"description": _phrase(status), "content": {}})
        schema = {"$ref": _SCHEMAS.format(name=Problem.__name__)}
        answered["content"] = {**answered["content"], PROBLEM_JSON: {"schema": schema}}
    return found


def _problems(route: _Route, *, has_parameters: bool) -> set[int]:
    found = {*_EVERYWHERE, *route.described.problems}
    if route.need != "nothing":
        found |= {401, 403}
    if route.described.body is not None:
        found |= {400, 408, 413, 415}
    return found


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
