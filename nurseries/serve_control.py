"""The API over a service's parts, as a task."""

import trio
from quart_trio import QuartTrio

from api.app import Control, create_app
from api.auth import Access
from api.json_web_tokens import JsonWebTokens, open_json_web_tokens
from api.server import serve_api
from api.status_metrics import StatusCollector
from nurseries.parts import Parts
from ticker.accounts.desk import AccountDesk
from ticker.accounts.logins import Logins
from ticker.accounts.sessions import Session
from ticker.greeks.pricing import Profile
from ticker.history.history import History
from ticker.metrics import Metrics
from ticker.planning.subscriptions import Subscriptions
from ticker.status import ServiceStatus


async def serve_control(
    parts: Parts,
    status: ServiceStatus,
    metrics: Metrics,
    stop: trio.Event,
    task_status: trio.TaskStatus[str],
) -> None:
    """Serve until ``stop`` is set; readiness goes first. ``task_status`` is given the URL."""

    async def wait_stop() -> None:
        await stop.wait()
        status.draining = True

    settings = parts.settings
    metrics.registry.register(
        StatusCollector(
            status=status,
            brokers=parts.brokers,
            sockets=settings.max_ws_connections_per_account,
            tokens_per_socket=settings.max_instruments_per_ws_connection,
            wall_clock=parts.wall_clock,
        )
    )
    async with open_json_web_tokens(
        settings.jwt_jwks_url, issuer=settings.jwt_issuer, audience=settings.jwt_audience
    ) as tokens:
        await serve_api(
            _create_app(parts, status, metrics, tokens),
            host=settings.host,
            port=settings.port,
            wait_shutdown=wait_stop,
            task_status=task_status,
        )


def _create_app(
    parts: Parts, status: ServiceStatus, metrics: Metrics, tokens: JsonWebTokens | None
) -> QuartTrio:
    settings = parts.settings
    bootstrap = settings.api_key
    return create_app(
        status,
        metrics,
        control=_create_control(parts),
        access=Access(
            bootstrap_key=bootstrap.get_secret_value() if bootstrap else None,
            find_key=parts.stores.api_keys.find,
            tokens=tokens,
            is_open=not settings.api_key_enabled,
        ),
        per_minute=settings.api_rate_limit_per_minute,
        body_max=settings.api_body_max_bytes,
        origins=settings.page_origins,
        wall_clock=parts.wall_clock,
        market_hours_file=settings.market_hours_file,
    )


def _create_control(parts: Parts) -> Control:
    settings, desired, stores, clock = parts.settings, parts.desired, parts.stores, parts.wall_clock

    async def exchange(session: Session, request_token: str) -> str:
        broker = parts.brokers.of(session.account_id)
        issued = await broker.create_session(request_token, session.api_secret or "")
        return issued.access_token

    return Control(
        settings=settings,
        subscriptions=Subscriptions(
            stores.subscriptions,
            stores.subscription_index,
            registry=desired.registry,
            sessions=desired.sessions,
            reloads=parts.reloads,
            account_capacity=settings.account_capacity,
            wall_clock=clock,
        ),
        reloads=parts.reloads,
        registry=desired.registry,
        instruments=stores.instruments,
        refreshes=parts.refreshes,
        history=History(
            desired.registry,
            parts.brokers,
            parts.references,
            wall_clock=clock,
            archive=stores.instruments,
            profile=Profile(settings.option_greeks_profile),
            interest_rate=settings.option_greeks_interest_rate,
            market_hours_file=settings.market_hours_file,
        ),
        brokers=parts.brokers,
        board=parts.engine.board,
        chains=parts.engine.chains,
        is_mock=parts.engine.is_mock,
        desk=AccountDesk(
            desired.sessions, stores.accounts, desired.account_changes, wall_clock=clock
        ),
        logins=Logins(
            desired.sessions,
            stores.accounts,
            exchange,
            login_root=settings.kite_login_root,
            wall_clock=clock,
        ),
        api_keys=stores.api_keys,
        mock_switch=desired.mock_switch,
        runtime_settings=stores.runtime_settings,
    )
