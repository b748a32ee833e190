"""The broker's REST API, as far as the feed needs it: the instrument dump and last prices."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import msgspec
import trio

from ticker.credentials import Credentials
from ticker.errors import BrokerResponseError, BrokerUnreachableError
from ticker.instruments import Instrument, parse_instruments

LAST_PRICE_KEYS_MAX: Final = 1000
"""Keys in one ``GET /quote/ltp`` (Kite Connect v3)."""

USER_AGENT: Final = "ticker/0.1"


class _LastPrice(msgspec.Struct):
    last_price: float


class _LastPrices(msgspec.Struct):
    data: dict[str, _LastPrice]


class _ErrorEnvelope(msgspec.Struct):
    error_type: str = "GeneralException"
    message: str | None = ""


class BrokerRest:
    """Typed reads. Every method raises BrokerUnreachableError when there is no usable answer,
    and BrokerResponseError when the broker refuses.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def load_instruments(self) -> list[Instrument]:
        """The whole dump (~100,000 rows, parsed in a worker thread), unusable rows left out."""
        response = await self._get("/instruments", {})
        text = response.text

        def parse() -> list[Instrument]:
            return [row for row in parse_instruments(text.splitlines()) if row is not None]

        return await trio.to_thread.run_sync(parse)

    async def load_last_prices(self, keys: Iterable[str]) -> Mapping[str, float]:
        """Last price in rupees by ``EXCHANGE:TRADINGSYMBOL``; a key without data is absent.

        At most ``LAST_PRICE_KEYS_MAX`` keys.
        """
        response = await self._get("/quote/ltp", {"i": list(keys)})
        try:
            answer = msgspec.json.decode(response.content, type=_LastPrices)
        except msgspec.DecodeError as error:
            raise BrokerUnreachableError(f"/quote/ltp: {error}") from None
        return {key: quote.last_price for key, quote in answer.data.items()}

    async def _get(self, path: str, params: Mapping[str, Any]) -> httpx.Response:
        try:
            response = await self._client.get(path, params=params)
        except httpx.HTTPError as error:
            # The cause is left out: a request object in it carries the authorization header.
            raise BrokerUnreachableError(f"{path}: {type(error).__name__}: {error}") from None
        if response.status_code == httpx.codes.OK:
            return response
        raise _refusal(path, response)


@asynccontextmanager
async def open_broker(
    api_root: str, credentials: Credentials, *, timeout_s: float = 30.0
) -> AsyncIterator[BrokerRest]:
    """A REST client for one account; its connections are closed on exit."""
    headers = {
        "X-Kite-Version": "3",
        "User-Agent": USER_AGENT,
        "Authorization": f"token {credentials.api_key}:{credentials.access_token}",
    }
    async with httpx.AsyncClient(
        base_url=api_root, headers=headers, timeout=timeout_s, follow_redirects=False
    ) as client:
        yield BrokerRest(client)


def _refusal(path: str, response: httpx.Response) -> BrokerResponseError | BrokerUnreachableError:
    """The broker's own error where there is one; maintenance pages are HTML."""
    try:
        envelope = msgspec.json.decode(response.content, type=_ErrorEnvelope)
    except msgspec.DecodeError:
        return BrokerUnreachableError(f"{path}: HTTP {response.status_code} without an error body")
    return BrokerResponseError(response.status_code, envelope.error_type, envelope.message or "")
