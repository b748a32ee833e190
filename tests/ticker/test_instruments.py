"""The instrument dump: real rows, old rows, junk rows."""

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticker.errors import BrokerResponseError
from ticker.instruments import COLUMNS, InstrumentRegistry, parse_instruments

HEADER = ",".join(COLUMNS)
REAL_ROWS = """\
738561,2885,RELIANCE,"RELIANCE INDUSTRIES",0,,0,0.05,1,EQ,NSE,NSE
256265,1001,NIFTY 50,"NIFTY 50",0,,0,0,0,EQ,INDICES,NSE
13238786,51714,NIFTY26SEPFUT,"NIFTY",0,2026-09-29,0,0.1,65,FUT,NFO-FUT,NFO
10967554,42842,NIFTY2692223350CE,"NIFTY",0,2026-09-22,23350,0.05,65,CE,NFO-OPT,NFO
221330181,864571,SENSEX26OCTFUT,"SENSEX",0,2026-10-29,0,0.05,20,FUT,BFO-FUT,BFO
"""
MOCKS = Path(__file__).resolve().parents[2].parent / "shared" / "kite-mocks"


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
