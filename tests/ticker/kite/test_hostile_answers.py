"""Whatever the broker answers, a call returns something of its type, or raises a BrokerError."""

import datetime as dt
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rest_brokers import Handler, Pieces, open_memory_brokers
from ticker.errors import BrokerError, BrokerUnreachableError
from ticker.kite.calls import RestPolicy
from ticker.kite.models import Candles
from ticker.kite.rest import BrokerRest

ONCE: Final = RestPolicy(attempts=1, timeout_s=5.0)
SINCE: Final = dt.datetime(2026, 11, 20, 3, 45, tzinfo=dt.UTC)
UNTIL: Final = SINCE + dt.timedelta(hours=6)

Ask = Callable[[BrokerRest], Awaitable[Any]]


async def read_instruments(broker: BrokerRest) -> bytes:
    return b"".join([piece async for piece in broker.load_instruments("NSE")])


async def load_candles(broker: BrokerRest, *, oi: bool) -> Candles:
    candles = await broker.load_candles(1, "minute", SINCE, UNTIL, oi=oi)
    starts = candles.starts.tolist()
    assert starts == sorted(set(starts))
    # a time that a reader can show, and counts that a table can hold
    assert all(dt.datetime.fromtimestamp(start, dt.UTC).year >= 1969 for start in starts)
    assert all(0 <= volume < 2**63 for volume in candles.volume.tolist())
    return candles


CALLS: Final[Mapping[str, Ask]] = MappingProxyType(
    {
        "profile": BrokerRest.load_profile,
        "instruments": read_instruments,
        "last_prices": lambda broker: broker.load_last_prices(["NSE:A"]),
        "ohlc": lambda broker: broker.load_ohlc(["NSE:A"]),
        "quotes": lambda broker: broker.load_quotes(["NSE:A"]),
        "candles": lambda broker: load_candles(broker, oi=False),
        "candles_with_oi": lambda broker: load_candles(broker, oi=True),
        "create_session": lambda broker: broker.create_session("request", "secret"),
        "delete_session": BrokerRest.delete_session,
    }
)
each_call = pytest.mark.parametrize("name", sorted(CALLS))


def ask(name: str, handler: Handler) -> Any:
    """What a call returns, or the BrokerError that it raises."""

    async def run() -> Any:
        async with open_memory_brokers(handler, policy=ONCE) as brokers:
            try:
                return await CALLS[name](brokers.of("first"))
            except BrokerError as error:
                return error

    return trio.run(run)


def answer(status: int, body: bytes, **headers: str) -> Handler:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(status, stream=Pieces(body), headers=names)


OHLC: Final = {"open": 1, "high": 2.5, "low": 1, "close": 2}
QUOTE: Final = {
    "instrument_token": 408065,
    "last_price": 1412.95,
    "ohlc": OHLC,
    "volume": 7,
    "oi": 3,
    "depth": {"buy": [{"price": 1, "quantity": 2, "orders": 3}], "sell": []},
    "timestamp": None,
}
CANDLE: Final = ["2026-11-20T09:15:00+0530", 1, 2, 1, 2, 100]
GOOD: Final = (
    {"data": {"NSE:A": QUOTE}},
    {"data": {"candles": [CANDLE]}},
    {"data": {"candles": [[*CANDLE, 7]]}},
    {"data": {"user_id": "AB", "api_key": "k", "access_token": "t"}},
    {"data": True},
    {"status": "error", "error_type": "InputException", "message": "bad", "data": None},
)
stamps = st.builds(
    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}".format,
    *(st.integers(0, most) for most in (9999, 19, 39, 29, 69, 69)),
    st.sampled_from(["+0530", "+05:30", "Z", ""]),
)
numbers = st.one_of(
    st.integers(),
    st.floats(),  # json writes NaN and Infinity
    st.sampled_from([2**31, 2**53, 2**63, 2**64, 10**30, 10**400, -1, 1e308, 0.5]),
)
words = st.one_of(
    st.text(max_size=20),
    stamps,
    st.sampled_from(
        ["now", "today", "NaT", "0001-01-01T00:00:00+0530", "\ud800", "a\0b", "2026-11-20T09:15"]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=7),
        st.dictionaries(
            st.one_of(words, st.sampled_from(["data", "candles", "message", "error_type"])),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@st.composite
def spoiled(draw: st.DrawFn) -> object:
    """A good answer, of whichever call, with something else in some of its places."""

    def spoil(value: object) -> object:
        if draw(st.integers(0, 7)) == 0:
            return draw(values)
        if isinstance(value, dict):
            return {name: spoil(each) for name, each in value.items()}
        if isinstance(value, list):
            return [spoil(each) for each in value]
        return value

    return spoil(draw(st.sampled_from(GOOD)))


bodies = st.one_of(
    st.binary(max_size=200),
    st.one_of(values, spoiled()).map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda value, at, junk: (text := json.dumps(value).encode())[:at] + junk + text[at:],
        spoiled(),
        st.integers(0, 200),
        st.binary(max_size=3),
    ),
)
times = st.lists(
    st.tuples(stamps, *[st.one_of(st.integers(0, 9), numbers)] * 6).map(list), max_size=3
)


@pytest.mark.slow
@each_call
@settings(max_examples=150, deadline=None)
@given(body=bodies, status=st.sampled_from([200, 200, 200, 204, 302, 400, 403, 429, 500, 504]))
def test_any_body_is_an_answer_or_an_error_of_the_brokers(
    name: str, body: bytes, status: int
) -> None:
    ask(name, answer(status, body))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(rows=times, oi=st.booleans())
def test_any_candle_is_one_or_refused(rows: list[list[object]], oi: bool) -> None:
    body = json.dumps({"data": {"candles": [row[: 7 if oi else 6] for row in rows]}}).encode()
    ask("candles_with_oi" if oi else "candles", answer(200, body))


DEEP: Final = b"[" * 100_000 + b"]" * 100_000
HOSTILE: Final = (
    DEEP,
    b'{"more": ' + DEEP + b', "data": 1}',
    b'{"data": {"more": ' + DEEP + b"}}",
    b'{"data": {"NSE:A": {"more": ' + DEEP + b"}}}",
    b'{"error_type": "x", "message": "\xff\xfe", "data": {"user_id": "\xff"}}',
    b'{"data": {"\xff": {"instrument_token": 1, "last_price": 1}}}',
    b'{"data": {"NSE:A": {"instrument_token": 1, "last_price": 1' + b"0" * 5000 + b"}}}",
    b'{"data": {"NSE:A": {"instrument_token": 1, "last_price": NaN}}}',
    b'{"data": {"candles": [["2026-13-01T09:15:00+0530", 1, 1, 1, 1, 1]]}}',
    b'{"data": {"candles": [["0001-01-01T00:00:00+0530", 1, 1, 1, 1, 1, 1]]}}',
    b'{"data": {"candles": [["2026-11-20T09:15:00+0530", 1, 1, 1, 1, 1e300, 1e300]]}}',
    b'{"data": {"candles": [["2026-11-20T09:15:00+0530", 1, 1, 1, 1, -5, -5]]}}',
    b'{"data": {"candles": [["2026-11-20T09:15:00+0530", 1, 1, 1]]}}',
    b'{"data": {"candles": [["2026-11-20T09:15+05+0530", 1, 1, 1, 1, 1, 1]]}}',
    b'\xef\xbb\xbf{"data": {}}',
)


@each_call
@pytest.mark.parametrize("status", [200, 400, 429])
def test_what_was_thought_out_to_break_a_parser(name: str, status: int) -> None:
    for body in HOSTILE:
        found = ask(name, answer(status, body))
        if name not in ("instruments", "last_prices", "quotes", "ohlc", "delete_session"):
            assert isinstance(found, BrokerError), body[:60]


@each_call
@pytest.mark.parametrize(
    "headers",
    [
        {"content_encoding": "gzip"},
        {"content_encoding": "\x00\xff"},
        {"content_length": "99999999999999999999"},
        {"date": "x" * 1000, "age": "-1"},
        {"date": "Fri, 31 Dec 9999 23:59:59 GMT"},
        {"date": "Fri, 99 Dec -1 99:99:99 +9999"},
        {"retry_after": "9" * 400},
        {"location": "http://[::1", "content_type": "a;b=\xff"},
    ],
    ids=str,
)
def test_any_header_is_survived(name: str, headers: dict[str, str]) -> None:
    for status in (200, 302, 429):
        ask(name, answer(status, b'{"data": 1}', **headers))


@pytest.mark.slow
def test_a_bomb_is_given_up_by_every_call_that_holds_its_answer() -> None:
    bomb = gzip.compress(b"[" * 100_000_000)
    for name in CALLS:
        if name != "instruments":
            found = ask(name, answer(200, bomb, content_encoding="gzip"))
            assert isinstance(found, BrokerUnreachableError), name
