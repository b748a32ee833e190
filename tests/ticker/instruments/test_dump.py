"""Dumps as they arrive, whether they are believed, and what they change."""

import datetime as dt
import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ticker.simulator.memory_simulator import dump_of_start
from tests.ticker.synthetic import create_future, create_option, create_share
from ticker.errors import BrokerResponseError
from ticker.instruments.archive import dump_path, load_dump, save_dump
from ticker.instruments.dump import (
    LINE_MAX,
    DumpReader,
    ExchangeDump,
    doubt,
    dump_day,
    registry_difference,
)
from ticker.instruments.registry import COLUMNS, Instrument, InstrumentRegistry

DAY = dt.date(2026, 11, 20)
IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
NOTHING = InstrumentRegistry(())
CSV = dump_of_start().to_csv("BFO")
ROWS = tuple(row for row in dump_of_start().rows if row.exchange == "BFO")

SHARE = create_share(738, "RELIANCE")
FUTURE = create_future(35_000)
CALL = create_option(40_000, 25_000.0, "CE")
PUT = create_option(40_001, 25_000.0, "PE")


def read(
    *chunks: bytes, exchange: str = "BFO", known: InstrumentRegistry = NOTHING
) -> ExchangeDump:
    reader = DumpReader(exchange, known)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish(DAY)


def under(row: Instrument, token: int) -> Instrument:
    return msgspec.structs.replace(row, instrument_token=token)


@pytest.mark.slow
@given(st.lists(st.integers(0, len(CSV)), max_size=12))
def test_pieces_of_any_size_are_the_whole(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(CSV)]
    pieces = [CSV[start:end] for start, end in itertools.pairwise(bounds)]
    assert read(*pieces) == ExchangeDump("BFO", DAY, ROWS)


def test_windows_lines_a_byte_order_mark_and_no_last_newline() -> None:
    text = b"\xef\xbb\xbf" + CSV.strip().replace(b"\n", b"\r\n")
    assert read(text).instruments == ROWS


def test_what_is_known_is_not_made_again() -> None:
    known = InstrumentRegistry(ROWS)
    assert all(
        known.by_token(row.instrument_token) is row for row in read(CSV, known=known).instruments
    )


HEADER = ",".join(COLUMNS) + "\n"
GOOD = "5,1,GOOD,,0,,0,0.05,1,EQ,NSE,NSE\n"


@pytest.mark.parametrize(
    "row",
    [
        b"x,1,A,,0,,0,0,0,EQ,NSE,NSE",
        b"6,1,A,,0,,0,0,0,EQ,BSE,BSE",  # another exchange's
        b"6,1,A,,0,,nan,0,0,EQ,NSE,NSE",
        b"6,1,A,,0,,-1,0,0,EQ,NSE,NSE",
        b"6,1,A,,0,,inf,0,0,EQ,NSE,NSE",
        b"6,1,A,,0,,0,0,3000000000,EQ,NSE,NSE",
        b"6,99999999999,A,,0,,0,0,0,EQ,NSE,NSE",
        b"6,1,A\0B,,0,,0,0,0,EQ,NSE,NSE",
        b"6,1," + b"A" * 300 + b",,0,,0,0,0,EQ,NSE,NSE",
        b'6,1,"A,,0,,0,0,0,EQ,NSE,NSE',  # a quote without its end
        b"6,1,A,,0,20261301,0,0,0,EQ,NSE,NSE",
        b"6,1,A,,0,0001-01-01,0,0,0,CE,NSE,NSE",  # the broker's zero date
        b"6,1,A,,0,1999-12-31,0,0,0,CE,NSE,NSE",
        b"6,1,A,,0,9999-12-31,0,0,0,CE,NSE,NSE",
        b"6,1,A,,0,,1e300,0,0,EQ,NSE,NSE",
        b"6,1,A,,0,,0,1e300,0,EQ,NSE,NSE",
        b"6,1,A,,0,,0,0,0,EQ,NSE",
        b"\xff\xfe,1,A,,0,,0,0,0,EQ,NSE,NSE",
    ],
)
def test_a_bad_row_is_counted_and_costs_no_other(row: bytes) -> None:
    dump = read(HEADER.encode() + row + b"\n" + GOOD.encode(), exchange="NSE")
    assert [each.tradingsymbol for each in dump.instruments] == ["GOOD"]
    assert dump.rejected == 1


def test_columns_may_come_in_another_order() -> None:
    header = ",".join(reversed(COLUMNS)) + "\n"
    row = ",".join(reversed(GOOD.strip().split(",")))
    [found] = read((header + row).encode(), exchange="NSE").instruments
    assert (found.instrument_token, found.tradingsymbol, found.tick_size) == (5, "GOOD", 0.05)


@given(st.binary(max_size=300))
def test_any_bytes_are_counted_or_refused(junk: bytes) -> None:
    dump = read(HEADER.encode(), junk, exchange="NSE")
    assert len(dump.instruments) + dump.rejected <= junk.count(b"\n") + 1


@pytest.mark.parametrize("junk", [b"<html>\n<body>\n", b"x" * (LINE_MAX + 1)])
def test_what_is_not_the_dump_is_refused(junk: bytes) -> None:
    with pytest.raises(BrokerResponseError):
        read(junk)


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticker.instruments.dump.ROWS_MAX", 1)
    with pytest.raises(BrokerResponseError):
        read(CSV)


@pytest.mark.parametrize(
    ("rows", "before", "is_confirmed", "is_believed"),
    [
        (0, 0, False, False),
        (0, 10, True, False),
        (1, 0, False, True),
        (5, 10, False, True),
        (4, 10, False, False),
        (4, 10, True, True),
        (99, 10, False, True),
    ],
)
def test_what_is_believed(rows: int, before: int, is_confirmed: bool, is_believed: bool) -> None:
    dump = ExchangeDump("NSE", DAY, (SHARE,) * rows, is_confirmed=is_confirmed)
    assert (doubt(dump, before) is None) == is_believed


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2026-11-20 08:29", "2026-11-19"),
        ("2026-11-20 08:30", "2026-11-20"),
        ("2026-11-21 12:00", "2026-11-20"),  # Saturday
        ("2026-11-23 08:00", "2026-11-20"),  # Monday, before
        ("2026-11-24 12:00", "2026-11-23"),  # a holiday of the equity segments
        ("2026-11-25 08:30", "2026-11-25"),
    ],
)
@pytest.mark.parametrize("zone", [dt.UTC, IST, dt.timezone(dt.timedelta(hours=-5))])
def test_the_dump_in_force(moment: str, day: str, zone: dt.tzinfo) -> None:
    now = dt.datetime.fromisoformat(moment).replace(tzinfo=IST).astimezone(zone)
    made_at = dt.time(8, 30)
    assert dump_day(now, made_at, ["NSE", "NFO", "UNHEARD-OF"]) == dt.date.fromisoformat(day)


def test_what_another_dump_changes() -> None:
    moved = under(CALL, 99)
    other = create_option(40_001, 26_000.0, "CE")  # on the token of the put
    before = InstrumentRegistry([SHARE, FUTURE, CALL, PUT])
    after = InstrumentRegistry([SHARE, FUTURE, moved, other])
    difference = registry_difference(before, after)
    assert difference.moved == {CALL.instrument_token: 99}
    assert difference.reused == {PUT.instrument_token}
    assert difference.gone == {PUT.instrument_token}
    assert difference.added == 1
    same = registry_difference(before, InstrumentRegistry([PUT, CALL, FUTURE, SHARE]))
    assert (same.moved, same.reused, same.gone, same.added) == ({}, frozenset(), frozenset(), 0)


def test_a_saved_dump_is_read_back(tmp_path: Path) -> None:
    dump = read(CSV)
    save_dump(tmp_path, dump)
    save_dump(tmp_path, dump)
    assert load_dump(tmp_path, "BFO", DAY) == dump
    assert load_dump(tmp_path, "BFO", DAY.replace(day=19)) is None
    assert [path.name for path in (tmp_path / "2026-11-20").iterdir()] == ["BFO.csv.gz"]
    whole = dump_path(tmp_path, "BFO", DAY).read_bytes()
    dump_path(tmp_path, "BFO", DAY).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match="BFO"):
        load_dump(tmp_path, "BFO", DAY)
