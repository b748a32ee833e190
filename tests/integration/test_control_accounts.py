"""Accounts over the API while the service runs: dead, logged in, stood in for, added, removed."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import psycopg
import pytest
import trio
from psycopg import sql

from tests.integration.control import (
    QUICK,
    find_unsubscribed,
    load_account_tokens,
    load_table,
    log_in,
    subscribe,
    wait_reload,
)
from tests.integration.live import API_KEY, ENCRYPTION_KEY, Live, open_live
from tests.postgres import open_postgres_server, open_test_url
from ticker.accounts.secrets_box import SecretBox
from ticker.stores.accounts import AccountStore
from ticker.stores.database import DatabasePolicy, open_database

pytestmark = pytest.mark.slow


def state(live: Live, account_id: str) -> str:
    return next((feed.state for feed in live.status.account_feeds(account_id)), "none")


def has_ticked(live: Live, token: int, account_id: str, since: int) -> bool:
    return any(
        (row["instrument_token"], row["account_id"]) == (token, account_id)
        for row in live.payloads[since:]
    )


async def wait_carried(live: Live, number: int, tokens: set[int], timeout_s: float = 10.0) -> None:
    """Return once the simulator's n-th account carries exactly these."""
    account = live.simulator.accounts[number]
    with trio.fail_after(timeout_s):
        while await load_account_tokens(live, account) != tokens:  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_a_dead_token_is_renewed_over_the_api_and_stood_in_for_meanwhile() -> None:
    async with open_live(account_failover_seconds=1.0, **QUICK) as live:
        await live.wait_for(lambda: live.status.plan.planned > 100)
        await live.wait_for(live.is_live)
        first, second = live.simulator.accounts
        own = await load_account_tokens(live, first)
        others = await load_account_tokens(live, second)
        assert own
        assert others

        await live.simulator.inject("kill_token", api_key=first.api_key)
        await live.wait_for(lambda: state(live, "a0") == "waiting_for_token", 1)
        ready = await live.api.get("/readyz/accounts/a0")
        assert (ready.status_code, ready.json()["live"]) == (503, False)
        assert (await live.api.get("/readyz")).json()["accounts"] == {"a0": False, "a1": True}
        await wait_carried(live, 1, own | others, 5)
        since, token = len(live.payloads), busiest(live, own)
        await live.wait_for(lambda: has_ticked(live, token, "a1", since), 5)
        health = (await live.api.get("/health")).json()
        assert health["subscriptions"]["stand_ins"] == len(own)

        with trio.fail_after(5):
            done = await log_in(live, "a0")
            await live.wait_for(lambda: state(live, "a0") == "live")
        assert (done["account_id"], done["is_kept"]) == ("a0", True)
        await wait_carried(live, 0, own)
        await wait_carried(live, 1, others)
        assert (await live.api.get("/readyz/accounts/a0")).status_code == 200
        assert live.status.account_feeds("a1")[0].reconnects == 0


async def test_accounts_stand_in_and_log_in_while_postgresql_is_away() -> None:
    """Plans go on being made, from the rows in memory."""
    async with (
        open_postgres_server() as server,
        open_live(database_url=server.url, account_failover_seconds=0.5, **QUICK) as live,
    ):
        await live.wait_for(lambda: live.status.plan.planned > 100)
        await live.wait_for(live.is_live)
        first, second = live.simulator.accounts
        own = await load_account_tokens(live, first)
        others = await load_account_tokens(live, second)
        await server.stop()
        await live.simulator.inject("kill_token", api_key=first.api_key)
        await wait_carried(live, 1, own | others, 5)
        assert live.counted("subscription_reloads_total", outcome="failed") > 0
        assert not (await log_in(live, "a0"))["is_kept"], "it is lost with the process"
        await wait_carried(live, 0, own, 5)
        await wait_carried(live, 1, others, 5)
        await server.start()
        (token,) = await find_unsubscribed(live, 1)
        await live.wait_for(lambda: live.status.plan.store_error is None, 5)
        await wait_reload(live, (await subscribe(live, token))["reload_id"])
        assert (await load_table(live)).keys() == own | others | {token}


def busiest(live: Live, tokens: set[int]) -> int:
    """The one of these that ticked most: it will soon tick again."""
    ticked = Counter(row["instrument_token"] for row in live.payloads)
    return max(tokens, key=ticked.__getitem__)


async def test_an_account_comes_and_goes_over_the_api() -> None:
    async with open_live(accounts=3, configured=2, **QUICK) as live:
        await live.wait_for(lambda: live.status.plan.planned > 100)
        third = live.simulator.accounts[2]
        body = {
            "account_id": "d0",
            "api_key": third.api_key,
            "api_secret": third.api_secret,
            "access_token": third.access_token,
        }
        created = await live.api.post("/trading-accounts", json=body)
        assert created.status_code == 201, created.text
        assert created.json()["access_token"] != third.access_token
        (token,) = await find_unsubscribed(live, 1)
        await live.wait_for(lambda: "d0" in live.status.account_ids, 1)
        since = len(live.payloads)
        row = await subscribe(live, token, account_id="d0")
        await live.wait_for(lambda: has_ticked(live, token, "d0", since), 5)
        await wait_reload(live, row["reload_id"])
        assert await load_account_tokens(live, third) == {token}
        assert (await live.api.get("/readyz")).json()["accounts"]["d0"]
        assert 'account_id="d0"' in (await live.api.get("/metrics")).text

        gone = await live.api.delete("/trading-accounts/d0", params={"hard_delete": "true"})
        assert gone.json() == {"success": True, "account_id": "d0", "hard_deleted": True}
        await wait_no_socket(live, third.api_key)
        await live.wait_for(lambda: "d0" not in live.status.account_ids, 1)
        gauge = 'websocket_pool_subscribed_tokens{account_id="d0"}'
        await live.wait_for(lambda: gauge not in live.metrics.render().decode(), 3)
        since = len(live.payloads)
        await live.wait_for(lambda: has_ticked_elsewhere(live, token, since), 5)
        assert token in await load_table(live)
        assert (await live.api.get("/trading-accounts/d0")).status_code == 404
        assert live.counted("feed_reconnects_total", account_id="a0") == 0
        assert live.counted("feed_reconnects_total", account_id="a1") == 0


def has_ticked_elsewhere(live: Live, token: int, since: int) -> bool:
    return any(has_ticked(live, token, account_id, since) for account_id in ("a0", "a1"))


async def wait_no_socket(live: Live, api_key: str) -> None:
    with trio.fail_after(3):
        while any(row["api_key"] == api_key for row in await live.simulator.get("sockets")):  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_secrets_are_in_no_answer_log_metric_or_table(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """After accounts, logins, API keys and errors of every kind."""
    async with (
        open_test_url(is_migrated=False) as url,
        open_live(accounts=3, configured=2, database_url=url, **QUICK) as live,
    ):
        third = live.simulator.accounts[2]
        body = {"account_id": "d0", "api_key": third.api_key, "api_secret": third.api_secret}
        answers = [await live.api.post("/trading-accounts", json=body)]
        answers.append(await live.api.post("/trading-accounts", json=body | {"account_id": "d1"}))
        secret = {"access_token": third.access_token}
        answers.append(await live.api.put("/trading-accounts/d0", json=secret))
        await live.wait_for(lambda: "d0" in live.status.account_ids, 1)
        (token,) = await find_unsubscribed(live, 1)
        await subscribe(live, token, account_id="d0")
        await live.wait_for(lambda: state(live, "d0") == "live", 5)
        made = (await live.api.post("/api-keys", json={"name": "n", "scopes": ["read"]})).json()
        renewed = [await use_logins(live, account_id) for account_id in ("a0", "d0")]
        tokens = await load_tokens(url)
        assert len(tokens) == 2, "of the two logins"
        answers += await provoke_errors(live, made["api_key"])
        answers += [await live.api.get(path) for path in READ]
        await live.wait_ticks(50)
        seen = {f"{at}: {each.url.path}": each.text for at, each in enumerate(answers)}
        seen |= {"payloads": str(live.payloads), "events": str(live.events), "tables": dump(url)}
        seen |= dict(zip(("stdout", "stderr"), capfd.readouterr(), strict=True))
    assert "logged_in" in seen["stdout"]
    assert "trading_accounts" in seen["tables"]
    secrets = {"api key": API_KEY, "encryption key": ENCRYPTION_KEY, "made key": made["api_key"]}
    for number, found in enumerate(renewed):
        secrets |= {f"{name} of login {number}": text for name, text in found.items()}
    secrets |= {f"new access token of {name}": token for name, token in tokens.items()}
    for number, account in enumerate(live.simulator.accounts):
        secrets[f"access token {number}"] = account.access_token
        secrets[f"api secret {number}"] = account.api_secret
        secrets[f"broker's api key {number}"] = account.api_key
    assert [
        (place, name) for place in seen for name, text in secrets.items() if text in seen[place]
    ] == []


READ = (
    "/health",
    "/metrics",
    "/readyz",
    "/trading-accounts",
    "/trading-accounts?active_only=false&mask_sensitive=false",
    "/trading-accounts/d0",
    "/api-keys",
    "/account/profile?account_id=a0",
    "/subscriptions",
    "/advanced/websocket-pool/stats",
    "/advanced/rate-limit/stats",
    "/openapi.json",
)


async def use_logins(live: Live, account_id: str) -> Mapping[str, str]:
    """Kill the token, fail a login, then log in; what was secret in that."""
    account = live.simulator.accounts[0 if account_id == "a0" else 2]
    await live.simulator.inject("kill_token", api_key=account.api_key)
    await live.wait_for(lambda: state(live, account_id) == "waiting_for_token", 5)
    page = (await live.api.get(f"/trading-accounts/{account_id}/login-url")).json()
    query = {"state": page["state"], "request_token": "canary-of-a-login", "status": "success"}
    refused = await live.api.get("/login/callback", params=query)
    assert refused.status_code == 422
    assert "canary" not in refused.text
    await log_in(live, account_id)
    await live.wait_for(lambda: state(live, account_id) == "live", 5)
    return {"state": page["state"], "request token": "canary-of-a-login"}


async def provoke_errors(live: Live, key: str) -> list[httpx.Response]:
    """Requests that are refused, with secrets where they do not belong."""
    third = live.simulator.accounts[2]
    await live.simulator.inject("rest", status=500, body="html", times=1)
    as_json = {"Content-Type": "application/json"}
    bad = {"account_id": "x", "api_key": third.api_key, "password": third.api_secret}
    async with httpx.AsyncClient(base_url=live.api_url) as stranger:
        return [
            await live.api.get("/account/margins", params={"account_id": "a0"}),
            await live.api.post("/trading-accounts", json=bad),
            await live.api.post("/trading-accounts", content=third.access_token, headers=as_json),
            await live.api.get("/subscriptions", headers={"X-API-Key": API_KEY + "x"}),
            await stranger.get("/subscriptions", headers={"Authorization": f"Basic {key}"}),
            await stranger.post("/api-keys", headers={"X-API-Key": key}),
            await stranger.get("/nowhere", headers={"X-API-Key": key}),
        ]


async def load_tokens(url: str) -> Mapping[str, str]:
    """The access tokens that the service keeps, opened."""
    async with open_database(url, DatabasePolicy(), wall_clock=time.time) as database:
        rows = await AccountStore(database, SecretBox([ENCRYPTION_KEY])).load_all()
    return {row.account_id: row.access_token for row in rows if row.access_token}


def dump(url: str) -> str:
    """Every row of every table, as text."""
    parts = []
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            rows = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
            found: list[Any] = connection.execute(rows).fetchall()
            parts.append(f"{table}: {found}")
    return "\n".join(parts)
