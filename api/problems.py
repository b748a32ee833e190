"""Errors as RFC 9457 problem documents: no route answers HTML by accident."""

from http import HTTPStatus

import msgspec
import structlog
from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

PROBLEM_JSON = "application/problem+json"


def problem(status: int, detail: str) -> Response:
    """A problem document with the status's own title."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return Response(msgspec.json.encode(body), status=status, content_type=PROBLEM_JSON)


def add_problem_handlers(app: QuartTrio) -> None:
    """Answer every HTTP error, and every bug in a handler, with a problem document."""

    async def http_error(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.description or error.name)
        for name, value in error.get_headers():
            if name.lower() not in {"content-type", "content-length"}:
                response.headers[name] = value
        return response

    async def bug(error: Exception) -> Response:
        structlog.get_logger().error("request_failed", exc_info=error)
        return problem(500, "The request could not be handled; the service's log says why.")

    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, bug)
