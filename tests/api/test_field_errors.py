"""What a person is told of a value that does not fit: the field, and what is allowed there."""

from typing import Any

import msgspec
import pytest

from api.api_keys import NewApiKey
from api.field_errors import NAME_MAX, explain
from api.history import HistoryQuery
from api.instruments import InstrumentsQuery
from api.operations import AccountId, InstrumentToken
from api.subscriptions import BulkBody, NewSubscriptionBody, SubscriptionQuery
from ticker.accounts.desk import AccountChange, NewAccount

TOKEN = "has to be a whole number from 1 to 4294967295"
FIELDS = "instrument_token, requested_mode, account_id"


@pytest.mark.parametrize(
    ("kind", "body", "field", "message"),
    [
        (NewSubscriptionBody, '{"instrument_token": "5"}', "instrument_token",
         f"{TOKEN}, not a text"),
        (NewSubscriptionBody, '{"instrument_token": 0}', "instrument_token", TOKEN),
        (NewSubscriptionBody, '{"instrument_token": 4294967296}', "instrument_token", TOKEN),
        (NewSubscriptionBody, '{"instrument_token": 1e400}', "instrument_token", TOKEN),
        (NewSubscriptionBody, '{"instrument_token": 1.5}', "instrument_token",
         f"{TOKEN}, not a number with a fraction"),
        (NewSubscriptionBody, "{}", "instrument_token", f"is missing: it {TOKEN}"),
        (NewSubscriptionBody, '{"mode": 1}', "mode", f"is not known here: there is {FIELDS}"),
        (NewSubscriptionBody, '{"instrument_token": 1, "requested_mode": "ALL"}', "requested_mode",
         "has to be one of FULL, LTP, QUOTE"),
        (NewSubscriptionBody, '{"instrument_token": 1, "account_id": "a b"}', "account_id",
         "has to be a text of 1 to 50 letters, digits, _ and -, or null"),
        (NewSubscriptionBody, "[]", "", f"has to be an object with {FIELDS}, not a list"),
        (BulkBody, '{"subscribe": [{"instrument_token": 1}, {}]}', "subscribe[1].instrument_token",
         f"is missing: it {TOKEN}"),
        (BulkBody, '{"subscribe": [{"x": 1}]}', "subscribe[0].x",
         f"is not known here: there is {FIELDS}"),
        (BulkBody, '{"unsubscribe": {}}', "unsubscribe",
         "has to be a list of at most 9000 values, not an object"),
        (BulkBody, '{"unsubscribe": [' + "1," * 9000 + "1]}", "unsubscribe",
         "has to be a list of at most 9000 values"),
        (NewApiKey, '{"name": "x", "scopes": []}', "scopes", "has to be a list of 1 to 3 values"),
        (NewApiKey, '{"name": "x", "scopes": ["all"]}', "scopes[0]",
         "has to be one of admin, read, trade"),
        (NewApiKey, '{"name": "x\\n", "scopes": ["read"]}', "name",
         "has to be a text of 1 to 100 characters on one line"),
        (NewApiKey, '{"name": "x", "scopes": ["read"], "expires_at": "2030-01-01T00:00:00"}',
         "expires_at",
         "has to be a time with its offset, such as 2026-08-03T09:15:00+05:30, or null"),
        (NewAccount, '{"account_id": "a", "api_key": 7}', "api_key",
         "has to be a text, not a whole number"),
        (AccountChange, '{"is_active": "yes"}', "is_active",
         "has to be true or false, or null, not a text"),
        (AccountChange, '{"metadata": []}', "metadata",
         "has to be an object, or null, not a list"),
    ],
)  # fmt: skip
def test_a_body_is_told_which_field_and_what_is_allowed(
    kind: Any, body: str, field: str, message: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=kind)
    found = explain(caught.value, kind)
    assert (found.field, found.message) == (field, message)


@pytest.mark.parametrize(
    ("kind", "query", "field", "message"),
    [
        (SubscriptionQuery, {"limit": "many"}, "limit", "has to be a whole number from 1 to 1000"),
        (SubscriptionQuery, {"limit": "9" * 5000}, "limit",
         "has to be a whole number from 1 to 1000"),
        (SubscriptionQuery, {"status": "on"}, "status", "has to be one of active, inactive"),
        (SubscriptionQuery, {"account_id": ""}, "account_id",
         "has to be a text of 1 to 50 letters, digits, _ and -"),
        (InstrumentsQuery, {"strike_min": "nan"}, "strike_min",
         "has to be a number from 0 to 1000000000"),
        (InstrumentsQuery, {"expiry": "2026-02-30"}, "expiry",
         "has to be a date, such as 2026-08-03"),
        (HistoryQuery, {"instrument_token": "1", "from_ts": "x" * 50, "to_ts": "x"}, "from_ts",
         "has to be an ISO 8601 time, such as 2026-08-03T09:15:00+05:30"),
        (HistoryQuery, {"instrument_token": "1", "from_ts": "x", "to_ts": "x", "oi": "2"}, "oi",
         "has to be true or false"),
    ],
)  # fmt: skip
def test_a_query_is_told_likewise_and_nothing_of_null(
    kind: Any, query: dict[str, str], field: str, message: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(query, kind, strict=False)
    found = explain(caught.value, kind, is_text=True)
    assert (found.field, found.message) == (field, message)


@pytest.mark.parametrize(("kind", "value"), [(InstrumentToken, "x"), (AccountId, "a b")])
def test_a_part_of_the_path_has_the_name_it_is_given(kind: Any, value: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, kind, strict=False)
    found = explain(caught.value, kind, name="part", is_text=True)
    assert (found.field, found.message[:9]) == ("part", "has to be")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a" * 900, "a" * NAME_MAX),
        ("a`b - at `$.x`", "a`b - at `$.x`"),
        ("a` - at `$.x[0].y", "x[0].y.a"),  # forged, and harmless
        ("\u202e\n<\x7f", "??<?"),
        ("", "''"),
    ],
)
def test_a_name_that_the_caller_invented_cannot_do_harm(name: str, shown: str) -> None:
    body = msgspec.json.encode({name: 1})
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=NewSubscriptionBody)
    assert explain(caught.value, NewSubscriptionBody).field == shown


def test_no_value_is_repeated() -> None:
    for body in ('{"account_id": "a", "api_key": "k", "api_secret": ["canary"]}',
                 '{"account_id": "a", "api_key": {"canary": "canary"}}'):  # fmt: skip
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.json.decode(body, type=NewAccount)
        assert "canary" not in explain(caught.value, NewAccount).message


def test_a_type_that_checks_itself_has_its_own_words() -> None:
    class Even(msgspec.Struct):
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("odd numbers are not taken")

    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"number": 1}', type=Even)
    assert explain(caught.value, Even).message == "odd numbers are not taken"
