import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from nurseries.keep_accounts import AccountPolicy, keep_accounts
from ticker.accounts.sessions import AccountStatus, Session, Sessions, fingerprint
from ticker.control_metrics import ControlMetrics
from ticker.errors import StoreUnavailableError
from ticker.latest import Latest
from ticker.settings import AccountSettings
from ticker.stores.accounts import AccountRow, AccountStore
from ticker.stores.origin import StoreReplacedError

MORNING: Final = dt.datetime.fromisoformat("2026-11-20T09:00+05:30")
"""The time at the start of each test; wall time follows the virtual clock."""


def wall_clock() -> float:
    return MORNING.timestamp() + trio.current_time()


def configured(account_id: str = "a", **values: Any) -> AccountSettings:
    given = {"api_key": f"key-{account_id}", "access_token": "configured", **values}
    return AccountSettings.model_validate({"account_id": account_id, **given})


def row(account_id: str = "d", **values: Any) -> AccountRow:
    at = MORNING - dt.timedelta(minutes=5)
    fields = {
        "account_id": account_id,
        "origin": "database",
        "api_key": f"key-{account_id}",
        "api_secret": "secret",
        "access_token": "stored",
        "token_issued_at": at,
        "configured_hash": b"",
        "username": None,
        "is_active": True,
        "metadata": {},
        "created_at": at,
        "updated_at": at,
    }
    return AccountRow(**{**fields, **values})


class MemoryTable(AccountStore):
    """A table in memory that can be away."""

    def __init__(self, *rows: AccountRow) -> None:
        self.rows = list(rows)
        self.is_away = False
        self.reads = 0

    async def load_all(self) -> list[AccountRow]:
        await trio.sleep(0.01)
        self.reads += 1
        if self.is_away:
            raise StoreUnavailableError("away")
        return list(self.rows)


@dataclass
class MemoryOrigin:
    """Whether the table is that of the start."""

    is_replaced: bool = False

    async def require_same(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_replaced:
            raise StoreReplacedError("another one")


@dataclass
class Kept:
    """What came out of ``keep_accounts``."""

    sessions: Latest[Sessions] = field(default_factory=lambda: Latest({}))
    migrated: trio.Event = field(default_factory=trio.Event)
    changes: Latest[int] = field(default_factory=lambda: Latest(0))
    reports: list[tuple[AccountStatus, ...]] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    origin: MemoryOrigin = field(default_factory=MemoryOrigin)

    def __getitem__(self, account_id: str) -> Session:
        return self.sessions.value[account_id]

    def token(self, account_id: str) -> str:
        return self[account_id].credentials.value.access_token

    def status(self, account_id: str) -> AccountStatus:
        return next(status for status in self.reports[-1] if status.account_id == account_id)

    def metric(self, name: str, account_id: str) -> float | None:
        return self.registry.get_sample_value(name, {"account_id": account_id})

    async def settle(self) -> None:
        """A change is told, and has taken effect."""
        self.changes.set(self.changes.value + 1)
        await trio.sleep(0.1)


@asynccontextmanager
async def open_kept(
    *accounts: AccountSettings, table: MemoryTable | None = None, token_poll_s: float = 1.0
) -> AsyncIterator[Kept]:
    kept = Kept()
    kept.migrated.set()

    async def service(task_status: trio.TaskStatus[None]) -> None:
        await keep_accounts(
            accounts,
            kept.sessions,
            store=table,
            migrated=kept.migrated,
            changes=kept.changes,
            report=kept.reports.append,
            metrics=ControlMetrics(kept.registry),
            wall_clock=wall_clock,
            require_same_store=kept.origin.require_same,
            policy=AccountPolicy(token_poll_s=token_poll_s),
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        await nursery.start(service)
        yield kept
        nursery.cancel_scope.cancel()


async def test_configured_accounts_are_there_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("in a file\n")
    accounts = (
        configured(api_secret=SecretStr("s")),
        configured("b", access_token=None, access_token_file=file),
    )
    async with open_kept(*accounts, table=MemoryTable()) as kept:
        assert set(kept.sessions.value) == {"a", "b"}
        assert (kept.token("a"), kept.token("b")) == ("configured", "in a file")
        assert kept["a"].api_secret == "s"
        assert [kept.status(name).token_state for name in "ab"] == ["valid", "valid"]


def six_next_morning() -> float:
    return dt.datetime.fromisoformat("2026-11-21T06:00+05:30").timestamp()


async def test_stored_accounts_join_change_and_leave_without_a_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    table = MemoryTable(row("d"), row("off", is_active=False))
    async with open_kept(configured(), table=table) as kept:
        await trio.sleep(0.1)
        assert set(kept.sessions.value) == {"a", "d"}
        stays, leaves = kept["a"], kept["d"]
        assert (leaves.source, leaves.api_secret) == ("database", "secret")

        table.rows = [row("d"), row("e")]
        await kept.settle()
        assert set(kept.sessions.value) == {"a", "d", "e"}
        assert kept["d"] is leaves, "who stays is not touched"
        assert kept["a"] is stays

        table.rows = [row("d", api_key="another"), row("e", is_active=False)]
        await kept.settle()
        assert set(kept.sessions.value) == {"a", "d"}
        assert kept["d"] is not leaves
        assert kept["a"] is stays


async def test_what_others_change_in_the_table_is_seen_within_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    table = MemoryTable()
    async with open_kept(table=table) as kept:
        await trio.sleep(10)
        table.rows = [row("d")]
        with trio.fail_after(2.1):
            await kept.sessions.wait_until(lambda present: "d" in present)


async def test_nothing_changes_while_nothing_changes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_kept(configured(), table=MemoryTable(row("d"))) as kept:
        await trio.sleep(1)
        sessions, reports = kept.sessions.value, len(kept.reports)
        await trio.sleep(600)
        assert kept.sessions.value is sessions
        assert len(kept.reports) == reports


async def test_accounts_stay_while_the_database_is_away_and_join_when_it_is_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    table = MemoryTable(row("d"))
    table.is_away = True
    async with open_kept(configured(), table=table) as kept:
        await trio.sleep(60)
        assert set(kept.sessions.value) == {"a"}
        assert 30 < table.reads < 70, "asked again each second"
        table.is_away = False
        await trio.sleep(1.5)
        assert set(kept.sessions.value) == {"a", "d"}
        there = kept["d"]
        table.is_away = True
        await trio.sleep(60)
        assert kept["d"] is there


async def test_accounts_stay_while_the_database_is_another_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    table = MemoryTable(row("d"))
    async with open_kept(table=table) as kept:
        await trio.sleep(5)
        there = kept["d"]
        table.rows, kept.origin.is_replaced = [], True
        await trio.sleep(60)
        assert kept["d"] is there
        kept.origin.is_replaced = False
        await trio.sleep(5)
        assert not kept.sessions.value, "taken away where it came from"


async def test_table_is_not_read_before_it_is_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    table = MemoryTable(row("d"))
    kept = Kept()

    async def service(task_status: trio.TaskStatus[None]) -> None:
        await keep_accounts(
            (),
            kept.sessions,
            store=table,
            migrated=kept.migrated,
            changes=kept.changes,
            report=kept.reports.append,
            metrics=ControlMetrics(kept.registry),
            wall_clock=wall_clock,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        await nursery.start(service)
        await trio.sleep(60)
        assert table.reads == 0
        kept.migrated.set()
        await trio.sleep(0.1)
        assert set(kept.sessions.value) == {"d"}
        nursery.cancel_scope.cancel()


async def test_row_that_cannot_be_opened_is_reported_and_the_others_go_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lost = row("lost", api_key="", access_token=None, token_issued_at=None, error="no key")
    table = MemoryTable(row("d"), lost)
    async with open_kept(table=table) as kept:
        await trio.sleep(0.1)
        assert set(kept.sessions.value) == {"d"}
        assert kept.status("lost") == AccountStatus("lost", "database", "missing", error="no key")
        working = kept["d"]
        table.rows = [replace(lost, account_id="d"), lost]
        await kept.settle()
        assert kept["d"] is working, "a session at work does not end with its row's key"
        assert (kept.status("d").token_state, kept.status("d").error) == ("valid", "no key")


async def test_accounts_with_one_api_key_do_not_stream_both(
    autojump_clock: trio.testing.MockClock,
) -> None:
    table = MemoryTable(row("d", api_key="key-a"), row("a"))
    async with open_kept(configured(), table=table) as kept:
        await trio.sleep(0.1)
        assert set(kept.sessions.value) == {"a"}
        assert kept["a"].source == "settings", "settings outrank a row of the same id"
        assert kept.status("d").error == "account 'a' has the same api_key"


# Tokens


async def test_changed_file_is_the_newest_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    account = configured(access_token=None, access_token_file=file)
    async with open_kept(account, token_poll_s=0.005) as kept:
        assert kept.status("a").token_state == "missing"
        file.write_bytes(b"\xff\xfe not text")
        await trio.sleep(0.05)
        assert kept.token("a") == ""
        session = kept["a"]
        file.write_text("first\n")
        await trio.sleep(0.05)
        assert kept.token("a") == "first"
        assert kept["a"] is session
        assert kept.status("a").token_state == "valid"
        file.unlink()
        await trio.sleep(0.05)
        assert kept.token("a") == "first"


async def test_file_that_did_not_change_does_not_undo_a_login(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    account = configured(access_token=None, access_token_file=file)
    async with open_kept(account, token_poll_s=0.005) as kept:
        session = kept["a"]
        session.credentials.set(replace(session.credentials.value, access_token="of a login"))
        await trio.sleep(0.05)
        assert kept.token("a") == "of a login"


async def test_stored_token_of_a_configured_account_is_found_by_the_next_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kept_token = row("a", origin="settings", configured_hash=fingerprint("configured"))
    async with open_kept(configured(), table=MemoryTable(kept_token)) as kept:
        await trio.sleep(0.1)
        assert kept.token("a") == "stored"
        assert kept["a"].source == "settings"


@pytest.mark.parametrize(
    "stale",
    [
        {"configured_hash": fingerprint("configured before")},
        {"api_key": "of another app"},
        {"token_issued_at": MORNING - dt.timedelta(hours=4)},  # before six
        {"access_token": None, "token_issued_at": None},
    ],
)
async def test_stored_token_that_is_not_the_newest_is_left_alone(
    stale: dict[str, object], autojump_clock: trio.testing.MockClock
) -> None:
    values = {"origin": "settings", "configured_hash": fingerprint("configured"), **stale}
    async with open_kept(configured(), table=MemoryTable(row("a", **values))) as kept:
        await trio.sleep(5)
        assert kept.token("a") == "configured"


async def test_login_elsewhere_reaches_us_and_an_older_row_does_not_undo_one_here(
    autojump_clock: trio.testing.MockClock,
) -> None:
    table = MemoryTable(row("d"))
    async with open_kept(table=table) as kept:
        await trio.sleep(0.1)
        session = kept["d"]
        here = replace(session.credentials.value, access_token="here", issued_at=wall_clock())
        session.credentials.set(here)
        await trio.sleep(10)
        assert kept.token("d") == "here", "the row is older"
        later = MORNING + dt.timedelta(seconds=10)
        table.rows = [row("d", access_token="elsewhere", token_issued_at=later)]
        await trio.sleep(3)
        assert kept.token("d") == "elsewhere"
        assert kept["d"] is session, "a new token is no new session"


async def test_row_of_a_removed_configured_account_is_no_account(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_kept(table=MemoryTable(row("a", origin="settings"))) as kept:
        await trio.sleep(0.1)
        assert kept.sessions.value == {}


# Expiry


async def test_token_expires_at_six_and_a_new_one_is_good_for_a_day(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_kept(configured(), token_poll_s=60) as kept:
        session = kept["a"]
        assert kept.status("a") == AccountStatus("a", "settings", "valid", six_next_morning())
        left = kept.metric("kite_access_token_expiry_seconds", "a")
        assert left == six_next_morning() - wall_clock() == 21 * 3600
        assert kept.metric("kite_session_active", "a") == 1
        await trio.sleep(21 * 3600 - 90)
        assert kept.status("a").token_state == "valid"
        before = session.credentials.value
        await trio.sleep(155)
        assert kept.status("a").token_state == "expired"
        assert session.credentials.value.access_token == "configured", "the broker decides"
        assert session.credentials.value != before, "sockets ask it once more"
        assert kept.metric("kite_access_token_expiry_seconds", "a") == 0
        assert kept.metric("kite_session_active", "a") == 0

        fresh = replace(before, access_token="fresh", issued_at=wall_clock())
        session.credentials.set(fresh)
        await trio.sleep(61)
        assert kept.status("a").token_state == "valid"
        left = kept.metric("kite_access_token_expiry_seconds", "a")
        assert left == pytest.approx(24 * 3600, abs=200)


async def test_stored_token_of_yesterday_is_expired_from_the_start(
    autojump_clock: trio.testing.MockClock,
) -> None:
    yesterday = row("d", token_issued_at=MORNING - dt.timedelta(hours=12))
    async with open_kept(table=MemoryTable(yesterday)) as kept:
        await trio.sleep(0.1)
        assert kept.status("d").token_state == "expired"
        assert kept["d"].credentials.value.is_expired


async def test_gauges_end_with_the_account(autojump_clock: trio.testing.MockClock) -> None:
    table = MemoryTable(row("d"))
    async with open_kept(table=table) as kept:
        await trio.sleep(0.1)
        assert kept.metric("kite_session_active", "d") == 1
        table.rows = []
        await kept.settle()
        assert kept.metric("kite_session_active", "d") is None
        assert kept.metric("kite_access_token_expiry_seconds", "d") is None
        assert kept.reports[-1] == ()


async def test_bug_in_a_callback_ends_the_task(autojump_clock: trio.testing.MockClock) -> None:
    class InjectedError(Exception):
        pass

    def fail(statuses: object) -> None:
        raise InjectedError

    async def run() -> None:
        kept = Kept()
        await keep_accounts(
            (),
            kept.sessions,
            store=None,
            migrated=kept.migrated,
            changes=kept.changes,
            report=fail,
            metrics=ControlMetrics(kept.registry),
            wall_clock=wall_clock,
        )

    with pytest.RaisesGroup(InjectedError, flatten_subgroups=True, allow_unwrapped=True):
        await run()
