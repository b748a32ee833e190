"""What tests of the control plane ask of a running service: over its API, and at the broker."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

from tests.integration.live import Live, Simulator
from ticker.kite.wire import decode_frames
from ticker.simulator.sessions import SimulatedAccount

QUICK: dict[str, Any] = {
    "subscription_reload_debounce_seconds": 0.1,
    "subscription_reload_interval_seconds": 0.2,
}
"""Settings for tests that change subscriptions often."""

REST_S = 5.0
"""What lies between two reloads by default."""


async def wait_rested(live: Live) -> None:
    """Return when the next reload is free to come: the strikes are there, nothing changed since."""
    await live.wait_for(lambda: live.status.plan.wanted > 0)
    while True:
        newest = live.status.plan.last_reload
        resting_s = (newest.applied_at or 0.0) + REST_S - time.time() if newest else REST_S
        if resting_s <= 0:
            return
        await trio.sleep(resting_s)


async def load_table(live: Live) -> dict[int, str]:
    """Token to mode, over all sockets at the broker; no token is on two of them."""
    tables = (await live.simulator.tables()).values()
    rows = [
        (int(token), mode) for part in tables for table in part for token, mode in table.items()
    ]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


async def load_account_tokens(live: Live, account: SimulatedAccount) -> set[int]:
    """What one account's sockets carry at the broker."""
    tables = await live.simulator.tables()
    return {int(token) for table in tables.get(account.api_key, []) for token in table}


async def wait_table(live: Live, wanted: dict[int, str], timeout_s: float) -> float:
    """Return, once the broker's table is this, how many seconds that took."""
    started_at = trio.current_time()
    with trio.fail_after(timeout_s):
        while await load_table(live) != wanted:  # noqa: ASYNC110 - asks the simulator
            await trio.sleep(0.05)
    return trio.current_time() - started_at


async def find_unsubscribed(live: Live, count: int) -> list[int]:
    """Options of NIFTY's next expiries that nobody streams, nearest to the money first."""
    with trio.fail_after(10):
        while True:
            chain = (await live.api.get("/option-chain/NIFTY", params={"strikes": 0})).json()
            if chain["atm_strike"] is not None:
                break
            await trio.sleep(0.05)
    money, expiries = chain["atm_strike"], chain["expiries"][:2]
    streamed = await load_table(live)
    rows: list[dict[str, Any]] = []
    for expiry in expiries:
        query = {"underlying": "NIFTY", "segment": "NFO-OPT", "expiry": expiry, "limit": 1000}
        rows += (await live.api.get("/instruments", params=query)).json()
    rows.sort(key=lambda row: abs(row["strike"] - money))
    found = [row["instrument_token"] for row in rows if row["instrument_token"] not in streamed]
    assert len(found) >= count
    return found[:count]


async def subscribe(live: Live, token: int, **details: object) -> dict[str, Any]:
    """The answer to a POST that is granted."""
    answer = await live.api.post("/subscriptions", json={"instrument_token": token, **details})
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


async def wait_reload(live: Live, reload_id: str, wait_s: float = 15.0) -> dict[str, Any]:
    """How a reload stands when the route says that it is complete."""
    query = {"wait": wait_s}
    answer = await live.api.get(f"/subscriptions/reloads/{reload_id}", params=query)
    assert answer.status_code == 200, answer.text
    reload: dict[str, Any] = answer.json()
    assert reload["state"] == "applied", reload
    return reload


def assert_problem(
    answer: httpx.Response, status: int, kind: str, field: str | None = None
) -> None:
    """It is an RFC 9457 document of this kind that names this field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"/problems/{kind}"
    assert (problem["status"], bool(problem["detail"])) == (status, True)
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    if field is not None:
        assert [error["field"] for error in problem["errors"]] == [field]


async def log_in(live: Live, account_id: str) -> dict[str, Any]:
    """What a person does: the login page, and the redirect that ends at our callback."""
    page = await live.api.get(f"/trading-accounts/{account_id}/login-url")
    assert page.status_code == 200, page.text
    url = httpx.URL(page.json()["url"])
    callback = f"{live.api_url}/login/callback"
    async with httpx.AsyncClient(follow_redirects=True) as browser:
        answer = await browser.get(url.copy_merge_params({"redirect": callback}))
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


@asynccontextmanager
async def open_reference(
    simulator: Simulator, account: SimulatedAccount, tokens: Collection[int]
) -> AsyncIterator[Counter[int]]:
    """Packets by token on a socket of the test's own, from an idle market's next step on."""
    root = str(simulator.client.base_url).replace("http", "ws", 1).rstrip("/")
    url = f"{root}/?api_key={account.api_key}&access_token={account.access_token}"
    packets: Counter[int] = Counter()
    async with open_websocket_url(url) as socket, trio.open_nursery() as nursery:

        async def collect() -> None:
            try:
                while True:
                    message = await socket.get_message()
                    if isinstance(message, bytes) and len(message) > 1:
                        packets.update(decode_frames([message]).ticks.token.tolist())
            except ConnectionClosed:
                return

        nursery.start_soon(collect)
        listed = ",".join(map(str, tokens))
        await socket.send_message(f'{{"a":"subscribe","v":[{listed}]}}')
        await socket.send_message(f'{{"a":"mode","v":["full",[{listed}]]}}')
        with trio.fail_after(5):
            while len(packets) < len(tokens):  # noqa: ASYNC110 - each is told of once at first
                await trio.sleep(0.05)
        await trio.sleep(0.3)
        packets.clear()
        yield packets
        nursery.cancel_scope.cancel()


class SteppedClock:
    """The host's wall clock, UNIX seconds, but for what it was set off by."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset_s

    def avoid_the_mornings_deadlines(self) -> None:
        """Be away from 06:00 and 08:30 in India, when tokens end and instruments are renewed."""
        while not 4 * 3600 < (self() - 3600) % 86_400 < 22 * 3600:
            self.offset_s -= 3600.0
