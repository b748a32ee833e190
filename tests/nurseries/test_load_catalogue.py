"""What there is to stream, asked of a simulator's REST API."""

import time
from dataclasses import replace

import pytest

from nurseries.load_catalogue import load_catalogue
from tests.integration.live import Simulator, create_settings, open_simulator
from ticker.credentials import Account, create_accounts
from ticker.errors import BrokerError, ConfigurationError
from ticker.instruments import InstrumentRegistry
from ticker.latest import Latest
from ticker.planning import Plan
from ticker.settings import Settings
from ticker.simulator.server import SimulatorAddress
from ticker.status import CatalogueStatus

pytestmark = pytest.mark.slow


class Outcome:
    """The cells that the task sets, and what it reports."""

    def __init__(self) -> None:
        self.registry = Latest(InstrumentRegistry(()))
        self.plans = Latest(Plan({}))
        self.reports: list[CatalogueStatus] = []

    async def load(self, accounts: tuple[Account, ...], settings: Settings) -> None:
        await load_catalogue(
            accounts,
            self.registry,
            self.plans,
            settings=settings,
            report=self.reports.append,
            wall_clock=time.time,
        )


def prepare(
    simulator: Simulator, address: SimulatorAddress
) -> tuple[Settings, tuple[Account, ...]]:
    settings = create_settings(simulator, address)
    return settings, create_accounts(settings)


def with_dead_token(account: Account) -> Account:
    return replace(account, credentials=replace(account.credentials, access_token="dead"))


async def test_every_underlying_gets_its_index_futures_and_chains() -> None:
    outcome = Outcome()
    async with open_simulator(2, 1.0) as (address, simulator):
        settings, accounts = prepare(simulator, address)
        await outcome.load(accounts, settings)
    planned = [token for shard in outcome.plans.value.shards.values() for token in shard]
    instruments = [outcome.registry.value.by_token(token) for token in planned]
    for name in settings.fo_underlyings:
        chosen = [row for row in instruments if row is not None and row.underlying == name]
        assert sum(row.is_index for row in chosen) == 1
        assert sum(row.is_future for row in chosen) == 3
        options = [row for row in chosen if row.is_option]
        assert len(options) == 2 * 11 * 2, "two sides, five strikes around one, two expiries"
    last = outcome.reports[-1]
    assert (last.instruments, last.subscriptions) == (len(outcome.registry.value), len(planned))
    assert last.loaded_at is not None


async def test_the_next_account_is_asked_when_one_is_refused() -> None:
    outcome = Outcome()
    async with open_simulator(2, 1.0) as (address, simulator):
        settings, (first, second) = prepare(simulator, address)
        await outcome.load((with_dead_token(first), second), settings)
        assert outcome.reports[0].last_error is not None
        assert outcome.reports[-1].loaded_at is not None

        outcome = Outcome()
        with pytest.raises(BrokerError):
            await outcome.load((with_dead_token(first), with_dead_token(second)), settings)
        assert outcome.plans.value.shards == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"max_ws_connections_per_account": 1, "max_instruments_per_ws_connection": 50},
        {"fo_underlyings": ("NOSUCH",)},
    ],
)
async def test_wishes_that_cannot_be_met_are_a_configuration_error(
    changes: dict[str, object],
) -> None:
    async with open_simulator(1, 1.0) as (address, simulator):
        settings, accounts = prepare(simulator, address)
        with pytest.raises(ConfigurationError):
            await Outcome().load(accounts, settings.model_copy(update=changes))
