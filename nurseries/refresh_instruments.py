"""Today's instruments: from the store at the start, from the broker when there is another dump.

What the broker says is in use at once; the store follows when it can. Neither being away ends
the task, or takes away what is in use: it is told in the status, and tried again.
"""

import datetime as dt
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog
import trio

from ticker.backoff import Backoff
from ticker.errors import StoreUnavailableError
from ticker.instruments.archive import save_dump
from ticker.instruments.download import Downloaded, InstrumentSource, download_dumps
from ticker.instruments.dump import (
    ExchangeDump,
    RegistryDifference,
    doubt,
    dump_day,
    registry_difference,
)
from ticker.instruments.refreshes import InstrumentsStatus, Refreshes, RefreshResult, Wish
from ticker.instruments.registry import InstrumentRegistry
from ticker.latest import Latest
from ticker.stores.instruments import InstrumentStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPolicy:
    """Which exchanges to list, and when and how to ask for them.

    ``made_at``: when the broker has the day's dump, at the exchanges' time. ``timeout_s``: for one
    exchange. Waits after failures double from ``retry_first_s`` to ``retry_max_s``, half at
    random. ``check_s``: how often the wall clock, which may be set, is asked whether another dump
    is due. ``archive_dir``: where each day's dumps are filed too; None: nowhere.
    """

    exchanges: tuple[str, ...]
    made_at: dt.time = dt.time(8, 30)
    market_hours_file: Path | None = None
    archive_dir: Path | None = None
    timeout_s: float = 60.0
    retry_first_s: float = 1.0
    retry_max_s: float = 60.0
    check_s: float = 30.0
    jitter: Callable[[], float] = random.random


async def refresh_instruments(
    registry: Latest[InstrumentRegistry],
    *,
    store: InstrumentStore,
    sources: Callable[[], Sequence[InstrumentSource]],
    refreshes: Refreshes,
    policy: RefreshPolicy,
    report: Callable[[InstrumentsStatus], None],
    wall_clock: Callable[[], float],
) -> None:
    """Keep ``registry`` at today's instruments until cancelled.

    ``sources``: the accounts to ask, best first, as they are at that moment. Who follows
    ``registry`` looks contracts up by what they are for good: their tokens may be others.
    """
    keeper = _Keeper(registry, store, sources, policy, report, wall_clock)
    while True:
        wish = refreshes.take()
        if keeper.reading.is_due:
            await keeper.read_store()
        keeper.notice(wish)
        if wish.is_requested or keeper.asking.is_due:
            wish.settle(await keeper.refresh(wish))
        if keeper.saving.is_due:
            await keeper.save()
        waits = (each.wait_s for each in (keeper.reading, keeper.asking, keeper.saving))
        with trio.move_on_after(min(policy.check_s, *waits)):
            await refreshes.wait_asked()


@dataclass(slots=True)
class _Keeper:
    """What is in use, what is on its way to the store, and what is to be tried again."""

    registry: Latest[InstrumentRegistry]
    store: InstrumentStore
    sources: Callable[[], Sequence[InstrumentSource]]
    policy: RefreshPolicy
    report: Callable[[InstrumentsStatus], None]
    wall_clock: Callable[[], float]
    status: InstrumentsStatus = field(default_factory=InstrumentsStatus)
    replaced: set[str] = field(default_factory=set)  # exchanges whose dump in use is not the newest
    dumps: dict[str, ExchangeDump] = field(default_factory=dict)  # those that are not stored yet
    reading: Backoff = field(init=False)
    asking: Backoff = field(init=False)
    saving: Backoff = field(init=False)

    def __post_init__(self) -> None:
        policy = self.policy
        self.reading, self.asking, self.saving = (
            Backoff(policy.retry_first_s, policy.retry_max_s, policy.jitter) for _ in range(3)
        )
        self.reading.start()

    def today(self) -> dt.date:
        """The day whose dump is in force."""
        policy, now = self.policy, self._now()
        return dump_day(now, policy.made_at, policy.exchanges, policy.market_hours_file)

    def outdated(self) -> list[str]:
        """The exchanges of whose dumps there is a newer one."""
        today, days = self.today(), self.status.days
        return [
            name
            for name in self.policy.exchanges
            if name in self.replaced or days.get(name, dt.date.min) < today
        ]

    def notice(self, wish: Wish) -> None:
        """Decide whether the broker is to be asked: see ``asking``."""
        if wish.is_outdated:
            self.replaced.update(self.policy.exchanges)
            self.asking.stop()
        if not self.outdated():
            self.asking.stop()
        elif self.asking.wait_s == math.inf:
            self.asking.start()

    async def read_store(self) -> None:
        """Use what the store has of exchanges that nothing is known of yet."""
        missing = [name for name in self.policy.exchanges if name not in self.status.days]
        if not missing:
            self.reading.stop()
            return
        try:
            stored = await self.store.load(missing)
        except StoreUnavailableError as error:
            self.reading.fail()
            self._tell_store(error)
            return
        self.reading.stop()
        self._tell(store_error=None)
        if not stored.instruments:
            return
        rows = [*self.registry.value, *stored.instruments]
        self.registry.set(await trio.to_thread.run_sync(InstrumentRegistry, rows))
        marks = stored.marks.values()
        self._tell(
            instruments=len(self.registry.value),
            source="store",
            loaded_at=max((mark.loaded_at.timestamp() for mark in marks), default=None),
            days={**self.status.days, **{mark.exchange: mark.day for mark in marks}},
            rejected={mark.exchange: mark.rejected for mark in marks},
        )

    async def refresh(self, wish: Wish) -> RefreshResult:
        """Download what is due, or everything if that is wished for, and use what is believed."""
        exchanges = list(self.policy.exchanges) if wish.force else self.outdated()
        if not exchanges:
            return self._result(wish, refreshed=False, reason="today's instruments are in use")
        log = structlog.get_logger().bind(task="refresh_instruments")
        downloaded = await download_dumps(
            self.sources(),
            exchanges,
            self.registry.value,
            self.today(),
            timeout_s=self.policy.timeout_s,
            is_confirmed=wish.force,
        )
        problems = await self._use(downloaded)
        reason = "; ".join(dict.fromkeys(problems.values())) or None
        if problems:
            self.asking.fail()
            if problems != self.status.problems:
                log.warning("instruments_not_refreshed", problems=problems)
        else:
            self.asking.stop()
        refreshed = len(problems) < len(exchanges)
        self._tell(
            problems={
                **{k: v for k, v in self.status.problems.items() if k not in exchanges},
                **problems,
            },
            last_error=reason,
            refreshes=self.status.refreshes + refreshed,
            failures=self.status.failures + bool(problems),
        )
        account = ", ".join(downloaded.accounts) or None
        return self._result(wish, refreshed=refreshed, reason=reason, account=account)

    async def _use(self, downloaded: Downloaded) -> Mapping[str, str]:
        """Put the dumps that can be believed in use; returns the problems of all others."""
        before = self.registry.value
        problems = dict(downloaded.problems)
        believed: dict[str, ExchangeDump] = {}
        for exchange, dump in downloaded.dumps.items():
            reason = doubt(dump, before.count(exchange))
            if reason is None:
                believed[exchange] = dump
            else:
                problems[exchange] = reason
        if not believed:
            return problems

        def compare() -> tuple[InstrumentRegistry, RegistryDifference, bool]:
            after = before.replaced({name: dump.instruments for name, dump in believed.items()})
            difference = registry_difference(before, after)
            is_same = len(before) == len(after) and all(
                before.by_token(row.instrument_token) is row for row in after
            )
            return after, difference, is_same

        after, difference, is_same = await trio.to_thread.run_sync(compare)
        if not is_same:  # nobody who follows the registry is woken for nothing
            self.registry.set(after)
        self.dumps |= believed
        self.replaced.difference_update(believed)
        self.saving.start()
        self._tell(
            instruments=len(after),
            source="broker",
            loaded_at=self.wall_clock(),
            days={**self.status.days, **{name: dump.day for name, dump in believed.items()}},
            rejected={
                **self.status.rejected,
                **{name: dump.rejected for name, dump in believed.items()},
            },
            is_stored=False,
        )
        structlog.get_logger().bind(task="refresh_instruments").info(
            "instruments_refreshed",
            instruments=len(after),
            exchanges=list(believed),
            added=difference.added,
            gone=len(difference.gone),
            moved=len(difference.moved),
            reused=len(difference.reused),
            rejected=sum(self.status.rejected.values()),
        )
        return problems

    async def save(self) -> None:
        """Merge what is in use into the store, and file it; both again later if that fails."""
        dumps = list(self.dumps.values())
        try:
            merged = await self.store.merge(dumps, self._now())
        except StoreUnavailableError as error:
            self.saving.fail()
            self._tell_store(error)
            return
        self.saving.stop()
        problems = {name: why for name, why in self.status.problems.items() if name != "archive"}
        problems |= merged.refused
        try:
            if self.policy.archive_dir is not None:
                for dump in dumps:
                    await trio.to_thread.run_sync(save_dump, self.policy.archive_dir, dump)
        except OSError as error:
            structlog.get_logger().warning("instruments_not_archived", error=str(error))
            problems |= {"archive": error.strerror or "the day's file cannot be written"}
        self.dumps = {}
        self._tell(is_stored=not merged.refused, store_error=None, problems=problems)

    def _tell_store(self, error: StoreUnavailableError) -> None:
        log = structlog.get_logger().bind(task="refresh_instruments")
        log.warning("instruments_store_failed", error=str(error), detail=error.detail)
        self._tell(store_error=str(error))

    def _result(
        self, wish: Wish, *, refreshed: bool, reason: str | None, account: str | None = None
    ) -> RefreshResult:
        loaded_at = self.status.loaded_at
        return RefreshResult(
            force=wish.force,
            refreshed=refreshed,
            reason=reason,
            last_refreshed_at=(
                None if loaded_at is None else dt.datetime.fromtimestamp(loaded_at, dt.UTC)
            ),
            account_used=account,
        )

    def _tell(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)
        self.report(self.status)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.wall_clock(), dt.UTC)
