"""The tasks of the tree, each with what it works on and its ways to report, not yet running."""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from api.mock_data import SETTING as MOCK_SWITCH
from nurseries.account_stream import stream_account
from nurseries.account_streams import stream_accounts
from nurseries.bootstrap_history import bootstrap_history
from nurseries.enricher import Tap, enrich
from nurseries.keep_accounts import keep_accounts
from nurseries.keep_api_keys import keep_api_keys
from nurseries.keep_store import keep_store
from nurseries.mock_market import run_mock_market
from nurseries.parts import Parts
from nurseries.policies import (
    create_publish_policy,
    create_rebalance_policy,
    create_refresh_policy,
    create_reload_policy,
    create_stream_policy,
)
from nurseries.publisher import publish
from nurseries.rebalance_strikes import rebalance_strikes
from nurseries.refresh_instruments import refresh_instruments
from nurseries.reload import reload
from nurseries.restore_switch import restore_switch
from ticker.accounts.sessions import Session
from ticker.calendar.market_hours import market_date
from ticker.calendar.tick_expectation import expects_ticks
from ticker.calendar.trading_hours import TradingHours
from ticker.history.candles import load_last_close
from ticker.kite.text import ServerText
from ticker.messages import ConnectionId, Event, Frame, SnapshotBatch
from ticker.metrics import Metrics
from ticker.mock_market.market import create_mock_market
from ticker.mock_market.seeder import Seeder
from ticker.planning.levels import read_arrivals, read_levels
from ticker.planning.strikes import quote_keys
from ticker.settings import DEFAULT_REDIS_URL
from ticker.status import ServiceStatus

SendFrames = trio.MemorySendChannel[Frame]
SendEvents = trio.MemorySendChannel[Event]
Task = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Tasks:
    """What ``run_service`` starts; only what flows through the tree is left to be given."""

    enrich: Callable[
        [trio.MemoryReceiveChannel[Frame], trio.MemorySendChannel[SnapshotBatch]], Awaitable[None]
    ]
    publish: Callable[
        [trio.MemoryReceiveChannel[SnapshotBatch], trio.MemoryReceiveChannel[Event]],
        Awaitable[None],
    ]
    stream_accounts: Callable[[SendFrames, SendEvents], Awaitable[None]]
    run_mock_market: Callable[[SendFrames, SendEvents], Awaitable[None]]
    keep_store: Task
    keep_accounts: Callable[..., Awaitable[None]]
    steering: Mapping[str, Task]


def bind_tasks(parts: Parts, status: ServiceStatus, metrics: Metrics, tap: Tap) -> Tasks:
    """Every task but the API. ``tap`` is handed each batch of frames that is processed."""
    metrics.control.instruments.set_function(lambda: len(parts.desired.registry.value))
    settings, desired, stores = parts.settings, parts.desired, parts.stores
    return Tasks(
        enrich=partial(
            enrich,
            engine=parts.engine,
            limiter=trio.CapacityLimiter(settings.greeks_threads),
            metrics=metrics,
            report=status.report_engine,
            wall_clock=parts.wall_clock,
            tap=tap,
        ),
        publish=partial(
            publish,
            url=settings.redis_url or DEFAULT_REDIS_URL,
            prefix=settings.publish_channel_prefix,
            policy=create_publish_policy(settings),
            metrics=metrics,
            report=status.report_publisher,
            wall_clock=parts.wall_clock,
        ),
        stream_accounts=partial(_stream_accounts, parts, status, metrics),
        run_mock_market=partial(_run_mock_market, parts, status, metrics),
        keep_store=partial(
            keep_store,
            stores.database,
            migrated=desired.migrated,
            market="simulated" if settings.is_mock else "real",
            report=status.report_database,
        ),
        keep_accounts=partial(
            keep_accounts,
            settings.accounts,
            desired.sessions,
            store=stores.accounts,
            migrated=desired.migrated,
            changes=desired.account_changes,
            require_same_store=stores.origin.require_same,
            report=status.report_accounts,
            metrics=metrics.control,
            wall_clock=parts.wall_clock,
        ),
        steering=_bind_steering(parts, status, metrics),
    )


def _bind_steering(parts: Parts, status: ServiceStatus, metrics: Metrics) -> Mapping[str, Task]:
    """Tasks that nothing flows through: they read and set what is desired."""
    settings, desired, stores = parts.settings, parts.desired, parts.stores
    board, clock = parts.engine.board, parts.wall_clock
    return {
        "keep_api_keys": partial(keep_api_keys, stores.api_keys, desired.migrated),
        "restore_switch": partial(
            restore_switch,
            stores.runtime_settings,
            MOCK_SWITCH,
            desired.mock_switch,
            desired.migrated,
        ),
        "refresh_instruments": partial(
            refresh_instruments,
            desired.registry,
            store=stores.instruments,
            sources=parts.brokers.in_order,
            refreshes=parts.refreshes,
            policy=create_refresh_policy(settings),
            report=status.report_instruments,
            wall_clock=clock,
        ),
        "rebalance_strikes": partial(
            rebalance_strikes,
            stores.subscriptions,
            stores.subscription_index,
            desired.registry,
            parts.reloads,
            policy=create_rebalance_policy(settings),
            read_levels=partial(read_levels, board),
            load_spots=partial(_load_spots, parts),
            count_places=lambda: len(desired.sessions.value) * settings.account_capacity,
            report=status.report_rebalance,
            wall_clock=clock,
        ),
        "reload": partial(
            reload,
            stores.subscriptions,
            stores.subscription_index,
            desired.registry,
            desired.sessions,
            desired.plans,
            parts.reloads,
            require_same_store=stores.origin.require_same,
            feeds=lambda: status.feeds,
            read_arrivals=partial(read_arrivals, board),
            policy=create_reload_policy(settings),
            metrics=metrics.control,
            report=status.report_plan,
            wall_clock=clock,
        ),
        "bootstrap_history": partial(
            bootstrap_history,
            desired.plans,
            desired.registry,
            parts.references,
            days=settings.historical_days,
            batch=settings.historical_bootstrap_batch,
            wall_clock=clock,
        ),
    }


async def _stream_accounts(
    parts: Parts,
    status: ServiceStatus,
    metrics: Metrics,
    frames: SendFrames,
    events: SendEvents,
) -> None:
    settings, desired, clock = parts.settings, parts.desired, parts.wall_clock

    def is_ticking_time(connection: ConnectionId) -> bool:
        return settings.is_mock or expects_ticks(
            connection,
            desired.plans.value,
            desired.registry.value,
            clock(),
            settings.market_hours_file,
            open_for_s=settings.kite_mute_seconds,
        )

    def on_text(_connection: ConnectionId, text: ServerText) -> None:
        parts.refreshes.note_text(text)

    async def stream(session: Session) -> None:
        await stream_account(
            session,
            desired.plans,
            frames,
            events,
            policy=create_stream_policy(settings),
            metrics=metrics,
            report=status.report_feed,
            wall_clock=clock,
            ws_root=settings.kite_ws_root,
            expects_ticks=is_ticking_time,
            on_text=on_text,
        )

    await stream_accounts(desired.sessions, stream, forget=status.forget_account)


async def _run_mock_market(
    parts: Parts,
    status: ServiceStatus,
    metrics: Metrics,
    frames: SendFrames,
    events: SendEvents,
) -> None:
    settings, desired = parts.settings, parts.desired
    market = create_mock_market(settings)
    hours = TradingHours(lambda: desired.registry.value, settings.market_hours_file)
    seeder = Seeder(
        market,
        load_newest=parts.engine.newest,
        last_session=hours.last_session,
        load_candle=partial(load_last_close, parts.brokers),
        load_quotes=partial(_load_last_prices, parts),
        wall_clock=parts.wall_clock,
    )
    await run_mock_market(
        frames,
        events,
        market=market,
        seeder=seeder,
        registry=desired.registry,
        wanted=lambda: desired.plans.value.tokens(),
        hours=hours,
        switch=desired.mock_switch,
        metrics=metrics.control,
        report=status.report_mock_market,
        wall_clock=parts.wall_clock,
    )


async def _load_spots(parts: Parts, underlyings: Sequence[str]) -> Mapping[str, float]:
    """Last prices of what these underlyings are read from; of those that have one."""
    today = market_date(
        dt.datetime.fromtimestamp(parts.wall_clock(), dt.UTC), parts.settings.market_hours_file
    )
    keys = quote_keys(parts.desired.registry.value, underlyings, today)
    prices = await _load_last_prices(parts, list(keys)) if keys else {}
    return {keys[key]: price for key, price in prices.items() if key in keys}


async def _load_last_prices(parts: Parts, keys: Sequence[str]) -> Mapping[str, float]:
    return await parts.brokers.ask(lambda broker: broker.load_last_prices(keys))
