"""``/subscriptions``: what is streamed, and whether a change of it has taken effect."""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Final

import msgspec
from quart import Blueprint

from api.auth import requires
from api.operations import AccountId, Answer, InstrumentToken, Query, Text, Time, operation
from api.paging import next_page
from ticker.errors import InvalidRequestError, UnknownItemError
from ticker.planning.reloads import Reloads, ReloadState
from ticker.planning.subscriptions import Changed, SubscriptionRequest, Subscriptions
from ticker.stores.subscriptions import (
    Mode,
    Origin,
    Status,
    SubscriptionFilter,
    SubscriptionRow,
)

BULK_MAX: Final = 9000
"""Instruments in one call: what one account can carry."""
WAIT_MAX_S: Final = 30.0
"""How long a caller may wait for a reload in one request."""

PAGE_HEADERS: Final = {
    "X-Total-Count": "Rows that match, on all pages.",
    "Link": "The next page, if there may be one: rel=next.",
}


class SubscriptionQuery(Query, frozen=True):
    status: Status | None = None
    account_id: AccountId | None = None
    segment: Text | None = None
    instrument_token: InstrumentToken | None = None
    origin: Origin | None = None
    underlying: Annotated[Text | None, msgspec.Meta(description="As in NIFTY.")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 0
    after: Annotated[
        int | None,
        msgspec.Meta(description="Rows with greater tokens only: pages in constant time."),
    ] = None


class NewSubscriptionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``account_id``: the account that is to carry it; None: any that has room."""

    instrument_token: InstrumentToken
    requested_mode: Mode = "FULL"
    account_id: AccountId | None = None


class BulkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to add, or change, and what to remove. A token may not stand on both sides."""

    subscribe: Annotated[list[NewSubscriptionBody], msgspec.Meta(max_length=BULK_MAX)] = []
    unsubscribe: Annotated[list[InstrumentToken], msgspec.Meta(max_length=BULK_MAX)] = []


class PlacedSubscription(SubscriptionRow, frozen=True, kw_only=True):
    """A subscription. ``unplaced``: active, but no account had room for it at the last reload."""

    unplaced: bool


class ChangedSubscription(PlacedSubscription, frozen=True, kw_only=True):
    """A subscription, and the reload with which it takes effect."""

    reload_id: str


class BulkChange(msgspec.Struct, frozen=True):
    """The rows that changed, and the reload with which they take effect; None: nothing did."""

    subscribed: list[PlacedSubscription]
    unsubscribed: list[PlacedSubscription]
    reload_id: str | None


class ReloadQuery(Query, frozen=True):
    wait: Annotated[
        float,
        msgspec.Meta(ge=0, le=WAIT_MAX_S, description="Seconds to wait for it to be complete."),
    ] = 0.0


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """``state``: pending, applied or failed. ``first_tick_at``: by token, of those ``added``."""

    reload_id: str
    state: str
    reasons: tuple[str, ...]
    requested_at: Time
    applied_at: Time | None
    error: str | None
    added: tuple[int, ...]
    removed: tuple[int, ...]
    unplaced: tuple[int, ...]
    first_tick_at: Mapping[int, Time]


def create_subscriptions_blueprint(subscriptions: Subscriptions, reloads: Reloads) -> Blueprint:
    """Read, add, change and remove subscriptions."""
    blueprint = Blueprint("subscriptions", __name__)

    @blueprint.get("/subscriptions")
    @requires("read")
    @operation(headers=PAGE_HEADERS)
    async def find_subscriptions(query: SubscriptionQuery) -> Answer[list[PlacedSubscription]]:
        """Subscriptions by token, page by page.

        Pages follow by `offset`, or by `after`, the last token of the page before.
        """
        if query.after is not None and query.offset:
            raise InvalidRequestError("offset and after exclude each other", field="offset")
        wanted = SubscriptionFilter(
            status=query.status,
            account_id=query.account_id,
            segment=query.segment,
            instrument_token=query.instrument_token,
            origin=query.origin,
            underlying=query.underlying,
        )
        rows = await subscriptions.find(
            wanted, limit=query.limit, offset=query.offset, after=query.after
        )
        total = await subscriptions.count(wanted)
        headers = [("X-Total-Count", str(total))]
        if len(rows) == query.limit:
            headers.append(("Link", next_page(query, after=rows[-1].instrument_token)))
        return Answer(_place(rows, subscriptions.unplaced), headers=tuple(headers))

    @blueprint.post("/subscriptions")
    @requires("trade")
    @operation(status=201, problems=(404, 409))
    async def subscribe(body: NewSubscriptionBody) -> ChangedSubscription:
        """Subscribe to an instrument, or change its mode or account.

        Refused only when what users asked for fills the accounts: the rest gives way.
        """
        changed = await subscriptions.subscribe([_request(body)])
        return _changed(changed, subscriptions.unplaced)

    @blueprint.delete("/subscriptions/<int:instrument_token>")
    @requires("trade")
    @operation(problems=(404,))
    async def unsubscribe(instrument_token: InstrumentToken) -> ChangedSubscription:
        """End a subscription: its row stays, inactive."""
        changed = await subscriptions.unsubscribe([instrument_token])
        return _changed(changed, subscriptions.unplaced)

    @blueprint.post("/subscriptions/bulk")
    @requires("trade")
    @operation(problems=(404, 409))
    async def change_many(body: BulkBody) -> BulkChange:
        """Remove and add many subscriptions in one call.

        Either side is done wholly or not at all; removing comes first, and stays done if adding
        is refused. Both share one reload.
        """
        _refuse_repeats(body)
        removed = await subscriptions.unsubscribe(body.unsubscribe) if body.unsubscribe else None
        wanted = [_request(row) for row in body.subscribe]
        added = await subscriptions.subscribe(wanted, field="subscribe") if wanted else None
        last = added or removed
        return BulkChange(
            subscribed=_place(added.rows if added else (), subscriptions.unplaced),
            unsubscribed=_place(removed.rows if removed else (), subscriptions.unplaced),
            reload_id=last.reload_id if last else None,
        )

    @blueprint.get("/subscriptions/reloads/<reload_id>")
    @requires("read")
    @operation(problems=(404,), deadline_s=WAIT_MAX_S + 5)
    async def show_reload(reload_id: Text, query: ReloadQuery) -> Reload:
        """How a reload stands: pending, applied or failed, and when what it added first ticked.

        With `wait`, the answer comes when all of that is known, or after so many seconds.
        """
        state = await reloads.wait(reload_id, query.wait)
        if state is None:
            raise UnknownItemError(
                f"there is no reload {reload_id!r}, or it has been forgotten", field="reload_id"
            )
        return _reload(state)

    return blueprint


def _request(body: NewSubscriptionBody) -> SubscriptionRequest:
    return SubscriptionRequest(
        instrument_token=body.instrument_token,
        requested_mode=body.requested_mode,
        account_id=body.account_id,
    )


def _refuse_repeats(body: BulkBody) -> None:
    counted = Counter(row.instrument_token for row in body.subscribe)
    for token, times in counted.items():
        if times > 1:
            raise InvalidRequestError(f"{token} is in it {times} times", field="subscribe")
    for token in body.unsubscribe:
        if token in counted:
            raise InvalidRequestError(f"{token} is in subscribe too", field="unsubscribe")


def _place(rows: Iterable[SubscriptionRow], unplaced: Collection[int]) -> list[PlacedSubscription]:
    return [
        PlacedSubscription(**msgspec.structs.asdict(row), unplaced=_is_unplaced(row, unplaced))
        for row in rows
    ]


def _changed(changed: Changed, unplaced: Collection[int]) -> ChangedSubscription:
    """The answer to a change of one row."""
    (row,) = changed.rows
    return ChangedSubscription(
        **msgspec.structs.asdict(row),
        unplaced=_is_unplaced(row, unplaced),
        reload_id=changed.reload_id,
    )


def _is_unplaced(row: SubscriptionRow, unplaced: Collection[int]) -> bool:
    return row.status == "active" and row.instrument_token in unplaced


def _reload(state: ReloadState) -> Reload:
    return Reload(
        reload_id=state.reload_id,
        state=state.state,
        reasons=state.reasons,
        requested_at=_iso(state.requested_at),
        applied_at=None if state.applied_at is None else _iso(state.applied_at),
        error=state.error,
        added=state.added,
        removed=state.removed,
        unplaced=state.unplaced,
        first_tick_at={token: _iso(at) for token, at in state.first_tick_at.items()},
    )


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")
