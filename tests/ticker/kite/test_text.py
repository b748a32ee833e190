"""Text messages: what we ask, what we are told, and what says nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kiteconnect import KiteTicker

from ticker.instruments.registry import TickMode
from ticker.kite.text import (
    AppCode,
    BrokerErrorMessage,
    BrokerMessage,
    InstrumentDump,
    InstrumentsMeta,
    OrderUpdate,
    ServerMessage,
    SetMode,
    Subscribe,
    UnknownText,
    Unsubscribe,
    encode_text,
    parse_request,
    parse_text,
    set_mode,
    subscribe,
    unsubscribe,
)

MOCKS = Path(__file__).parents[4] / "shared" / "kite-mocks"
MODES: tuple[TickMode, ...] = ("ltp", "quote", "full")
HOSTILE = [
    "",
    "{",
    "nonsense",
    "\x00",
    "\ud800",
    b"\xff\xfe",
    b'{"type":"order","data":{"a":"\xff"}}',
    "[" * 100_000,
    '{"type":"error","data":' + "[" * 100_000,
    '{"type":"order","data":{"a":1e999999}}',
    "NaN",
]
STRANGE = [
    "null",
    "[]",
    "1",
    '"order"',
    "{}",
    '{"type":"new"}',
    '{"type":7}',
    '{"type":"order"}',
    '{"type":"order","data":"none"}',
    '{"type":"instruments_meta","data":{}}',
    '{"data":{"order_id":"1"}}',
]


def test_requests_as_the_broker_documents_them() -> None:
    assert subscribe([408065, 884737]) == '{"a":"subscribe","v":[408065,884737]}'
    assert unsubscribe([408065]) == '{"a":"unsubscribe","v":[408065]}'
    assert set_mode("full", [408065]) == '{"a":"mode","v":["full",[408065]]}'


def test_tokens_go_out_as_numbers_or_not_at_all() -> None:
    assert subscribe(np.array([408065, 4_000_000_000], np.uint32)) == (
        '{"a":"subscribe","v":[408065,4000000000]}'
    )
    with pytest.raises(TypeError):
        subscribe(["408065"])  # type: ignore[list-item]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20), st.sampled_from(MODES))
@settings(max_examples=30)
def test_requests_round_trip(tokens: list[int], mode: TickMode) -> None:
    assert parse_request(subscribe(tokens)) == Subscribe(tuple(tokens))
    assert parse_request(unsubscribe(tokens)) == Unsubscribe(tuple(tokens))
    request = parse_request(set_mode(mode, tokens))
    assert isinstance(request, SetMode)
    assert (request.mode, request.tokens) == (mode, tuple(tokens))


def test_requests_of_the_official_client_are_understood() -> None:
    class Connection:
        sent: list[bytes] = []  # noqa: RUF012

        def sendMessage(self, payload: bytes) -> None:  # noqa: N802
            self.sent.append(payload)

    client = KiteTicker("key", "token")
    client.ws = Connection()
    client.subscribe([1, 2])
    client.set_mode(client.MODE_FULL, [2])
    client.unsubscribe([1])
    assert [parse_request(payload) for payload in Connection.sent] == [
        Subscribe((1, 2)),
        SetMode(("full", (2,))),
        Unsubscribe((1,)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"a":"subscribe","v":["408065"]}',
        '{"a":"subscribe","v":[-1]}',
        '{"a":"subscribe","v":[4294967296]}',
        '{"a":"subscribe","v":408065}',
        '{"a":"subscribe"}',
        '{"a":"mode","v":["deep",[1]]}',
        '{"a":"mode","v":["full"]}',
        '{"a":"steal","v":[1]}',
        '{"v":[1]}',
    ],
)
def test_a_request_not_in_the_protocol_is_unknown(text: str) -> None:
    assert parse_request(text) == UnknownText("unknown_text", text)


MESSAGES: list[ServerMessage] = [
    OrderUpdate({"order_id": "1234567890123456789", "tags": [], "meta": {"a": None}}),
    BrokerErrorMessage("too many instruments"),
    BrokerMessage("markets close early today"),
    InstrumentsMeta(InstrumentDump(90517, "W/abc")),
    AppCode("2023-05-30T13:31:46+05:30"),
    AppCode(),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_round_trip(message: ServerMessage) -> None:
    assert parse_text(encode_text(message)) == message
    assert parse_text(encode_text(message).encode()) == message


def test_messages_as_observed() -> None:
    assert parse_text('{"type":"error","data":"bad request"}') == BrokerErrorMessage("bad request")
    meta = parse_text('{"type": "instruments_meta", "data": {"count": 90517, "etag": "W/x"}}')
    assert meta == InstrumentsMeta(InstrumentDump(90517, "W/x"))
    code = parse_text('{"type":"app_code","timestamp":"2023-05-30T13:31:46+05:30"}')
    assert code == AppCode("2023-05-30T13:31:46+05:30")


def test_an_error_of_another_shape_is_still_an_error() -> None:
    message = parse_text('{"type":"error","data":{"code":7},"more":1}')
    assert isinstance(message, BrokerErrorMessage)
    assert message.text == '{"code":7}'


@pytest.mark.skipif(not MOCKS.is_dir(), reason="the broker's sample responses are not here")
def test_an_order_carries_the_broker_s_object_as_it_came() -> None:
    order = json.loads((MOCKS / "postback.json").read_text())
    assert parse_text(json.dumps({"type": "order", "data": order})) == OrderUpdate(order)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_not_json_is_named_so(text: str | bytes) -> None:
    for message in (parse_text(text), parse_request(text)):
        assert isinstance(message, UnknownText)
        assert len(message.excerpt) <= 200


@pytest.mark.parametrize("text", STRANGE)
def test_json_that_says_nothing_is_unknown(text: str) -> None:
    assert parse_text(text) == UnknownText("unknown_text", text)


@given(st.binary())
@settings(max_examples=60)
def test_reading_never_raises(text: bytes) -> None:
    assert isinstance(parse_text(text), UnknownText)
    assert isinstance(parse_request(text), UnknownText)
