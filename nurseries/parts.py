"""What the tasks of the tree share: doors to the outside, desired state, and the domain.

Nothing here runs. Who writes desired state is named beside it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from nurseries.policies import create_database_policy
from ticker.accounts.secrets_box import load_secret_box
from ticker.accounts.sessions import Sessions
from ticker.calendar.trading_hours import TradingHours
from ticker.control_metrics import ControlMetrics
from ticker.engine import Engine, create_engine
from ticker.errors import BrokerError, BrokerResponseError
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.refreshes import Refreshes
from ticker.instruments.registry import InstrumentRegistry
from ticker.kite.calls import TOO_MANY, Call, RestPolicy
from ticker.kite.error_kinds import error_kind
from ticker.kite.rest import Brokers, open_brokers
from ticker.latest import Latest
from ticker.mock_market.gate import MockGate
from ticker.mock_market.switch import MockSwitch
from ticker.planning.plan import Plan
from ticker.planning.reloads import Reloads
from ticker.settings import DEFAULT_DATABASE_URL, Settings
from ticker.stores.accounts import AccountStore
from ticker.stores.api_keys import ApiKeyStore
from ticker.stores.database import Database, Outcome, open_database
from ticker.stores.instruments import InstrumentStore
from ticker.stores.minute_bars import MinuteBarStore
from ticker.stores.origin import StoreOrigin
from ticker.stores.runtime_settings import RuntimeSettings
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import SubscriptionStore


@dataclass(frozen=True, slots=True)
class Desired:
    """What is to be, by who says so."""

    sessions: Latest[Sessions]  # keep_accounts
    registry: Latest[InstrumentRegistry]  # refresh_instruments
    plans: Latest[Plan]  # reload
    mock_switch: Latest[MockSwitch]  # the API, restore_switch
    account_changes: Latest[int]  # the API: the table of accounts is to be read
    migrated: trio.Event = field(default_factory=trio.Event)  # keep_store


def create_desired(settings: Settings) -> Desired:
    """Nobody there, nothing to stream."""
    return Desired(
        sessions=Latest({}),
        registry=Latest(InstrumentRegistry(())),
        plans=Latest(Plan({})),
        mock_switch=Latest(MockSwitch(settings.enable_mock_data)),
        account_changes=Latest(0),
    )


@dataclass(frozen=True, slots=True)
class Stores:
    """The tables of one database."""

    database: Database
    accounts: AccountStore
    api_keys: ApiKeyStore
    instruments: InstrumentStore
    subscriptions: SubscriptionStore
    subscription_index: SubscriptionIndex
    minute_bars: MinuteBarStore
    runtime_settings: RuntimeSettings
    origin: StoreOrigin


def create_stores(
    settings: Settings, database: Database, wall_clock: Callable[[], float]
) -> Stores:
    """Raises ConfigurationError for encryption keys that cannot be used."""
    box = load_secret_box(settings)
    return Stores(
        database=database,
        accounts=AccountStore(database, box),
        api_keys=ApiKeyStore(database, wall_clock=wall_clock),
        instruments=InstrumentStore(database),
        subscriptions=SubscriptionStore(database),
        subscription_index=SubscriptionIndex(database),
        minute_bars=MinuteBarStore(database),
        runtime_settings=RuntimeSettings(database),
        origin=StoreOrigin(database),
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that one service's tasks and API are made of."""

    settings: Settings
    wall_clock: Callable[[], float]
    desired: Desired
    engine: Engine
    stores: Stores
    brokers: Brokers
    references: ReferenceBars
    reloads: Reloads
    refreshes: Refreshes


@asynccontextmanager
async def open_parts(
    settings: Settings, metrics: ControlMetrics, wall_clock: Callable[[], float]
) -> AsyncIterator[Parts]:
    """The parts of a service; neither PostgreSQL nor the broker need be there.

    Raises ConfigurationError for a calendar, a database URL or encryption keys that cannot be
    used.
    """
    desired = create_desired(settings)
    engine = create_engine(
        settings, lambda: desired.registry.value, gate=_create_gate(settings, desired)
    )
    async with (
        open_database(
            settings.database_url or DEFAULT_DATABASE_URL,
            create_database_policy(settings),
            wall_clock=wall_clock,
            observe=partial(_observe_query, metrics),
        ) as database,
        open_brokers(
            settings.kite_api_root,
            desired.sessions,
            policy=RestPolicy(),
            wall_clock=wall_clock,
            observe=partial(_observe_call, metrics),
            on_error=partial(_count_error, metrics),
        ) as brokers,
    ):
        stores = create_stores(settings, database, wall_clock)
        yield Parts(
            settings=settings,
            wall_clock=wall_clock,
            desired=desired,
            engine=engine,
            stores=stores,
            brokers=brokers,
            references=ReferenceBars(
                brokers,
                stores.minute_bars,
                wall_clock=wall_clock,
                market_hours_file=settings.market_hours_file,
            ),
            reloads=Reloads(wall_clock),
            refreshes=Refreshes(),
        )


def _create_gate(settings: Settings, desired: Desired) -> MockGate | None:
    if settings.is_mock:
        return None  # a simulated market never closes
    hours = TradingHours(lambda: desired.registry.value, settings.market_hours_file)
    return MockGate(hours.is_closed, hours.closed_until)


def _observe_query(
    metrics: ControlMetrics, query_type: str, outcome: Outcome, seconds: float
) -> None:
    metrics.query_count.labels(query_type, outcome).inc()
    metrics.queries.labels(query_type).observe(seconds)


def _observe_call(metrics: ControlMetrics, endpoint: str, outcome: str, seconds: float) -> None:
    metrics.api_calls.labels(endpoint, outcome).inc()
    metrics.api_seconds.labels(endpoint).observe(seconds)


def _count_error(metrics: ControlMetrics, account_id: str, call: Call, error: BrokerError) -> None:
    metrics.api_errors.labels(call.endpoint, error_kind(error)).inc()
    if isinstance(error, BrokerResponseError) and error.status == TOO_MANY:
        metrics.rate_limited.labels(account_id, call.kind).inc()
