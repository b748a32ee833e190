"""One account's market-data sockets, in a nursery of their own.

::

    stream_account
    └── supervise(stream_shard)     one for each socket
"""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

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
from ticker.accounts.sessions import Session
from ticker.feed_record import FeedRecord
from ticker.kite.socket import OpenStream, open_feed
from ticker.latest import Latest
from ticker.messages import ConnectionId, FeedStatus, Frame, Gap
from ticker.metrics import Metrics
from ticker.planning.plan import Plan


async def stream_account(
    session: Session,
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
    """Keep the account's sockets on plan until cancelled; they follow ``session.credentials``.

    ``frames`` receives every binary message but heartbeats, ``gaps`` every hole; both stay open.
    ``report``, ``on_text`` and ``expects_ticks`` are called in place and must not block. Feed
    errors are retried for ever and touch no other account; whatever else is raised, also by the
    callbacks, propagates. At the end the account's gauges go; its counters stay.
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
            ConnectionId(session.account_id, number) for number in range(policy.sockets)
        )
    ]
    turnstile = Turnstile(policy.connect_spacing_s)
    with _shown(metrics, session.account_id, records):
        async with trio.open_nursery() as nursery:
            for record in records:
                shard = Shard(
                    record=record,
                    plans=plans,
                    credentials=session.credentials,
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


@contextmanager
def _shown(metrics: Metrics, account_id: str, records: Sequence[FeedRecord]) -> Iterator[None]:
    """The account's gauges, for the length of the block: what is gone is not to look dead."""
    # Read when the metrics are: always the truth, whatever happened in between.
    metrics.subscribed_tokens.labels(account_id).set_function(
        lambda: sum(record.subscribed for record in records)
    )
    metrics.target_tokens.labels(account_id).set_function(
        lambda: sum(record.target for record in records)
    )
    try:
        yield
    finally:
        metrics.subscribed_tokens.remove(account_id)
        metrics.target_tokens.remove(account_id)
        for record in records:
            names = (account_id, str(record.connection.shard))
            for gauge in (metrics.connected, metrics.last_data, metrics.last_heartbeat):
                gauge.remove(*names)


def _count_target(plans: Latest[Plan], connection: ConnectionId) -> int:
    return len(plans.value.shard(connection))
