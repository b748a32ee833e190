"""From the plan in force to the next one, and what that brings and takes away."""

from collections.abc import Iterable
from dataclasses import dataclass

from ticker.messages import ConnectionId
from ticker.planning.layout import Subscription
from ticker.planning.plan import Plan, create_plan


@dataclass(frozen=True, slots=True)
class Fleet:
    """The accounts there are, in order, and which of their sockets are away."""

    account_ids: tuple[str, ...] = ()
    away: frozenset[ConnectionId] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """The next plan, and the tokens that it carries and the one before did not, or vice versa."""

    plan: Plan
    added: tuple[int, ...]
    removed: tuple[int, ...]


def create_change(
    before: Plan,
    subscriptions: Iterable[Subscription],
    fleet: Fleet,
    *,
    sockets_per_account: int,
    instruments_per_socket: int,
) -> Change:
    """The next plan; ``before`` itself if it would be the same."""
    plan = create_plan(
        subscriptions,
        fleet.account_ids,
        sockets_per_account=sockets_per_account,
        instruments_per_socket=instruments_per_socket,
        away=fleet.away,
        previous=before,
    )
    carried, wanted = before.tokens(), plan.tokens()
    return Change(
        before if plan == before else plan,
        tuple(sorted(wanted - carried)),
        tuple(sorted(carried - wanted)),
    )
