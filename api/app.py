"""The Quart-Trio application, put together from its blueprints."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quart import Blueprint, Response
from quart_trio import QuartTrio

from api.accounts import create_accounts_blueprint
from api.api_keys import create_api_keys_blueprint
from api.auth import Access
from api.backpressure import create_backpressure_blueprint
from api.broker import create_broker_blueprint
from api.docs import create_docs_blueprint
from api.feeds import create_feeds_blueprint
from api.health import create_health_blueprint
from api.history import create_history_blueprint
from api.instruments import create_instruments_blueprint
from api.market import create_market_blueprint
from api.mock_data import create_mock_data_blueprint
from api.option_chains import create_option_chain_blueprint
from api.problems import answer_error
from api.rate_limits import RateLimits
from api.requests import Observe, add_request_steps, create_observe, ignore
from api.subscriptions import create_subscriptions_blueprint
from ticker.accounts.desk import AccountDesk
from ticker.accounts.logins import Logins
from ticker.board import Board
from ticker.chains.view import IsMock
from ticker.greeks.chains import Chains
from ticker.history.history import History
from ticker.instruments.refreshes import Refreshes
from ticker.instruments.registry import InstrumentRegistry
from ticker.kite.rest import Brokers
from ticker.latest import Latest
from ticker.metrics import Metrics
from ticker.mock_market.switch import MockSwitch
from ticker.planning.reloads import Reloads
from ticker.planning.subscriptions import Subscriptions
from ticker.settings import Settings
from ticker.status import ServiceStatus
from ticker.stores.api_keys import ApiKeyStore
from ticker.stores.instruments import InstrumentStore
from ticker.stores.runtime_settings import RuntimeSettings

BODY_TIMEOUT_S: Final = 5
"""How long a client may take to send a body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the API steers and reads besides the service's status."""

    settings: Settings
    subscriptions: Subscriptions
    reloads: Reloads
    registry: Latest[InstrumentRegistry]
    instruments: InstrumentStore
    refreshes: Refreshes
    history: History
    brokers: Brokers
    board: Board
    chains: Chains
    is_mock: IsMock
    desk: AccountDesk
    logins: Logins
    api_keys: ApiKeyStore
    mock_switch: Latest[MockSwitch]
    runtime_settings: RuntimeSettings


class TickerApi(QuartTrio):
    """Quart-Trio that answers every error, and every group of errors, as a problem."""

    async def handle_user_exception(self, error: Exception | BaseExceptionGroup) -> Response:
        if not isinstance(error, Exception):
            raise error  # a group with a Cancelled in it
        return answer_error(error)


def create_app(
    status: ServiceStatus,
    metrics: Metrics,
    *,
    control: Control | None = None,
    access: Access | None = None,
    per_minute: int = 600,
    body_max: int = 1_048_576,
    origins: Collection[str] = (),
    wall_clock: Callable[[], float] = time.time,
    market_hours_file: Path | None = None,
) -> QuartTrio:
    """The API over one service's state. Nothing in it runs until a server serves it.

    ``control``: what is steered; without it, there are the probes and the calendar. ``access``:
    who may call; without it, nobody may call what is not public. ``per_minute``: requests of one
    key or address. ``body_max``: bytes. ``origins``: whose pages may call, besides our own.
    ``wall_clock``: UNIX seconds. ``market_hours_file`` replaces the one of the package.
    """
    blueprints = [
        create_health_blueprint(status, metrics, wall_clock),
        create_market_blueprint(wall_clock, market_hours_file),
        create_docs_blueprint(),
    ]
    if control is not None:
        blueprints += _control_blueprints(control, status, metrics, wall_clock)
    return assemble(
        blueprints,
        access=access,
        per_minute=per_minute,
        body_max=body_max,
        origins=origins,
        observe=create_observe(metrics.control),
    )


def assemble(
    blueprints: Iterable[Blueprint],
    *,
    access: Access | None = None,
    per_minute: int = 600,
    body_max: int = 1_048_576,
    origins: Collection[str] = (),
    observe: Observe = ignore,
) -> QuartTrio:
    """An app of these blueprints, with everything that holds for all routes."""
    # No folders of files: what is served is what stands in a blueprint.
    app = TickerApi("ticker", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = body_max
    app.config["BODY_TIMEOUT"] = BODY_TIMEOUT_S
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # preflights are the same for every path
    app.url_map.merge_slashes = False  # else a path with two is answered with a page of HTML
    add_request_steps(app, access or Access(), RateLimits(per_minute), observe, origins)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


def _control_blueprints(
    control: Control, status: ServiceStatus, metrics: Metrics, wall_clock: Callable[[], float]
) -> Iterator[Blueprint]:
    settings = control.settings
    yield create_api_keys_blueprint(control.api_keys)
    yield create_subscriptions_blueprint(control.subscriptions, control.reloads)
    yield create_instruments_blueprint(control.registry, control.instruments, control.refreshes)
    yield create_option_chain_blueprint(
        control.board,
        control.chains,
        control.registry,
        wall_clock,
        control.is_mock,
        settings.market_hours_file,
    )
    yield create_history_blueprint(control.history)
    yield create_accounts_blueprint(control.desk, control.logins)
    yield create_broker_blueprint(control.brokers, metrics.control)
    yield create_mock_data_blueprint(
        control.mock_switch, control.runtime_settings, status, settings, wall_clock
    )
    yield create_backpressure_blueprint(status, metrics, wall_clock)
    yield create_feeds_blueprint(
        status,
        sockets=settings.max_ws_connections_per_account,
        tokens_per_socket=settings.max_instruments_per_ws_connection,
    )
