"""What the probes and ``/health`` say, put together from the reports of the tasks."""

import datetime as dt

from api.health_views import (
    AccountHealth,
    ConnectionHealth,
    DatabaseHealth,
    Dependencies,
    Health,
    PlanHealth,
    Readiness,
    RebalanceHealth,
    RedisHealth,
    RegistryHealth,
    TickerHealth,
    TokenHealth,
    TokensHealth,
)
from api.market import calendar_health
from api.mock_data import view_mock_market
from ticker.accounts.sessions import AccountStatus
from ticker.status import ServiceStatus
from ticker.stores.database import DatabaseStatus


def readiness(status: ServiceStatus) -> Readiness:
    """What ``/readyz`` says."""
    accounts = {name: status.account_is_live(name) for name in status.account_ids}
    instruments = status.instruments.loaded_at is not None
    redis = status.publisher.connected and status.publisher.circuit == "closed"
    database = None
    if status.database:  # tables that are not in force are as good as none
        database = status.database.available and not status.plan.is_store_replaced
    return Readiness(
        ready=instruments
        and redis
        and database is not False
        and any(accounts.values())
        and not status.draining,
        draining=status.draining,
        instruments=instruments,
        redis=redis,
        database=database,
        accounts=accounts,
    )


def account_health(status: ServiceStatus, account_id: str) -> AccountHealth:
    """One account in ``/health``: its connections, and when its last tick arrived."""
    feeds = status.account_feeds(account_id)
    return AccountHealth(
        account_id=account_id,
        live=status.account_is_live(account_id),
        instrument_count=sum(feed.subscribed for feed in feeds),
        last_tick_at=_iso(status.engine.last_tick_at.get(account_id)),
        connections=[
            ConnectionHealth(
                connection_id=str(feed.connection),
                state=feed.state,
                since=_iso(feed.since),
                subscribed=feed.subscribed,
                target=feed.target,
                reconnects=feed.reconnects,
                last_error=feed.last_error,
            )
            for feed in feeds
        ],
    )


def health_summary(status: ServiceStatus, now: float) -> Health:
    """What ``/health`` says at ``now``, UNIX seconds."""
    accounts = [account_health(status, name) for name in status.account_ids]
    ready = readiness(status)
    calendar = calendar_health(status.mock_market.calendar_ends_at, now)
    is_well = (
        ready.ready
        and calendar.status == "ok"
        and all(account.live or status.account_is_idle(account.account_id) for account in accounts)
    )
    return Health(
        status="ok" if is_well else "degraded",
        environment=status.environment,
        ticker=TickerHealth(
            running=any(account.live for account in accounts),
            started_at=_iso(status.started_at),
            active_subscriptions=status.plan.wanted,
            accounts=accounts,
        ),
        dependencies=Dependencies(
            redis=_redis_health(status, is_up=ready.redis),
            database=_database_health(status.database) if status.database else None,
            token_refresher=_tokens_health(status.accounts, now),
            instrument_registry=_registry_health(status),
        ),
        subscriptions=_plan_health(status),
        rebalancer=_rebalance_health(status),
        mock_market=view_mock_market(status.mock_market),
        calendar=calendar,
    )


def _redis_health(status: ServiceStatus, *, is_up: bool) -> RedisHealth:
    publisher = status.publisher
    return RedisHealth(
        status="ok" if is_up else "unavailable",
        circuit=publisher.circuit,
        pending=publisher.pending,
        last_published_at=_iso(publisher.last_acknowledged_at),
        last_error=publisher.last_error,
    )


def _database_health(status: DatabaseStatus) -> DatabaseHealth:
    return DatabaseHealth(
        status="ok" if status.available else "unavailable",
        since=_iso(status.since),
        last_error=status.last_error,
        pool_size=status.pool_size,
        in_use=status.in_use,
        waiting=status.waiting,
    )


def _registry_health(status: ServiceStatus) -> RegistryHealth:
    instruments = status.instruments
    return RegistryHealth(
        status="ok" if instruments.loaded_at is not None else "loading",
        source=instruments.source,
        is_stored=instruments.is_stored,
        cached_instruments=instruments.instruments,
        last_refresh=_iso(instruments.loaded_at),
        last_error=instruments.last_error,
        problems=dict(instruments.problems),
    )


def _plan_health(status: ServiceStatus) -> PlanHealth:
    plan = status.plan
    planned = plan.utilisation_percent  # by account that is at work; broken rows are none
    able = sum(_is_valid(each) and each.account_id in planned for each in status.accounts)
    return PlanHealth(
        wanted=plan.wanted,
        planned=plan.planned,
        unplaced=plan.unplaced,
        unresolved=plan.unresolved,
        stand_ins=plan.stand_ins,
        capacity=plan.capacity,
        usable_capacity=plan.capacity * able // max(len(planned), 1),
        utilisation_percent=dict(plan.utilisation_percent),
        nearly_full=plan.nearly_full,
        away=plan.away,
        store_error=plan.store_error,
        last_reload=plan.last_reload.reload_id if plan.last_reload else None,
    )


def _rebalance_health(status: ServiceStatus) -> RebalanceHealth:
    rebalance = status.rebalance
    return RebalanceHealth(
        run_at=_iso(rebalance.run_at),
        added=rebalance.added,
        removed=rebalance.removed,
        left_out=rebalance.left_out,
        unpriced=rebalance.unpriced,
        unknown=rebalance.unknown,
        error=rebalance.error,
    )


def _tokens_health(accounts: tuple[AccountStatus, ...], now: float) -> TokensHealth:
    return TokensHealth(
        running=False,
        timezone="Asia/Kolkata",
        managed_accounts=len(accounts),
        tokens=[
            TokenHealth(
                account_id=account.account_id,
                expires_at=_iso(account.expires_at),
                minutes_until_expiry=_minutes_until(account.expires_at, now),
                is_valid=_is_valid(account),
                error=account.error,
            )
            for account in accounts
        ],
    )


def _is_valid(account: AccountStatus) -> bool:
    return account.token_state == "valid"  # noqa: S105 - a state, not a token


def _minutes_until(expires_at: float | None, now: float) -> int | None:
    return None if expires_at is None else max(0, int((expires_at - now) // 60))


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")
