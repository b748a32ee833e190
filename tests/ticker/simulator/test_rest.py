"""The REST routes, over a stream in memory."""

import gzip
import hashlib
from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import trio
from trio.testing import MockClock

from tests.ticker.simulator.memory_simulator import (
    ACCOUNTS,
    INFY,
    NIFTY_50,
    Answer,
    MemorySimulator,
    dump_of_start,
)
from ticker.simulator.simulation import SimulatorConfig
from ticker.ticks import Row

ACCOUNT = ACCOUNTS[0]
CONFIG = SimulatorConfig(accounts=ACCOUNTS, redirect_url="http://127.0.0.1:1/done?a=b")
AUTHORIZATION = f"token {ACCOUNT.api_key}:{ACCOUNT.access_token}"


@pytest.fixture
def simulator(nursery: trio.Nursery) -> MemorySimulator:
    return MemorySimulator(nursery, CONFIG)


async def test_login_leads_to_a_token_that_works_once(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    request_token = await _log_in(simulator)
    answer = await _exchange(simulator, request_token)
    assert answer.status == 200
    data = answer.json["data"]
    assert data["user_id"] == ACCOUNT.user_id
    assert data["login_time"] == "2026-11-20 11:00:00"
    fresh = replace(ACCOUNT, access_token=data["access_token"])
    assert (await simulator.get("/user/profile", fresh))["data"]["user_id"] == ACCOUNT.user_id
    assert (await simulator.get("/user/profile"))["status"] == "success"
    again = await _exchange(simulator, request_token)
    assert (again.status, again.json["error_type"]) == (403, "TokenException")
    assert again.json["message"] == "Token is invalid or has expired."


async def test_request_tokens_live_five_minutes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    simulator = MemorySimulator(nursery, replace(CONFIG, rate=0.001))
    request_token = await _log_in(simulator)
    await trio.sleep(301)
    assert (await _exchange(simulator, request_token)).status == 403


async def test_a_wrong_checksum_is_refused(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    answer = await _exchange(simulator, await _log_in(simulator), secret="wrong")
    assert (answer.status, answer.json["message"]) == (403, "Invalid `checksum`.")


async def test_the_redirect_carries_what_the_request_asked_for(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    query = urlencode({"api_key": ACCOUNT.api_key, "v": 3, "redirect_params": "user=7&x=y"})
    answer = await _call(simulator, "GET", f"/connect/login?{query}&redirect=http://127.0.0.1:2/")
    target = urlsplit(answer.headers["location"])
    given = parse_qs(target.query)
    assert answer.status == 302
    assert target.netloc == "127.0.0.1:2"
    assert (given["status"], given["action"], given["user"]) == (["success"], ["login"], ["7"])


async def test_logging_out_kills_the_token(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    query = urlencode({"api_key": ACCOUNT.api_key, "access_token": ACCOUNT.access_token})
    answer = await _call(simulator, "DELETE", f"/session/token?{query}")
    assert answer.json == {"status": "success", "data": True}
    assert (await simulator.get("/user/profile"))["error_type"] == "TokenException"


async def test_a_new_session_can_kill_the_old_ones(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    simulator = MemorySimulator(nursery, replace(CONFIG, single_session=True))
    await _exchange(simulator, await _log_in(simulator))
    assert (await simulator.get("/user/profile"))["error_type"] == "TokenException"
    assert (await simulator.get("/user/profile", ACCOUNTS[1]))["status"] == "success"


async def test_tokens_can_expire_at_six(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    simulator = MemorySimulator(nursery, replace(CONFIG, tokens_expire=True, rate=0.001))
    await trio.sleep(19 * 3600 - 10)
    assert (await simulator.get("/user/profile"))["status"] == "success"
    await trio.sleep(20)
    assert (await simulator.get("/user/profile"))["error_type"] == "TokenException"


@pytest.mark.parametrize(
    "authorization", ["", "token", f"token {ACCOUNT.api_key}", f"token {ACCOUNT.api_key}:x"]
)
async def test_calls_without_a_good_token_are_refused(
    autojump_clock: MockClock, simulator: MemorySimulator, authorization: str
) -> None:
    answer = await _call(simulator, "GET", "/user/profile", authorization=authorization)
    assert (answer.status, answer.json["status"]) == (403, "error")
    assert answer.json["error_type"] == "TokenException"


async def test_margins_by_segment_are_not_nested(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    both = (await simulator.get("/user/margins"))["data"]
    assert set(both) == {"equity", "commodity"}
    assert (await simulator.get("/user/margins/equity"))["data"] == both["equity"]


async def test_instruments_come_compressed_if_the_client_can(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    plain = await _call(simulator, "GET", "/instruments", authorization=AUTHORIZATION)
    packed = await _call(
        simulator, "GET", "/instruments", authorization=AUTHORIZATION, accept_encoding="gzip"
    )
    assert plain.body == dump_of_start().to_csv()
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["content-type"] == "text/csv"
    one = await _call(simulator, "GET", "/instruments/BFO", authorization=AUTHORIZATION)
    assert one.body == dump_of_start().to_csv("BFO")
    none = await _call(simulator, "GET", "/instruments/XYZ", authorization=AUTHORIZATION)
    assert (none.status, none.json["error_type"]) == (400, "InputException")


async def test_quotes_show_the_market(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    market = simulator.simulation.market
    keys = "i=NSE:INFY&i=NSE:NIFTY%2050&i=NSE:NOPE&i=408065"
    data = (await simulator.get(f"/quote?{keys}"))["data"]
    assert set(data) == {"NSE:INFY", "NSE:NIFTY 50", "408065"}
    quote = data["NSE:INFY"]
    place = market.position(INFY)
    last = int(market.words[Row.LAST_PRICE, place])
    assert quote == data["408065"]
    assert quote["instrument_token"] == INFY
    assert quote["last_price"] == last / 100
    assert quote["net_change"] == pytest.approx(quote["last_price"] - quote["ohlc"]["close"])
    assert quote["timestamp"] == "2026-11-20 11:00:00"
    assert len(quote["depth"]["buy"]) == len(quote["depth"]["sell"]) == 5
    assert quote["depth"]["buy"][0]["price"] < quote["depth"]["sell"][0]["price"]
    assert data["NSE:NIFTY 50"]["depth"]["buy"][0] == {"price": 0, "quantity": 0, "orders": 0}
    await trio.sleep(1)
    ohlc = (await simulator.get("/quote/ohlc?i=NSE:INFY"))["data"]["NSE:INFY"]
    assert set(ohlc) == {"instrument_token", "last_price", "ohlc"}
    await trio.sleep(1)
    ltp = (await simulator.get(f"/quote/ltp?i={NIFTY_50}"))["data"][str(NIFTY_50)]
    assert set(ltp) == {"instrument_token", "last_price"}


async def test_too_many_instruments_in_a_quote(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    keys = "&".join(f"i={number}" for number in range(501))
    answer = await simulator.get(f"/quote?{keys}")
    assert answer["error_type"] == "InputException"


@pytest.mark.parametrize(
    ("target", "limit"),
    [("/quote/ltp?i=NSE:INFY", 1), ("/instruments/historical/1/day", 3), ("/user/profile", 10)],
)
async def test_calls_above_the_rate_are_refused_until_the_next_second(
    autojump_clock: MockClock, simulator: MemorySimulator, target: str, limit: int
) -> None:
    def is_refused(answer: Answer) -> bool:
        return answer.status == 429

    for _ in range(2):
        answers = [
            await _call(simulator, "GET", target, authorization=AUTHORIZATION)
            for _ in range(limit + 2)
        ]
        assert [is_refused(answer) for answer in answers] == [False] * limit + [True, True]
        assert answers[-1].json["error_type"] == "NetworkException"
        await trio.sleep(1)
    other = f"token {ACCOUNTS[1].api_key}:{ACCOUNTS[1].access_token}"
    assert not is_refused(await _call(simulator, "GET", target, authorization=other))


@pytest.mark.parametrize("target", ["/orders", "/", "/instruments/a/b", "/portfolio/holdings"])
async def test_unsupported_routes_end_in_an_envelope(
    autojump_clock: MockClock, simulator: MemorySimulator, target: str
) -> None:
    answer = await _call(simulator, "GET", target, authorization=AUTHORIZATION)
    assert (answer.status, answer.json["status"]) == (404, "error")


async def test_a_connection_serves_many_requests_and_survives_junk(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    async with simulator.connect() as stream:
        for _ in range(2):
            await stream.send_all(b"GET /orders HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403")
        await stream.send_all(b"\x00\x01 nonsense\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")
        assert await stream.receive_some() == b""
    assert (await simulator.get("/user/profile"))["status"] == "success"


async def _call(
    simulator: MemorySimulator, method: str, target: str, body: bytes = b"", **headers: str
) -> Answer:
    answer = await simulator.call(method, target, body, **headers)
    assert answer is not None
    return answer


async def _log_in(simulator: MemorySimulator) -> str:
    answer = await _call(simulator, "GET", f"/connect/login?v=3&api_key={ACCOUNT.api_key}")
    assert answer.status == 302
    location = urlsplit(answer.headers["location"])
    assert location.netloc == "127.0.0.1:1"
    return parse_qs(location.query)["request_token"][0]


async def _exchange(
    simulator: MemorySimulator, request_token: str, secret: str = ACCOUNT.api_secret
) -> Answer:
    proof = hashlib.sha256(f"{ACCOUNT.api_key}{request_token}{secret}".encode()).hexdigest()
    form = {"api_key": ACCOUNT.api_key, "request_token": request_token, "checksum": proof}
    return await _call(simulator, "POST", "/session/token", urlencode(form).encode())


async def test_every_answer_has_its_time(
    autojump_clock: MockClock, simulator: MemorySimulator
) -> None:
    for target in ("/user/profile", "/nowhere"):
        answer = await _call(simulator, "GET", target, authorization=AUTHORIZATION)
        assert answer.headers["date"] == "Fri, 20 Nov 2026 05:30:00 GMT"
