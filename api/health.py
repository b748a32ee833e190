"""``/livez``, ``/readyz``, ``/health`` and ``/metrics``."""

import datetime as dt
from typing import Any

import msgspec
from quart import Blueprint, Response
from quart import abort as abort_request

from ticker.metrics import Metrics
from ticker.status import ServiceStatus


def create_health_blueprint(status: ServiceStatus, metrics: Metrics) -> Blueprint:
    """The probes and the summary, read from ``status`` at each request."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/livez")
    async def livez() -> Response:
        """The process answers. Looks at no dependency: a Redis outage must not restart us."""
        return _json({"status": "ok"})

    @blueprint.get("/readyz")
    async def readyz() -> Response:
        """200 if instruments are loaded, Redis takes ticks and at least one account is live."""
        checks = readiness(status)
        return _json(checks, status=200 if checks["ready"] else 503)

    @blueprint.get("/readyz/accounts/<account_id>")
    async def account_readyz(account_id: str) -> Response:
        """200 if every planned connection of this account is live."""
        if account_id not in status.account_ids:
            abort_request(404, f"there is no account {account_id!r}")
        body = account_summary(status, account_id)
        return _json(body, status=200 if body["live"] else 503)

    @blueprint.get("/health")
    async def health() -> Response:
        """The human summary; always 200."""
        return _json(health_summary(status))

    @blueprint.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.render(), content_type="text/plain; version=0.0.4; charset=utf-8")

    return blueprint


def readiness(status: ServiceStatus) -> dict[str, Any]:
    """What ``/readyz`` says."""
    accounts = {name: status.account_is_live(name) for name in status.account_ids}
    instruments = status.catalogue.loaded_at is not None
    redis = status.publisher.connected and status.publisher.circuit == "closed"
    return {
        "ready": instruments and redis and any(accounts.values()) and not status.draining,
        "draining": status.draining,
        "instruments": instruments,
        "redis": redis,
        "accounts": accounts,
    }


def account_summary(status: ServiceStatus, account_id: str) -> dict[str, Any]:
    """One account in ``/health``: its connections, and when its last tick arrived."""
    feeds = status.account_feeds(account_id)
    return {
        "account_id": account_id,
        "live": status.account_is_live(account_id),
        "instrument_count": sum(feed.subscribed for feed in feeds),
        "last_tick_at": _iso(status.engine.last_tick_at.get(account_id)),
        "connections": [
            {
                "connection_id": str(feed.connection),
                "state": feed.state,
                "since": _iso(feed.since),
                "subscribed": feed.subscribed,
                "target": feed.target,
                "reconnects": feed.reconnects,
                "last_error": feed.last_error,
            }
            for feed in feeds
        ],
    }


def health_summary(status: ServiceStatus) -> dict[str, Any]:
    """What ``/health`` says."""
    accounts = [account_summary(status, name) for name in status.account_ids]
    publisher, catalogue = status.publisher, status.catalogue
    ready = readiness(status)
    running = ready["ready"] and all(account["live"] for account in accounts)
    return {
        "status": "ok" if running else "degraded",
        "environment": status.environment,
        "ticker": {
            "running": any(account["live"] for account in accounts),
            "started_at": _iso(status.started_at),
            "active_subscriptions": catalogue.subscriptions,
            "accounts": accounts,
        },
        "dependencies": {
            "redis": {
                "status": "ok" if ready["redis"] else "unavailable",
                "circuit": publisher.circuit,
                "pending": publisher.pending,
                "last_published_at": _iso(publisher.last_acknowledged_at),
                "last_error": publisher.last_error,
            },
            "instrument_registry": {
                "status": "ok" if catalogue.loaded_at is not None else "loading",
                "cached_instruments": catalogue.instruments,
                "last_refresh": _iso(catalogue.loaded_at),
                "last_error": catalogue.last_error,
            },
        },
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status=status, content_type="application/json")
