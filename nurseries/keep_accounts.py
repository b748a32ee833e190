"""Who is there: the accounts of the settings and of the database, with their newest tokens.

::

    keep_accounts
    ├── _follow_table               rows → sessions, when told and every few seconds
    └── _watch_tokens               token files, and tokens whose day is over
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec
import structlog
import trio

from ticker.accounts.sessions import (
    AccountStatus,
    Session,
    Sessions,
    create_session,
    describe_session,
)
from ticker.accounts.stored_sessions import merge_rows
from ticker.accounts.token_file import load_token
from ticker.control_metrics import ControlMetrics
from ticker.errors import StoreUnavailableError
from ticker.latest import Latest
from ticker.settings import AccountSettings
from ticker.stores.accounts import AccountStore


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPolicy:
    """``token_poll_s``: between two looks at token files and the clock. ``table_poll_s``: between
    two looks at the table, for what others change there; ``retry_s``: while it is away.
    """

    token_poll_s: float = 1.0
    table_poll_s: float = 2.0
    retry_s: float = 1.0


async def keep_accounts(
    configured: Sequence[AccountSettings],
    sessions: Latest[Sessions],
    *,
    store: AccountStore | None,
    migrated: trio.Event,
    changes: Latest[int],
    report: Callable[[tuple[AccountStatus, ...]], None],
    metrics: ControlMetrics,
    wall_clock: Callable[[], float],
    require_same_store: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    policy: AccountPolicy = AccountPolicy(),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Set ``sessions`` whenever who is there changes, and each session's newest token.

    Started once the configured accounts are there, whether or not PostgreSQL is; its table is
    read from ``migrated`` on, and at once whenever ``changes`` changes. While it is away
    everybody stays; so they do while it is not the one that they came from, as
    ``require_same_store`` says by raising StoreReplacedError. An account whose row cannot be
    opened is reported with its error, and the others go on. ``report`` is called in place whenever
    what it would say has changed.
    """
    keeper = _Keeper(sessions, report, metrics, wall_clock)
    present = {account.account_id: create_session(account, wall_clock()) for account in configured}
    for session in present.values():
        await keeper.take_token(session)
    keeper.show(present, ())
    task_status.started()
    async with trio.open_nursery() as nursery:
        if store is not None:
            nursery.start_soon(
                _follow_table, keeper, store, migrated, changes, require_same_store, policy
            )
        nursery.start_soon(_watch_tokens, keeper, policy.token_poll_s)


async def _follow_table(
    keeper: "_Keeper",
    store: AccountStore,
    migrated: trio.Event,
    changes: Latest[int],
    require_same_store: Callable[[], Awaitable[None]],
    policy: AccountPolicy,
) -> None:
    log = structlog.get_logger().bind(task="keep_accounts")
    await migrated.wait()
    version, is_away = 0, False
    while True:
        with trio.move_on_after(policy.retry_s if is_away else policy.table_poll_s):
            version = await changes.wait_newer(version)
        try:
            rows = await store.load_all()
            await require_same_store()
        except StoreUnavailableError as error:
            if not is_away:
                log.warning("accounts_not_read", error=str(error), detail=error.detail)
            is_away = True
        else:
            is_away = False
            keeper.show(*merge_rows(rows, keeper.sessions.value, keeper.wall_clock()))


async def _watch_tokens(keeper: "_Keeper", poll_s: float) -> None:
    while True:
        for session in keeper.sessions.value.values():
            await keeper.take_token(session)
            keeper.note_expiry(session)
        keeper.tell()
        await trio.sleep(poll_s)


@dataclass(slots=True)
class _Keeper:
    """What the two tasks share. ``seen``: each token file's last content: only a change counts,
    because a login may have brought a newer token than a file that cannot be written.
    """

    sessions: Latest[Sessions]
    report: Callable[[tuple[AccountStatus, ...]], None]
    metrics: ControlMetrics
    wall_clock: Callable[[], float]
    seen: dict[str, str] = field(default_factory=dict)
    broken: Mapping[str, AccountStatus] = field(default_factory=dict)
    told: tuple[AccountStatus, ...] | None = None

    async def take_token(self, session: Session) -> None:
        """Make what the session's file holds its token, if that has changed."""
        if session.token_file is None:
            return
        token = await load_token(session.token_file)
        if not token or token == self.seen.get(session.account_id):
            return
        self.seen[session.account_id] = token
        known = session.credentials.value
        if token != known.access_token:
            newest = replace(
                known, access_token=token, issued_at=self.wall_clock(), is_expired=False
            )
            session.credentials.set(newest)
            self._log(session).info("access_token_changed")

    def note_expiry(self, session: Session) -> None:
        """Mark a token whose day is over, so that its sockets ask the broker once more."""
        known = session.credentials.value
        expires_at = known.expires_at
        is_expired = expires_at is not None and expires_at <= self.wall_clock()
        if is_expired != known.is_expired:
            session.credentials.set(replace(known, is_expired=is_expired))
            self._log(session).info("access_token_expired" if is_expired else "access_token_valid")

    def show(self, present: Mapping[str, Session], broken: Iterable[AccountStatus]) -> None:
        """These are there, and these cannot be used."""
        before = self.sessions.value
        self.broken = {status.account_id: status for status in broken}
        if present != before:
            for account_id in before.keys() - present.keys():
                self.metrics.token_expiry.remove(account_id)
                self.metrics.session_active.remove(account_id)
            for account_id in present.keys() - before.keys():
                self._show_gauges(account_id)
            self.sessions.set(MappingProxyType(dict(present)))
        self.tell()

    def tell(self) -> None:
        statuses = {name: describe_session(one) for name, one in self.sessions.value.items()}
        statuses |= {
            name: msgspec.structs.replace(statuses.get(name, status), error=status.error)
            for name, status in self.broken.items()
        }
        newest = tuple(statuses[name] for name in sorted(statuses))
        if newest != self.told:
            self.told = newest
            self.report(newest)

    def _show_gauges(self, account_id: str) -> None:
        def seconds_left() -> float:
            session = self.sessions.value.get(account_id)
            expires_at = session.credentials.value.expires_at if session else None
            return max(0.0, expires_at - self.wall_clock()) if expires_at else 0.0

        self.metrics.token_expiry.labels(account_id).set_function(seconds_left)
        self.metrics.session_active.labels(account_id).set_function(lambda: seconds_left() > 0)

    def _log(self, session: Session) -> structlog.typing.FilteringBoundLogger:
        return structlog.get_logger().bind(account=session.account_id)  # type: ignore[no-any-return]
