"""The plan, kept equal to what the store wants and the accounts can carry.

::

    reload
    ├── _notice_registry        other instruments
    ├── _notice_accounts        accounts come, go, die and return
    ├── _notice_rows            the table changed without us, or PostgreSQL is back
    ├── _note_first_ticks       board → ledger of reloads
    └── _keep_plan              one reload at a time: store → plan
"""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
import trio

from ticker.accounts.sessions import Sessions
from ticker.calendar.india import india_date
from ticker.control_metrics import ControlMetrics
from ticker.errors import StoreUnavailableError
from ticker.instruments.registry import InstrumentRegistry
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedStatus
from ticker.planning.change import Fleet, create_change
from ticker.planning.outages import AccountState, Outages
from ticker.planning.plan import Plan
from ticker.planning.reloads import Reloads
from ticker.planning.status import PlanStatus, create_plan_status
from ticker.planning.wishes import Wishes, resolve_rows
from ticker.stores.origin import StoreReplacedError
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import SubscriptionRow, SubscriptionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadPolicy:
    """When to reload, and what the accounts carry.

    A reload starts ``debounce_s`` after the last request, but ``debounce_max_s`` after the first
    however many follow, and ``interval_s`` after one that changed the plan. A socket that is not
    live for ``failover_s`` is away. ``look_s``: how often accounts, and a PostgreSQL that is
    away, are looked at; ``check_s``: the table, for changes that nobody told us of.
    """

    debounce_s: float = 1.0
    debounce_max_s: float = 5.0
    interval_s: float = 5.0
    failover_s: float = 30.0
    look_s: float = 1.0
    check_s: float = 5.0
    first_tick_look_s: float = 0.25
    sockets_per_account: int = 3
    instruments_per_socket: int = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the tasks of the reload share.

    ``loaded``: the version of the rows in use; None while PostgreSQL did not give them.
    """

    store: SubscriptionStore
    index: SubscriptionIndex
    registry: Latest[InstrumentRegistry]
    sessions: Latest[Sessions]
    plans: Latest[Plan]
    reloads: Reloads
    require_same_store: Callable[[], Awaitable[None]]
    feeds: Callable[[], Mapping[ConnectionId, FeedStatus]]
    read_arrivals: Callable[[Sequence[int]], Mapping[int, float]]
    metrics: ControlMetrics
    report: Callable[[PlanStatus], None]
    wall_clock: Callable[[], float]
    policy: ReloadPolicy
    fleet: Latest[Fleet] = field(default_factory=lambda: Latest(Fleet()))
    loaded: Latest[tuple[Any, ...] | None] = field(default_factory=lambda: Latest(None))

    @property
    def today(self) -> dt.date:
        return india_date(self.wall_clock())


async def reload(
    store: SubscriptionStore,
    index: SubscriptionIndex,
    registry: Latest[InstrumentRegistry],
    sessions: Latest[Sessions],
    plans: Latest[Plan],
    reloads: Reloads,
    *,
    require_same_store: Callable[[], Awaitable[None]],
    feeds: Callable[[], Mapping[ConnectionId, FeedStatus]],
    read_arrivals: Callable[[Sequence[int]], Mapping[int, float]],
    policy: ReloadPolicy,
    metrics: ControlMetrics,
    report: Callable[[PlanStatus], None],
    wall_clock: Callable[[], float],
) -> None:
    """Keep ``plans`` on what the store, the registry and the accounts say, until cancelled.

    The first reload comes as soon as there are instruments. While PostgreSQL is away the rows
    last read stand: what accounts and instruments do still counts, reloads end as failed, and one
    more is made when it is back. So they do in a PostgreSQL that is not the one they came from,
    as ``require_same_store`` says by raising StoreReplacedError, until it is that one again:
    tables that were made anew hold nobody's wishes.

    ``read_arrivals`` is called in a worker thread; ``feeds`` and ``report`` in place, they must
    not block. ``plans`` is set here and nowhere else.
    """
    desk = Desk(
        store=store,
        index=index,
        registry=registry,
        sessions=sessions,
        plans=plans,
        reloads=reloads,
        require_same_store=require_same_store,
        feeds=feeds,
        read_arrivals=read_arrivals,
        metrics=metrics,
        report=report,
        wall_clock=wall_clock,
        policy=policy,
    )
    outages = Outages(policy.failover_s)
    desk.fleet.set(_look_at_accounts(desk, outages))
    await registry.wait_until(lambda newest: len(newest) > 0)
    reloads.request("start")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_notice_registry, desk)
        nursery.start_soon(_notice_accounts, desk, outages)
        nursery.start_soon(_notice_rows, desk)
        nursery.start_soon(_note_first_ticks, desk)
        await _keep_plan(desk)


async def _keep_plan(desk: Desk) -> None:
    """Serve what is requested. Requests that come while a reload runs open the next one."""
    policy, reloads = desk.policy, desk.reloads
    rows: Sequence[SubscriptionRow] = ()
    resting_until = 0.0
    is_replaced = False
    await reloads.wait_requested()  # the first is not held up
    while True:
        await trio.sleep_until(resting_until)
        reload_id = reloads.take()
        error = None
        try:
            rows, wishes = await _load_wishes(desk)
        except StoreReplacedError as failure:
            error, is_replaced = str(failure), True
            wishes = await _resolve(desk, rows)
        except StoreUnavailableError as failure:
            log = structlog.get_logger().bind(task="reload")
            log.warning("subscriptions_not_read", error=str(failure), detail=failure.detail)
            desk.loaded.set(None)
            error = f"{failure}; this is tried again when PostgreSQL is back"
            wishes = await _resolve(desk, rows)
        else:
            is_replaced = False
        if await _set_plan(desk, reload_id, wishes, error, is_replaced=is_replaced):
            resting_until = trio.current_time() + policy.interval_s
        await reloads.wait_requested(debounce_s=policy.debounce_s, at_most_s=policy.debounce_max_s)


async def _load_wishes(desk: Desk) -> tuple[Sequence[SubscriptionRow], Wishes]:
    """The rows as they stand, after expired ones are put away and moved tokens followed."""
    for is_last in (False, True):
        # Before the rows: what changes in between is then a difference that is noticed.
        version = await desk.index.load_version()
        rows = await desk.store.load_active()
        desk.loaded.set(version)  # also if they are not taken: that is no news until they change
        await desk.require_same_store()
        wishes = await _resolve(desk, rows)
        if is_last or not await _clean_up(desk, wishes):
            break
    return rows, wishes


async def _resolve(desk: Desk, rows: Sequence[SubscriptionRow]) -> Wishes:
    return await trio.to_thread.run_sync(resolve_rows, rows, desk.registry.value, desk.today)


async def _clean_up(desk: Desk, wishes: Wishes) -> bool:
    """Bring rows in line with the instruments of today; False if nothing was to be done."""
    changed = []
    if wishes.expired:
        changed += await desk.store.deactivate_expired(desk.today)
    if wishes.moves:
        changed += await desk.store.replace_tokens(wishes.moves)
    if changed:
        log = structlog.get_logger().bind(task="reload")
        log.info("subscriptions_cleaned", expired=len(wishes.expired), moved=len(wishes.moves))
    return bool(changed)


async def _set_plan(
    desk: Desk, reload_id: str, wishes: Wishes, error: str | None, *, is_replaced: bool
) -> bool:
    """Plan anew, settle the reload, and tell; True if the sockets have something to do."""
    before = desk.plans.value
    change = await trio.to_thread.run_sync(
        partial(
            create_change,
            before,
            wishes.subscriptions,
            desk.fleet.value,
            sockets_per_account=desk.policy.sockets_per_account,
            instruments_per_socket=desk.policy.instruments_per_socket,
        )
    )
    plan = change.plan
    state = desk.reloads.settle(
        reload_id,
        added=change.added,
        removed=change.removed,
        unplaced=plan.unplaced,
        error=error,
    )
    if plan is not before:
        desk.plans.set(plan)
    log = structlog.get_logger().bind(task="reload", reload_id=reload_id)
    log.info(
        "plan_reloaded",
        state=state.state,
        reasons=state.reasons,
        added=len(state.added),
        removed=len(state.removed),
        unplaced=len(plan.unplaced),
        error=error,
    )
    _tell(desk, plan, wishes, error, is_replaced=is_replaced)
    desk.metrics.reloads.labels(state.state).inc()
    return plan is not before


def _tell(desk: Desk, plan: Plan, wishes: Wishes, error: str | None, *, is_replaced: bool) -> None:
    policy, fleet = desk.policy, desk.fleet.value
    status = create_plan_status(
        plan,
        wishes,
        fleet.account_ids,
        account_capacity=policy.sockets_per_account * policy.instruments_per_socket,
        away=fleet.away,
        store_error=error,
        is_store_replaced=is_replaced,
        newest=desk.reloads.newest,
    )
    desk.report(status)


async def _notice_registry(desk: Desk) -> None:
    version = await desk.registry.wait_newer(0)
    while True:
        version = await desk.registry.wait_newer(version)
        desk.reloads.request("instruments")


async def _notice_accounts(desk: Desk, outages: Outages) -> None:
    version = 0
    while True:
        with trio.move_on_after(desk.policy.look_s):
            version = await desk.sessions.wait_newer(version)
        fleet = _look_at_accounts(desk, outages)
        if fleet != desk.fleet.value:
            desk.fleet.set(fleet)
            desk.reloads.request("accounts")


def _look_at_accounts(desk: Desk, outages: Outages) -> Fleet:
    sessions = desk.sessions.value
    away = outages.find_away(
        [
            AccountState(account_id, bool(session.credentials.value.access_token))
            for account_id, session in sessions.items()
        ],
        desk.feeds(),
        sockets_per_account=desk.policy.sockets_per_account,
        now=trio.current_time(),
    )
    return Fleet(tuple(sessions), away)


async def _notice_rows(desk: Desk) -> None:
    while True:
        is_known = desk.loaded.value is not None
        await trio.sleep(desk.policy.check_s if is_known else desk.policy.look_s)
        try:
            version = await desk.index.load_version()
        except StoreUnavailableError:
            continue  # whoever needs it says so; the rows in memory stand
        if version != desk.loaded.value and not desk.reloads.is_pending:
            reason = "table" if desk.loaded.value is not None else "database"
            desk.reloads.request(reason)


async def _note_first_ticks(desk: Desk) -> None:
    while True:
        await desk.reloads.wait_awaited()
        tokens = list(desk.reloads.awaited())
        if tokens:
            arrivals = await trio.to_thread.run_sync(desk.read_arrivals, tokens)
            desk.reloads.note_ticks(arrivals)
        await trio.sleep(desk.policy.first_tick_look_s)
