"""The instrument dump: real rows, old rows, junk rows."""

import datetime as dt
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ticker.simulator.memory_simulator import dump_of_start
from tests.ticker.synthetic import create_future, create_option, create_share
from ticker.errors import BrokerResponseError
from ticker.instruments.registry import (
    COLUMNS,
    Instrument,
    InstrumentQuery,
    InstrumentRegistry,
    parse_instruments,
)

HEADER = ",".join(COLUMNS)
REAL_ROWS = """\
738561,2885,RELIANCE,"RELIANCE INDUSTRIES",0,,0,0.05,1,EQ,NSE,NSE
256265,1001,NIFTY 50,"NIFTY 50",0,,0,0,0,EQ,INDICES,NSE
13238786,51714,NIFTY26SEPFUT,"NIFTY",0,2026-09-29,0,0.1,65,FUT,NFO-FUT,NFO
10967554,42842,NIFTY2692223350CE,"NIFTY",0,2026-09-22,23350,0.05,65,CE,NFO-OPT,NFO
221330181,864571,SENSEX26OCTFUT,"SENSEX",0,2026-10-29,0,0.05,20,FUT,BFO-FUT,BFO
"""
MOCKS = Path(__file__).resolve().parents[3].parent / "shared" / "kite-mocks"


def test_real_rows() -> None:
    rows = list(parse_instruments([HEADER, *REAL_ROWS.splitlines()]))
    assert None not in rows
    registry = InstrumentRegistry(row for row in rows if row is not None)
    option = registry.by_key("NFO:NIFTY2692223350CE")
    assert option is not None
    assert option.instrument_token == 10967554
    assert option.expiry == dt.date(2026, 9, 22)
    assert (option.strike, option.tick_size, option.lot_size) == (23350.0, 0.05, 65)
    assert (option.is_option, option.is_index, option.is_future) == (True, False, False)
    assert option.underlying == "NIFTY"
    index = registry.by_token(256265)
    assert index is not None
    assert index.is_index
    assert index.underlying == "NIFTY"
    assert index.key == "NSE:NIFTY 50"
    stock = registry.by_token(738561)
    assert stock is not None
    assert stock.underlying == "RELIANCE"
    assert registry.by_token(1) is None


@pytest.mark.skipif(
    not MOCKS.exists(), reason="the broker's sample files are not beside the project"
)
def test_the_brokers_own_sample() -> None:
    lines = (MOCKS / "instruments_nse.csv").read_text().splitlines()
    rows = list(parse_instruments(lines))
    assert len(rows) == len(lines) - 1
    assert None not in rows


@pytest.mark.parametrize(
    "row",
    [
        "",
        "x,1,A,,0,,0,0,0,EQ,NSE,NSE",
        "-5,1,A,,0,,0,0,0,EQ,NSE,NSE",
        "5,1,,,0,,0,0,0,EQ,NSE,NSE",
        "5,1,A,,0,2026-13-40,0,0,0,EQ,NSE,NSE",
        "5,1,A",
        "99999999999,1,A,,0,,0,0,0,EQ,NSE,NSE",
        "5,1,A,,0,,0,0,1e999,EQ,NSE,NSE",
    ],
)
def test_a_junk_row_is_left_out_and_its_neighbours_stay(row: str) -> None:
    good = REAL_ROWS.splitlines()
    rows = [item for item in parse_instruments([HEADER, good[0], row, good[1]]) if item]
    assert [item.instrument_token for item in rows] == [738561, 256265]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)))
def test_any_text_is_read_or_left_out(lines: list[str]) -> None:
    for row in parse_instruments([HEADER, *lines]):
        assert row is None or row.instrument_token > 0


def test_a_page_that_is_not_the_dump_is_refused() -> None:
    with pytest.raises(BrokerResponseError):
        list(parse_instruments(["<html>", "<body>down for maintenance</body>"]))


REGISTRY = InstrumentRegistry(dump_of_start().instruments)
MONTH_END = dt.date(2026, 12, 29)


@st.composite
def queries(draw: st.DrawFn) -> InstrumentQuery:
    example = draw(st.sampled_from(dump_of_start().instruments))
    asked = {
        "underlying": example.underlying,
        "expiry": example.expiry,
        "strike_min": example.strike,
        "strike_max": example.strike + 100,
        "instrument_type": example.instrument_type,
        "segment": example.segment,
        "exchange": example.exchange,
        "prefix": example.tradingsymbol[: draw(st.integers(1, 12))],
    }
    names = draw(st.sets(st.sampled_from([*asked])))
    return msgspec.convert({name: asked[name] for name in names}, InstrumentQuery)


def is_wanted(row: Instrument, query: InstrumentQuery) -> bool:
    """The same said in another way."""
    exact = ("underlying", "expiry", "instrument_type", "segment", "exchange")
    return (
        all(getattr(query, name) in (None, getattr(row, name)) for name in exact)
        and row.tradingsymbol.startswith(query.prefix or "")
        and (query.strike_min is None or query.strike_min <= row.strike)
        and (query.strike_max is None or row.strike <= query.strike_max)
    )


@pytest.mark.slow
@given(queries(), st.integers(1, 300))
def test_pages_of_a_search_are_all_of_it_by_token(query: InstrumentQuery, limit: int) -> None:
    wanted = sorted(
        (row for row in dump_of_start().instruments if is_wanted(row, query)),
        key=lambda row: row.instrument_token,
    )
    found: list[Instrument] = []
    while page := REGISTRY.search(
        query, limit=limit, after=found[-1].instrument_token if found else 0
    ):
        assert len(page) <= limit
        found += page
        if len(found) > 2 * limit + 600:
            break
    assert found == wanted[: len(found)]
    assert len(found) == len(wanted) or len(found) > 2 * limit + 600


def test_a_contract_is_found_by_what_it_is_for_good() -> None:
    option = create_option(40_000, 25_000.0, "CE")
    registry = InstrumentRegistry([option, create_share(7, "RELIANCE")])
    assert registry.find(*option.contract) is option
    assert registry.find("NFO", option.tradingsymbol, MONTH_END) is None
    assert registry.find("BFO", option.tradingsymbol, option.expiry) is None
    share = registry.find("NSE", "RELIANCE", None)
    assert share is not None
    assert share.tradingsymbol == "RELIANCE"
    assert registry.by_key("NSE:RELIANCE") is share
    assert registry.by_key("RELIANCE") is None


def test_exchanges_are_replaced_one_by_one() -> None:
    share, future = create_share(7, "RELIANCE"), create_future(35_000)
    option = create_option(40_000, 25_000.0, "CE")
    before = InstrumentRegistry([share, future])
    after = before.replaced({"NFO": [option]})
    assert set(after) == {share, option}
    assert set(before) == {share, future}
    assert (after.count("NSE"), after.count("NFO"), after.count("MCX")) == (1, 1, 0)


def test_of_two_with_one_token_the_later_counts() -> None:
    old, new = create_share(7, "OLD"), create_share(7, "NEW")
    registry = InstrumentRegistry([old, new])
    assert len(registry) == 1
    assert registry.by_token(new.instrument_token) is new
    assert registry.by_key("NSE:OLD") is None
    assert registry.search(InstrumentQuery(), limit=9) == [new]
