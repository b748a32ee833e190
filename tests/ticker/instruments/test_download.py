"""Dumps from several accounts, of which any may fail or answer anything at all."""

import datetime as dt
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ticker.mock_market.rig import create_market
from ticker.errors import (
    BrokerBusyError,
    BrokerError,
    BrokerResponseError,
    BrokerUnreachableError,
)
from ticker.instruments.download import Downloaded, download_dumps
from ticker.instruments.dump import LINE_MAX
from ticker.instruments.registry import COLUMNS, InstrumentRegistry

DAY = dt.date(2026, 11, 20)
NOW = dt.datetime(2026, 11, 20, 6, 0, tzinfo=dt.UTC).timestamp()
HEADER = ",".join(COLUMNS).encode() + b"\n"

Answer = bytes | BrokerError


def good(exchange: str) -> bytes:
    return HEADER + f"5,1,GOOD,,0,,0,0.05,1,EQ,{exchange},{exchange}\n".encode()


class Source:
    """An account that answers this, by exchange; what it does not have, well."""

    def __init__(self, account_id: str, answers: Mapping[str, Answer] | None = None) -> None:
        self.account_id = account_id
        self.answers = answers or {}
        self.asked: list[str] = []

    async def load_instruments(self, exchange: str) -> AsyncGenerator[bytes, None]:
        await trio.lowlevel.checkpoint()
        self.asked.append(exchange)
        answer = self.answers.get(exchange, good(exchange))
        if isinstance(answer, BrokerError):
            raise answer
        for at in range(0, len(answer), LINE_MAX):
            yield answer[at : at + LINE_MAX]


async def download(sources: Sequence[Source], *exchanges: str) -> Downloaded:
    return await download_dumps(
        sources, exchanges, InstrumentRegistry(()), DAY, timeout_s=1.0, is_confirmed=False
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no dump",  # less than a line: seen only when it has ended
        b"<html>\n<body>\n",
        b"\n",
        b"\0" * 100,
        b"a\rb,c\n",
        b'"' * 100 + b"\n",
        b"x" * (2 * LINE_MAX),
        b"x," * LINE_MAX + b"\n",
        b"\xff\xfe\xfd\n",
    ],
)
async def test_what_is_no_dump_is_the_trouble_of_that_account_and_exchange(body: bytes) -> None:
    first, second = Source("first", {"NSE": body}), Source("second")
    both = await download([first, second], "NSE", "BSE")
    assert (set(both.dumps), both.problems) == ({"NSE", "BSE"}, {})
    assert both.accounts == ("second", "first")
    assert (first.asked, second.asked) == (["NSE", "BSE"], ["NSE"])
    alone = await download([first], "NSE", "BSE")
    assert set(alone.dumps) == {"BSE"}
    assert set(alone.problems) == {"NSE"}
    assert "first" in alone.problems["NSE"]


@pytest.mark.parametrize(
    ("error", "asked_first", "asked_second"),
    [
        (BrokerUnreachableError("away"), ["NSE", "BSE"], ["NSE"]),
        (BrokerResponseError(500, "GeneralException", "x"), ["NSE", "BSE"], ["NSE"]),
        (BrokerResponseError(403, "TokenException", "x"), ["NSE"], ["NSE", "BSE"]),
        (BrokerBusyError("given a rest", 5.0), ["NSE"], ["NSE", "BSE"]),
        (BrokerResponseError(400, "InputException", "x"), ["NSE", "BSE"], []),
    ],
)
async def test_who_is_asked_after_a_failure(
    error: BrokerError, asked_first: list[str], asked_second: list[str]
) -> None:
    first, second = Source("first", {"NSE": error}), Source("second")
    found = await download([first, second], "NSE", "BSE")
    assert (first.asked, second.asked) == (asked_first, asked_second)
    assert ("NSE" in found.problems) == (asked_second == [])
    assert "BSE" in found.dumps


async def test_why_an_exchange_is_missing_is_told() -> None:
    away, out = BrokerUnreachableError("away"), BrokerResponseError(403, "TokenException", "log in")
    first, second = Source("first", {"NSE": out}), Source("second", {"NSE": away, "BSE": away})
    found = await download([first, second], "NSE", "BSE")
    assert found.problems["NSE"] == f"first: {out}; second: {away}"
    assert found.problems["BSE"] == f"second: {away}"
    assert (await download([first], "NSE", "BSE")).problems["BSE"] == f"first: {out}"
    assert (await download([], "NSE")).problems == {"NSE": "no account is logged in"}


fields = st.one_of(
    st.text(max_size=8).map(lambda text: text.replace("\n", "")),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "0", "-1", "1e308", "9" * 400, "nan", "inf", '"', "NSE", "CE", "PE", "FUT", "INDICES",
         "0001-01-01", "1999-12-31", "2026-12-29", "2099-12-31", "9999-12-31", "2026-13-01"]
    ),
)  # fmt: skip
near = (
    *(
        st.integers(1, 300).map(str),
        st.integers(0, 9).map(str),
        st.sampled_from("ABC"),
        st.just(""),
    ),
    *(st.just("0"), st.sampled_from(["", "2026-12-29", "2099-12-31", "9999-12-31"])),
    *(
        st.sampled_from(["0", "100", "1e9", "1e300"]),
        st.sampled_from(["0", "0.05", "1e9", "1e300"]),
    ),
    *(st.sampled_from(["0", "1", "3000000", "2147483647"]), st.sampled_from(["CE", "FUT", "EQ"])),
    *(st.sampled_from(["NFO-OPT", "INDICES"]), st.sampled_from(["NSE", "CDS", "MCX"])),
)
rows = st.tuples(*(st.one_of(likely, likely, likely, fields) for likely in near)).map(",".join)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(rows, max_size=6),
    junk=st.binary(max_size=60),
    at=st.integers(0, 300),
    has_header=st.booleans(),
)
def test_whatever_the_dump_says_it_can_be_listed_and_seeded(
    lines: list[str], junk: bytes, at: int, has_header: bool
) -> None:
    text = "\n".join(lines).encode(errors="replace")
    body = (HEADER if has_header else b"") + text[:at] + junk + text[at:]
    exchanges = ("NSE", "CDS", "MCX")
    source = Source("first", dict.fromkeys(exchanges, body))
    found = trio.run(partial(download, [source], *exchanges))
    listed = InstrumentRegistry(row for dump in found.dumps.values() for row in dump.instruments)
    market = create_market()
    market.admit(list(listed), {}, NOW)
    market.step(NOW + 1)
