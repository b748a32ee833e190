"""How full the accounts are and how the last reload went, for health and metrics."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from ticker.messages import ConnectionId
from ticker.planning.plan import Plan
from ticker.planning.reloads import ReloadState
from ticker.planning.wishes import Wishes

NEARLY_FULL_PERCENT: Final = 80.0
"""From here on an account is worth a warning."""


class PlanStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted, what is planned, and what room is left; all counts are of instruments.

    ``unplaced``: wanted, but no account has room. ``unresolved``: wanted, but not among the
    instruments of today. ``stand_ins``: carried by another socket while their own is away.
    ``utilisation_percent``: by account, stand-ins included. ``away``: sockets, as account/shard.
    ``store_error``: why the rows are those of earlier; ``is_store_replaced``: because the database
    is not the one that they came from.
    """

    wanted: int = 0
    planned: int = 0
    unplaced: int = 0
    unresolved: int = 0
    stand_ins: int = 0
    capacity: int = 0
    utilisation_percent: Mapping[str, float] = MappingProxyType({})
    away: tuple[str, ...] = ()
    store_error: str | None = None
    is_store_replaced: bool = False
    last_reload: ReloadState | None = None

    @property
    def nearly_full(self) -> tuple[str, ...]:
        """Accounts from 80 % of their places on."""
        return tuple(
            account_id
            for account_id, percent in self.utilisation_percent.items()
            if percent >= NEARLY_FULL_PERCENT
        )


def create_plan_status(
    plan: Plan,
    wishes: Wishes,
    account_ids: Sequence[str],
    *,
    account_capacity: int,
    away: Collection[ConnectionId],
    store_error: str | None,
    is_store_replaced: bool,
    newest: ReloadState | None,
) -> PlanStatus:
    """Count what the plan holds."""
    carried = dict.fromkeys(account_ids, 0)
    for socket, shard in plan.shards.items():
        carried[socket.account_id] = carried.get(socket.account_id, 0) + len(shard)
    return PlanStatus(
        wanted=len(wishes.subscriptions) + len(wishes.unresolved),
        planned=len(wishes.subscriptions) - len(plan.unplaced),
        unplaced=len(plan.unplaced),
        unresolved=len(wishes.unresolved),
        stand_ins=len(plan.stand_ins),
        capacity=account_capacity * len(account_ids),
        utilisation_percent=MappingProxyType(
            {account_id: 100 * count / account_capacity for account_id, count in carried.items()}
        ),
        away=tuple(sorted(str(socket) for socket in away)),
        store_error=store_error,
        is_store_replaced=is_store_replaced,
        last_reload=newest,
    )
