"""``python -m ticker login`` against the simulator, a real database and a browser of sorts."""

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from pydantic import SecretStr

from nurseries.login import run_login
from tests.integration.live import Simulator, open_simulator
from tests.postgres import open_test_url
from ticker.accounts.secrets_box import SecretBox, create_encryption_key
from ticker.errors import ConfigurationError, InvalidRequestError
from ticker.settings import AccountSettings, Settings
from ticker.simulator.server import SimulatorAddress
from ticker.stores.accounts import AccountStore
from ticker.stores.database import open_database

pytestmark = pytest.mark.slow


def create_settings(simulator: Simulator, address: SimulatorAddress, **changes: Any) -> Settings:
    """Two accounts that can log in; the first has a file for its token, if ``file`` is given."""
    files = {"a0": changes.pop("file", None), "a1": None}
    return Settings(
        kite_api_root=address.rest_url,
        kite_login_root=address.rest_url,
        accounts=tuple(
            AccountSettings(
                account_id=name,
                api_key=SecretStr(account.api_key),
                api_secret=SecretStr(account.api_secret),
                access_token_file=files[name],
            )
            for name, account in zip(files, simulator.accounts, strict=True)
        ),
        **changes,
    )


class Person:
    """Reads what the command says, and does what a person at a browser does."""

    def __init__(self, *, redirect_to: str = "", spoil: Callable[[str], str] = str) -> None:
        self.said: list[str] = []
        self.pages: list[httpx.Response] = []
        self._redirect_to = redirect_to
        self._spoil = spoil

    async def log_in(self) -> str:
        """Follow the link; the address that the broker's redirect leads to."""
        url = next(text for text in self.said if "Log in here" in text).split()[-1]
        # where the broker sends the browser is registered there for the api_key
        params = {"redirect": self._redirect_to or "http://registered.example/"}
        async with httpx.AsyncClient() as browser:
            response = await browser.get(httpx.URL(url).copy_merge_params(params))
        return self._spoil(response.headers["Location"])

    async def browse(self, port: int) -> None:
        """Log in, visit some other address of that port first, then follow the redirect."""
        while len(self.said) < 2:  # noqa: ASYNC110 - until the command has said its piece
            await trio.sleep(0.01)
        address = await self.log_in()
        async with httpx.AsyncClient() as browser:
            for url in (
                f"http://127.0.0.1:{port}/favicon.ico",
                f"http://127.0.0.1:{port}/?request_token=forged&state=guess",
                f"http://127.0.0.1:{port}/?request_token=forged",
                address,
            ):
                self.pages.append(await browser.get(url))


async def works(address: SimulatorAddress, api_key: str, token: str) -> bool:
    headers = {"Authorization": f"token {api_key}:{token}"}
    async with httpx.AsyncClient(base_url=address.rest_url, headers=headers) as client:
        return (await client.get("/user/profile")).status_code == httpx.codes.OK


async def test_redirect_is_received_on_loopback_and_the_token_goes_to_the_file(
    tmp_path: Path, free_tcp_port: int
) -> None:
    file = tmp_path / "token"
    async with open_simulator(2, 1.0) as (address, simulator):
        settings = create_settings(simulator, address, file=file)
        person = Person(redirect_to=f"http://127.0.0.1:{free_tcp_port}/kite/callback?mine=1")
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(person.browse, free_tcp_port)
                done = await run_login(settings, "a0", port=free_tcp_port, say=person.said.append)
        assert done.is_kept
        token = file.read_text().strip()
        assert await works(address, simulator.accounts[0].api_key, token)
        assert token != simulator.accounts[0].access_token
        assert [page.status_code for page in person.pages] == [404, 404, 404, 200]
        assert token not in str(person.said)
        assert simulator.accounts[0].api_secret not in str(person.said)


async def test_pasted_address_will_do_and_the_token_goes_to_the_database() -> None:
    key = create_encryption_key()
    async with open_simulator(2, 1.0) as (address, simulator), open_test_url() as url:
        settings = create_settings(
            simulator, address, database_url=url, account_encryption_key=SecretStr(key)
        )
        person = Person()
        done = await run_login(
            settings, "a1", port=None, say=person.said.append, read_line=person.log_in
        )
        assert (done.account_id, done.is_kept) == ("a1", True)
        async with open_database(url, wall_clock=lambda: 0.0) as database:
            (row,) = await AccountStore(database, SecretBox([key])).load_all()
        assert (row.account_id, row.origin) == ("a1", "settings")
        assert await works(address, simulator.accounts[1].api_key, row.access_token or "")


async def test_account_of_the_database_logs_in_too() -> None:
    key = create_encryption_key()
    async with open_simulator(1, 1.0) as (address, simulator), open_test_url() as url:
        async with open_database(url, wall_clock=lambda: 0.0) as database:
            store = AccountStore(database, SecretBox([key]))
            account = simulator.accounts[0]
            values = {"api_key": account.api_key, "api_secret": account.api_secret}
            now = (await database.run(lambda c: c.execute("SELECT now()").fetchone()))[0]  # type: ignore[index]
            await store.create(
                "stored", **values, access_token=None, username=None, metadata={}, now=now
            )
            settings = Settings(
                kite_api_root=address.rest_url,
                kite_login_root=address.rest_url,
                database_url=url,
                account_encryption_key=SecretStr(key),
            )
            person = Person()
            await run_login(
                settings, None, port=None, say=person.said.append, read_line=person.log_in
            )
            (row,) = await store.load_all()
        assert row.origin == "database"
        assert await works(address, account.api_key, row.access_token or "")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda address: "", "no request token"),
        (lambda address: address.replace("status=success", "status=cancelled"), "login failed"),
        (lambda address: "http://registered.example/?request_token=forged", "refused the login"),
    ],
)
async def test_login_that_fails_says_why(
    tmp_path: Path, spoil: Callable[[str], str], named: str
) -> None:
    async with open_simulator(2, 1.0) as (address, simulator):
        settings = create_settings(simulator, address, file=tmp_path / "token")
        person = Person(spoil=spoil)
        with pytest.raises(InvalidRequestError, match=named):
            await run_login(
                settings, "a0", port=None, say=person.said.append, read_line=person.log_in
            )
        assert not (tmp_path / "token").exists()


async def test_a_token_file_in_no_folder_is_refused_before_anybody_logs_in(tmp_path: Path) -> None:
    async with open_simulator(2, 1.0) as (address, simulator):
        settings = create_settings(simulator, address, file=tmp_path / "missing" / "token")
        person = Person()
        with pytest.raises(ConfigurationError, match="missing cannot be written"):
            await run_login(settings, "a0", port=None, say=person.said.append)
        assert person.said == []


async def test_without_any_account_the_ways_to_one_are_said() -> None:
    for account_id in (None, "sim1"):
        with pytest.raises(ConfigurationError, match=r"KITE_ACCOUNTS.*ENV_FILE"):
            await run_login(Settings(), account_id, port=None, say=lambda _: None)


async def test_what_cannot_work_is_refused_before_anybody_logs_in(free_tcp_port: int) -> None:
    async with open_simulator(2, 1.0) as (address, simulator):
        settings = create_settings(simulator, address, file=Path("token"))
        said: list[str] = []
        run: Callable[..., Awaitable[object]] = partial(
            run_login, settings, port=None, say=said.append
        )
        for account_id, named in (
            (None, "there are: a0, a1"),
            ("nobody", "there are: a0, a1"),
            ("a1", "nowhere to keep"),
        ):
            with pytest.raises(ConfigurationError, match=named):
                await run(account_id)
        assert said == []
        async with await listen(free_tcp_port):
            with pytest.raises(ConfigurationError, match="cannot listen"):
                await run("a0", port=free_tcp_port)


async def listen(port: int) -> trio.SocketListener:
    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    return listener


@pytest.fixture
def free_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
