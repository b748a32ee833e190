"""What the broker's login is made of: the page's address, the checksum, a token's life.

Pure functions. The exchange itself is ``POST /session/token`` of the REST API.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from ticker.calendar.india import INDIA
from ticker.errors import InvalidRequestError

TOKEN_EXPIRY: Final = dt.time(6, 0)
"""When every access token dies, in India: the regulator wants a login a day (Kite Connect v3)."""


def create_login_url(
    login_root: str, api_key: str, redirect_params: Mapping[str, str] | None = None
) -> str:
    """The page of the broker where a person logs in (Kite Connect v3).

    The broker then redirects the browser to the address that is registered for the api_key, with
    ``request_token``, ``status`` and the ``redirect_params`` in its query.
    """
    query = {"v": "3", "api_key": api_key}
    if redirect_params:
        query["redirect_params"] = urlencode(redirect_params)
    return f"{login_root}/connect/login?{urlencode(query)}"


def create_checksum(api_key: str, request_token: str, api_secret: str) -> str:
    """What proves to ``POST /session/token`` that we know the secret: hexadecimal SHA-256."""
    return hashlib.sha256(f"{api_key}{request_token}{api_secret}".encode()).hexdigest()


def parse_request_token(answer: str) -> str:
    """The request token in what a person pasted: the redirect's whole address, or the token.

    Raises InvalidRequestError if it holds none, or says that the login failed.
    """
    text = answer.strip()
    if "=" not in text and "/" not in text:
        if not text:
            raise InvalidRequestError("no request token was given", field="request_token")
        return text
    query = parse_qs(urlsplit(text).query or text)
    if query.get("status", ["success"])[0] != "success":
        raise InvalidRequestError("the broker says that the login failed", field="status")
    tokens = query.get("request_token", [])
    if len(tokens) != 1:
        raise InvalidRequestError("there is no request_token in it", field="request_token")
    return tokens[0]


def token_expiry(issued_at: float) -> float:
    """When a token that was issued then dies: the next 06:00 in India. Both are UNIX seconds."""
    issued = dt.datetime.fromtimestamp(issued_at, INDIA)
    expiry = dt.datetime.combine(issued.date(), TOKEN_EXPIRY, INDIA)
    if expiry <= issued:
        expiry += dt.timedelta(days=1)
    return expiry.timestamp()
