"""Where the service stands: each task reports its own newest state, the API and the console read.

Nothing here decides anything. Every field is the newest frozen report of one writer; a reader may
miss one and never sees half of one.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from ticker.messages import ConnectionId, FeedStatus
from ticker.publishers.status import PublisherStatus


class CatalogueStatus(msgspec.Struct, frozen=True):
    """The instruments in use. ``loaded_at``: UNIX seconds, None before the first load."""

    instruments: int = 0
    subscriptions: int = 0
    loaded_at: float | None = None
    last_error: str | None = None


class EngineStatus(msgspec.Struct, frozen=True):
    """Totals since the start; ``last_tick_at``: UNIX seconds per account."""

    decoded: int = 0
    priced: int = 0
    batches: int = 0
    last_tick_at: Mapping[str, float] = MappingProxyType({})


class ServiceStatus:
    """The newest report of every task."""

    def __init__(
        self, *, started_at: float, environment: str, account_ids: tuple[str, ...]
    ) -> None:
        self.started_at = started_at
        self.environment = environment
        self.account_ids = account_ids
        self.draining = False
        self.catalogue = CatalogueStatus()
        self.engine = EngineStatus()
        self.publisher = PublisherStatus()
        self.feeds: dict[ConnectionId, FeedStatus] = {}

    def report_feed(self, status: FeedStatus) -> None:
        self.feeds[status.connection] = status

    def report_engine(self, status: EngineStatus) -> None:
        self.engine = status

    def report_publisher(self, status: PublisherStatus) -> None:
        self.publisher = status

    def report_catalogue(self, status: CatalogueStatus) -> None:
        self.catalogue = status

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
