"""``/advanced/websocket-pool``: each account's market-data sockets."""

import msgspec
from quart import Blueprint

from api.auth import requires
from api.operations import AccountId, operation
from ticker.errors import UnknownAccountError
from ticker.messages import FeedStatus
from ticker.status import ServiceStatus


class PooledConnection(msgspec.Struct, frozen=True):
    connection_id: str
    connected: bool
    state: str
    subscribed_tokens: int
    capacity: int
    available_capacity: int
    utilization_percent: float


class PoolStatistics(msgspec.Struct, frozen=True):
    """Since the start. Connections that were opened, the present ones included."""

    total_connections_created: int


class AccountPool(msgspec.Struct, frozen=True):
    account_id: str
    total_connections: int
    total_target_tokens: int
    total_subscribed_tokens: int
    max_instruments_per_connection: int
    total_capacity: int
    connections: list[PooledConnection]
    statistics: PoolStatistics


def create_feeds_blueprint(
    status: ServiceStatus, *, sockets: int, tokens_per_socket: int
) -> Blueprint:
    """The sockets as they stand. ``sockets``: how many an account may have."""
    blueprint = Blueprint("websocket_pool", __name__)

    def pool(account_id: str) -> AccountPool:
        return create_pool(account_id, status, sockets, tokens_per_socket)

    @blueprint.get("/advanced/websocket-pool/stats")
    @requires("read")
    @operation()
    async def show_all() -> list[AccountPool]:
        """The sockets of every account."""
        return [pool(name) for name in status.account_ids]

    @blueprint.get("/advanced/websocket-pool/stats/<account_id>")
    @requires("read")
    @operation(problems=(404,))
    async def show_one(account_id: AccountId) -> AccountPool:
        """The sockets of one account."""
        if account_id not in status.account_ids:
            raise UnknownAccountError(f"there is no account {account_id!r}", field="account_id")
        return pool(account_id)

    return blueprint


def create_pool(
    account_id: str, status: ServiceStatus, sockets: int, tokens_per_socket: int
) -> AccountPool:
    """One account's sockets; only those that have something to carry are listed."""
    feeds = status.account_feeds(account_id)
    return AccountPool(
        account_id=account_id,
        total_connections=sum(feed.state == "live" for feed in feeds),
        total_target_tokens=sum(feed.target for feed in feeds),
        total_subscribed_tokens=sum(feed.subscribed for feed in feeds),
        max_instruments_per_connection=tokens_per_socket,
        total_capacity=sockets * tokens_per_socket,
        connections=[_connection(feed, tokens_per_socket) for feed in feeds],
        statistics=PoolStatistics(
            sum(feed.reconnects + (feed.live_at is not None) for feed in feeds)
        ),
    )


def _connection(feed: FeedStatus, capacity: int) -> PooledConnection:
    return PooledConnection(
        connection_id=str(feed.connection),
        connected=feed.state == "live",
        state=feed.state,
        subscribed_tokens=feed.subscribed,
        capacity=capacity,
        available_capacity=max(0, capacity - feed.subscribed),
        utilization_percent=round(100 * feed.subscribed / capacity, 2),
    )
