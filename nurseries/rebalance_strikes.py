"""Chains that follow the money: subscriptions around each underlying's forward, near expiries."""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec
import structlog
import trio

from ticker.calendar.india import india_date
from ticker.errors import (
    BrokerError,
    ConfigurationError,
    StoreUnavailableError,
    UnknownAccountError,
)
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.latest import Latest
from ticker.planning.reloads import Reloads
from ticker.planning.strikes import (
    Centre,
    Levels,
    RebalanceStatus,
    StrikePolicy,
    chain_of,
    choose_chains,
    find_guessed,
)
from ticker.planning.wishes import is_contract
from ticker.stores.subscription_index import SubscriptionIndex
from ticker.stores.subscriptions import (
    Mode,
    NewSubscription,
    SubscriptionFilter,
    SubscriptionRow,
    SubscriptionStore,
)

PAGE: Final = 1000
"""Rows read at a time."""

LoadSpots = Callable[[Sequence[str]], Awaitable[Mapping[str, float]]]
ReadLevels = Callable[[InstrumentRegistry, str, dt.date], Levels]


@dataclass(frozen=True, slots=True, kw_only=True)
class RebalancePolicy:
    """Which chains to keep, in which mode, and how often to look.

    ``exchanges``: where instruments are listed, as far as the broker lets us. ``retry_s``: until
    the next look while PostgreSQL is away or a price is missing.
    ``spots_timeout_s``: how long the broker may take to quote before it is done without.
    """

    underlyings: tuple[str, ...]
    exchanges: tuple[str, ...] = ()
    mode: Mode = "FULL"
    strikes: StrikePolicy = field(default_factory=StrikePolicy)
    interval_s: float = 60.0
    retry_s: float = 5.0
    spots_timeout_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Stored:
    """How many rows were added and removed, and how many there was no room for."""

    added: int
    removed: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be streamed, and how that came about."""

    instruments: Mapping[int, Instrument]
    unpriced: tuple[str, ...]
    unknown: tuple[str, ...]


async def rebalance_strikes(
    store: SubscriptionStore,
    index: SubscriptionIndex,
    registry: Latest[InstrumentRegistry],
    reloads: Reloads,
    *,
    policy: RebalancePolicy,
    read_levels: ReadLevels,
    load_spots: LoadSpots,
    count_places: Callable[[], int],
    report: Callable[[RebalanceStatus], None],
    wall_clock: Callable[[], float],
) -> None:
    """Keep each underlying's reference, futures and near strikes subscribed, until cancelled.

    Looks at once when there are instruments, when they change, and every ``policy.interval_s``.
    Touches only rows that it added itself: what a user subscribed to, or unsubscribed from,
    stays. ``read_levels`` (registry, underlying, today) is called in a worker thread; underlyings
    that it knows no level of are asked of ``load_spots``. Where that raises BrokerError, or
    UnknownAccountError because there is no account, the middle of what is listed is taken; but a
    chain that is there already, from before a restart, stays until there is a price.

    ``count_places``: how many instruments the accounts carry together; 0 while none is there.
    Nothing is added beyond what users leave of that: underlyings come in their order, expiries
    and strikes nearest first. Rows that lose their place to a user's stay, and get it back.

    Raises ConfigurationError if at first none of the underlyings is among the instruments, those
    of all ``policy.exchanges``.
    """
    log = structlog.get_logger().bind(task="rebalance_strikes")
    desk = _Desk(store, index, reloads, policy, read_levels, load_spots, count_places)
    status = RebalanceStatus()
    await registry.wait_until(lambda newest: len(newest) > 0)
    while True:
        version = await registry.wait_newer(0)
        today = india_date(wall_clock())
        chosen = await desk.choose(registry.value, today)
        if (
            status.run_at is None
            and len(chosen.unknown) == len(policy.underlyings)
            and all(registry.value.count(exchange) for exchange in policy.exchanges)
        ):
            names = ", ".join(chosen.unknown)
            raise ConfigurationError(f"FO_UNDERLYINGS: not among the broker's instruments: {names}")
        try:
            stored = await desk.store_choice(chosen, registry.value)
        except StoreUnavailableError as error:
            log.warning("strikes_not_rebalanced", error=str(error), detail=error.detail)
            status = msgspec.structs.replace(status, error=str(error))
        else:
            status = _describe(desk.centres, chosen, stored, wall_clock())
            if stored.added or stored.removed:
                log.info("strikes_rebalanced", **asdict(stored))
        report(status)
        is_settled = status.error is None and not chosen.unpriced
        with trio.move_on_after(policy.interval_s if is_settled else policy.retry_s):
            await registry.wait_newer(version)


class _Desk:
    """The rebalancer's memory: where each chain is centred."""

    def __init__(
        self,
        store: SubscriptionStore,
        index: SubscriptionIndex,
        reloads: Reloads,
        policy: RebalancePolicy,
        read_levels: ReadLevels,
        load_spots: LoadSpots,
        count_places: Callable[[], int],
    ) -> None:
        self._store = store
        self._index = index
        self._reloads = reloads
        self._policy = policy
        self._read_levels = read_levels
        self._load_spots = load_spots
        self._count_places = count_places
        self.centres: dict[str, dict[dt.date, Centre]] = {}

    async def choose(self, registry: InstrumentRegistry, today: dt.date) -> Chosen:
        """What is to be streamed as the market stands; moves the centres that are due."""
        policy = self._policy
        known = [name for name in policy.underlyings if registry.of_underlying(name)]
        levels = await trio.to_thread.run_sync(self._read_all, registry, known, today)
        unpriced = tuple(name for name in known if not levels[name].is_priced)
        if unpriced:
            spots = await self._ask_spots(unpriced)
            levels |= {name: Levels(spots[name]) for name in unpriced if name in spots}
            unpriced = tuple(name for name in unpriced if not levels[name].is_priced)
        unknown = tuple(name for name in policy.underlyings if name not in known)
        found, self.centres = await trio.to_thread.run_sync(
            choose_chains,
            registry,
            levels,
            self.centres,
            policy.strikes,
            today,
            trio.current_time(),
        )
        return Chosen(found, unpriced, unknown)

    def _read_all(
        self, registry: InstrumentRegistry, names: Sequence[str], today: dt.date
    ) -> dict[str, Levels]:
        return {name: self._read_levels(registry, name, today) for name in names}

    async def _ask_spots(self, names: Sequence[str]) -> Mapping[str, float]:
        try:
            with trio.move_on_after(self._policy.spots_timeout_s):
                return await self._load_spots(names)
        except (BrokerError, UnknownAccountError) as error:
            log = structlog.get_logger().bind(task="rebalance_strikes")
            log.warning("strikes_chosen_without_a_price", underlyings=names, error=str(error))
        return {}

    async def store_choice(self, chosen: Chosen, registry: InstrumentRegistry) -> Stored:
        """Bring the rebalancer's rows in line, as far as there is room."""
        mode, wanted = self._policy.mode, chosen.instruments
        own = await self._load_own()
        held = len(own)
        chains = {token: chain_of(registry.by_token(token)) for token in own}
        # in whose middle no price stands: no reason to let go of another middle
        kept = find_guessed(self.centres) & {*chains.values()}
        own = {token: row for token, row in own.items() if chains[token] not in kept}
        wanted = {token: row for token, row in wanted.items() if chain_of(row) not in kept}
        gone = [token for token in own if self._is_over(token, chosen, registry)]
        # A row that is there is not touched by an upsert: another mode is a new beginning.
        gone += [t for t, row in own.items() if t in wanted and row.requested_mode != mode]
        present = await self._index.load_rows(wanted)
        new = [
            _subscription(row, mode)
            for token, row in wanted.items()
            if token in gone or _is_free(present.get(token), row)
        ]
        fitting = await self._fit(new, held - len(gone)) if new else []
        removed = await self._store.deactivate(gone, origin="rebalancer") if gone else []
        added = await self._store.upsert(fitting, origin="rebalancer") if fitting else []
        if removed or added:
            self._reloads.request("rebalanced")
        return Stored(len(added), len(removed), len(new) - len(fitting))

    async def _fit(self, new: list[NewSubscription], held: int) -> list[NewSubscription]:
        """The first of these, as many as there are places for beside our ``held`` and users'."""
        places = self._count_places()
        if not places:
            return new  # the accounts come later, and with them the room
        users = await self._store.count(SubscriptionFilter(status="active", origin="user"))
        return new[: max(0, places - users - held)]

    def _is_over(self, token: int, chosen: Chosen, registry: InstrumentRegistry) -> bool:
        """Whether an own row is no longer wanted, as far as that can be told.

        An instrument that is missing from the registry for the moment tells nothing: the reload
        puts expired contracts away.
        """
        return token not in chosen.instruments and registry.by_token(token) is not None

    async def _load_own(self) -> dict[int, SubscriptionRow]:
        own: dict[int, SubscriptionRow] = {}
        wanted = SubscriptionFilter(status="active", origin="rebalancer")
        page = await self._store.find(wanted, limit=PAGE)
        while page:
            own.update((row.instrument_token, row) for row in page)
            page = await self._store.find(wanted, limit=PAGE, after=page[-1].instrument_token)
        return own


def _is_free(there: SubscriptionRow | None, wanted: Instrument) -> bool:
    """Whether the rebalancer has something to add: nobody decided about this contract before, or
    it did itself and took that back.
    """
    if there is None:
        return True
    if not is_contract(there, wanted):
        return True  # the token of a contract that is over
    return there.origin == "rebalancer" and there.status == "inactive"


def _subscription(instrument: Instrument, mode: Mode) -> NewSubscription:
    return NewSubscription(
        instrument_token=instrument.instrument_token,
        exchange=instrument.exchange,
        tradingsymbol=instrument.tradingsymbol,
        segment=instrument.segment,
        expiry=instrument.expiry,
        requested_mode=mode,
    )


def _describe(
    centres: Mapping[str, Mapping[dt.date, Centre]],
    chosen: Chosen,
    stored: Stored,
    now: float,
) -> RebalanceStatus:
    strikes = {
        name: MappingProxyType({expiry: centre.strike for expiry, centre in chain.items()})
        for name, chain in centres.items()
    }
    return RebalanceStatus(
        centres=MappingProxyType(strikes),
        unpriced=chosen.unpriced,
        unknown=chosen.unknown,
        added=stored.added,
        removed=stored.removed,
        left_out=stored.left_out,
        run_at=now,
    )
