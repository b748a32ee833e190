"""The shapes of what the probes and ``/health`` answer."""

import msgspec

from api.market import CalendarHealth
from api.mock_data import MockMarketView
from api.operations import Time


class Readiness(msgspec.Struct, frozen=True):
    """``database`` is None for a service without one."""

    ready: bool
    draining: bool
    instruments: bool
    redis: bool
    database: bool | None
    accounts: dict[str, bool]


class ConnectionHealth(msgspec.Struct, frozen=True):
    connection_id: str
    state: str
    since: Time | None
    subscribed: int
    target: int
    reconnects: int
    last_error: str | None


class AccountHealth(msgspec.Struct, frozen=True):
    account_id: str
    live: bool
    instrument_count: int
    last_tick_at: Time | None
    connections: list[ConnectionHealth]


class TickerHealth(msgspec.Struct, frozen=True):
    running: bool
    started_at: Time | None
    active_subscriptions: int
    accounts: list[AccountHealth]


class RedisHealth(msgspec.Struct, frozen=True):
    status: str
    circuit: str
    pending: int
    last_published_at: Time | None
    last_error: str | None


class DatabaseHealth(msgspec.Struct, frozen=True):
    status: str
    since: Time | None
    last_error: str | None
    pool_size: int
    in_use: int
    waiting: int


class RegistryHealth(msgspec.Struct, frozen=True):
    """``problems``: by exchange, why its newest dump is not in use."""

    status: str
    source: str
    is_stored: bool
    cached_instruments: int
    last_refresh: Time | None
    last_error: str | None
    problems: dict[str, str]


class TokenHealth(msgspec.Struct, frozen=True):
    account_id: str
    expires_at: Time | None
    minutes_until_expiry: int | None
    is_valid: bool
    error: str | None


class TokensHealth(msgspec.Struct, frozen=True):
    """``running`` is False: a person logs in every day, nothing does it for them."""

    running: bool
    timezone: str
    managed_accounts: int
    tokens: list[TokenHealth]


class Dependencies(msgspec.Struct, frozen=True):
    redis: RedisHealth
    database: DatabaseHealth | None
    token_refresher: TokensHealth
    instrument_registry: RegistryHealth


class PlanHealth(msgspec.Struct, frozen=True):
    """``PlanStatus`` as it is shown; ``last_reload`` is an id. ``usable_capacity``: of the accounts
    with a valid token; the places of the others stand empty until somebody logs in.
    """

    wanted: int
    planned: int
    unplaced: int
    unresolved: int
    stand_ins: int
    capacity: int
    usable_capacity: int
    utilisation_percent: dict[str, float]
    nearly_full: tuple[str, ...]
    away: tuple[str, ...]
    store_error: str | None
    last_reload: str | None


class RebalanceHealth(msgspec.Struct, frozen=True):
    """The strike rebalancer's newest run: see ``RebalanceStatus``."""

    run_at: Time | None
    added: int
    removed: int
    left_out: int
    unpriced: tuple[str, ...]
    unknown: tuple[str, ...]
    error: str | None


class Health(msgspec.Struct, frozen=True):
    status: str
    environment: str
    ticker: TickerHealth
    dependencies: Dependencies
    subscriptions: PlanHealth
    rebalancer: RebalanceHealth
    mock_market: MockMarketView
    calendar: CalendarHealth
