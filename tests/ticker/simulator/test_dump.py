import datetime as dt
import itertools

import pytest

from tests.ticker.simulator.memory_simulator import dump_of_start
from ticker.instruments.registry import Instrument, parse_instruments
from ticker.simulator.days import IST
from ticker.simulator.dump import create_dump, dump_date
from ticker.simulator.underlyings import SEGMENT_IDS


def test_a_token_is_the_exchange_token_and_the_segment() -> None:
    rows = dump_of_start().instruments
    for row in rows:
        segment = "INDICES" if row.is_index else row.exchange
        assert row.instrument_token == row.exchange_token * 256 + SEGMENT_IDS[segment]
    assert len({row.instrument_token for row in rows}) == len(rows)
    assert len({row.key for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("key", "token"),
    [
        ("NSE:NIFTY 50", 256265),
        ("NSE:NIFTY BANK", 260105),
        ("NSE:NIFTY FIN SERVICE", 257801),
        ("NSE:NIFTY MID SELECT", 288009),
        ("NSE:INDIA VIX", 264969),
        ("BSE:SENSEX", 265),
        ("NSE:INFY", 408065),
        ("NSE:RELIANCE", 738561),
        ("NSE:SBIN", 779521),
    ],
)
def test_well_known_instruments_have_their_real_tokens(key: str, token: int) -> None:
    assert {row.key: row.instrument_token for row in dump_of_start().instruments}[key] == token


def test_every_segment_with_a_divisor_of_its_own_is_there() -> None:
    segments = {row.instrument_token & 0xFF for row in dump_of_start().instruments}
    assert segments >= {1, 2, 3, 5, 6, 7, 9, 12}


def test_weekly_contracts_end_on_tuesdays_or_the_trading_day_before() -> None:
    expiries = sorted({row.expiry for row in _options("NIFTY") if row.expiry})
    assert expiries[:5] == [
        dt.date(2026, 11, 23),  # Tuesday the 24th is a holiday
        dt.date(2026, 12, 1),
        dt.date(2026, 12, 8),
        dt.date(2026, 12, 15),
        dt.date(2026, 12, 29),
    ]


def test_only_nifty_and_sensex_have_weekly_contracts() -> None:
    weekly = {
        row.name
        for row in dump_of_start().instruments
        if row.is_option
        and row.expiry
        and row.expiry.strftime("%y%b").upper() not in row.tradingsymbol
    }
    assert weekly == {"NIFTY", "SENSEX"}


def test_symbols_follow_the_brokers_grammar() -> None:
    symbols = {row.expiry: row.tradingsymbol for row in _options("NIFTY") if row.strike == 26_000}
    assert symbols[dt.date(2026, 11, 23)] == "NIFTY26NOV26000PE"
    assert symbols[dt.date(2026, 12, 1)] == "NIFTY26D0126000PE"
    assert symbols[dt.date(2026, 12, 29)] == "NIFTY26DEC26000PE"
    february = create_dump(1, dt.date(2026, 2, 3)).instruments
    assert any(row.tradingsymbol.startswith("NIFTY26203") for row in february)


@pytest.mark.parametrize(
    ("name", "lot", "step"),
    [("NIFTY", 65, 50), ("BANKNIFTY", 30, 100), ("FINNIFTY", 60, 50), ("MIDCPNIFTY", 120, 25)],
)
def test_lots_and_strike_steps(name: str, lot: int, step: float) -> None:
    options = _options(name)
    strikes = sorted({row.strike for row in options})
    assert {row.lot_size for row in options} == {lot}
    assert {b - a for a, b in itertools.pairwise(strikes)} == {step}
    assert {row.tick_size for row in options} == {0.05}


def test_each_strike_has_a_call_and_a_put() -> None:
    calls = {(row.expiry, row.strike) for row in _options("NIFTY") if row.instrument_type == "CE"}
    puts = {(row.expiry, row.strike) for row in _options("NIFTY") if row.instrument_type == "PE"}
    assert calls == puts


def test_the_csv_reads_back_as_the_dump() -> None:
    lines = dump_of_start().to_csv().decode().splitlines()
    assert tuple(parse_instruments(lines)) == dump_of_start().instruments
    assert '256265,1001,NIFTY 50,"NIFTY 50",0,,0,0,0,EQ,INDICES,NSE' in lines


def test_the_csv_of_one_exchange_has_no_other() -> None:
    lines = dump_of_start().to_csv("BFO").decode().splitlines()
    rows = [row for row in parse_instruments(lines) if row]
    assert {row.exchange for row in rows} == {"BFO"}


def test_a_dump_is_a_function_of_seed_and_date() -> None:
    again = create_dump(1, dt.date(2026, 11, 20))
    assert again.to_csv() == dump_of_start().to_csv()
    assert again.etag == dump_of_start().etag
    assert create_dump(2, dt.date(2026, 11, 20)).etag != again.etag
    assert create_dump(1, dt.date(2026, 11, 25)).etag != again.etag


def test_the_full_dump_is_as_large_as_the_real_one() -> None:
    rows = create_dump(1, dt.date(2026, 11, 20), "full").instruments
    assert 38_000 <= sum(row.exchange == "NFO" for row in rows) <= 50_000
    assert len({row.instrument_token for row in rows}) == len(rows)
    assert len({row.expiry for row in rows if row.underlying == "NIFTY" and row.is_option}) == 17


def test_the_dump_changes_when_the_days_contracts_have_expired() -> None:
    noon = dt.datetime(2026, 12, 1, 12, 0, tzinfo=IST)
    evening = noon.replace(hour=16)
    assert dump_date(noon.timestamp()) == noon.date()
    assert dump_date(evening.timestamp()) == dt.date(2026, 12, 2)


def _options(name: str) -> list[Instrument]:
    return [row for row in dump_of_start().instruments if row.name == name and row.is_option]
