import datetime as dt
import hashlib
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from kiteconnect import KiteConnect

from ticker.errors import InvalidRequestError
from ticker.kite.login import (
    create_checksum,
    create_login_url,
    parse_request_token,
    token_expiry,
)


def test_login_page_is_the_official_clients() -> None:
    assert (
        sorted(parse_qsl(urlsplit(create_login_url("https://kite.zerodha.com", "key")).query))
        == sorted(
            (name, value)
            for name, value in parse_qsl(urlsplit(KiteConnect(api_key="key").login_url()).query)
        )
    )  # fmt: skip


def test_redirect_params_survive_two_layers_of_quoting() -> None:
    given = {"state": "a&b=c d%", "x": "€"}
    url = create_login_url("https://kite.zerodha.com", "k/1", given)
    query = parse_qs(urlsplit(url).query)
    assert query["api_key"] == ["k/1"]
    assert dict(parse_qsl(query["redirect_params"][0])) == given


def test_checksum_is_of_the_three_in_order() -> None:
    expected = hashlib.sha256(b"keytokensecret").hexdigest()
    assert create_checksum("key", "token", "secret") == expected


@pytest.mark.parametrize(
    "answer",
    [
        "tok",
        "  tok\n",
        "https://my.app/path?action=login&status=success&request_token=tok&state=s",
        "http://127.0.0.1:5010/?request_token=tok",
        "request_token=tok&status=success",
    ],
)
def test_request_token_is_found_in_what_was_pasted(answer: str) -> None:
    assert parse_request_token(answer) == "tok"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "\n",
        "https://my.app/",
        "https://my.app/?request_token=",
        "https://my.app/?request_token=a&request_token=b",
        "https://my.app/?status=error&request_token=tok",
        "a=b",
    ],
)
def test_what_holds_no_request_token_is_refused(answer: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_request_token(answer)


@pytest.mark.parametrize(
    ("issued", "expires"),
    [
        ("2026-11-20T09:00+05:30", "2026-11-21T06:00+05:30"),
        ("2026-11-20T05:59:59+05:30", "2026-11-20T06:00+05:30"),
        ("2026-11-20T06:00+05:30", "2026-11-21T06:00+05:30"),
        ("2026-11-20T23:59+00:00", "2026-11-21T06:00+05:30"),
        ("2026-12-31T10:00+05:30", "2027-01-01T06:00+05:30"),
    ],
)
def test_token_dies_at_the_next_six_in_the_morning_of_india(issued: str, expires: str) -> None:
    at = dt.datetime.fromisoformat(issued).timestamp()
    assert token_expiry(at) == dt.datetime.fromisoformat(expires).timestamp()
