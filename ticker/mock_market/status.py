"""What the mock market says of itself."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from ticker.messages import MarketPhase


class MockMarketStatus(msgspec.Struct, frozen=True):
    """Where the mock market stands, reported after each step and on every change.

    ``segments``: each segment that the service carries, as its last event told it.
    ``calendar_ends_at``: when the calendar knows no more of them, UNIX seconds, in the past once it
    does not; None where nothing is carried, and where the market is simulated.
    ``speaks_for``: underlyings whose ticks are the mock market's. ``size``: instruments held, of
    at most ``size_max``; ``left_out``: instruments that are wanted and have no place.
    ``seeded``, ``evictions``: totals since the start, by source and by reason.
    """

    enabled: bool = False
    segments: tuple[MarketPhase, ...] = ()
    calendar_ends_at: float | None = None
    speaks_for: tuple[str, ...] = ()
    size: int = 0
    size_max: int = 0
    left_out: int = 0
    steps: int = 0
    seeded: Mapping[str, int] = MappingProxyType({})
    evictions: Mapping[str, int] = MappingProxyType({})
