"""One account's market-data sockets, in a nursery of their own.

::

    stream_account
    ├── watch_token_file            a new access token becomes the credentials
    └── supervise(stream_shard)     one for each socket
"""

import ssl
from collections.abc import Callable
from functools import partial

import structlog
import trio

from nurseries.shard_stream import (
    ExpectsTicks,
    OnText,
    Shard,
    StreamPolicy,
    Turnstile,
    ignore_text,
    stream_shard,
)
from nurseries.supervise import supervise
from ticker.credentials import Account, Credentials, load_credentials
from ticker.feed_record import FeedRecord
from ticker.kite.socket import OpenStream, open_feed
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedStatus, Frame, Gap
from ticker.metrics import Metrics
from ticker.planning import Plan


async def stream_account(
    account: Account,
    plans: Latest[Plan],
    frames: trio.MemorySendChannel[Frame],
    gaps: trio.MemorySendChannel[Gap],
    *,
    policy: StreamPolicy,
    metrics: Metrics,
    report: Callable[[FeedStatus], None],
    wall_clock: Callable[[], float],
    ws_root: str,
    expects_ticks: ExpectsTicks,
    on_text: OnText = ignore_text,
    ssl_context: ssl.SSLContext | None = None,
    open_stream: OpenStream = trio.open_tcp_stream,
) -> None:
    """Keep the account's sockets on plan until cancelled.

    ``frames`` receives every binary message but heartbeats, ``gaps`` every hole; both stay open.
    ``report``, ``on_text`` and ``expects_ticks`` are called in place and must not block. Feed
    errors are retried for ever and touch no other account; whatever else is raised, also by the
    callbacks, propagates.
    """
    if ssl_context is None and ws_root.startswith("wss:"):
        ssl_context = ssl.create_default_context()  # 30 ms: once for all sockets
    connect = partial(
        open_feed,
        ws_root,
        connect_timeout_s=policy.connect_timeout_s,
        ssl_context=ssl_context,
        open_stream=open_stream,
    )
    records = [
        FeedRecord(
            connection,
            count_target=partial(_count_target, plans, connection),
            report=report,
            metrics=metrics,
            wall_clock=wall_clock,
        )
        for connection in (
            ConnectionId(account.account_id, number) for number in range(policy.sockets)
        )
    ]
    # Read when the metrics are: always the truth, whatever happened in between.
    metrics.subscribed_tokens.labels(account.account_id).set_function(
        lambda: sum(record.subscribed for record in records)
    )
    metrics.target_tokens.labels(account.account_id).set_function(
        lambda: sum(record.target for record in records)
    )
    credentials = Latest(await load_credentials(account))
    turnstile = Turnstile(policy.connect_spacing_s)
    async with trio.open_nursery() as nursery:
        if account.token_file is not None:
            nursery.start_soon(watch_token_file, account, credentials, policy.token_poll_s)
        for record in records:
            shard = Shard(
                record=record,
                plans=plans,
                credentials=credentials,
                turnstile=turnstile,
                connect=connect,
                frames=frames,
                gaps=gaps,
                on_text=on_text,
                expects_ticks=expects_ticks,
                wall_clock=wall_clock,
                policy=policy,
            )
            task = partial(
                supervise,
                policy.restart,
                stream_shard,
                shard,
                on_failure=shard.note_failure,
                wait=shard.wait_retry,
            )
            nursery.start_soon(task, name=f"shard {record.connection}")


async def watch_token_file(
    account: Account, credentials: Latest[Credentials], poll_s: float
) -> None:
    """Make what the account's file holds the access token, whenever that changes."""
    log = structlog.get_logger().bind(account=account.account_id)
    while True:
        await trio.sleep(poll_s)
        newest = await load_credentials(account, credentials.value)
        if newest != credentials.value:
            credentials.set(newest)
            log.info("access_token_changed")


def _count_target(plans: Latest[Plan], connection: ConnectionId) -> int:
    return len(plans.value.shard(connection))
