"""What happens around every request: its id, who asks, how often, one line in the log."""

import ipaddress
import re
import uuid
from collections.abc import Callable, Collection
from typing import Final

import structlog
import trio
from quart import Response, g, request, websocket
from quart.typing import ResponseTypes
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from api.auth import Access, need_of
from api.cross_origin import answer_preflight, share
from api.problems import ProblemError, whole_seconds
from api.rate_limits import Allowance, RateLimits
from ticker.control_metrics import ControlMetrics
from ticker.errors import StoreError

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNLIMITED: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""A probe that is refused would have the service restarted for somebody else's haste."""

_IPV4: Final = 4
_PREFIX: Final = 64
"""Bits of an IPv6 address that tell one network from another (RFC 4291)."""

HEADERS_MAX: Final = 16 * 1024
"""Bytes of names and values. The server refuses longer ones itself while they are incomplete, but
lets through what arrives in one piece."""

Observe = Callable[[str, str, int, float], None]
"""Told of each request: method, route, status, seconds."""


def ignore(method: str, route: str, status: int, seconds: float) -> None:
    """Observe nothing."""


def create_observe(metrics: ControlMetrics) -> Observe:
    """Count each request, and how long it took."""

    def observe(method: str, route: str, status: int, seconds: float) -> None:
        metrics.requests.labels(method, route, str(status)).inc()
        metrics.request_seconds.labels(method, route).observe(seconds)

    return observe


def add_request_steps(
    app: QuartTrio,
    access: Access,
    limits: RateLimits,
    observe: Observe,
    origins: Collection[str] = (),
) -> None:
    """Number, admit, count and log every request that the app gets.

    ``origins``: whose pages may ask. Their preflights bring no key and are not counted.
    """
    _add_websocket_steps(app)

    @app.before_request
    async def begin() -> None:
        _number(request.headers)
        if sum(len(name) + len(value) for name, value in request.headers) > HEADERS_MAX:
            raise ProblemError(431, f"the headers are longer than {HEADERS_MAX} bytes")

    @app.before_request
    async def preflight() -> Response | None:
        return answer_preflight(origins)

    @app.before_request
    async def admit() -> None:
        rule = request.url_rule
        if rule is not None and rule.rule in _UNLIMITED:
            return
        address = f"address:{_network(request.remote_addr or '')}"
        need = need_of(app.view_functions.get(request.endpoint or ""))
        is_public = rule is None or need == "nothing"
        try:
            g.principal = None if is_public else await access.identify(request.headers)
        except (ProblemError, StoreError):
            # a good key is heard however many bad ones its address has sent
            _count(limits, address)
            raise
        _count(limits, g.principal.name if g.principal else address)
        if is_public:
            return
        if g.principal is None:
            raise access.refusal("this route needs an API key or a token")
        if need not in g.principal.scopes:
            raise ProblemError(403, f"this needs the scope {need!r}")

    @app.after_request
    async def end(response: Response) -> Response:
        _add_headers(response)
        share(response, origins)
        if response.status_code == 413 and request.http_version.startswith("1"):
            # the server hangs up on a body that it has not read; HTTP/2 has no such header
            response.headers["Connection"] = "close"
        route = request.url_rule.rule if request.url_rule is not None else "unknown"
        method = request.method if request.method in _METHODS else "other"
        seconds = trio.current_time() - g.started_at
        observe(method, route, response.status_code, seconds)
        structlog.get_logger().info(
            "request",
            method=method,
            route=route,
            status=response.status_code,
            ms=round(seconds * 1000, 1),
            caller=g.principal.name if g.principal else None,
        )
        return response


def _add_websocket_steps(app: QuartTrio) -> None:
    """There is no WebSocket here: whoever asks for one gets a problem like any other."""

    @app.before_websocket
    async def begin() -> None:
        _number(websocket.headers)

    @app.after_websocket
    async def end(response: ResponseTypes | None) -> ResponseTypes | None:
        if isinstance(response, Response):
            _add_headers(response)
        return response


def _number(headers: Headers) -> None:
    given = headers.get("X-Request-ID", "")
    g.started_at = trio.current_time()
    g.request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
    g.principal = None
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _network(address: str) -> str:
    """Whom an address stands for: in IPv6 everybody has 2^64 of them."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == _IPV4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, _PREFIX), strict=False))


def _count(limits: RateLimits, name: str) -> None:
    allowance: Allowance = limits.take_nowait(name)
    g.allowance = allowance
    if allowance.retry_after_s > 0:
        raise ProblemError(
            429,
            f"more than {allowance.limit} requests a minute",
            kind="rate-limited",
            headers=(("Retry-After", whole_seconds(allowance.retry_after_s)),),
        )


def _add_headers(response: Response) -> None:
    response.headers["X-Request-ID"] = g.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    allowance: Allowance | None = g.get("allowance")
    if allowance is not None:  # draft-ietf-httpapi-ratelimit-headers-10
        response.headers["RateLimit-Policy"] = f'"requests";q={allowance.limit};w=60'
        reset = whole_seconds(allowance.reset_s)
        response.headers["RateLimit"] = f'"requests";r={allowance.remaining};t={reset}'
