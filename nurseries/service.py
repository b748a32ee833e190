"""The tree: every channel, every nursery, and who is given what.

::

    run_service
    ├── sinks                       drain when their channel closes
    │   ├── enrich                      frames → ticks → Greeks → payloads
    │   └── publish                     payloads and events → Redis
    └── sources                     cancelled when the API has ended
        ├── keep_accounts               settings, database → who is there
        ├── stream_accounts             a nursery per account, sockets on plan
        ├── run_mock_market             frames while the markets are closed
        ├── keep_store, keep_api_keys, restore_switch
        ├── refresh_instruments         broker, database → instruments
        ├── rebalance_strikes           forwards → subscriptions
        ├── reload                      subscriptions, accounts → plan
        ├── bootstrap_history
        └── serve_control               the body: the service lives as long as it serves

Read it as nesting: what stands further in ends first. When the API has ended the sources are
cancelled, their channels close, the sinks drain what is left and the service is over. A bug
anywhere leaves through the nurseries and ends the process.
"""

import datetime as dt
import gc
import time
from collections.abc import Callable
from typing import Final

import structlog
import trio

from nurseries.bindings import bind_tasks
from nurseries.enricher import Tap, ignore_frames
from nurseries.parts import open_parts
from nurseries.serve_control import serve_control
from ticker.calendar.market_hours import require_year
from ticker.messages import Event, Frame, SnapshotBatch
from ticker.metrics import Metrics
from ticker.settings import Settings
from ticker.status import ServiceStatus

FRAMES_MAX: Final = 256
"""Frames waiting for the enricher, at most 143 MB and one second of its work. When full, streams
wait, and the broker's TCP window with them: a frame that was received is never thrown away."""

SNAPSHOTS_MAX: Final = 8
"""Batches on their way to the publisher, which takes them at once and conflates; when full, the
enricher waits."""

EVENTS_MAX: Final = 64
"""Gaps and phases of the market waiting to be published. When full, their senders wait."""

TABLES_S: Final = 2.0
"""How long a start waits for PostgreSQL's tables. Nobody depends on them, but whoever finds them
there needs not ask the broker."""


async def run_service(
    settings: Settings,
    status: ServiceStatus,
    metrics: Metrics,
    *,
    stop: trio.Event,
    wall_clock: Callable[[], float] = time.time,
    tap: Tap = ignore_frames,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until ``stop`` is set, then shut down in order. ``task_status`` is given the API's URL.

    ``tap`` is handed each batch of frames that is processed. Raises an ExceptionGroup with the
    first bug; nothing that the error tree calls expected gets that far.
    """
    if not settings.is_mock:
        now = dt.datetime.fromtimestamp(wall_clock(), dt.UTC)
        require_year(now, settings.instrument_segments, settings.market_hours_file)
    async with open_parts(settings, metrics.control, wall_clock) as parts:
        structlog.get_logger().info("loading_kernels", note="compiled at the first start")
        await trio.to_thread.run_sync(parts.engine.warm_up, abandon_on_cancel=True)
        gc.collect()
        gc.freeze()  # a full collection over the compiled kernels would stall the loop for 50 ms

        tasks = bind_tasks(parts, status, metrics, tap)
        send_frames, frames = trio.open_memory_channel[Frame](FRAMES_MAX)
        send_snapshots, snapshots = trio.open_memory_channel[SnapshotBatch](SNAPSHOTS_MAX)
        send_events, events = trio.open_memory_channel[Event](EVENTS_MAX)

        async with trio.open_nursery() as sinks:
            sinks.start_soon(tasks.enrich, frames, send_snapshots)
            sinks.start_soon(tasks.publish, snapshots, events)
            async with send_frames, send_events, trio.open_nursery() as sources:
                sources.start_soon(tasks.keep_store)
                with trio.move_on_after(TABLES_S):
                    await parts.desired.migrated.wait()
                for name, task in tasks.steering.items():
                    sources.start_soon(task, name=name)
                await sources.start(tasks.keep_accounts)
                sources.start_soon(tasks.stream_accounts, send_frames, send_events)
                if not settings.is_mock:  # a simulated market never closes
                    sources.start_soon(tasks.run_mock_market, send_frames, send_events)
                await serve_control(parts, status, metrics, stop, task_status)
                sources.cancel_scope.cancel()
