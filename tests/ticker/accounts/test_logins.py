import datetime as dt
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import trio
import trio.testing

from tests.postgres import open_test_database
from ticker.accounts import logins
from ticker.accounts.credentials import Credentials
from ticker.accounts.logins import LOGIN_LIFE_S, LOGINS_MAX, LoggedIn, Logins
from ticker.accounts.secrets_box import SecretBox, create_encryption_key
from ticker.accounts.sessions import Session, fingerprint
from ticker.errors import (
    BrokerResponseError,
    BrokerUnreachableError,
    InvalidRequestError,
    StoreUnavailableError,
    UnknownAccountError,
    UnknownItemError,
)
from ticker.latest import Latest
from ticker.stores.accounts import AccountStore

NOW: Final = dt.datetime(2026, 11, 20, 4, 0, tzinfo=dt.UTC)
SIX: Final = dt.datetime(2026, 11, 21, 0, 30, tzinfo=dt.UTC)


@dataclass
class Rig:
    """One account that can log in, ``answer`` being what the broker says to a request token."""

    token_file: Path | None = None
    store: Any = None
    now: float = NOW.timestamp()
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        credentials = Credentials("the key", "old", self.now - 60)
        self.session = Session(
            *("a", Latest(credentials), "the secret", self.token_file),
            configured_hash=fingerprint("old"),
        )
        bare = Session("bare", Latest(credentials))
        self.logins = Logins(
            Latest({"a": self.session, "bare": bare}),
            self.store,
            self.exchange,
            login_root="https://broker",
            wall_clock=lambda: self.now,
        )

    async def exchange(self, session: Session, request_token: str) -> str:
        await trio.sleep(0.01)
        self.asked.append(request_token)
        return f"new of {request_token}"

    @property
    def token(self) -> str:
        return self.session.credentials.value.access_token


def test_login_page_names_the_key_and_carries_a_state_of_its_own() -> None:
    rig = Rig()
    first, second = rig.logins.create_page("a"), rig.logins.create_page("a")
    assert first.state != second.state
    query = parse_qs(urlsplit(first.url).query)
    assert (query["api_key"], query["v"]) == (["the key"], ["3"])
    assert parse_qsl(query["redirect_params"][0]) == [("state", first.state)]
    assert (first.expires_at - NOW).total_seconds() == LOGIN_LIFE_S


def test_state_counts_once_and_not_for_ever() -> None:
    rig = Rig()
    page, late = rig.logins.create_page("a"), rig.logins.create_page("a")
    assert rig.logins.take_state(page.state) == "a"
    for state in (page.state, "", "guess"):
        with pytest.raises(UnknownItemError):
            rig.logins.take_state(state)
    rig.now += LOGIN_LIFE_S
    for state in (page.state, late.state):
        with pytest.raises(UnknownItemError):
            rig.logins.take_state(state)


def test_pages_that_nobody_uses_do_not_pile_up() -> None:
    rig = Rig()
    pages = [rig.logins.create_page("a") for _ in range(LOGINS_MAX + 1)]
    assert rig.logins.take_state(pages[-1].state) == "a"
    with pytest.raises(UnknownItemError):
        rig.logins.take_state(pages[0].state)


async def test_accounts_that_cannot_log_in_are_refused() -> None:
    rig = Rig()
    with pytest.raises(UnknownAccountError):
        rig.logins.create_page("nobody")
    with pytest.raises(UnknownAccountError):
        await rig.logins.complete("nobody", "r")
    with pytest.raises(InvalidRequestError, match="api_secret"):
        rig.logins.create_page("bare")
    assert rig.asked == []


async def test_new_token_is_used_at_once_and_said_not_to_be_kept_without_a_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    assert await rig.logins.complete("a", "r") == LoggedIn("a", SIX, is_kept=False)
    newest = rig.session.credentials.value
    assert newest == Credentials("the key", "new of r")
    assert newest.expires_at == SIX.timestamp()


async def test_new_token_goes_to_the_accounts_file_which_only_its_owner_can_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    rig = Rig(token_file=file)
    assert (await rig.logins.complete("a", "r")).is_kept
    assert file.read_text() == "new of r\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names(tmp_path) == ["token"]


def names(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir()]


async def test_file_that_cannot_be_written_costs_the_restart_only(tmp_path: Path) -> None:
    rig = Rig(token_file=tmp_path / "none" / "token")
    assert not (await rig.logins.complete("a", "r")).is_kept
    assert rig.token == "new of r"


@pytest.mark.slow
async def test_new_token_goes_to_the_database_and_says_which_configured_one_it_follows() -> None:
    async with open_test_database() as database:
        store = AccountStore(database, SecretBox([create_encryption_key()]))
        rig = Rig(store=store)
        assert (await rig.logins.complete("a", "r")).is_kept
        (row,) = await store.load_all()
        assert (row.account_id, row.origin, row.access_token) == ("a", "settings", "new of r")
        assert row.token_issued_at == NOW
        assert row.configured_hash == fingerprint("old")


class SlowStore(AccountStore):
    """A table that takes its time. ``failure``: how it ends."""

    def __init__(self, delay_s: float, failure: Exception | None = None) -> None:
        self.delay_s = delay_s
        self.failure = failure
        self.kept: list[str] = []

    async def keep_token(self, account_id: str, **values: Any) -> bool:
        await trio.sleep(self.delay_s)
        if self.failure:
            raise self.failure
        self.kept.append(values["access_token"])
        return True


@pytest.mark.parametrize(
    "store", [SlowStore(0, StoreUnavailableError("away")), SlowStore(logins.KEEP_TIMEOUT_S + 1)]
)
async def test_database_that_is_away_costs_the_restart_only(
    store: SlowStore, autojump_clock: trio.testing.MockClock
) -> None:
    rig = Rig(store=store)
    started_at = trio.current_time()
    assert not (await rig.logins.complete("a", "r")).is_kept
    assert trio.current_time() - started_at <= logins.KEEP_TIMEOUT_S + 0.1
    assert rig.token == "new of r"


async def test_caller_who_hangs_up_does_not_lose_the_token(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = SlowStore(2)
    rig = Rig(store=store)
    with trio.move_on_after(1):
        await rig.logins.complete("a", "r")
    assert (rig.token, store.kept) == ("new of r", ["new of r"])


async def test_logins_take_turns(autojump_clock: trio.testing.MockClock) -> None:
    """The broker may kill an older token at each login: the last one asked for has to win."""
    store = SlowStore(4)
    rig = Rig(store=store)
    async with trio.open_nursery() as nursery:
        for request in ("1", "2", "3"):
            nursery.start_soon(rig.logins.complete, "a", request)
            await trio.sleep(0.1)
            store.delay_s /= 4  # each would overtake the one before
    assert store.kept == ["new of 1", "new of 2", "new of 3"]
    assert rig.token == "new of 3"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (BrokerResponseError(403, "TokenException", "expired"), InvalidRequestError),
        (BrokerResponseError(400, "InputException", "missing"), InvalidRequestError),
        (BrokerResponseError(500, "GeneralException", "?"), BrokerResponseError),
        (BrokerUnreachableError("down"), BrokerUnreachableError),
    ],
)
async def test_login_that_the_broker_refuses_changes_nothing(
    answer: Exception,
    expected: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig(store=SlowStore(0))
    fail = failing(answer)
    monkeypatch.setattr(rig.logins, "_exchange", fail)
    with pytest.raises(expected):
        await rig.logins.complete("a", "r")
    assert (rig.token, rig.store.kept) == ("old", [])
    monkeypatch.undo()
    await rig.logins.complete("a", "r")


def failing(error: Exception) -> Callable[..., Awaitable[str]]:
    async def exchange(*args: object) -> str:
        await trio.lowlevel.checkpoint()
        raise error

    return exchange
