"""The API over the real domain: PostgreSQL, the broker's simulator, everything but the streams.

Two small tasks stand in for those of the service: one settles reloads, one answers refreshes.
"""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import httpx
import trio
from quart_trio import QuartTrio

from api.app import Control, create_app
from api.auth import Access
from tests.api.rig import BOOTSTRAP
from tests.postgres import open_test_database
from ticker.accounts.credentials import Credentials
from ticker.accounts.desk import AccountDesk
from ticker.accounts.logins import Logins
from ticker.accounts.secrets_box import SecretBox, create_encryption_key
from ticker.accounts.sessions import Session, Sessions, describe_session
from ticker.board import Board
from ticker.control_metrics import ControlMetrics
from ticker.errors import StoreUnavailableError
from ticker.greeks.chains import Chains
from ticker.history.history import History
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.refreshes import InstrumentsStatus, Refreshes, RefreshResult
from ticker.instruments.registry import InstrumentRegistry, parse_instruments
from ticker.kite.calls import RestPolicy
from ticker.kite.rest import Brokers, open_brokers
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedStatus
from ticker.metrics import Metrics
from ticker.mock_market.switch import MockSwitch
from ticker.planning.reloads import Reloads
from ticker.planning.status import PlanStatus
from ticker.planning.subscriptions import Subscriptions
from ticker.publishers.status import PublisherStatus
from ticker.settings import Settings
from ticker.simulator.server import SimulatorAddress, serve_simulator
from ticker.simulator.sessions import SimulatedAccount, create_accounts
from ticker.simulator.simulation import SimulatorConfig
from ticker.status import EngineStatus, ServiceStatus
from ticker.stores.accounts import AccountStore
from ticker.stores.api_keys import ApiKeyStore
from ticker.stores.database import Database
from ticker.stores.instruments import InstrumentStore
from ticker.stores.minute_bars import MinuteBarStore
from ticker.stores.runtime_settings import RuntimeSettings
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import SubscriptionStore

CAPACITY = 50
"""Instruments that an account carries here: soon full."""


@dataclass
class ControlRig:
    app: QuartTrio
    control: Control
    database: Database
    metrics: Metrics
    status: ServiceStatus
    sessions: Latest[Sessions]
    account: SimulatedAccount
    broker_url: str

    async def inject(self, **fault: object) -> None:
        """Break the broker's REST calls, in this way only."""
        async with httpx.AsyncClient(base_url=self.broker_url) as client:
            (await client.delete("/_simulator/faults")).raise_for_status()
            body = {"fault": "rest", **fault}
            (await client.post("/_simulator/faults", json=body)).raise_for_status()

    async def log_in(self, url: str) -> str:
        """Do what a person does on the broker's page; where the browser is sent to."""
        async with httpx.AsyncClient() as browser:
            answer = await browser.get(url)
        return answer.headers["Location"]


@asynccontextmanager
async def open_control(
    *,
    database: Database | None = None,
    per_minute: int = 1_000_000,
    rest: RestPolicy | None = None,
) -> AsyncIterator[ControlRig]:
    """An app with everything behind it; one account, ``a0``, logged in at the simulator."""
    accounts = create_accounts(1, 1)
    config = SimulatorConfig(port=0, accounts=accounts, redirect_url="https://ours.example/")
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        address: SimulatorAddress = await nursery.start(partial(serve_simulator, config))
        if database is None:
            database = await stack.enter_async_context(open_test_database())
            await database.probe()
        credentials = Credentials(accounts[0].api_key, accounts[0].access_token, time.time())
        session = Session("a0", Latest(credentials), api_secret=accounts[0].api_secret)
        sessions: Latest[Sessions] = Latest(MappingProxyType({"a0": session}))
        metrics = Metrics()
        brokers = await stack.enter_async_context(
            open_brokers(
                address.rest_url,
                sessions,
                policy=rest or RestPolicy(),
                wall_clock=time.time,
                observe=partial(_observe, metrics.control),
            )
        )
        registry = Latest(await load_registry(brokers))
        control = create_control(address.rest_url, database, brokers, sessions, registry)
        with suppress(StoreUnavailableError):
            await control.api_keys.refresh()
        nursery.start_soon(settle_reloads, control.reloads)
        nursery.start_soon(answer_refreshes, control.refreshes)
        status = create_status(len(registry.value))
        status.report_database(database.status)
        status.report_accounts((describe_session(session),))
        app = create_app(
            status,
            metrics,
            control=control,
            access=Access(bootstrap_key=BOOTSTRAP, find_key=control.api_keys.find),
            per_minute=per_minute,
        )
        yield ControlRig(
            app, control, database, metrics, status, sessions, accounts[0], address.rest_url
        )
        nursery.cancel_scope.cancel()


def create_control(
    api_root: str,
    database: Database,
    brokers: Brokers,
    sessions: Latest[Sessions],
    registry: Latest[InstrumentRegistry],
) -> Control:
    settings = Settings(database_url="postgresql://unused")
    reloads = Reloads(time.time)
    accounts = AccountStore(database, SecretBox([create_encryption_key()]))
    subscriptions = Subscriptions(
        SubscriptionStore(database),
        SubscriptionIndex(database),
        registry=registry,
        sessions=sessions,
        reloads=reloads,
        account_capacity=CAPACITY,
        wall_clock=time.time,
    )
    references = ReferenceBars(brokers, MinuteBarStore(database), wall_clock=time.time)
    instruments = InstrumentStore(database)

    async def exchange(session: Session, request_token: str) -> str:
        broker = brokers.of(session.account_id)
        return (await broker.create_session(request_token, session.api_secret or "")).access_token

    return Control(
        settings=settings,
        subscriptions=subscriptions,
        reloads=reloads,
        registry=registry,
        instruments=instruments,
        refreshes=Refreshes(),
        history=History(registry, brokers, references, wall_clock=time.time, archive=instruments),
        brokers=brokers,
        board=Board(),
        chains=Chains(),
        is_mock=lambda source: False,
        desk=AccountDesk(sessions, accounts, Latest(0), wall_clock=time.time),
        logins=Logins(
            sessions,
            accounts,
            exchange,
            login_root=api_root,
            wall_clock=time.time,
        ),
        api_keys=ApiKeyStore(database, wall_clock=time.time),
        mock_switch=Latest(MockSwitch(is_on=True)),
        runtime_settings=RuntimeSettings(database),
    )


def create_status(instruments: int) -> ServiceStatus:
    """A service that does well: one live socket, a publisher that keeps up."""
    now = time.time()
    status = ServiceStatus(started_at=now - 60, environment="test", account_ids=("a0",))
    status.report_instruments(InstrumentsStatus(instruments, "broker", now))
    status.report_plan(PlanStatus(wanted=20, planned=20, capacity=CAPACITY))
    status.report_publisher(PublisherStatus(connected=True, published=900, age_s=0.002))
    status.report_engine(EngineStatus(1000, 800, 30, {"a0": now}))
    status.report_feed(FeedStatus(ConnectionId("a0", 0), "live", now, now, 20, 20))
    return status


async def load_registry(brokers: Brokers) -> InstrumentRegistry:
    """Every instrument that the simulator lists."""
    text = bytearray()
    async for part in brokers.of("a0").load_instruments():
        text += part
    rows = parse_instruments(text.decode().splitlines(keepends=True))
    return InstrumentRegistry(row for row in rows if row is not None)


async def settle_reloads(reloads: Reloads) -> None:
    while True:
        await reloads.wait_requested()
        reloads.settle(reloads.take())


async def answer_refreshes(refreshes: Refreshes) -> None:
    while True:
        await refreshes.wait_asked()
        wish = refreshes.take()
        wish.settle(RefreshResult(wish.force, refreshed=wish.force, account_used="a0"))


def _observe(metrics: ControlMetrics, endpoint: str, outcome: str, seconds: float) -> None:
    metrics.api_calls.labels(endpoint, outcome).inc()
    metrics.api_seconds.labels(endpoint).observe(seconds)
