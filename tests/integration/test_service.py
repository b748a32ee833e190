"""The promises of the whole tree, on a real server and the simulator."""

import datetime as dt
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import trio
from vollib.black.greeks.analytical import vega as black_vega

from nurseries import bindings, serve_control
from tests.integration.live import Live, Payload, RealMarketSettings, open_live
from ticker.simulator.sessions import create_accounts

pytestmark = pytest.mark.slow


async def test_every_payload_is_priced_as_the_market_is() -> None:
    """Implied volatilities agree with the simulator's smile within half a tick's worth."""
    async with open_live() as live:
        await live.wait_ticks(500)
        await live.wait_quiet()
        rate = (await live.simulator.get("market"))["discount_rate"]
        errors: list[float] = []
        for name, expiry in chains_of(live.payloads):
            market = await live.simulator.get("market", underlying=name, expiry=expiry)
            terms = market["underlyings"][name]["expiries"]
            years = next(row["years"] for row in terms if row["expiry"] == expiry)
            rows = newest_of_chain(live.payloads, name, expiry)
            for contract in market["contracts"]:
                row = rows.get(contract["instrument_token"])
                if row is None or row["iv"] is None:
                    continue
                assert row["price"] == contract["last_price"]
                assert row["forward_source"] == "parity"
                forward_error = abs(row["forward"] - contract["forward"])
                assert forward_error < 0.03, "the mean of a dozen pairs, each rounded twice"
                tick_worth = contract["tick_size"] / vega(row, contract, years, rate)
                error = abs(row["iv"] - contract["implied_volatility"]) / tick_worth
                errors.append(error - forward_error * abs(row["delta"]) / contract["tick_size"])
        assert len(errors) > 50
        assert max(errors) < 0.51


def chains_of(payloads: list[Payload]) -> set[tuple[str, str]]:
    return {(row["symbol"], row["expiry"]) for row in payloads if is_option(row)}


def is_option(row: Payload) -> bool:
    return row.get("type") in {"CE", "PE"}


def newest_of_chain(payloads: list[Payload], name: str, expiry: str) -> dict[int, Payload]:
    """The options of one chain that ticked in its last frame: what is of one instant."""
    options = [row for row in payloads if is_option(row)]
    chain = [row for row in options if (row["symbol"], row["expiry"]) == (name, expiry)]
    last = max(row["received_ts"] for row in chain)
    return {row["token"]: row for row in chain if row["received_ts"] == last}


def vega(row: Payload, contract: Payload, years: float, rate: float) -> float:
    """Rupees per unit of volatility."""
    flag = "c" if row["type"] == "CE" else "p"
    at = (contract["forward"], row["strike"], years, rate, contract["implied_volatility"])
    return float(black_vega(flag, *at)) * 100


async def test_decoded_is_published_and_is_what_the_broker_sent() -> None:
    async with open_live() as live:
        await live.wait_ticks(1000)
        await live.wait_quiet()
        for connection in live.connections():
            assert live.unaccounted(connection) == 0
        ledger = await live.simulator.get("ledger")
        sent = sum(socket["packets"] for socket in ledger["sockets"])
        assert live.counted("feed_ticks_decoded_total") == sent
        assert live.counted("feed_ticks_published_total") == sent
        assert live.counted("redis_publish_total") >= sent
        sequence = [row["seq"] for row in live.payloads]
        assert sequence == sorted(set(sequence)), "in order, and none twice"
        assert sequence == list(range(sequence[0], sequence[-1] + 1)), "and none left out"
        assert all(row["is_mock"] for row in live.payloads)


async def test_a_stop_in_full_flow_drains_what_was_received() -> None:
    async with open_live(rate=20.0) as live:
        await live.wait_ticks(1000)
        live.redis.freeze()
        await trio.sleep(0.3)
        threading.Timer(0.5, live.redis.thaw).start()  # after the stop has begun
    assert live.status.draining
    for connection in live.connections():
        assert live.unaccounted(connection) == 0
    assert live.counted("feed_ticks_dropped_total") == 0


@pytest.mark.parametrize("fault", ["half_open", "stall"])
async def test_a_silent_socket_is_noticed_and_everything_restored(fault: str) -> None:
    async with open_live() as live:
        before = await live.simulator.tables()
        first = live.simulator.accounts[0].api_key
        assert {mode for table in before[first] for mode in table.values()} == {"full"}
        if fault == "half_open":
            await live.simulator.inject("half_open", api_key=first)
        else:
            await live.simulator.inject("stall", api_key=first, seconds=60)
        noticed_s = await live.wait_failures(1, "a0")
        assert noticed_s <= 6
        assert live.status.account_is_live("a1"), "the other account is not touched"
        live_again_s = await live.wait_for(lambda: live.status.account_is_live("a0"))
        assert noticed_s + live_again_s <= 10
        assert (await live.simulator.tables())[first] == before[first], "tokens and modes"
        await live.wait_for(lambda: len(live.gaps) >= 2)
        opened, closed = live.gaps
        for gap in (opened, closed):
            assert (gap["type"], gap["account_id"], gap["reason"]) == ("gap", "a0", "silent")
            assert gap["instruments"] == len(before[first][0])
        assert (opened["ended"], closed["ended"]) == (False, True)
        assert opened["from_ts"] == closed["from_ts"] < opened["to_ts"] < closed["to_ts"]


async def test_a_socket_with_heartbeats_but_no_ticks_is_not_taken_for_live() -> None:
    async with open_live(kite_mute_seconds=1.5) as live:
        await live.simulator.inject("mute", api_key=live.simulator.accounts[0].api_key)
        await live.wait_failures(1, "a0")
        await live.wait_for(lambda: live.status.account_is_live("a0"), 5)
        await live.wait_for(lambda: len(live.gaps) >= 2)
        assert {gap["reason"] for gap in live.gaps} == {"silent"}
        assert live.failures("a1") == 0


async def test_a_reset_socket_is_back_at_once() -> None:
    async with open_live() as live:
        for lost in (2, 4, 6):
            await live.simulator.inject("reset")
            await live.wait_failures(lost)
            assert await live.wait_for(live.is_live) < 5
        assert live.counted("feed_reconnects_total", reason="closed") >= 6


async def test_a_refused_handshake_is_tried_again() -> None:
    async with open_live() as live:
        first = live.simulator.accounts[0].api_key
        await live.simulator.inject("handshake", status=503, api_key=first, times=2)
        await live.simulator.inject("reset", api_key=first)
        await live.wait_failures(3, "a0")
        assert await live.wait_for(lambda: live.status.account_is_live("a0")) < 6
        assert live.counted("feed_reconnects_total", account_id="a0", reason="rejected") == 2


async def test_a_broker_that_asks_for_quiet_gets_it() -> None:
    async with open_live() as live:
        first = live.simulator.accounts[0].api_key
        await live.simulator.inject("handshake", status=429, api_key=first)
        await live.simulator.inject("reset", api_key=first)
        throttled = {"account_id": "a0", "reason": "throttled"}
        await live.wait_for(lambda: live.counted("feed_reconnects_total", **throttled) == 1)
        await trio.sleep(4)
        assert live.counted("feed_reconnects_total", **throttled) == 1, "30 s of quiet"
        assert live.status.account_is_live("a1")


async def test_a_killed_redis_is_noticed_survived_and_rejoined() -> None:
    async with open_live() as live:
        await live.wait_ticks(100)
        live.redis.kill()
        assert await live.wait_for(lambda: not live.status.publisher.connected) <= 1
        decoded = live.counted("feed_ticks_decoded_total")
        await trio.sleep(3)
        assert live.counted("feed_ticks_decoded_total") > decoded + 500, "ingest goes on"
        before, restarted_ts = len(live.payloads), time.time()
        live.redis.start()
        back_s = await live.wait_for(lambda: live.status.publisher.connected)
        assert back_s <= 2
        await live.wait_ticks(200)
        await live.wait_quiet()
        assert live.counted("feed_ticks_conflated_total") > 0
        for connection in live.connections():
            assert live.unaccounted(connection) == 0
        ages = [row["received_ts"] for row in live.payloads[before:]]
        assert min(ages) > restarted_ts - 1, "nothing old comes late"


async def test_a_frozen_redis_is_noticed_and_told_of() -> None:
    async with open_live() as live:
        await live.wait_ticks(100)
        live.redis.freeze()
        assert await live.wait_for(lambda: not live.status.publisher.connected) <= 2
        await trio.sleep(2)
        live.redis.thaw()
        assert await live.wait_for(lambda: live.status.publisher.connected) <= 2
        await live.wait_ticks(200)
        await live.wait_quiet()
        gap = next(row for row in live.gaps if row["reason"] == "redis")
        assert gap["conflated"] > 0
        assert gap["from_seq"] < gap["to_seq"]
        for connection in live.connections():
            assert live.unaccounted(connection) == 0


async def test_junk_is_counted_and_the_good_packets_are_delivered() -> None:
    async with open_live() as live:
        for fault in ("truncated", "unknown_packet", "junk_frame", "junk_text"):
            await live.simulator.inject(fault)
            await live.wait_ticks(50)
        await live.simulator.inject("junk_text", text='{"type": "news", "data": 1}')
        await live.wait_quiet()
        assert live.is_live(), "junk is no reason to reconnect"
        assert live.counted("feed_reconnects_total") == 0
        assert live.counted("feed_wire_anomalies_total") >= 4
        for connection in live.connections():
            assert live.unaccounted(connection) == 0


async def test_a_dead_token_pauses_one_account_until_its_file_changes(tmp_path: Path) -> None:
    files = create_token_files(tmp_path)
    async with open_live(token_files=files) as live:
        key = live.simulator.accounts[0].api_key
        await live.simulator.inject("kill_token", api_key=key)
        await live.wait_for(lambda: state(live, "a0") == "waiting_for_token", 5)
        await live.wait_ticks(100)
        assert live.status.account_is_live("a1")
        handshakes = (await live.simulator.get("ledger"))["handshakes"]
        await trio.sleep(2)
        assert (await live.simulator.get("ledger"))["handshakes"] == handshakes, "no retry storm"
        token = (await live.simulator.inject("new_token", api_key=key))["access_token"]
        files[0].write_text(token + "\n")
        assert await live.wait_for(live.is_live) <= 5


def create_token_files(directory: Path) -> tuple[Path, ...]:
    """A file for each account of the simulator, holding its token."""
    files = (directory / "a0", directory / "a1")
    for file, account in zip(files, create_accounts(1, len(files)), strict=True):
        file.write_text(account.access_token)
    return files


def open_client(live: Live) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=live.api_url)


def state(live: Live, account_id: str) -> str:
    return live.status.account_feeds(account_id)[0].state


@pytest.mark.parametrize(
    ("module", "task"),
    [
        (bindings, "enrich"),
        (bindings, "publish"),
        (bindings, "stream_account"),
        (bindings, "keep_accounts"),
        (bindings, "keep_store"),
        (bindings, "keep_api_keys"),
        (bindings, "restore_switch"),
        (bindings, "refresh_instruments"),
        (bindings, "rebalance_strikes"),
        (bindings, "reload"),
        (bindings, "bootstrap_history"),
        (bindings, "run_mock_market"),
        (serve_control, "serve_api"),
    ],
)
async def test_a_bug_in_any_task_ends_the_service(
    module: ModuleType, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never half alive: whichever task fails, the tree falls, with the bug in its group."""

    class PlantedError(Exception):
        pass

    real: Callable[..., Awaitable[object]] = getattr(module, task)
    bugs = trio.Event()
    failures = itertools.count()

    async def failing(*args: object, **kwargs: object) -> None:
        async def fail() -> None:
            await bugs.wait()
            if next(failures) == 0:  # one account of two
                raise PlantedError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await real(*args, **kwargs)

    monkeypatch.setattr(module, task, failing)
    with pytest.RaisesGroup(PlantedError, flatten_subgroups=True), trio.fail_after(30):
        await run_until_bug(bugs)


async def run_until_bug(bugs: trio.Event) -> None:
    async with open_live(settings_type=RealMarketSettings) as live:
        await live.wait_ticks(50)
        bugs.set()
        await trio.sleep(5)
        pytest.fail("the service went on after a bug")


async def test_the_api_tells_the_truth_about_a_running_service() -> None:
    async with open_live() as live, open_client(live) as client:
        assert (await client.get("/readyz")).status_code == 200
        health = (await client.get("/health")).json()
        assert health["status"] == "ok"
        for account in health["ticker"]["accounts"]:
            age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(account["last_tick_at"])
            assert age < dt.timedelta(seconds=3)
        planned = sum(account["instrument_count"] for account in health["ticker"]["accounts"])
        tables = await live.simulator.tables()
        assert planned == sum(len(table) for rows in tables.values() for table in rows)
        assert "feed_ticks_published_total" in (await client.get("/metrics")).text
        page = "http://localhost:5173"
        asks = {"Origin": page, "Access-Control-Request-Method": "GET"}
        preflight = await client.options("/subscriptions", headers=asks)
        assert preflight.status_code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == page


async def test_secrets_are_nowhere_to_be_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = create_token_files(tmp_path)
    async with open_live(token_files=files) as live, open_client(live) as client:
        key = live.simulator.accounts[0].api_key
        await live.simulator.inject("kill_token", api_key=key)
        await live.wait_for(lambda: not live.is_live())
        renewed = (await live.simulator.inject("new_token", api_key=key))["access_token"]
        files[0].write_text(renewed)
        await live.wait_for(live.is_live)
        seen = [(await client.get(path)).text for path in ("/health", "/metrics", "/readyz")]
        seen += [str(live.payloads), str(live.events), *capsys.readouterr()]
        secrets = [renewed]
        for account in live.simulator.accounts:
            secrets += [account.access_token, account.api_key, account.api_secret]
        assert "access_token_changed" in str(seen)
        assert not any(secret in text for text in seen for secret in secrets)
