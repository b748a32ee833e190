"""The mock market's state: builders behind a lock, a snapshot in front of it."""

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from ticker.calendar.market_hours import expiry_at
from ticker.greeks.pricing import INTEREST_RATES, Profile
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import DIVISORS
from ticker.mock_market import kernel
from ticker.mock_market.kernel import DRAWS, STATE, step_market
from ticker.mock_market.packets import wire_tick
from ticker.mock_market.policy import MockPolicy, create_mock_policy
from ticker.mock_market.seeds import (
    ExpiryAt,
    Group,
    Known,
    LastValue,
    Seed,
    create_seeds,
    expires_at,
    group_of,
)
from ticker.mock_market.snapshot import EMPTY, MockSnapshot, create_snapshot
from ticker.settings import Settings
from ticker.ticks import WORDS, Row

ReleaseReason = Literal["market_open", "switched_off"]
EvictionReason = Literal[ReleaseReason, "expired", "least_recently_used", "replaced", "no_expiry"]
"""Why an instrument was let go: ``market_open``, the feed speaks for it again; ``switched_off``,
the mock market is to keep silent; ``replaced``, its token is another contract, or the same with
another lot or tick size; ``no_expiry``, it was never taken, because nobody could say when to let
it go."""

_GROWTH: Final = 256


class MockMarket:
    """Instruments that move while their market is closed. Callable from any thread.

    Writers (``admit``, ``use``, ``step``, ``follow``, ``release``, ``clean_up``) take turns behind
    a lock. Readers take ``snapshot``, one attribute that each step replaces as a whole: they wait
    for nobody, and what they hold never changes. Holds ``policy.size_max`` instruments at most:
    what has expired makes room first, then what was used least recently. ``seed``: of the random
    walk.
    """

    def __init__(
        self, policy: MockPolicy, *, expiry_at: ExpiryAt, interest_rate: float, seed: int = 0
    ) -> None:
        self.policy = policy
        self.snapshot: MockSnapshot = EMPTY
        self._expiry_at = expiry_at
        self._rate = interest_rate
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._steps = 0
        self._evictions: Counter[EvictionReason] = Counter()
        self._seeded: Counter[str] = Counter()
        # a row is an instrument; the first ``len(self._held)`` are in use, in no order
        self._state = np.zeros(_GROWTH, STATE)
        self._words = np.zeros((_GROWTH, WORDS), np.int32)
        self._priced = np.full((_GROWTH, kernel.GREEKS), np.nan)
        self._held: list[Instrument] = []
        self._places: OrderedDict[int, int] = OrderedDict()  # by use, the oldest first
        self._factors = np.ones(0)
        self._factor_of: dict[str, int] = {}  # an entry for each underlying there ever was
        self._has_changed = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def steps(self) -> int:
        """How many steps there were."""
        return self._steps

    @property
    def evictions(self) -> Mapping[EvictionReason, int]:
        """Totals by reason; a copy, made in one go as far as other threads are concerned."""
        return dict(self._evictions)

    @property
    def seeded(self) -> Mapping[str, int]:
        """How many instruments were admitted, by where their price came from; a copy too."""
        return dict(self._seeded)

    def missing(self, instruments: Iterable[Instrument]) -> list[Instrument]:
        """Those that are not held; never waits."""
        return [each for each in instruments if each.instrument_token not in self._places]

    def admit(
        self, instruments: Sequence[Instrument], values: Mapping[int, LastValue], now: float
    ) -> None:
        """Seed what is not held yet; ``values`` by token, see ``LastValue``.

        What is held is used, and keeps its state: to ask twice is to seed once. Of more than there
        is room for, the last are taken.
        """
        with self._lock:
            self._use(each.instrument_token for each in instruments)
            fresh = {
                each.instrument_token: each
                for each in instruments
                if each.instrument_token not in self._places
            }
            if not fresh:
                return
            self._let_go_expired(now)
            held = {each.underlying for each in self._held}
            for name in self._factor_of.keys() - held:
                self._factors[self._factor_of[name]] = 1.0  # it has walked with nobody on it
            wanted = dict([*fresh.items()][-self.policy.size_max :])
            ends = (expires_at(each, self._expiry_at) for each in wanted.values())
            self._evictions["no_expiry"] += sum(math.isnan(end) for end in ends)
            seeds = create_seeds(
                [*wanted.values()],
                values,
                self._known(),
                expiry_at=self._expiry_at,
                rate=self._rate,
                now=now,
            )
            by_token = {seed.instrument.instrument_token: seed for seed in seeds}
            for token in filter(by_token.__contains__, wanted):
                self._insert(by_token[token])

    def use(self, tokens: Iterable[int]) -> None:
        """What is held of these becomes the most recently used."""
        with self._lock:
            self._use(tokens)

    def step(self, now: float) -> MockSnapshot:
        """Move everything to ``now``, UNIX seconds, and publish it as the newest snapshot."""
        with self._lock:
            n = len(self._held)
            self._steps += 1
            step_market(
                self._state[:n],
                self._words[:n],
                self._factors,
                self._random.random(len(self._factors)),
                self._random.random((n, DRAWS)),
                now,
                self._rate,
                self.policy.variation,
                self.policy.volume_variation,
                self._priced[:n],
            )
            self._publish(now)
            return self.snapshot

    def release(self, underlyings: Iterable[str], reason: ReleaseReason) -> None:
        """Forget all of these; whoever is played again begins anew."""
        with self._lock:
            names = frozenset(underlyings)
            for token in [each.instrument_token for each in self._held if each.underlying in names]:
                self._remove(token, reason)
            for name in names & self._factor_of.keys():
                self._factors[self._factor_of[name]] = 1.0

    def follow(self, registry: InstrumentRegistry) -> None:
        """Let go of whatever is listed differently now; what is no longer listed stays."""
        with self._lock:
            for old in [*self._held]:
                new = registry.by_token(old.instrument_token)
                if new is not None and new != old:
                    self._remove(old.instrument_token, "replaced")

    def clean_up(self, now: float) -> int:
        """Let go of what has expired at ``now``; returns how much that was."""
        with self._lock:
            return self._let_go_expired(now)

    def warm_up(self) -> None:
        """Compile, or load from the cache, what ``step`` calls. The market is not touched."""
        state = np.zeros(1, STATE)
        state["expires_at"] = -np.inf
        nothing, words = np.empty(0), np.zeros((1, WORDS), np.int32)
        draws, priced = np.zeros((1, DRAWS)), np.zeros((1, kernel.GREEKS))
        step_market(state, words, nothing, nothing, draws, 0.0, 0.0, 0.0, 0.0, priced)

    def _use(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            if token in self._places:
                self._places.move_to_end(token)

    def _known(self) -> Known:
        """What is held, as what prices newcomers."""
        known = Known({name: float(self._factors[at]) for name, at in self._factor_of.items()})
        smiles: dict[Group, dict[float, float]] = {}
        for place, each in enumerate(self._held):
            row = self._state[place]
            if each.is_option:
                group: Group = group_of(each)
                known.forwards[group] = float(row["base"])
                smiles.setdefault(group, {})[each.strike] = float(row["volatility"])
            elif not each.is_future or each.underlying not in known.levels:
                known.levels[each.underlying] = float(row["base"])
        known.smiles.update(smiles)
        return known

    def _insert(self, seed: Seed) -> None:
        if len(self._held) == self.policy.size_max:
            self._remove(next(iter(self._places)), "least_recently_used")
        each, place = seed.instrument, len(self._held)
        if place == len(self._state):
            self._state = np.concatenate([self._state, np.zeros_like(self._state)])
            self._words = np.concatenate([self._words, np.zeros_like(self._words)])
            self._priced = np.concatenate([self._priced, np.full_like(self._priced, np.nan)])
        row = self._state[place]
        row["base"], row["volatility"] = seed.base, seed.volatility
        row["strike"], row["expires_at"] = each.strike, seed.expires_at
        row["divisor"] = DIVISORS[each.instrument_token & 0xFF]
        row["tick"], row["lot"] = wire_tick(each), max(each.lot_size, 1)
        unsigned = seed.words.view(np.uint32)
        row["volume_seed"] = row["volume"] = unsigned[Row.VOLUME_TRADED]
        row["interest_seed"] = row["interest"] = unsigned[Row.OI]
        row["factor"] = self._factor(each.underlying)
        row["sign"] = {"CE": 1, "PE": -1}.get(each.instrument_type, 0)
        row["is_index"], row["is_alive"] = each.is_index, 1
        self._words[place] = seed.words
        self._priced[place] = np.nan
        self._held.append(each)
        self._places[each.instrument_token] = place
        self._seeded[seed.source] += 1
        self._has_changed = True

    def _remove(self, token: int, reason: EvictionReason) -> None:
        """The last row takes the place of the one that goes."""
        place, last = self._places.pop(token), len(self._held) - 1
        if place != last:
            moved = self._held[last]
            self._held[place] = moved
            self._places[moved.instrument_token] = place  # its turn stays what it was
            for array in (self._state, self._words, self._priced):
                array[place] = array[last]
        self._held.pop()
        self._evictions[reason] += 1
        self._has_changed = True

    def _let_go_expired(self, now: float) -> int:
        is_over = self._state["expires_at"][: len(self._held)] <= now
        tokens = [self._held[place].instrument_token for place in np.flatnonzero(is_over).tolist()]
        for token in tokens:
            self._remove(token, "expired")
        return len(tokens)

    def _factor(self, underlying: str) -> int:
        at = self._factor_of.setdefault(underlying, len(self._factor_of))
        if at == len(self._factors):
            self._factors = np.append(self._factors, 1.0)
        return at

    def _publish(self, now: float) -> None:
        n = len(self._held)
        places: Mapping[int, int]
        if self._has_changed:
            places, held = MappingProxyType(dict(self._places)), tuple(self._held)
        else:
            places, held = self.snapshot.places, self.snapshot.instruments
        self._has_changed = False
        self.snapshot = create_snapshot(
            now,
            self._steps,
            places,
            held,
            self._words[:n],
            self._priced[:n],
            self._state["is_alive"][:n],
        )


def create_mock_market(settings: Settings, *, seed: int = 0) -> MockMarket:
    """A mock market as configured. Raises ConfigurationError like ``market_hours.expiry_at``."""
    profile = Profile(settings.option_greeks_profile)
    rate = settings.option_greeks_interest_rate
    return MockMarket(
        create_mock_policy(settings),
        expiry_at=partial(expiry_at, path=settings.market_hours_file),
        interest_rate=INTEREST_RATES[profile] if rate is None else rate,
        seed=seed,
    )
