"""A publisher with everything around it that a test needs."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import thread_time

import msgspec
import trio

from nurseries.publisher import PublishPolicy, publish
from ticker.messages import ConnectionId, Gap, SnapshotBatch
from ticker.metrics import Metrics
from ticker.publishers.status import PublisherStatus

PREFIX = "ticker:nifty"
EPOCH = 1_800_000_000.0


def wall_clock() -> float:
    """UNIX seconds that follow Trio's clock, virtual or real."""
    return EPOCH + trio.current_time()


async def wait_for(condition: Callable[[], bool], within_s: float) -> float:
    """Seconds until the condition held; trio.TooSlowError if it did not in time."""
    began_at = trio.current_time()
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - no one but the condition knows
            await trio.sleep(0.005)
    return trio.current_time() - began_at


class LoopTimer(trio.abc.Instrument):
    """The longest that a step of the publisher held the event loop, in seconds of CPU time.

    Of its own, whatever else the machine and the test's other tasks are doing.
    """

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._began_s = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began_s = thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith((f"{__name__}.Rig", "nurseries.publisher.")):
            self.worst_s = max(self.worst_s, thread_time() - self._began_s)


class Rig:
    """A publisher under test, what it was given and what it said."""

    def __init__(self, url: str, policy: PublishPolicy, patience_s: float = 0.001) -> None:
        self.metrics = Metrics()
        self.reports: list[PublisherStatus] = []
        self.wall_leap_s = 0.0
        self.fed: Counter[ConnectionId] = Counter()
        self.send, self._snapshots = trio.open_memory_channel[SnapshotBatch](2)
        self.send_gap, self._gaps = trio.open_memory_channel[Gap](2)
        self._url = url
        self._policy = policy
        self._patience_s = patience_s

    async def run(self) -> None:
        await publish(
            self._snapshots,
            self._gaps,
            url=self._url,
            prefix=PREFIX,
            policy=self._policy,
            metrics=self.metrics,
            report=self.reports.append,
            wall_clock=lambda: wall_clock() + self.wall_leap_s,
        )

    async def feed(self, batch: SnapshotBatch) -> None:
        """Send a batch; the publisher must take it at once, whatever Redis does."""
        self._count(batch)
        with trio.fail_after(self._patience_s):
            await self.send.send(batch)

    def feed_nowait(self, batch: SnapshotBatch) -> None:
        """Send a batch into the channel; it holds two that the publisher did not take yet."""
        self.send.send_nowait(batch)
        self._count(batch)

    def _count(self, batch: SnapshotBatch) -> None:
        for source in batch.sources.tolist():
            if source >= 0:
                self.fed[batch.connections[source]] += 1

    def status(self) -> PublisherStatus:
        """The newest report."""
        return self.reports[-1] if self.reports else PublisherStatus()

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def total(self, name: str, connection: ConnectionId) -> float:
        labels = {"account_id": connection.account_id, "shard": str(connection.shard)}
        return sum(
            sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def assert_accounted(self) -> None:
        """decoded = published + conflated + dropped, for each connection."""
        for connection, fed in self.fed.items():
            accounted = [
                self.total(f"feed_ticks_{fate}_total", connection)
                for fate in ("published", "conflated", "dropped")
            ]
            assert sum(accounted) == fed, accounted


@asynccontextmanager
async def open_rig(url: str, *, patience_s: float = 0.001, **policy: object) -> AsyncIterator[Rig]:
    """A running publisher; at the end its input closes and it must come to its end.

    ``patience_s``: how long it may take to accept a batch, on real time with a busy machine.
    """
    rig = Rig(url, msgspec.convert(policy, PublishPolicy), patience_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        async with rig.send, rig.send_gap:
            yield rig
