"""Where the service stands: each task reports its own newest state, the API and the console read.

Nothing here decides anything. Every field is the newest frozen report of one writer; a reader may
miss one and never sees half of one.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from ticker.accounts.sessions import AccountStatus
from ticker.instruments.refreshes import InstrumentsStatus
from ticker.messages import ConnectionId, FeedStatus
from ticker.mock_market.status import MockMarketStatus
from ticker.planning.status import PlanStatus
from ticker.planning.strikes import RebalanceStatus
from ticker.publishers.status import PublisherStatus
from ticker.stores.database import DatabaseStatus


class EngineStatus(msgspec.Struct, frozen=True):
    """Totals since the start; ``last_tick_at``: UNIX seconds per account."""

    decoded: int = 0
    priced: int = 0
    batches: int = 0
    last_tick_at: Mapping[str, float] = MappingProxyType({})


class ServiceStatus:
    """The newest report of every task. ``account_ids``: of the accounts known before any report."""

    def __init__(
        self, *, started_at: float, environment: str, account_ids: Iterable[str] = ()
    ) -> None:
        self.started_at = started_at
        self.environment = environment
        self.draining = False
        self.accounts = tuple(AccountStatus(name, "settings") for name in account_ids)
        self.database: DatabaseStatus | None = None
        self.instruments = InstrumentsStatus()
        self.plan = PlanStatus()
        self.rebalance = RebalanceStatus()
        self.mock_market = MockMarketStatus()
        self.engine = EngineStatus()
        self.publisher = PublisherStatus()
        self.feeds: dict[ConnectionId, FeedStatus] = {}

    @property
    def account_ids(self) -> tuple[str, ...]:
        return tuple(account.account_id for account in self.accounts)

    def report_accounts(self, accounts: tuple[AccountStatus, ...]) -> None:
        self.accounts = accounts

    def report_database(self, status: DatabaseStatus) -> None:
        self.database = status

    def report_instruments(self, status: InstrumentsStatus) -> None:
        self.instruments = status

    def report_plan(self, status: PlanStatus) -> None:
        self.plan = status

    def report_rebalance(self, status: RebalanceStatus) -> None:
        self.rebalance = status

    def report_mock_market(self, status: MockMarketStatus) -> None:
        self.mock_market = status

    def report_feed(self, status: FeedStatus) -> None:
        self.feeds[status.connection] = status

    def report_engine(self, status: EngineStatus) -> None:
        self.engine = status

    def report_publisher(self, status: PublisherStatus) -> None:
        self.publisher = status

    def forget_account(self, account_id: str) -> None:
        """Let go of the feeds of an account that has gone."""
        gone = [feed for feed in self.feeds if feed.account_id == account_id]
        for connection in gone:
            del self.feeds[connection]

    def account_feeds(self, account_id: str) -> list[FeedStatus]:
        """The account's connections that have something to carry, by shard."""
        feeds = (feed for feed in self.feeds.values() if feed.connection.account_id == account_id)
        return sorted(
            (feed for feed in feeds if feed.target > 0), key=lambda feed: feed.connection.shard
        )

    def account_is_live(self, account_id: str) -> bool:
        """Whether all of the account's planned connections are live; false if none is planned."""
        feeds = self.account_feeds(account_id)
        return bool(feeds) and all(feed.state == "live" for feed in feeds)

    def account_is_idle(self, account_id: str) -> bool:
        """Whether nothing is planned on the account although it is logged in: others carry all.

        False for one whose sockets are away: what they carried was planned elsewhere.
        """
        is_valid = any(
            account.account_id == account_id and account.token_state == "valid"  # noqa: S105
            for account in self.accounts
        )
        is_away = any(away.startswith(f"{account_id}/") for away in self.plan.away)
        return is_valid and not is_away and not self.account_feeds(account_id)
