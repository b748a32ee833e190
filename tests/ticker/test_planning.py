"""Plans: every wish placed once, chains together, limits kept."""

import datetime as dt
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticker.errors import ConfigurationError
from ticker.instruments import Instrument, InstrumentRegistry
from ticker.planning import Plan, Subscription, create_plan, find_reference, select_chain

TODAY = dt.date(2026, 11, 20)


def make(
    token: int,
    name: str,
    kind: str = "EQ",
    strike: float = 0.0,
    expiry: dt.date | None = None,
    segment: str = "NFO-OPT",
    symbol: str | None = None,
) -> Instrument:
    return Instrument(
        instrument_token=token,
        exchange_token=token >> 8,
        tradingsymbol=symbol or f"{name}{kind}{token}",
        name=name,
        expiry=expiry,
        strike=strike,
        tick_size=0.05,
        lot_size=65,
        instrument_type=kind,
        segment=segment,
        exchange="NSE" if segment in {"INDICES", "NSE"} else "NFO",
    )


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
    chosen = select_chain(
        chain_registry(),
        "NIFTY",
        spot=spot,
        today=TODAY,
        expiries=expiries,
        otm_levels=otm_levels,
        mode="full",
    )
    return [wanted.instrument for wanted in chosen]


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
    chosen = select_chain(
        registry, name, spot=1004.0, today=TODAY, expiries=1, otm_levels=1, mode="full"
    )
    tokens = [wanted.instrument.instrument_token for wanted in chosen]
    assert tokens == [*(row.instrument_token for row in cash), 8, 9, 13, 14, 15]


def test_an_unknown_underlying_selects_nothing() -> None:
    chosen = select_chain(
        chain_registry(), "NOSUCH", spot=1.0, today=TODAY, expiries=1, otm_levels=1, mode="full"
    )
    assert chosen == []


def plan_of(sizes: Sequence[int], accounts: int, sockets: int = 3, room: int = 10) -> Plan:
    wanted = [
        Subscription(make(1000 * number + i, f"U{number}", "CE", 1.0, TODAY), "full")
        for number, size in enumerate(sizes, start=1)
        for i in range(size)
    ]
    return create_plan(
        wanted + wanted[:3],  # duplicates are merged
        [f"a{i}" for i in range(accounts)],
        sockets_per_account=sockets,
        instruments_per_socket=room,
    )


@given(st.lists(st.integers(1, 30), max_size=6), st.integers(1, 4))
def test_every_wish_is_placed_once_and_no_socket_is_overfull(
    sizes: list[int], accounts: int
) -> None:
    if sum(sizes) > accounts * 30:
        with pytest.raises(ConfigurationError):
            plan_of(sizes, accounts)
        return
    plan = plan_of(sizes, accounts)
    tokens = [token for shard in plan.shards.values() for token in shard]
    assert len(tokens) == len(set(tokens)) == sum(sizes)
    assert all(0 < len(shard) <= 10 for shard in plan.shards.values())
    assert all(0 <= connection.shard < 3 for connection in plan.shards)


def test_chains_stay_together_and_accounts_are_balanced() -> None:
    plan = plan_of([10, 10], accounts=2)
    assert sorted(str(connection) for connection in plan.shards) == ["a0/0", "a1/0"]
    for shard in plan.shards.values():
        assert len({token // 1000 for token in shard}) == 1
