"""The Quart-Trio application, put together from its blueprints."""

from quart_trio import QuartTrio

from api.health import create_health_blueprint
from api.problems import add_problem_handlers
from ticker.metrics import Metrics
from ticker.status import ServiceStatus


def create_app(status: ServiceStatus, metrics: Metrics) -> QuartTrio:
    """The API over one service's state. Nothing in it runs until a server serves it."""
    app = QuartTrio("ticker")
    app.register_blueprint(create_health_blueprint(status, metrics))
    add_problem_handlers(app)
    return app
