"""The tree: every channel, every nursery, and who is given what.

Read it as nesting: what stands further in ends first. The API server is the body; when it has
ended the sources are cancelled, their channels close, the sinks drain what is left and the
service is over. A bug anywhere leaves through the nurseries and ends the process.
"""

import datetime as dt
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
import trio

from api.app import create_app
from api.server import serve_api
from nurseries.account_stream import stream_account
from nurseries.enricher import enrich
from nurseries.load_catalogue import load_catalogue
from nurseries.publisher import PublishPolicy, publish
from nurseries.shard_stream import StreamPolicy
from nurseries.supervise import RestartPolicy, supervise
from ticker.circuit_breaker import BreakerPolicy
from ticker.credentials import Account, create_accounts
from ticker.engine import Engine, create_engine
from ticker.errors import BrokerError
from ticker.instruments import InstrumentRegistry
from ticker.latest import Latest
from ticker.market_hours import require_year
from ticker.messages import ConnectionId, Frame, Gap, SnapshotBatch
from ticker.metrics import Metrics
from ticker.planning import Plan
from ticker.settings import DEFAULT_REDIS_URL, Settings
from ticker.status import ServiceStatus
from ticker.tick_expectation import expects_ticks

FRAMES_MAX: Final = 256
"""Frames waiting for the enricher, at most 143 MB and one second of its work. When full, streams
wait, and the broker's TCP window with them: a frame that was received is never thrown away."""

SNAPSHOTS_MAX: Final = 8
"""Batches on their way to the publisher, which takes them at once and conflates; when full, the
enricher waits."""

GAPS_MAX: Final = 64
"""Gap events waiting to be published. When full, streams wait."""

CATALOGUE_RESTARTS: Final = RestartPolicy(
    # The broker answers one quote request a second; a refused one is not repeated sooner.
    expected=(BrokerError,),
    delay_max_s=15.0,
    delay_floors_s={BrokerError: 1.0},
)


async def run_service(
    settings: Settings,
    status: ServiceStatus,
    metrics: Metrics,
    *,
    stop: trio.Event,
    wall_clock: Callable[[], float] = time.time,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until ``stop`` is set, then shut down in order. ``task_status`` is given the API's URL.

    ``settings`` name a Redis server and at least one account. Raises an ExceptionGroup with the
    first bug; nothing that the error tree calls expected gets that far.
    """
    if not settings.is_mock:
        now = dt.datetime.fromtimestamp(wall_clock(), dt.UTC)
        require_year(now, settings.market_hours_file)
    accounts = create_accounts(settings)
    registry = Latest(InstrumentRegistry(()))
    plans = Latest(Plan({}))
    engine = create_engine(settings, lambda: registry.value)

    def is_ticking_time(connection: ConnectionId) -> bool:
        return settings.is_mock or expects_ticks(
            connection, plans.value, registry.value, wall_clock(), settings.market_hours_file
        )

    tasks = bind_tasks(settings, engine, status, metrics, wall_clock, is_ticking_time)
    await trio.to_thread.run_sync(engine.warm_up, abandon_on_cancel=True)
    gc.collect()
    gc.freeze()  # a full collection over the compiled kernels would stall the loop for 50 ms

    send_frames, frames = trio.open_memory_channel[Frame](FRAMES_MAX)
    send_snapshots, snapshots = trio.open_memory_channel[SnapshotBatch](SNAPSHOTS_MAX)
    send_gaps, gaps = trio.open_memory_channel[Gap](GAPS_MAX)

    async with trio.open_nursery() as sinks:
        sinks.start_soon(tasks.enrich, frames, send_snapshots)
        sinks.start_soon(tasks.publish, snapshots, gaps)
        async with send_frames, send_gaps, trio.open_nursery() as sources:
            sources.start_soon(tasks.load_catalogue, accounts, registry, plans)
            for account in accounts:
                name = f"account {account.account_id}"
                sources.start_soon(tasks.stream, account, plans, send_frames, send_gaps, name=name)
            await tasks.serve_api(stop, task_status)
            sources.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of the tree, each with its settings and its ways to report, not yet running."""

    enrich: Callable[
        [trio.MemoryReceiveChannel[Frame], trio.MemorySendChannel[SnapshotBatch]], Awaitable[None]
    ]
    publish: Callable[
        [trio.MemoryReceiveChannel[SnapshotBatch], trio.MemoryReceiveChannel[Gap]], Awaitable[None]
    ]
    stream: Callable[
        [Account, Latest[Plan], trio.MemorySendChannel[Frame], trio.MemorySendChannel[Gap]],
        Awaitable[None],
    ]
    load_catalogue: Callable[
        [Sequence[Account], Latest[InstrumentRegistry], Latest[Plan]], Awaitable[None]
    ]
    serve_api: Callable[[trio.Event, trio.TaskStatus[str]], Awaitable[None]]


def bind_tasks(
    settings: Settings,
    engine: Engine,
    status: ServiceStatus,
    metrics: Metrics,
    wall_clock: Callable[[], float],
    is_ticking_time: Callable[[ConnectionId], bool],
) -> Tasks:
    """Give each task what does not flow through the tree."""

    async def serve(stop: trio.Event, task_status: trio.TaskStatus[str]) -> None:
        async def wait_stop() -> None:
            await stop.wait()
            status.draining = True  # readiness goes first

        app = create_app(
            status, metrics, wall_clock=wall_clock, market_hours_file=settings.market_hours_file
        )
        await serve_api(
            app,
            host=settings.host,
            port=settings.port,
            wait_shutdown=wait_stop,
            task_status=task_status,
        )

    def note_failure(error: Exception, delay_s: float) -> None:
        metrics.task_failures.labels("load_catalogue").inc()
        log = structlog.get_logger().bind(task="load_catalogue")
        log.warning("catalogue_not_loaded", error=str(error), retry_in_s=round(delay_s, 1))

    return Tasks(
        enrich=partial(
            enrich,
            engine=engine,
            limiter=trio.CapacityLimiter(settings.greeks_threads),
            metrics=metrics,
            report=status.report_engine,
            wall_clock=wall_clock,
        ),
        publish=partial(
            publish,
            url=settings.redis_url or DEFAULT_REDIS_URL,
            prefix=settings.publish_channel_prefix,
            policy=create_publish_policy(settings),
            metrics=metrics,
            report=status.report_publisher,
            wall_clock=wall_clock,
        ),
        stream=partial(
            stream_account,
            policy=create_stream_policy(settings),
            metrics=metrics,
            report=status.report_feed,
            wall_clock=wall_clock,
            ws_root=settings.kite_ws_root,
            expects_ticks=is_ticking_time,
        ),
        load_catalogue=partial(
            supervise,
            CATALOGUE_RESTARTS,
            partial(
                load_catalogue,
                settings=settings,
                report=status.report_catalogue,
                wall_clock=wall_clock,
            ),
            on_failure=note_failure,
        ),
        serve_api=serve,
    )


def create_publish_policy(settings: Settings) -> PublishPolicy:
    """How to publish, as configured."""
    return PublishPolicy(
        batch_max=settings.tick_batch_max_size if settings.tick_batch_enabled else 1,
        window_s=settings.tick_batch_window_ms / 1000,
        timeout_s=settings.redis_timeout_seconds,
        breaker=BreakerPolicy(
            failures=settings.redis_circuit_failures,
            open_s=settings.redis_circuit_open_seconds,
            tries=settings.redis_circuit_half_open_tries,
        ),
        probe_interval_s=settings.redis_probe_interval_seconds,
        last_values=settings.redis_last_values,
        stream_max_length=settings.redis_stream_max_length,
    )


def create_stream_policy(settings: Settings) -> StreamPolicy:
    """How to stream, as configured."""
    return StreamPolicy(
        sockets=settings.max_ws_connections_per_account,
        tokens_per_message=settings.kite_tokens_per_message,
        silence_s=settings.kite_silence_seconds,
        mute_s=settings.kite_mute_seconds,
        token_retry_s=settings.kite_token_retry_seconds,
    )
