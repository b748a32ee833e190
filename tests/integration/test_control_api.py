"""What the API answers while the whole service runs: refusals, candles, chains, instruments."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio

from tests.integration.control import (
    QUICK,
    assert_problem,
    find_unsubscribed,
    load_table,
    subscribe,
    wait_reload,
)
from tests.integration.live import Live, Payload, open_live
from ticker.calendar.market_hours import is_trading_day

pytestmark = pytest.mark.slow

INDIA = ZoneInfo("Asia/Kolkata")
INDEX_MINUTES = 360
"""From 09:15 to the closing auction, in which an index has no candles."""


async def test_bad_input_is_a_problem_that_names_its_field() -> None:
    async with open_live(**QUICK) as live:
        (token,) = await find_unsubscribed(live, 1)
        post, get, delete = live.api.post, live.api.get, live.api.delete

        async def ask(**body: object) -> Any:
            return await post("/subscriptions", json={"instrument_token": token} | body)

        gone, unknown = "unknown-instrument", "unknown-account"
        assert_problem(await ask(instrument_token=4), 404, gone, "instrument_token")
        assert_problem(await ask(instrument_token="4"), 422, "invalid-request", "instrument_token")
        assert_problem(await ask(requested_mode="ALL"), 422, "invalid-request", "requested_mode")
        assert_problem(await ask(account_id="nobody"), 422, unknown, "account_id")
        assert_problem(await ask(colour="red"), 422, "invalid-request", "colour")
        many = {"subscribe": [{"instrument_token": token}, {"instrument_token": 4}]}
        refused = await post("/subscriptions/bulk", json=many)
        assert_problem(refused, 404, gone, "subscribe[1].instrument_token")
        refused = await delete("/subscriptions/4")
        assert_problem(refused, 404, "unknown-item", "instrument_token")
        for path in ("/trading-accounts/nobody", "/trading-accounts/nobody/login-url"):
            assert_problem(await get(path), 404, unknown, "account_id")
        refused = await get("/subscriptions/reloads/none")
        assert_problem(refused, 404, "unknown-item", "reload_id")
        refused = await get("/subscriptions", params={"limit": 0})
        assert_problem(refused, 422, "invalid-request", "limit")
        refused = await get("/option-chain/NOSUCH")
        assert_problem(refused, 404, gone, "underlying")
        refused = await get("/option-chain/NIFTY", params={"expiry": "2026-01-01"})
        assert_problem(refused, 404, "unknown-item", "expiry")
        assert_problem(await get("/instruments/4"), 404, gone, "instrument_token")
        for none in ("0", "4294967296"):
            for refused in (
                await get(f"/instruments/{none}"),
                await delete(f"/subscriptions/{none}"),
            ):
                assert_problem(refused, 422, "invalid-request", "instrument_token")
        assert token not in await load_table(live), "nothing of the refused calls was done"


async def test_full_accounts_give_way_to_users_and_refuse_only_for_users() -> None:
    async with open_live(max_instruments_per_ws_connection=20, **QUICK) as live:
        await live.wait_for(lambda: live.status.rebalance.left_out > 0)
        await wait_full(live)
        health = (await live.api.get("/health")).json()
        assert (health["subscriptions"]["planned"], health["subscriptions"]["unplaced"]) == (120, 0)
        assert health["subscriptions"]["nearly_full"] == ["a0", "a1"]
        assert health["rebalancer"]["left_out"] > 0

        streamed = sorted(await load_table(live))
        *more, token = await find_unsubscribed(live, 150)  # the last is far from the money
        reload = await wait_reload(live, (await subscribe(live, token))["reload_id"])
        assert (reload["added"], len(reload["removed"])) == ([token], 1)
        assert reload["unplaced"] == reload["removed"]
        await wait_full(live)
        assert token in await load_table(live)
        health = (await live.api.get("/health")).json()["subscriptions"]
        assert (health["planned"], health["unplaced"]) == (120, 1)
        query = {"instrument_token": reload["unplaced"][0]}
        (row,) = (await live.api.get("/subscriptions", params=query)).json()
        assert (row["status"], row["origin"], row["unplaced"]) == ("active", "rebalancer", True)

        await live.api.delete(f"/subscriptions/{token}")
        await live.wait_for(lambda: live.status.plan.unplaced == 0)
        users = [*streamed[:60], *more[:60]]
        wanted = {"subscribe": [{"instrument_token": of} for of in users]}
        made = await live.api.post("/subscriptions/bulk", json=wanted)
        assert (await wait_reload(live, made.json()["reload_id"]))["added"]
        refused = await live.api.post("/subscriptions", json={"instrument_token": token})
        assert_problem(refused, 409, "no-capacity", "instrument_token")
        with trio.fail_after(5):
            while (await load_table(live)).keys() != set(users):  # noqa: ASYNC110
                await trio.sleep(0.05)
        moved = await live.api.post("/subscriptions", json={"instrument_token": users[0]})
        assert moved.status_code == 201, "what is there already needs no room"
        await live.wait_ticks(50)


async def wait_full(live: Live) -> None:
    """Until every socket carries what it has room for, and no more."""
    with trio.fail_after(5):
        while True:
            found = (await live.simulator.tables()).values()
            sizes = [len(table) for tables in found for table in tables]
            assert max(sizes, default=0) <= 20
            if sizes == [20] * 6:
                return
            await trio.sleep(0.05)


async def test_a_broker_that_is_down_is_said_to_be() -> None:
    async with open_live(**QUICK) as live:
        token = some_option(live)["instrument_token"]
        dead = {"status": 403, "error_type": "TokenException"}
        for fault, status, kind in (
            ({"status": 400}, 502, "broker-refused"),
            (dead, 503, "login-needed"),
            ({"body": "html", "status": 502}, 502, "broker-unreachable"),
            ({"body": "reset"}, 503, "broker-busy"),  # it has failed often enough to be let alone
        ):
            await live.simulator.inject("rest", path="/instruments/historical/", **fault)
            answer = await load_history(live, token, minutes=5)
            assert_problem(answer, status, kind)
            await live.simulator.heal()
        assert int(answer.headers["Retry-After"]) > 0
        await live.wait_ticks(50)
        assert live.counted("feed_reconnects_total") == 0


def some_option(live: Live) -> Payload:
    return next(row for row in live.payloads if row.get("type") == "CE" and row["iv"] is not None)


async def load_history(live: Live, token: int, *, minutes: int, **query: str) -> Any:
    """The first minutes of the exchange's last day."""
    opened = last_opening()
    span = {
        "from_ts": opened.isoformat(),
        "to_ts": (opened + dt.timedelta(minutes=minutes - 1)).isoformat(),
    }
    return await live.api.get("/history", params={"instrument_token": str(token)} | span | query)


def last_opening() -> dt.datetime:
    """09:15 in India, of the last trading day that is over."""
    day = dt.datetime.now(INDIA).date() - dt.timedelta(days=1)
    while not is_trading_day("NSE", day):
        day -= dt.timedelta(days=1)
    return dt.datetime.combine(day, dt.time(9, 15), INDIA)


async def test_history_is_the_brokers_in_indias_time_with_greeks() -> None:
    async with open_live(accounts=3, configured=2, **QUICK) as live:
        option = some_option(live)
        historical = {"method": "historical"}
        calls = live.counted("kite_api_calls_total", **historical)
        answer = await load_history(live, option["token"], minutes=INDEX_MINUTES, oi="true")
        assert answer.status_code == 200, answer.text
        history = answer.json()
        calls = live.counted("kite_api_calls_total", **historical) - calls
        print(f"{calls:.0f} calls for {len(history['candles'])} candles")  # noqa: T201
        assert 2 <= calls <= 3, "the option, its underlying's spot and future: each once"
        theirs = await load_broker_candles(live, option["token"])
        ours = [
            [row["date"], *(row[name] for name in ("open", "high", "low", "close", "volume", "oi"))]
            for row in history["candles"]
        ]
        assert ours == [[iso(row[0]), *row[1:]] for row in theirs]
        assert ours[0][0] == last_opening().isoformat()
        assert (history["symbol"], history["greeks_error"]) == (option["symbol"], None)
        priced = [row for row in history["candles"] if row["iv"] is not None]
        assert len(priced) > 0.9 * len(ours) > 0
        for row in priced:
            assert 0.05 < row["iv"] < 0.6
            assert 0 < row["delta"] < 1
            assert row["gamma"] > 0 > row["theta"]
            assert row["underlying"] > 10_000

        before = live.counted("kite_api_calls_total", **historical)
        again = await load_history(live, option["token"], minutes=INDEX_MINUTES, oi="true")
        assert again.json()["candles"] == history["candles"]
        assert live.counted("kite_api_calls_total", **historical) - before == 1, "minutes are kept"


def iso(brokers: str) -> str:
    """``2026-08-03T09:15:00+0530`` as ISO 8601 has it."""
    return dt.datetime.strptime(brokers, "%Y-%m-%dT%H:%M:%S%z").isoformat()


async def load_broker_candles(live: Live, token: int) -> Sequence[Sequence[Any]]:
    account = live.simulator.accounts[2]  # which has calls left in this second
    opened = last_opening()
    query = {
        "from": f"{opened:%Y-%m-%d %H:%M:%S}",
        "to": f"{opened + dt.timedelta(minutes=INDEX_MINUTES - 1):%Y-%m-%d %H:%M:%S}",
        "oi": "1",
    }
    answer = await live.simulator.client.get(
        f"/instruments/historical/{token}/minute",
        params=query,
        headers={"Authorization": f"token {account.api_key}:{account.access_token}"},
    )
    candles: Sequence[Sequence[Any]] = answer.raise_for_status().json()["data"]["candles"]
    return candles


async def test_the_option_chain_is_the_markets() -> None:
    """Once a whole expiry is streamed: prices, volatilities and what is summed over all of it."""
    async with open_live(rate=10.0, **QUICK) as live:
        listed = (await live.api.get("/option-chain/NIFTY")).json()
        sides = [side for row in listed["strikes"] for side in (row["call"], row["put"])]
        bulk = {"subscribe": [{"instrument_token": side["instrument_token"]} for side in sides]}
        assert (await live.api.post("/subscriptions/bulk", json=bulk)).status_code == 200
        wanted = {side["instrument_token"] for side in sides}
        seen: set[int] = set()

        def all_seen() -> bool:
            seen.update(row["instrument_token"] for row in live.payloads)
            return wanted <= seen

        await live.wait_for(all_seen)
        await live.wait_quiet()
        chain = (await live.api.get("/option-chain/NIFTY")).json()
        truth = await live.simulator.get("market", underlying="NIFTY", expiry=chain["expiry"])
        contracts = {row["instrument_token"]: row for row in truth["contracts"]}
        sides = [side for row in chain["strikes"] for side in (row["call"], row["put"])]
        assert chain["options_seen"] == chain["options_listed"] == len(sides) == len(wanted)
        assert [side["last_price"] for side in sides] == [
            contracts[side["instrument_token"]]["last_price"] for side in sides
        ]
        assert chain["spot"] == pytest.approx(truth["underlyings"]["NIFTY"]["spot"], abs=0.05)
        forward = next(iter(contracts.values()))["forward"]
        assert chain["forward"] == pytest.approx(forward, abs=0.5)
        assert chain["is_mock"]
        near = [side for side in sides if side["iv"] and 0.1 < abs(side["delta"]) < 0.9]
        assert len(near) > 20
        for side in near:
            smile = contracts[side["instrument_token"]]["implied_volatility"]
            assert side["iv"] == pytest.approx(smile, abs=0.01)
        assert_sums(chain)
        window = (await live.api.get("/option-chain/NIFTY", params={"strikes": 2})).json()
        assert [row["is_atm"] for row in window["strikes"]] == [False, False, True, False, False]
        assert window["pcr_oi"] == chain["pcr_oi"], "over all strikes, however many are shown"


def assert_sums(chain: Mapping[str, Any]) -> None:
    """Ratios, max pain and straddle follow from the sides."""
    rows = chain["strikes"]
    for name, field in (("pcr_oi", "oi"), ("pcr_volume", "volume")):
        puts, calls = (sum(row[side][field] for row in rows) for side in ("put", "call"))
        assert chain[name] == pytest.approx(puts / calls)

    def pain(level: float) -> Any:
        return sum(
            row["call"]["oi"] * max(level - row["strike"], 0)
            + row["put"]["oi"] * max(row["strike"] - level, 0)
            for row in rows
        )

    assert chain["max_pain"] == min((row["strike"] for row in rows), key=pain)
    money = next(row for row in rows if row["is_atm"])
    nearest = min((row["strike"] for row in rows), key=lambda at: abs(at - chain["forward"]))
    assert money["strike"] == chain["atm_strike"] == nearest
    straddle = money["call"]["last_price"] + money["put"]["last_price"]
    assert chain["straddle"]["price"] == pytest.approx(straddle)


async def test_instruments_are_found_as_the_dump_lists_them() -> None:
    async with open_live(**QUICK) as live:
        option = some_option(live)
        query: dict[str, Any] = {
            "underlying": option["symbol"],
            "expiry": option["expiry"],
            "strike_min": option["strike"] - 100,
            "strike_max": option["strike"] + 100,
            "instrument_type": "CE",
        }
        rows = (await live.api.get("/instruments", params=query)).json()
        assert option["token"] in {row["instrument_token"] for row in rows}
        for row in rows:
            assert abs(row["strike"] - option["strike"]) <= 100
            assert (row["instrument_type"], row["expiry"]) == ("CE", option["expiry"])
        pages: list[int] = []
        url = "/instruments?underlying=NIFTY&limit=500"
        while url:
            page = await live.api.get(url)
            pages += [row["instrument_token"] for row in page.json()]
            url = page.links["next"]["url"] if "next" in page.links else ""
        assert pages == sorted(set(pages))
        assert len(pages) > 500
        shown = (await live.api.get(f"/instruments/{option['token']}")).json()
        assert shown["tradingsymbol"] == option["tradingsymbol"]
        row = await subscribe(live, option["token"])
        assert row["tradingsymbol"] == shown["tradingsymbol"]
