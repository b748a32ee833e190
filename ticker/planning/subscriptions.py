"""Subscriptions as users change them: checked, stored, and put into effect by a reload."""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec
import trio

from ticker.accounts.sessions import Sessions
from ticker.calendar.india import india_date
from ticker.errors import (
    CapacityError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownAccountError,
    UnknownInstrumentError,
    UnknownItemError,
)
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.latest import Latest
from ticker.planning.reloads import Reloads
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import (
    Mode,
    NewSubscription,
    SubscriptionFilter,
    SubscriptionRow,
    SubscriptionStore,
)


class SubscriptionRequest(msgspec.Struct, frozen=True):
    """One instrument that somebody wants. ``account_id``: on which account, None for any."""

    instrument_token: int
    requested_mode: Mode = "FULL"
    account_id: str | None = None


class Changed(msgspec.Struct, frozen=True):
    """The rows as they stand after a change, by token, and the reload that puts it into effect."""

    rows: tuple[SubscriptionRow, ...]
    reload_id: str


class Subscriptions:
    """What the API calls. Every method raises StoreUnavailableError while PostgreSQL is away.

    ``account_capacity``: instruments that one account carries. ``wall_clock``: UNIX seconds.
    """

    def __init__(
        self,
        store: SubscriptionStore,
        index: SubscriptionIndex,
        *,
        registry: Latest[InstrumentRegistry],
        sessions: Latest[Sessions],
        reloads: Reloads,
        account_capacity: int,
        wall_clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._index = index
        self._registry = registry
        self._sessions = sessions
        self._reloads = reloads
        self._account_capacity = account_capacity
        self._wall_clock = wall_clock
        # One change at a time, or two that each fit would together exceed the capacity. A change
        # takes two short transactions, each with its deadline.
        self._changing = trio.Lock()

    async def subscribe(self, wanted: Sequence[SubscriptionRequest], *, field: str = "") -> Changed:
        """Have these instruments streamed, all or none of them; the rest stays as it is.

        A subscription that exists takes over mode and account; of two with one token, the later
        counts. Raises UnknownInstrumentError, InvalidRequestError for an expired contract,
        UnknownAccountError, and CapacityError when what users asked for fills the accounts
        together, or the one that is named; what the rebalancer keeps gives way. What is streamed
        already needs no further place. ``field``: what the caller calls the list, for errors.
        """
        rows = {
            request.instrument_token: self._check(request, f"{field}[{place}]." if field else "")
            for place, request in enumerate(wanted)
        }
        async with self._changing:
            await self._check_capacity(rows)
            changed = await self._store.upsert(list(rows.values()), origin="user")
        return Changed(tuple(changed), self._reloads.request("subscribed"))

    async def unsubscribe(self, tokens: Collection[int]) -> Changed:
        """Stop streaming these, all or none of them. One that is inactive already stays so.

        Raises UnknownItemError if there never was a subscription for one of them.
        """
        async with self._changing:
            known = await self._index.load_rows(tokens)
            for token in tokens:
                if token not in known:
                    raise UnknownItemError(
                        f"there is no subscription for {token}", field="instrument_token"
                    )
            changed = await self._store.deactivate(list(known), origin="user")
        return Changed(tuple(changed), self._reloads.request("unsubscribed"))

    @property
    def unplaced(self) -> frozenset[int]:
        """What was wanted at the newest reload, and no account had room for."""
        newest = self._reloads.newest
        return frozenset(newest.unplaced if newest else ())

    async def find(
        self,
        wanted: SubscriptionFilter,
        *,
        limit: int,
        offset: int = 0,
        after: int | None = None,
    ) -> list[SubscriptionRow]:
        """One page of subscriptions, by token; ``after``: the last token of the page before."""
        return await self._store.find(wanted, limit=limit, offset=offset, after=after)

    async def count(self, wanted: SubscriptionFilter) -> int:
        """How many subscriptions meet the filter."""
        return await self._store.count(wanted)

    def _check(self, request: SubscriptionRequest, prefix: str) -> NewSubscription:
        instrument = self._find_instrument(request.instrument_token, f"{prefix}instrument_token")
        account_id = request.account_id
        if account_id is not None and account_id not in self._sessions.value:
            raise UnknownAccountError(
                f"there is no account {account_id!r}", field=f"{prefix}account_id"
            )
        return NewSubscription(
            instrument_token=instrument.instrument_token,
            exchange=instrument.exchange,
            tradingsymbol=instrument.tradingsymbol,
            segment=instrument.segment,
            expiry=instrument.expiry,
            requested_mode=request.requested_mode,
            account_id=account_id,
        )

    def _find_instrument(self, token: int, field: str) -> Instrument:
        registry = self._registry.value
        if not len(registry):
            raise StoreUnavailableError("the instruments have not been loaded yet")
        instrument = registry.by_token(token)
        if instrument is None:
            raise UnknownInstrumentError(f"there is no instrument {token}", field=field)
        today = india_date(self._wall_clock())
        if instrument.expiry is not None and instrument.expiry < today:
            raise InvalidRequestError(
                f"{instrument.tradingsymbol} expired on {instrument.expiry}", field=field
            )
        return instrument

    async def _check_capacity(self, rows: Mapping[int, NewSubscription]) -> None:
        """Raise CapacityError if the accounts do not carry these as well as what users have."""
        known = {
            token: row
            for token, row in (await self._index.load_rows(rows)).items()
            if row.status == "active" and row.origin == "user"
        }
        placed = known.keys() - self.unplaced
        capacity = self._account_capacity * len(self._sessions.value)
        if rows.keys() - placed:
            others = await self._count_users() - len(known)
            if others + len(rows) > capacity:
                raise CapacityError(
                    f"users have subscribed to {others} other instruments and the accounts carry "
                    f"{capacity}: there is no place for {len(rows)}",
                    field="instrument_token",
                )
        for account_id in {row.account_id for row in rows.values()} - {None}:
            wanted = {token for token, row in rows.items() if row.account_id == account_id}
            there = {token for token, row in known.items() if row.account_id == account_id}
            if wanted <= there & placed:
                continue
            others = await self._count_users(account_id) - len(there)
            if others + len(wanted) > self._account_capacity:
                raise CapacityError(
                    f"account {account_id!r} carries {self._account_capacity} instruments, users "
                    f"have {others} others there by name: there is no place for {len(wanted)}",
                    field="account_id",
                )

    async def _count_users(self, account_id: str | None = None) -> int:
        """Active subscriptions of users; with an account, those that name it."""
        return await self._store.count(
            SubscriptionFilter(status="active", origin="user", account_id=account_id)
        )
