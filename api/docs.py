"""``/``, which shows the way, ``/openapi.json``, and ``/docs``, a page that shows it offline."""

from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
from quart import Blueprint, Response, current_app

from api.auth import public
from api.openapi import create_document
from api.operations import operation
from api.problems import KINDS, ProblemError
from ticker import __version__

_FOLDER: Final = Path(__file__).with_name("docs_page")
_FILES: Final = MappingProxyType(
    {"docs.js": "text/javascript; charset=utf-8", "docs.css": "text/css; charset=utf-8"}
)
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing is loaded from anywhere else, and no script runs that is not a file of ours."""


class Signpost(msgspec.Struct, frozen=True):
    """Where to go from here; paths."""

    name: str = "ticker"
    version: str = __version__
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    health: str = "/health"
    metrics: str = "/metrics"


def create_docs_blueprint() -> Blueprint:
    """A signpost, the document, the page and its files, and a page for each kind of problem."""
    blueprint = Blueprint("documentation", __name__)
    page = (_FOLDER / "docs.html").read_bytes()
    files = {name: (_FOLDER / name).read_bytes() for name in _FILES}
    made: list[dict[str, Any]] = []  # at most one: it takes ten milliseconds of the event loop

    @blueprint.get("/")
    @public
    @operation()
    async def signpost() -> Signpost:
        """What this is, and where its documentation, health and metrics are."""
        return Signpost()

    @blueprint.get("/openapi.json")
    @public
    @operation()
    async def openapi() -> dict[str, Any]:
        """This documentation for programs: OpenAPI 3.1."""
        if not made:
            made.append(create_document(current_app))
        return made[0]

    @blueprint.get("/docs")
    @public
    @operation(content_type="text/html")
    async def docs() -> Response:
        """This documentation for people."""
        return _file(page, "text/html; charset=utf-8")

    @blueprint.get("/docs/<name>")
    @public
    async def docs_file(name: str) -> Response:
        """A file of the documentation page."""
        if name not in files:
            raise ProblemError(404, "the page has no such file")
        return _file(files[name], _FILES[name])

    @blueprint.get("/problems/<name>")
    @public
    @operation(content_type="text/plain", problems=(404,))
    async def problem_page(name: str) -> Response:
        """What a kind of problem means, in words: the ``type`` of a problem document leads here."""
        kind = KINDS.get(name)
        if kind is None:
            raise ProblemError(404, "there is no such kind of problem")
        text = f"{kind.title} (HTTP {kind.status})\n\n{kind.meaning}\n"
        return _file(text.encode(), "text/plain; charset=utf-8")

    return blueprint


def _file(content: bytes, content_type: str) -> Response:
    response = Response(content, content_type=content_type)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    return response
