"""The Quart-Trio application, put together from its blueprints."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from quart import Blueprint
from quart_trio import QuartTrio

from api.health import create_health_blueprint
from api.market import create_market_blueprint
from api.problems import add_problem_handlers
from ticker.metrics import Metrics
from ticker.status import ServiceStatus


def create_app(
    status: ServiceStatus,
    metrics: Metrics,
    *,
    wall_clock: Callable[[], float] = time.time,
    market_hours_file: Path | None = None,
    blueprints: Iterable[Blueprint] = (),
) -> QuartTrio:
    """The API over one service's state. Nothing in it runs until a server serves it.

    ``wall_clock``: UNIX seconds. ``market_hours_file`` replaces the one of the package.
    ``blueprints``: what else to serve.
    """
    app = QuartTrio("ticker")
    app.register_blueprint(create_health_blueprint(status, metrics))
    app.register_blueprint(create_market_blueprint(wall_clock, market_hours_file))
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    add_problem_handlers(app)
    return app
