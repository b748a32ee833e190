"""How often somebody may ask: one token bucket for each key and each address."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import trio

BUCKETS_MAX: Final = 10_000
"""Buckets kept. When full, the one not used for longest goes: it has probably filled up again,
and a full bucket is the same as none."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Where somebody stands. ``retry_after_s``: 0 if the request was let through.

    ``reset_s``: seconds until everything is allowed again.
    """

    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimits:
    """``per_minute`` requests a minute for each name, which may come all at once."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take_nowait(self, name: str) -> Allowance:
        """Count one request of ``name``, if it has one left."""
        return self._look(name, 1)

    def peek_nowait(self, name: str) -> Allowance:
        """What ``take_nowait`` would answer, without counting."""
        return self._look(name, 0)

    def _look(self, name: str, cost: int) -> Allowance:
        now = trio.current_time()
        per_second = self.per_minute / 60
        bucket = self._buckets.pop(name, None) or _Bucket(self.per_minute, now)
        self._buckets[name] = bucket  # at the end: the most recently used
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        earned = (now - bucket.filled_at) * per_second
        bucket.tokens = min(self.per_minute, bucket.tokens + earned)
        bucket.filled_at = now
        allowed = bucket.tokens >= 1
        retry_after_s = 0.0 if allowed else (1 - bucket.tokens) / per_second
        if allowed:
            bucket.tokens -= cost
        return Allowance(
            limit=self.per_minute,
            remaining=int(bucket.tokens),
            reset_s=(self.per_minute - bucket.tokens) / per_second,
            retry_after_s=retry_after_s,
        )
