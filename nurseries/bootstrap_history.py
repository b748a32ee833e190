"""The last days' minutes of what options are priced from, fetched once beside the stream.

They are kept in PostgreSQL, so that the first history request with Greeks finds them there.
"""

import datetime as dt
from collections.abc import Callable
from typing import Final

import structlog
import trio

from ticker.calendar.india import india_date
from ticker.errors import BrokerError, UnknownAccountError
from ticker.history.range import INDIA, Span
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.latest import Latest
from ticker.planning.plan import Plan
from ticker.planning.strikes import find_reference

RETRY_S: Final = 60.0
"""Wait before underlyings are asked for again that the broker did not answer for."""


async def bootstrap_history(
    plans: Latest[Plan],
    registry: Latest[InstrumentRegistry],
    references: ReferenceBars,
    *,
    days: int,
    batch: int,
    wall_clock: Callable[[], float],
) -> None:
    """Load ``days`` of minutes of each underlying when something of it is first in the plan.

    At most ``batch`` at a time, each in its turn of the broker's rate limit; streams never wait
    for it. What the broker does not answer for is asked for again, later. Runs until cancelled;
    returns at once if ``days`` is 0.
    """
    loaded: set[str] = set()  # one per underlying in the plan, some hundreds at most
    version = 0
    while days > 0:
        version = await plans.wait_newer(version)
        while waiting := _spots(plans.value, registry.value, wall_clock(), loaded):
            await _load_all(waiting, references, days, batch, wall_clock(), loaded)
            if not loaded.issuperset(waiting):
                await trio.sleep(RETRY_S)


def _spots(
    plan: Plan, registry: InstrumentRegistry, now: float, loaded: set[str]
) -> dict[str, Instrument]:
    """What is not loaded yet: the index or share of each underlying in the plan."""
    rows = (registry.by_token(token) for shard in plan.shards.values() for token in shard)
    names = {row.underlying for row in rows if row is not None} - loaded
    today = india_date(now)
    found = ((name, find_reference(registry, name, today)) for name in sorted(names))
    return {name: row for name, row in found if row is not None and row.expiry is None}


async def _load_all(
    spots: dict[str, Instrument],
    references: ReferenceBars,
    days: int,
    batch: int,
    now: float,
    loaded: set[str],
) -> None:
    until_at = dt.datetime.fromtimestamp(now, INDIA)
    span = Span(until_at - dt.timedelta(days=days), until_at)
    limiter = trio.CapacityLimiter(batch)
    log = structlog.get_logger().bind(task="bootstrap_history")

    async def load(name: str, spot: Instrument) -> None:
        async with limiter:
            try:
                candles = await references.load(spot, "minute", span)
            except (BrokerError, UnknownAccountError) as error:  # or no account is left
                log.warning("history_not_loaded", underlying=name, error=str(error))
                return
            loaded.add(name)
            log.info("history_loaded", underlying=name, minutes=len(candles))

    async with trio.open_nursery() as nursery:
        for name, spot in spots.items():
            nursery.start_soon(load, name, spot)
