"""Which contracts to stream: what a chain is made of, and when it follows the money."""

import datetime as dt
import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ticker.planning.test_plan import TODAY, make
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.planning.strikes import (
    Centre,
    Levels,
    StrikePolicy,
    chain_of,
    choose_chains,
    choose_instruments,
    find_guessed,
    find_reference,
    list_expiries,
    move_centres,
    quote_keys,
)

NEAR, NEXT = dt.date(2026, 11, 24), dt.date(2026, 12, 1)


def chain_registry() -> InstrumentRegistry:
    rows = [make(1, "NIFTY 50", segment="INDICES", symbol="NIFTY 50")]
    token = 100
    for month in (11, 12):
        rows.append(make(token, "NIFTY", "FUT", expiry=dt.date(2026, month, 24), segment="NFO-FUT"))
        token += 1
    for expiry in (dt.date(2026, 11, 17), dt.date(2026, 11, 24), dt.date(2026, 12, 1)):
        for strike in range(24_000, 26_050, 50):
            for kind in ("CE", "PE"):
                rows.append(make(token, "NIFTY", kind, float(strike), expiry))
                token += 1
    return InstrumentRegistry(rows)


def select(spot: float | None, expiries: int = 1, otm_levels: int = 2) -> list[Instrument]:
    return choose(chain_registry(), "NIFTY", spot, expiries, otm_levels)


def choose(
    registry: InstrumentRegistry, name: str, spot: float | None, expiries: int, otm_levels: int
) -> list[Instrument]:
    policy = StrikePolicy(expiries=expiries, otm_levels=otm_levels)
    centres = move_centres(registry, name, {}, Levels(spot), policy, today=TODAY, now=0.0)
    return choose_instruments(registry, name, centres, today=TODAY, otm_levels=otm_levels)


def test_a_chain_is_index_futures_and_strikes_around_the_money() -> None:
    chosen = select(spot=25_013.35)
    assert chosen[0].is_index
    assert [row.instrument_type for row in chosen[1:3]] == ["FUT", "FUT"]
    options = chosen[3:]
    assert {row.strike for row in options} == {24_900, 24_950, 25_000, 25_050, 25_100}
    assert {row.expiry for row in options} == {dt.date(2026, 11, 24)}, "the past expiry is left out"
    assert len(options) == 10


def test_further_expiries_and_the_edge_of_the_chain() -> None:
    options = select(spot=23_000.0, expiries=5, otm_levels=1)[3:]
    assert {row.strike for row in options} == {24_000, 24_050}
    assert len({row.expiry for row in options}) == 2


@pytest.mark.parametrize("spot", [None, 0.0])
def test_without_a_spot_price_the_middle_of_the_strikes_stands_for_it(spot: float | None) -> None:
    options = select(spot=spot, otm_levels=1)[3:]
    assert {row.strike for row in options} == {24_950, 25_000, 25_050}


@pytest.mark.parametrize(
    ("cash", "reference"),
    [
        ([make(7, "RELIANCE INDUSTRIES", segment="NSE", symbol="RELIANCE")], 7),
        ([], 8),  # a commodity: its nearest future
    ],
)
def test_an_underlying_without_an_index_has_a_chain_too(
    cash: list[Instrument], reference: int
) -> None:
    name = "RELIANCE"
    futures = [make(8, name, "FUT", expiry=TODAY), make(9, name, "FUT", expiry=dt.date(2027, 1, 1))]
    options = [make(10 + i, name, "CE", 1000.0 + i, TODAY) for i in range(9)]
    registry = InstrumentRegistry([*options, *futures, *cash])
    found = find_reference(registry, name, TODAY)
    assert found is not None
    assert found.instrument_token == reference
    tokens = [row.instrument_token for row in choose(registry, name, 1004.0, 1, 1)]
    assert tokens == [*(row.instrument_token for row in cash), 8, 9, 14, 13, 15], "nearest first"


def test_a_share_with_the_name_of_a_commodity_is_not_its_price() -> None:
    fund = make(7, "A SILVER FUND", segment="NSE", symbol="SILVER")
    rows = [make(8, "SILVER", "FUT", expiry=TODAY), make(9, "SILVER", "CE", 95_000.0, TODAY)]
    commodity = [msgspec.structs.replace(row, exchange="MCX") for row in rows]
    found = find_reference(InstrumentRegistry([fund, *commodity]), "SILVER", TODAY)
    assert found == commodity[0]
    assert find_reference(InstrumentRegistry([fund]), "SILVER", TODAY) == fund


def test_an_unknown_underlying_selects_nothing() -> None:
    assert choose(chain_registry(), "NOSUCH", 1.0, 1, 1) == []


def test_the_broker_is_asked_for_references_by_its_own_keys() -> None:
    keys = quote_keys(chain_registry(), ["NIFTY", "NOSUCH"], TODAY)
    assert keys == {"NSE:NIFTY 50": "NIFTY"}


def centre(
    strike: float, moved_at: float, level: float, now: float, policy: StrikePolicy
) -> Centre:
    """Where the near chain is centred, after it was at ``strike`` since ``moved_at``."""
    return move_centres(
        chain_registry(),
        "NIFTY",
        {NEAR: Centre(strike, moved_at)},
        Levels(forwards={NEAR: level}),
        policy,
        today=TODAY,
        now=now,
    )[NEAR]


@pytest.mark.parametrize(
    ("level", "now", "strike"),
    [
        (25_030.0, 1000.0, 25_000),  # another strike is nearer, but not by a full step
        (25_050.0, 1000.0, 25_050),
        (25_049.9, 1000.0, 25_000),
        (25_220.0, 299.9, 25_000),  # far, but too soon
        (25_220.0, 300.0, 25_200),
        (24_948.0, 1000.0, 24_950),
        (99_000.0, 1000.0, 26_000),  # the edge of what is listed
    ],
)
def test_a_chain_follows_after_a_full_step_and_a_while(
    level: float, now: float, strike: float
) -> None:
    moved = centre(25_000, 0.0, level, now, StrikePolicy())
    assert moved.strike == strike
    assert moved.moved_at == (now if strike != 25_000 else 0.0)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(-60, 60)), max_size=20))
def test_a_chain_never_moves_twice_within_the_hold_time(steps: list[tuple[float, float]]) -> None:
    registry, policy = chain_registry(), StrikePolicy(expiries=1, hold_s=100.0)
    now, level = 0.0, 25_000.0
    centres: dict[dt.date, Centre] = {}
    moves = []
    for after, by in steps:
        now, level = now + after, level + by
        old = centres.get(NEAR)
        centres = move_centres(
            registry, "NIFTY", centres, Levels(level), policy, today=TODAY, now=now
        )
        if old is not None and centres[NEAR] != old:
            assert abs(level - old.strike) >= 50
            moves.append(now)
        assert old is None or now - old.moved_at < 100 or abs(level - centres[NEAR].strike) < 50
    assert all(later - earlier >= 100 for earlier, later in itertools.pairwise(moves))


def test_each_expiry_follows_its_own_forward_else_the_spot() -> None:
    levels = Levels(25_000.0, {NEXT: 25_210.0, NEAR: math.nan})
    policy = StrikePolicy(expiries=2)
    centres = move_centres(chain_registry(), "NIFTY", {}, levels, policy, today=TODAY, now=0.0)
    assert {expiry: found.strike for expiry, found in centres.items()} == {
        NEAR: 25_000,
        NEXT: 25_200,
    }


def test_a_guess_gives_way_to_the_first_price_at_once() -> None:
    registry, policy = chain_registry(), StrikePolicy(expiries=1)
    guess = move_centres(registry, "NIFTY", {}, Levels(), policy, today=TODAY, now=0.0)
    held = move_centres(registry, "NIFTY", guess, Levels(), policy, today=TODAY, now=1.0)
    known = move_centres(registry, "NIFTY", held, Levels(24_510.0), policy, today=TODAY, now=2.0)
    assert (guess[NEAR].strike, known[NEAR].strike) == (25_000, 24_500)
    beside = move_centres(registry, "NIFTY", held, Levels(25_030.0), policy, today=TODAY, now=2.0)
    assert beside[NEAR].strike == 25_050, "even by less than a step"
    lost = move_centres(registry, "NIFTY", known, Levels(), policy, today=TODAY, now=999.0)
    assert lost == known, "without a price, a chain stays where it was"


def test_expiries_roll_the_day_after() -> None:
    registry = chain_registry()
    assert list_expiries(registry, "NIFTY", NEAR, 1) == [NEAR]
    day_after = NEAR + dt.timedelta(days=1)
    assert list_expiries(registry, "NIFTY", day_after, 2) == [NEXT]
    old = {NEAR: Centre(25_000, 0.0)}
    moved = move_centres(
        registry, "NIFTY", old, Levels(25_100.0), StrikePolicy(), today=day_after, now=1.0
    )
    assert {expiry: found.strike for expiry, found in moved.items()} == {NEXT: 25_100}


def test_an_underlying_that_is_not_looked_at_keeps_its_centres() -> None:
    registry = chain_registry()
    policy = StrikePolicy(expiries=1, otm_levels=0)
    chain = {dt.date(2026, 12, 1): Centre(100.0, 0.0)}
    found, centres = choose_chains(
        registry, {"NIFTY": Levels(25_000.0)}, {"AWAY": chain}, policy, TODAY, 1.0
    )
    assert centres == {"AWAY": chain, "NIFTY": {NEAR: Centre(25_000.0, 1.0)}}
    options = [row for row in found.values() if row.is_option]
    assert {chain_of(row) for row in options} == {("NIFTY", NEAR)}
    assert {chain_of(row) for row in found.values() if not row.is_option} == {None}


def test_a_middle_without_a_price_is_a_guess() -> None:
    registry, policy = chain_registry(), StrikePolicy(expiries=1)
    for levels in (Levels(), Levels(0.0), Levels(None, {NEAR: 0.0})):
        assert not levels.is_priced
        _, centres = choose_chains(registry, {"NIFTY": levels}, {}, policy, TODAY, 1.0)
        assert find_guessed(centres) == {("NIFTY", NEAR)}
        _, centres = choose_chains(
            registry, {"NIFTY": Levels(None, {NEAR: 25_000.0})}, centres, policy, TODAY, 2.0
        )
        assert find_guessed(centres) == set()
