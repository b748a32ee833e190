"""Instruments and the plan: what there is to stream, and which socket streams it."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final
from zoneinfo import ZoneInfo

import structlog
import trio

from ticker.credentials import Account, load_credentials
from ticker.errors import BrokerError, ConfigurationError
from ticker.instruments import InstrumentRegistry
from ticker.kite.rest import BrokerRest, open_broker
from ticker.latest import Latest
from ticker.planning import Plan, Subscription, create_plan, find_reference, select_chain
from ticker.settings import Settings
from ticker.status import CatalogueStatus

INDIA: Final = ZoneInfo("Asia/Kolkata")


async def load_catalogue(
    accounts: Sequence[Account],
    registry: Latest[InstrumentRegistry],
    plans: Latest[Plan],
    *,
    settings: Settings,
    report: Callable[[CatalogueStatus], None],
    wall_clock: Callable[[], float],
) -> None:
    """Fetch the dump and the spot prices, then set ``registry`` and ``plans``, in that order.

    The accounts are asked in turn until one answers. Returns when both are set. Raises the last
    account's BrokerError if none answers, and ConfigurationError if what the settings ask for is
    not in the dump or does not fit the accounts.
    """
    log = structlog.get_logger().bind(task="load_catalogue")
    today = dt.datetime.fromtimestamp(wall_clock(), INDIA).date()
    for position, account in enumerate(accounts, start=1):
        try:
            credentials = await load_credentials(account)
            async with open_broker(settings.kite_api_root, credentials) as broker:
                found, spots = await _fetch(broker, settings.fo_underlyings, today)
            break
        except BrokerError as error:
            report(CatalogueStatus(last_error=str(error)))
            if position == len(accounts):
                raise
            log.warning("account_skipped", account=account.account_id, error=str(error))
    wanted = choose_subscriptions(found, spots, settings, today)
    plan = create_plan(
        wanted,
        [account.account_id for account in accounts],
        sockets_per_account=settings.max_ws_connections_per_account,
        instruments_per_socket=settings.max_instruments_per_ws_connection,
    )
    registry.set(found)
    plans.set(plan)
    report(CatalogueStatus(len(found), len(wanted), wall_clock()))
    without_price = [name for name in settings.fo_underlyings if not spots.get(name, 0) > 0]
    if without_price:
        log.warning("strikes_chosen_without_a_price", underlyings=without_price)
    log.info("catalogue_loaded", instruments=len(found), subscriptions=len(wanted))


def choose_subscriptions(
    registry: InstrumentRegistry, spots: dict[str, float], settings: Settings, today: dt.date
) -> list[Subscription]:
    """The chains of every configured underlying. Raises ConfigurationError for an unknown one."""
    wanted: list[Subscription] = []
    for underlying in settings.fo_underlyings:
        chain = select_chain(
            registry,
            underlying,
            spot=spots.get(underlying),
            today=today,
            expiries=settings.option_expiry_window,
            otm_levels=settings.otm_levels,
            mode=settings.ticker_mode,
        )
        if not chain:
            raise ConfigurationError(
                f"FO_UNDERLYINGS: {underlying!r} is not among the broker's instruments"
            )
        wanted += chain
    return wanted


async def _fetch(
    broker: BrokerRest, underlyings: Sequence[str], today: dt.date
) -> tuple[InstrumentRegistry, dict[str, float]]:
    """The registry, and the price of each underlying for which the broker has one."""
    instruments = await broker.load_instruments()
    # Passes over ~100,000 rows go to a thread, so that the event loop does not stall.
    registry = await trio.to_thread.run_sync(InstrumentRegistry, instruments)
    references = {name: find_reference(registry, name, today) for name in underlyings}
    keys = {row.key: name for name, row in references.items() if row is not None}
    prices = await broker.load_last_prices(keys) if keys else {}
    return registry, {keys[key]: price for key, price in prices.items() if key in keys}
