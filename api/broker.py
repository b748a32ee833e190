"""``/account`` and ``/advanced/rate-limit``: the broker's REST side, per account."""

from collections import Counter
from typing import Annotated, Final

import msgspec
from quart import Blueprint

from api.auth import requires
from api.operations import AccountId, Query, operation
from ticker.control_metrics import ControlMetrics
from ticker.errors import BrokerError
from ticker.kite.limits import CALLS_PER_S
from ticker.kite.models import Profile
from ticker.kite.rest import Brokers

DOCUMENTATION_URL: Final = "https://kite.trade/docs/connect/v3/exceptions/#api-rate-limit"
DEADLINE_S: Final = 30.0
_TOO_MANY: Final = "429"


class ProfilesQuery(Query, frozen=True):
    include_profile: bool = True


class AccountProfile(msgspec.Struct, frozen=True):
    """``profile`` is None, and ``error`` says why, if the broker did not give it."""

    account_id: str
    profile_available: bool
    profile: Profile | None = None
    error: str | None = None


class ProfileQuery(Query, frozen=True):
    account_id: Annotated[
        AccountId | None, msgspec.Meta(description="None: the first that answers.")
    ] = None


class RateLimitStats(msgspec.Struct, frozen=True):
    """REST calls to the broker since the start, all accounts together."""

    total_requests: int
    rate_limited_count: int
    avg_call_time_ms: float | None
    endpoints: dict[str, dict[str, int]]


class CallLimit(msgspec.Struct, frozen=True):
    requests_per_second: int


class RateLimitConfig(msgspec.Struct, frozen=True):
    """What the broker allows of each class of calls, by api_key."""

    documentation_url: str
    limits: dict[str, CallLimit]


def create_broker_blueprint(brokers: Brokers, metrics: ControlMetrics) -> Blueprint:
    """Who the accounts are at the broker, and what may be asked of it how often."""
    blueprint = Blueprint("broker", __name__)

    @blueprint.get("/account/s")
    @requires("admin")
    @operation(deadline_s=DEADLINE_S)
    async def find_profiles(query: ProfilesQuery) -> list[AccountProfile]:
        """Every account, and the broker's profile of each, or why there is none."""
        found = []
        for broker in sorted(brokers.in_order(), key=lambda each: each.account_id):
            name = broker.account_id
            if not query.include_profile:
                found.append(AccountProfile(name, profile_available=False))
                continue
            try:
                profile = await broker.load_profile()
            except BrokerError as error:
                found.append(AccountProfile(name, profile_available=False, error=str(error)))
            else:
                found.append(AccountProfile(name, profile_available=True, profile=profile))
        return found

    @blueprint.get("/account/profile")
    @requires("admin")
    @operation(problems=(502, 504), deadline_s=DEADLINE_S)
    async def show_profile(query: ProfileQuery) -> Profile:
        """The broker's profile of an account: the cheapest proof that its token holds."""
        return await brokers.ask(lambda broker: broker.load_profile(), query.account_id)

    @blueprint.get("/advanced/rate-limit/stats")
    @requires("read")
    @operation()
    async def stats() -> RateLimitStats:
        """Calls by endpoint and outcome, and how long they took, their turns not included."""
        return _stats(metrics)

    @blueprint.get("/advanced/rate-limit/config")
    @requires("read")
    @operation()
    async def config() -> RateLimitConfig:
        """The broker's limits, which callers here wait for."""
        limits: dict[str, CallLimit] = {
            kind: CallLimit(calls) for kind, calls in CALLS_PER_S.items()
        }
        return RateLimitConfig(DOCUMENTATION_URL, limits)

    return blueprint


def _stats(metrics: ControlMetrics) -> RateLimitStats:
    endpoints: dict[str, dict[str, int]] = {}
    outcomes: Counter[str] = Counter()
    for family in metrics.api_calls.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                method, status = sample.labels["method"], sample.labels["status"]
                endpoints.setdefault(method, {})[status] = int(sample.value)
                outcomes[status] += int(sample.value)
    seconds = sum(
        sample.value
        for family in metrics.api_seconds.collect()
        for sample in family.samples
        if sample.name.endswith("_sum")
    )
    total = outcomes.total()
    return RateLimitStats(
        total_requests=total,
        rate_limited_count=outcomes[_TOO_MANY],
        avg_call_time_ms=round(1000 * seconds / total, 1) if total else None,
        endpoints=endpoints,
    )
