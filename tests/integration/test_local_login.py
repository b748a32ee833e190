"""The daily login as a new user tries it: local programs, and a browser that follows redirects."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.integration.program import REPOSITORY, environment, read_addresses, running
from ticker.accounts.desk import mask
from ticker.local.ports import free_port

pytestmark = pytest.mark.slow


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Api:
    """What a person asks a service with their key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"X-API-Key": key}

    def get(self, path: str) -> Any:
        return httpx.get(self._url + path, headers=self._headers).raise_for_status().json()

    def token_of(self, account: str) -> str | None:
        """Its access token, masked."""
        token: str | None = self.get(f"/trading-accounts/{account}")["access_token"]
        return token

    def is_live(self, account: str) -> bool:
        return httpx.get(f"{self._url}/readyz/accounts/{account}").status_code == 200

    def log_in(self, account: str) -> httpx.Response:
        """Open the login page in a browser that knows nothing of keys; where that ends."""
        page = self.get(f"/trading-accounts/{account}/login-url")["url"]
        return httpx.get(page, follow_redirects=True)


def test_a_run_with_nothing_configured_can_be_logged_in_over_its_api_and_from_a_terminal() -> None:
    with running(arguments=["run", "--port", str(free_port())]) as child:
        addresses = read_addresses(child.stdout)
        api = Api(addresses["API"], addresses["X-API-Key"])
        before = {account: api.token_of(account) for account in ("sim1", "sim2")}

        page = api.log_in("sim1")
        assert str(page.url).startswith(f"{addresses['API']}/login/callback?")
        assert page.status_code == 200
        assert (page.json()["account_id"], page.json()["is_kept"]) == ("sim1", True)
        assert api.token_of("sim1") != before["sim1"]
        assert api.token_of("sim2") == before["sim2"]

        variable, _, command = addresses["log"].removeprefix("in").strip().partition(" ")
        assert command.endswith("-m ticker login sim1")
        arguments = [sys.executable, "-m", "ticker", "login", "sim2"]
        name, _, file = variable.partition("=")
        login = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment({name: file}),
        )
        with login:
            assert login.stdout is not None
            url = next(line.strip() for line in login.stdout if "/connect/login" in line)
            sent_to = httpx.get(url).headers["Location"]
            assert httpx.get(sent_to).status_code == 404, "the service did not ask for it"
            said, _ = login.communicate(f"{sent_to}\n", timeout=20)
            assert "'sim2' is logged in until" in said
            assert login.returncode == 0
        wait_until(lambda: api.token_of("sim2") != before["sim2"])
        wait_until(lambda: api.is_live("sim1") and api.is_live("sim2"))


def test_a_service_beside_a_simulator_waits_for_a_login_and_then_streams() -> None:
    port = free_port()
    redirect = f"http://127.0.0.1:{port}/login/callback"
    arguments = ["simulate", "--port", "0", "--redirect", redirect]
    with running(arguments=arguments) as simulator:
        assert simulator.stdout is not None
        account = dict(re.findall(r"(\w+)=(\S+)", simulator.stdout.readline()))
        ready = next(line for line in simulator.stdout if line.startswith("ready"))
        address = dict(re.findall(r"(\w+)=(\S+)", ready))
        assert address["redirect"] == redirect
        settings = {
            "KITE_API_KEY": account["api_key"],
            "KITE_API_SECRET": account["api_secret"],
            "KITE_API_ROOT": address["rest"],
            "KITE_LOGIN_ROOT": address["rest"],
            "KITE_WS_ROOT": address["websocket"],
            "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
            "API_KEY": "key-of-the-tests",
        }
        with running(settings, ["run", "--port", str(port)]) as service:
            api = Api(read_addresses(service.stdout)["API"], settings["API_KEY"])
            assert api.token_of("primary") is None
            assert not api.is_live("primary")
            page = api.log_in("primary")
            assert (page.status_code, page.json()["account_id"]) == (200, "primary")
            assert api.token_of("primary") not in {None, mask(account["access_token"])}
            wait_until(lambda: api.is_live("primary"))


def test_an_address_that_is_not_known_beforehand_is_not_redirected_to() -> None:
    """With ``--port 0`` the simulator starts before the API has a port; what it answers will do."""
    with running() as child:
        addresses = read_addresses(child.stdout)
        page = Api(addresses["API"], addresses["X-API-Key"]).log_in("sim1")
        answer = page.json()
        assert (answer["action"], answer["status"]) == ("login", "success")
        back = {"request_token": answer["request_token"], "state": answer["state"]}
        done = httpx.get(f"{addresses['API']}/login/callback", params=back)
        assert done.json()["account_id"] == "sim1"
