"""What the API says while the broker is silent, cuts connections or answers junk."""

import dataclasses
import socket
import time
from typing import Final

import pytest
import trio

from api.app import create_app
from api.auth import Access
from tests.api.control_rig import open_control
from tests.api.rig import BOOTSTRAP, get_json, get_problem, header
from ticker.circuit_breaker import BreakerPolicy
from ticker.kite.calls import RestPolicy, ignore_call
from ticker.kite.rest import open_brokers

pytestmark = pytest.mark.slow

IMPATIENT: Final = RestPolicy(
    timeout_s=0.3, deadline_s=2.0, attempts=1, breaker=BreakerPolicy(failures=1000)
)
BROKEN: Final[list[tuple[dict[str, object], int, str]]] = [
    ({"delay_s": 60}, 504, "broker-timeout"),  # it takes the call, and says nothing
    ({"body": "html", "status": 504}, 504, "broker-timeout"),  # its own gateway gave up
    ({"body": "envelope", "status": 504, "error_type": "GeneralException"}, 504, "broker-timeout"),
    ({"body": "html", "status": 502}, 502, "broker-unreachable"),
    ({"body": "html", "status": 300}, 502, "broker-unreachable"),
    ({"body": "reset"}, 502, "broker-unreachable"),
    ({"body": "envelope", "status": 500}, 502, "broker-refused"),
]


async def test_a_broker_that_is_silent_is_504_and_one_that_answers_wrongly_502() -> None:
    async with open_control(rest=IMPATIENT) as rig:
        client = rig.app.test_client()
        candles = "/history?instrument_token=256265&from_ts=2026-11-19&to_ts=2026-11-20"
        for fault, status, kind in BROKEN:
            await rig.inject(**fault)
            for path in (candles, "/account/profile", "/account/profile?account_id=a0"):
                with trio.fail_after(3):
                    response = await client.get(path, headers=header())
                document = await get_problem(response, status)
                assert document["type"] == f"/problems/{kind}", (fault, path, document)
            profiles = await get_json(client, "/account/s")
            assert not profiles[0]["profile_available"], "of this route, a part of the answer"
            page = await get_json(client, "/trading-accounts/a0/login-url")
            path = f"/login/callback?request_token=t&state={page['state']}"
            login = await client.get(path)
            assert (await get_problem(login, status))["type"] == f"/problems/{kind}", fault


async def test_a_broker_that_nobody_answers_for_is_502() -> None:
    async with open_control(rest=IMPATIENT) as rig:
        client = rig.app.test_client()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            root = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with open_brokers(
            root, rig.sessions, policy=IMPATIENT, wall_clock=time.time, observe=ignore_call
        ) as brokers:
            app = create_app(
                rig.status,
                rig.metrics,
                control=dataclasses.replace(rig.control, brokers=brokers),
                access=Access(bootstrap_key=BOOTSTRAP),
            )
            response = await app.test_client().get("/account/profile", headers=header())
        document = await get_problem(response, 502)
        assert document["type"] == "/problems/broker-unreachable"
        assert "127.0.0.1" not in document["detail"], "anybody may read what the login page says"
        assert (await client.get("/livez")).status_code == 200
