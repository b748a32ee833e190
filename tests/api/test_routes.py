"""Every route over the real domain: PostgreSQL, the broker's simulator."""

import datetime as dt
import json
import re
import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import pytest
import quart.typing
import trio

from api.auth import SCOPES, need_of
from api.mock_data import SETTING as MOCK_SWITCH
from api.operations import operation_of
from nurseries.restore_switch import restore_switch
from tests.api.control_rig import CAPACITY, ControlRig, open_control
from tests.api.rig import BOOTSTRAP, ask, get_json, get_problem, header
from tests.postgres import open_postgres_server, open_test_database
from tests.ticker.synthetic import create_future, create_option
from ticker.instruments.dump import ExchangeDump
from ticker.mock_market.switch import MockSwitch
from ticker.stores.database import DatabasePolicy, open_database
from ticker.stores.migrate import migrate

pytestmark = pytest.mark.slow

PUBLIC: Final = {
    "/", "/livez", "/readyz", "/readyz/accounts/<account_id>", "/health", "/metrics",
    "/openapi.json", "/docs", "/docs/<name>", "/problems/<name>", "/login/callback",
}  # fmt: skip
"""Every route that needs no key. A route that is added here has been thought about."""


def tokens_of(rig: ControlRig, count: int = 3) -> list[int]:
    return [row.instrument_token for row in rig.control.registry.value.of_underlying("NIFTY")][
        1 : count + 1
    ]


LISTED: Final = """
INSERT INTO instrument_registry (
    instrument_token, exchange_token, tradingsymbol, name, underlying, segment, instrument_type,
    strike, tick_size, lot_size, exchange
) VALUES (%s, 1, 'X', 'NIFTY', 'NIFTY', 'NFO-OPT', 'CE', 1, 0.05, 1, 'NFO')"""


async def create_key(client: quart.typing.TestClientProtocol, *scopes: str) -> str:
    body = {"name": "of a test", "scopes": list(scopes)}
    response = await client.post("/api-keys", json=body, headers=header())
    assert response.status_code == 201
    text: str = (await response.get_json())["api_key"]
    return text


async def test_every_route_is_closed_to_whoever_has_no_key_and_to_keys_without_its_scope() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        keys = {scope: await create_key(client, scope) for scope in SCOPES}
        seen = 0
        for rule in rig.app.url_map.iter_rules():
            view = rig.app.view_functions[rule.endpoint]
            assert operation_of(view) is not None or rule.rule == "/docs/<name>", rule
            path = re.sub(r"<[^>]+>", "1", rule.rule)
            need = need_of(view)
            assert need != "undeclared", rule
            assert (need == "nothing") is (rule.rule in PUBLIC), rule
            for method in rule.methods or ():
                bare = await ask(client, method, path)
                wrong = await ask(client, method, path, headers=header("wrong"))
                if rule.rule in PUBLIC:
                    assert {bare.status_code, wrong.status_code}.isdisjoint({401, 403}), rule
                    continue
                assert (bare.status_code, wrong.status_code) == (401, 401), (method, rule)
                assert bare.headers["WWW-Authenticate"] == "ApiKey"
                for scope in SCOPES[: SCOPES.index(need)]:
                    refused = await ask(client, method, path, headers=header(keys[scope]))
                    assert refused.status_code == 403, (method, rule, scope)
                    seen += 1
        assert seen > 30


async def test_whoever_may_trade_may_read_what_is_there() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        key = await create_key(client, "trade")
        for path in ("/auth/test", "/subscriptions", "/instruments", "/advanced/mock-data/status"):
            response = await client.get(path, headers=header(key))
            assert response.status_code == 200, path
        who = await get_json(client, "/auth/test", **header(key))
        assert who["scopes"] == ["read", "trade"]


async def test_a_subscription_from_its_making_to_its_end() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        token = tokens_of(rig)[0]
        body = {"instrument_token": token, "requested_mode": "QUOTE", "account_id": "a0"}
        made = await client.post("/subscriptions", json=body, headers=header())
        assert made.status_code == 201
        row = await made.get_json()
        assert row["tradingsymbol"] == rig.control.registry.value.by_token(token).tradingsymbol  # type: ignore[union-attr]
        assert (row["status"], row["requested_mode"], row["account_id"], row["origin"]) == (
            "active", "QUOTE", "a0", "user"
        )  # fmt: skip
        reload = await get_json(client, f"/subscriptions/reloads/{row['reload_id']}?wait=5")
        assert (reload["state"], reload["reasons"]) == ("applied", ["subscribed"])
        assert reload["applied_at"] >= reload["requested_at"]

        response = await client.get(f"/subscriptions?instrument_token={token}", headers=header())
        assert response.headers["X-Total-Count"] == "1"
        assert await response.get_json() == [
            {name: value for name, value in row.items() if name != "reload_id"}
        ]
        ended = await client.delete(f"/subscriptions/{token}", headers=header())
        assert (await ended.get_json())["status"] == "inactive"
        assert await get_json(client, "/subscriptions?status=active") == []


async def test_subscriptions_come_in_pages_and_change_in_bulk() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        tokens = sorted(tokens_of(rig, 7))
        wanted = [{"instrument_token": token} for token in tokens]
        made = await client.post(
            "/subscriptions/bulk", json={"subscribe": wanted}, headers=header()
        )
        assert made.status_code == 200
        assert len((await made.get_json())["subscribed"]) == 7

        found: list[int] = []
        path = "/subscriptions?limit=3&status=active"
        while path:
            response = await client.get(path, headers=header())
            assert response.headers["X-Total-Count"] == "7"
            found += [row["instrument_token"] for row in await response.get_json()]
            link = response.headers.get("Link", "")
            path = link[1 : link.index(">")] if link else ""
        assert found == tokens
        offset = await get_json(client, "/subscriptions?limit=3&offset=6")
        assert [row["instrument_token"] for row in offset] == tokens[6:]
        segment = await get_json(client, "/subscriptions?segment=NSE&origin=user&account_id=a0")
        assert segment == []
        await rig.database.run(lambda connection: connection.execute(LISTED, tokens[2:3]).rowcount)
        underlying = await get_json(client, "/subscriptions?underlying=NIFTY")
        assert [row["instrument_token"] for row in underlying] == tokens[2:3]

        body = {"subscribe": wanted[:1], "unsubscribe": tokens[1:]}
        changed = await client.post("/subscriptions/bulk", json=body, headers=header())
        document: Any = await changed.get_json()
        assert [row["instrument_token"] for row in document["unsubscribed"]] == tokens[1:]
        reload = await get_json(client, f"/subscriptions/reloads/{document['reload_id']}?wait=1")
        assert reload["state"] == "applied"
        nothing = await client.post("/subscriptions/bulk", json={}, headers=header())
        assert await nothing.get_json() == {
            "subscribed": [], "unsubscribed": [], "reload_id": None
        }  # fmt: skip


KINDS: Final = {"": "invalid-request", "conflict": "conflict"}
REFUSED: Final[list[tuple[str, str, object, int, str, str | None]]] = [
        ("POST", "/subscriptions", {"instrument_token": 1}, 404, "instrument", "instrument_token"),
        ("POST", "/subscriptions", {"instrument_token": 256265, "requested_mode": "ALL"}, 422, "",
         "requested_mode"),
        ("POST", "/subscriptions", {"instrument_token": 256265, "account_id": "b"}, 422, "account",
         "account_id"),
        ("POST", "/subscriptions", {"instrument_token": 0}, 422, "", "instrument_token"),
        ("POST", "/subscriptions", {"instrument_token": 1, "mode": "FULL"}, 422, "", "mode"),
        ("POST", "/subscriptions/bulk",
         {"subscribe": [{"instrument_token": 256265}] * 2}, 422, "", "subscribe"),
        ("POST", "/subscriptions/bulk",
         {"subscribe": [{"instrument_token": 256265}], "unsubscribe": [256265]}, 422, "",
         "unsubscribe"),
        ("DELETE", "/subscriptions/256265", None, 404, "item", "instrument_token"),
        ("GET", "/subscriptions?status=activ", None, 422, "", "status"),
        ("GET", "/subscriptions?limit=1001", None, 422, "", "limit"),
        ("GET", "/subscriptions?offset=1&after=1", None, 422, "", "offset"),
        ("GET", "/subscriptions/reloads/never", None, 404, "item", "reload_id"),
        ("GET", "/subscriptions/reloads/never?wait=31", None, 422, "", "wait"),
        ("GET", "/instruments/5", None, 404, "instrument", "instrument_token"),
        ("GET", "/option-chain/NOTHING", None, 404, "instrument", "underlying"),
        ("GET", "/option-chain/NIFTY?expiry=2020-01-01", None, 404, "item", "expiry"),
        ("GET", "/option-chain/NIFTY?strikes=-1", None, 422, "", "strikes"),
        ("GET", "/history?instrument_token=5&from_ts=2026-11-19&to_ts=2026-11-20", None, 404,
         "instrument", "instrument_token"),
        ("GET", "/history?instrument_token=256265&from_ts=2026-11-20&to_ts=2026-11-19", None, 422,
         "", "from_ts"),
        ("GET", "/history?instrument_token=256265&from_ts=x&to_ts=2026-11-19", None, 422, "",
         "from_ts"),
        ("GET", "/history?instrument_token=256265&from_ts=2026-11-19&to_ts=2026-11-20&account_id=b",
         None, 422, "account", "account_id"),
        ("GET", "/trading-accounts/b", None, 404, "account", "account_id"),
        ("PUT", "/trading-accounts/b", {"is_active": True}, 404, "account", None),
        ("PUT", "/trading-accounts/a0", {"is_active": True}, 409, "conflict", "account_id"),
        ("POST", "/trading-accounts", {"account_id": "a0", "api_key": "k"}, 409, "conflict",
         "account_id"),
        ("POST", "/trading-accounts", {"account_id": "a b", "api_key": "k"}, 422, "", "account_id"),
        ("GET", "/trading-accounts/b/login-url", None, 404, "account", "account_id"),
        ("GET", "/login/callback?request_token=t", None, 422, "", "state"),
        ("GET", "/login/callback?request_token=t&state=guessed", None, 404, "item", "state"),
        ("GET", "/account/profile?account_id=b", None, 422, "account", "account_id"),
        ("POST", "/api-keys", {"name": "x", "scopes": []}, 422, "", "scopes"),
        ("POST", "/api-keys", {"name": "x", "scopes": ["all"]}, 422, "", "scopes[0]"),
        ("POST", "/api-keys",
         {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, 422, "",
         "expires_at"),
        ("DELETE", "/api-keys/none", None, 404, "item", "id"),
        ("GET", "/advanced/websocket-pool/stats/b", None, 404, "account", "account_id"),
        ("GET", "/readyz/accounts/b", None, 404, "account", None),
    ]  # fmt: skip


async def test_what_cannot_be_done_names_its_field() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        for method, path, body, status, kind, field in REFUSED:
            response = await ask(client, method, path, headers=header(), json=body)
            document = await get_problem(response, status)
            assert document["type"] == f"/problems/{KINDS.get(kind, f'unknown-{kind}')}", path
            if field is not None:
                assert [error["field"] for error in document["errors"]] == [field], path


async def test_a_full_account_is_a_conflict() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        wanted = [{"instrument_token": token} for token in tokens_of(rig, CAPACITY + 1)]
        assert len(wanted) == CAPACITY + 1
        response = await client.post(
            "/subscriptions/bulk", json={"subscribe": wanted}, headers=header()
        )
        assert (await get_problem(response, 409))["type"] == "/problems/no-capacity"
        assert await get_json(client, "/subscriptions") == [], "all or none"


async def test_instruments_are_found_and_refreshed() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        path = "/instruments?underlying=NIFTY&instrument_type=CE&strike_min=26000&strike_max=26500"
        found = await get_json(client, path)
        assert found
        assert all(row["instrument_type"] == "CE" for row in found)
        assert all(26000 <= row["strike"] <= 26500 for row in found)
        first = await client.get("/instruments?limit=2", headers=header())
        link = first.headers["Link"]
        second = await get_json(client, link[1 : link.index(">")])
        assert second[0]["instrument_token"] > (await first.get_json())[-1]["instrument_token"]
        token = found[0]["instrument_token"]
        listed = await get_json(client, f"/instruments/{token}")
        assert listed == found[0] | {"last_day": None}
        refresh = await client.post("/admin/instrument-refresh?force=true", headers=header())
        document = await refresh.get_json()
        assert (document["force"], document["refreshed"]) == (True, True)
        chain = await get_json(client, "/option-chain/nifty?strikes=2")
        assert chain["underlying"] == "NIFTY"
        assert chain["strikes"][0]["call"]["reason"] == "no_tick"


async def test_a_contract_that_has_expired_is_found_by_its_day_and_named_by_history() -> None:
    friday, monday, tuesday = (dt.date(2026, 11, day) for day in (20, 23, 24))
    at = dt.datetime(2026, 11, 20, 3, 0, tzinfo=dt.UTC)
    call = create_option(9_000_000, 25_000.0, "CE", "GONE", expiry=monday)
    future, rest = create_future(9_000_001, "GONE", monday), create_future(9_000_002)
    async with open_control() as rig:
        client, store = rig.app.test_client(), rig.control.instruments
        today = next(row for row in rig.control.registry.value if row.exchange == "NFO")
        was = create_option(
            today.exchange_token,
            25_100.0,
            "CE",
            "GONE",
            monday,
            segment=today.instrument_token & 0xFF,
        )
        for day, rows in ((friday, (call, future, rest, was)), (tuesday, (rest,))):
            dump = ExchangeDump("NFO", day, rows, is_confirmed=True)
            assert (await store.merge([dump], at)).refused == {}
        gone = msgspec.to_builtins(call)
        path = f"/instruments/{call.instrument_token}"
        for query in ("", "?day=2026-11-20", "?day=2026-11-24"):
            assert await get_json(client, path + query) == gone | {"last_day": "2026-11-20"}
        await get_problem(await client.get(path + "?day=2026-11-19", headers=header()), 404)
        path = f"/instruments/{was.instrument_token}"
        assert (await get_json(client, path))["tradingsymbol"] == today.tradingsymbol
        friday_s = await get_json(client, path + "?day=2026-11-20")
        assert friday_s["tradingsymbol"] == was.tradingsymbol, "the token has changed hands"
        search = f"/instruments?prefix={call.tradingsymbol}"
        assert await get_json(client, search) == []
        assert await get_json(client, search + "&day=2026-11-20") == [gone]
        assert await get_json(client, search + "&day=2026-11-24") == []
        page = await client.get("/instruments?day=2026-11-20&limit=2", headers=header())
        link = page.headers["Link"]
        assert "day=2026-11-20" in link
        assert len(await get_json(client, link[1 : link.index(">")])) == 2
        for row, hint in ((call, False), (future, True)):
            days = "from_ts=2026-11-19&to_ts=2026-11-20"
            path = f"/history?instrument_token={row.instrument_token}&{days}"
            problem = await get_problem(await client.get(path, headers=header()), 404)
            assert row.key in problem["detail"]
            assert "2026-11-20" in problem["detail"]
            assert ("continuous=true" in problem["detail"]) is hint


async def test_history_comes_from_the_broker() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        for since, until in (
            ("2026-11-19T09:15:00%2B05:30", "2026-11-19T10:15:00%2B05:30"),
            ("2026-11-19T09:15:00+05:30", "2026-11-19T10:15:00+05:30"),
            ("2026-11-19%2009:15:00", "2026-11-19T04:45:00Z"),
            ("2026-11-19 09:15:00+05:30", "2026-11-19%2010:15:00%2B05:30"),
            ("20261119T091500+0530", "2026-11-19T10:15+05:30"),
        ):
            path = f"/history?instrument_token=256265&from_ts={since}&to_ts={until}"
            document = await get_json(client, path)
            assert document["tradingsymbol"] == "NIFTY 50"
            assert len(document["candles"]) == 61
            assert document["candles"][0]["date"] == "2026-11-19T09:15:00+05:30"
            assert "oi" not in document["candles"][0]
        path = "/history?instrument_token=256265&from_ts=2026-11-19T09:15&to_ts=2026-11-19T09:15"
        assert len((await get_json(client, path))["candles"]) == 1, "both ends are included"


async def test_an_account_is_kept_and_its_secrets_are_not_shown() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        secrets = {
            "api_key": "canary-key-0123456789", "api_secret": "canary-secret-0123456789",
            "access_token": "canary-token-0123456789",
        }  # fmt: skip
        made = await client.post(
            "/trading-accounts", json={"account_id": "b1", **secrets}, headers=header()
        )
        assert made.status_code == 201
        texts = [await made.get_data(as_text=True)]
        for path in (
            "/trading-accounts?mask_sensitive=false", "/trading-accounts/b1", "/health", "/metrics"
        ):  # fmt: skip
            response = await client.get(path, headers=header())
            texts.append(await response.get_data(as_text=True))
        changed = await client.put(
            "/trading-accounts/b1", json={"is_active": False}, headers=header()
        )
        texts.append(await changed.get_data(as_text=True))
        assert (await changed.get_json())["is_active"] is False
        assert not any(secret in text for secret in secrets.values() for text in texts)
        summary = await get_json(client, "/trading-accounts/stats/summary")
        assert summary == {"total_accounts": 2, "active_accounts": 1, "inactive_accounts": 1}
        reloaded = await client.post("/trading-accounts/reload", headers=header())
        assert (await reloaded.get_json())["accounts_loaded"] == 2
        gone = await client.delete("/trading-accounts/b1?hard_delete=true", headers=header())
        assert await gone.get_json() == {
            "success": True, "account_id": "b1", "hard_deleted": True
        }  # fmt: skip
        await get_problem(await client.get("/trading-accounts/b1", headers=header()), 404)


async def test_a_login_counts_once_and_only_for_whoever_began_it() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        page = await get_json(client, "/trading-accounts/a0/login-url")
        assert page["state"] in page["url"]
        path = f"/login/callback?action=login&status=success&state={page['state']}"
        refused = await client.get(f"{path}&request_token=not-one-of-the-brokers")
        assert (await get_problem(refused, 422))["errors"][0]["field"] == "request_token"
        await get_problem(await client.get(f"{path}&request_token=again"), 404)

        page = await get_json(client, "/trading-accounts/a0/login-url")
        location = await rig.log_in(page["url"])
        done = await client.get(f"/login/callback?{urlsplit(location).query}")
        assert done.status_code == 200
        assert (await done.get_json())["account_id"] == "a0"
        credentials = rig.sessions.value["a0"].credentials.value
        assert credentials.access_token != rig.account.access_token
        profile = await get_json(client, "/account/profile?account_id=a0")
        assert profile["user_id"] == rig.account.user_id

        page = await get_json(client, "/trading-accounts/a0/login-url")
        failed = await client.get(f"/login/callback?status=failed&state={page['state']}")
        assert (await get_problem(failed, 422))["errors"][0]["field"] == "status"


async def test_a_key_works_from_its_making_to_its_end() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        body = {"name": "reader", "scopes": ["read"]}
        made = await client.post("/api-keys", json=body, headers=header())
        key: Any = await made.get_json()
        text = key.pop("api_key")
        who = await get_json(client, "/auth/test", **header(text))
        assert (who["user"]["user_id"], who["scopes"]) == (f"key:{key['id']}", ["read"])
        response = await client.get("/api-keys", headers=header())
        listed = await response.get_data(as_text=True)
        assert key["id"] in listed
        assert text not in listed
        assert text.rpartition("_")[2] not in listed
        await client.delete(f"/api-keys/{key['id']}", headers=header())
        await get_problem(await client.get("/auth/test", headers=header(text)), 401)


async def test_the_mock_market_is_switched_and_stays_so() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        off = await client.post("/advanced/mock-data/disable", headers=header())
        assert (await off.get_json())["mock_data_enabled"] is False
        kept = await rig.control.runtime_settings.load("mock_data_enabled")
        assert kept is not None
        assert rig.control.mock_switch.value == MockSwitch(False, kept.at, "bootstrap")
        assert kept.value is False
        status = await get_json(client, "/advanced/mock-data/status")
        assert (status["mock_data_enabled"], status["toggled_by"]) == (False, "bootstrap")
        assert status["last_toggled"] == kept.at.isoformat(timespec="milliseconds")
        await client.post("/advanced/mock-data/enable", headers=header())
        status = await get_json(client, "/advanced/mock-data/status")
        assert status["mock_data_enabled"] is True
        kept = await rig.control.runtime_settings.load("mock_data_enabled")
        assert kept is not None
        assert kept.value is True


async def test_who_switched_the_mock_market_is_told_after_a_restart_too() -> None:
    migrated = trio.Event()
    migrated.set()
    async with open_test_database() as database:
        await database.probe()
        async with open_control(database=database) as rig:
            client = rig.app.test_client()
            path = "/advanced/mock-data/status"
            never = await get_json(client, path)
            assert (never["last_toggled"], never["toggled_by"]) == (None, None)
            await client.post("/advanced/mock-data/disable", headers=header())
            before = await get_json(client, path)
        async with open_control(database=database) as rig:
            control = rig.control
            await restore_switch(
                control.runtime_settings, MOCK_SWITCH, control.mock_switch, migrated
            )
            after = await get_json(rig.app.test_client(), path)
    assert (after["mock_data_enabled"], after["toggled_by"]) == (False, "bootstrap")
    assert after["last_toggled"] == before["last_toggled"] is not None


async def test_what_the_service_does_is_told_from_its_own_reports() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        first = await get_json(client, "/advanced/backpressure/metrics")
        assert first["ticks_received_per_sec"] == pytest.approx(1000 / 60, rel=0.2)
        assert first["backpressure_level"] == "healthy"
        for age in (0.001, 0.001, 0.0018, 0.2):
            rig.metrics.publish_age.observe(age)
        figures = await get_json(client, "/advanced/backpressure/metrics")
        assert figures["avg_publish_latency_ms"] == pytest.approx(50.95)
        assert 100 <= figures["p99_publish_latency_ms"] <= 250
        stats = await get_json(client, "/advanced/backpressure/publisher-stats")
        assert stats["total_published"] == 900
        circuit = await get_json(client, "/advanced/backpressure/circuit-breaker")
        assert circuit["state"] == "closed"
        assert (await get_json(client, "/advanced/backpressure/status"))["rate_ratio"] == "90.0%"
        pool = await get_json(client, "/advanced/websocket-pool/stats/a0")
        assert (pool["total_capacity"], pool["connections"][0]["utilization_percent"]) == (
            9000, 0.67
        )  # fmt: skip
        profile = await get_json(client, "/account/profile")
        assert profile["broker"] == "ZERODHA"
        calls = await get_json(client, "/advanced/rate-limit/stats")
        assert calls["endpoints"]["profile"] == {"200": 1}
        health = await get_json(client, "/health")
        assert health["dependencies"]["database"]["status"] == "ok"
        assert health["dependencies"]["token_refresher"]["tokens"][0]["is_valid"] is True


async def test_without_postgresql_writes_are_503_in_time_and_the_rest_goes_on() -> None:
    async with (
        open_database(
            "postgresql://nobody@127.0.0.1:1/none",
            DatabasePolicy(connect_timeout_s=1.0),
            wall_clock=time.time,
        ) as away,
        open_control(database=away) as rig,
    ):
        client = rig.app.test_client()
        token = tokens_of(rig)[0]
        for method, path, body in (
            ("POST", "/subscriptions", {"instrument_token": token}),
            ("DELETE", f"/subscriptions/{token}", None),
            ("GET", "/subscriptions", None),
            ("POST", "/trading-accounts", {"account_id": "b", "api_key": "k"}),
            ("POST", "/api-keys", {"name": "k", "scopes": ["read"]}),
            ("POST", "/advanced/mock-data/disable", None),
        ):
            with trio.fail_after(10):
                response = await ask(client, method, path, headers=header(), json=body)
            document = await get_problem(response, 503)
            assert document["type"] == "/problems/store-unavailable", path
            assert response.headers["Retry-After"] == "1"
        assert rig.control.mock_switch.value == MockSwitch(is_on=True)
        ready = await client.get("/readyz")
        assert (ready.status_code, (await ready.get_json())["database"]) == (503, False)
        for path in ("/auth/test", "/market/status", "/option-chain/NIFTY?strikes=1",
                     f"/instruments/{token}", "/account/profile"):  # fmt: skip
            await get_json(client, path)


async def test_a_frozen_postgresql_is_503_within_the_deadline() -> None:
    async with open_postgres_server() as server:
        policy = DatabasePolicy(connect_timeout_s=1, statement_timeout_s=1)
        async with (
            open_database(server.url, policy, wall_clock=time.time) as database,
            open_control(database=database) as rig,
        ):
            await migrate(database)
            client = rig.app.test_client()
            assert await get_json(client, "/subscriptions") == []
            with server.frozen():
                for method, path in (("GET", "/subscriptions"), ("POST", "/subscriptions")):
                    body = {"instrument_token": tokens_of(rig)[0]} if method == "POST" else None
                    with trio.fail_after(9):
                        answer = await ask(client, method, path, headers=header(), json=body)
                    document = await get_problem(answer, 503)
                    assert document["type"] == "/problems/store-unavailable"
                assert (await client.get("/livez")).status_code == 200
                await get_json(client, "/option-chain/NIFTY?strikes=1")
            with trio.fail_after(9):
                while (await client.get("/subscriptions", headers=header())).status_code != 200:  # noqa: ASYNC110
                    await trio.sleep(0.1)


async def test_the_document_tells_every_route_and_what_it_answers() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        document = await get_json(client, "/openapi.json")
        assert document["openapi"] == "3.1.0"
        assert "``" not in json.dumps(document), "its texts are CommonMark"
        told = {
            (path, method.upper()) for path, item in document["paths"].items() for method in item
        }
        served = {
            (re.sub(r"<(?:int:)?([^>]+)>", r"{\1}", rule.rule), method)
            for rule in rig.app.url_map.iter_rules()
            for method in rule.methods or ()
            if method != "HEAD" and rule.rule != "/docs/<name>"
        }
        assert told == served
        for item in document["paths"].values():
            for operation in item.values():
                assert operation["summary"].endswith("."), operation
                responses = operation["responses"]
                assert {"422", "429", "500", "503"} <= set(responses)
                is_public = operation["security"] == []
                assert ("401" in responses) is not is_public
                assert ("x-scope" in operation) is not is_public
        create = document["paths"]["/subscriptions"]["post"]
        assert {"404", "409", "413", "415"} <= set(create["responses"])
        assert create["x-scope"] == "trade"


async def test_the_documentation_needs_nothing_from_elsewhere() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        page = await client.get("/docs")
        text = await page.get_data(as_text=True)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for asset in re.findall(r'(?:src|href)="(/[^"]+)"', text):
            assert (await client.get(asset)).status_code == 200, asset
        scripts = await (await client.get("/docs/docs.js")).get_data(as_text=True)
        assert not re.search(r"https?://", text + scripts)
        await get_problem(await client.get("/docs/passwd"), 404)
        kind = await client.get("/problems/no-capacity")
        assert "HTTP 409" in await kind.get_data(as_text=True)
        await get_problem(await client.get("/problems/nothing"), 404)


async def test_the_bootstrap_key_is_not_shown_anywhere() -> None:
    async with open_control() as rig:
        client = rig.app.test_client()
        for path in ("/health", "/metrics", "/auth/test", "/openapi.json", "/api-keys"):
            response = await client.get(path, headers=header())
            assert BOOTSTRAP not in await response.get_data(as_text=True)
