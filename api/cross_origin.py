"""Which pages of other origins may use the API: CORS, as browsers ask for it (Fetch standard).

A browser alone minds these headers: they keep nobody out who is no page, and open nothing without
a key.
"""

from collections.abc import Collection
from typing import Final

from quart import Response, request

from api.problems import ProblemError

ALLOWED_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE")
ALLOWED_HEADERS: Final = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID")
"""What a page may send besides what every page may."""

EXPOSED_HEADERS: Final = (
    "Link",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
    "X-Total-Count",
)
"""What a page may read besides what every page may."""

PREFLIGHT_AGE_S: Final = 7200
"""How long a browser may remember a preflight's answer: the longest that Chromium does."""


def answer_preflight(origins: Collection[str]) -> Response | None:
    """The answer to a browser that asks whether a page may send a request; None if none asks so.

    It is the same for every path and method, so a page does not learn which routes there are.
    Raises ProblemError for a page of another origin than these.
    """
    asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if not (asks and request.origin):
        return None
    if request.origin not in origins:
        raise ProblemError(
            403, "CORS_ALLOWED_ORIGINS does not name the origin of the page that asks"
        )
    response = Response(b"", status=204)
    del response.headers["Content-Type"]  # there is no content
    response.headers["Access-Control-Allow-Methods"] = ", ".join(ALLOWED_METHODS)
    response.headers["Access-Control-Allow-Headers"] = ", ".join(ALLOWED_HEADERS)
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
    return response


def share(response: Response, origins: Collection[str]) -> None:
    """Let the page that asked read the answer, an error too, if it is of one of these origins."""
    response.vary.add("Origin")  # a cache must not hand one page's answer to another's
    if request.origin in origins:
        response.headers["Access-Control-Allow-Origin"] = request.origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED_HEADERS)
