"""``/livez``, ``/readyz``, ``/health`` and ``/metrics``."""

from collections.abc import Callable

import msgspec
from quart import Blueprint, Response

from api.auth import public
from api.health_report import account_health, health_summary, readiness
from api.health_views import AccountHealth, Health, Readiness
from api.operations import AccountId, Answer, operation
from api.problems import ProblemError
from ticker.metrics import Metrics
from ticker.status import ServiceStatus

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Alive(msgspec.Struct, frozen=True):
    status: str


def create_health_blueprint(
    status: ServiceStatus,
    metrics: Metrics,
    wall_clock: Callable[[], float],
) -> Blueprint:
    """The probes and the summary, read from ``status`` at each request."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/livez")
    @public
    @operation()
    async def livez() -> Alive:
        """The process answers. Looks at no dependency: a Redis outage must not restart us."""
        return Alive("ok")

    @blueprint.get("/readyz")
    @public
    @operation(also=(503,))
    async def readyz() -> Answer[Readiness]:
        """200 if instruments are loaded, Redis and the database work and an account is live."""
        checks = readiness(status)
        return Answer(checks, status=200 if checks.ready else 503)

    @blueprint.get("/readyz/accounts/<account_id>")
    @public
    @operation(also=(503,), problems=(404,))
    async def account_readyz(account_id: AccountId) -> Answer[AccountHealth]:
        """200 if every planned connection of this account is live, and there is one."""
        if account_id not in status.account_ids:
            raise ProblemError(404, f"there is no account {account_id!r}", kind="unknown-account")
        body = account_health(status, account_id)
        return Answer(body, status=200 if body.live else 503)

    @blueprint.get("/health")
    @public
    @operation()
    async def health() -> Health:
        """The human summary; always 200."""
        return health_summary(status, wall_clock())

    @blueprint.get("/metrics")
    @public
    @operation(content_type="text/plain")
    async def prometheus() -> Response:
        """Every metric, in Prometheus's text format."""
        return Response(metrics.render(), content_type=PROMETHEUS_TEXT)

    return blueprint
