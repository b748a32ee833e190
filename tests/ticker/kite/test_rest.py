"""The REST client: what it makes of every kind of answer, and what it never gives away."""

from collections.abc import Callable

import httpx
import pytest

from ticker.credentials import Credentials
from ticker.errors import BrokerError, BrokerResponseError, BrokerUnreachableError
from ticker.instruments import COLUMNS
from ticker.kite.rest import BrokerRest, open_broker

Handler = Callable[[httpx.Request], httpx.Response]
CANARY = "canary-77aa"


def create_broker(handler: Handler) -> BrokerRest:
    transport = httpx.MockTransport(handler)
    return BrokerRest(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1"))


def answer(status: int, text: str) -> Handler:
    return lambda request: httpx.Response(status, text=text)


async def test_last_prices_by_key() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.params.get_list("i") == ["NSE:NIFTY 50", "NSE:NOSUCH"]
        quote = {"instrument_token": 256265, "last_price": 25_013.35}
        return httpx.Response(200, json={"status": "success", "data": {"NSE:NIFTY 50": quote}})

    prices = await create_broker(handler).load_last_prices(["NSE:NIFTY 50", "NSE:NOSUCH"])
    assert prices == {"NSE:NIFTY 50": 25_013.35}


async def test_instruments_leave_junk_rows_out() -> None:
    rows = [",".join(COLUMNS), "256265,1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE", "junk"]
    broker = create_broker(answer(200, "\n".join(rows)))
    (index,) = await broker.load_instruments()
    assert index.instrument_token == 256265


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (200, "<html>maintenance</html>", BrokerError),
        (200, '{"status": "success"}', BrokerUnreachableError),
        (200, '{"status": "success", "data": {"A": {"last_', BrokerUnreachableError),
        (503, "<html>down</html>", BrokerUnreachableError),
        (429, "", BrokerUnreachableError),
        (
            403,
            '{"status":"error","error_type":"TokenException","message":"x"}',
            BrokerResponseError,
        ),
        (500, '{"status":"error","error_type":null}', BrokerError),
        (302, "", BrokerUnreachableError),
    ],
)
async def test_every_other_answer_is_a_broker_error(
    status: int, text: str, expected: type[BrokerError]
) -> None:
    broker = create_broker(answer(status, text))
    with pytest.raises(expected):
        await broker.load_last_prices(["A"])
    with pytest.raises(BrokerError):
        await broker.load_instruments()


async def test_the_brokers_own_words_are_kept() -> None:
    body = '{"status":"error","error_type":"InputException","message":"bad i","data":null}'
    with pytest.raises(BrokerResponseError) as caught:
        await create_broker(answer(400, body)).load_last_prices([])
    assert (caught.value.status, caught.value.error_type) == (400, "InputException")
    assert "bad i" in str(caught.value)


async def test_an_unreachable_broker_gives_no_secret_away() -> None:
    async with open_broker("http://127.0.0.1:1", Credentials(CANARY, CANARY)) as broker:
        with pytest.raises(BrokerUnreachableError) as caught:
            await broker.load_instruments()
    error = caught.value
    assert CANARY not in repr(error)
    assert error.__suppress_context__
    assert error.__cause__ is None
