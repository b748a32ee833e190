from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from nurseries.account_streams import stream_accounts
from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.latest import Latest


def session_of(account_id: str) -> Session:
    return Session(account_id, Latest(Credentials(f"key of {account_id}", "token")))


class InjectedError(Exception):
    pass


@dataclass
class Streams:
    """Streams that only note when they ran. ``slow_s``: what ending takes one."""

    sessions: Latest[Sessions]
    running: list[Session] = field(default_factory=list)
    started: list[Session] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    bug: trio.Event = field(default_factory=trio.Event)
    slow_s: float = 0.0

    async def stream(self, session: Session) -> None:
        assert session.account_id not in {one.account_id for one in self.running}, "two at once"
        self.running.append(session)
        self.started.append(session)
        try:
            await self.bug.wait()
            raise InjectedError
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.slow_s)
            self.running.remove(session)

    def set(self, *sessions: Session) -> None:
        self.sessions.set({one.account_id: one for one in sessions})


@asynccontextmanager
async def open_streams(*sessions: Session) -> AsyncIterator[Streams]:
    streams = Streams(Latest({one.account_id: one for one in sessions}))

    async def run() -> None:
        await stream_accounts(streams.sessions, streams.stream, forget=streams.forgotten.append)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        yield streams
        nursery.cancel_scope.cancel()


async def test_streams_come_and_go_with_their_sessions(
    autojump_clock: trio.testing.MockClock,
) -> None:
    first, second, third = session_of("a"), session_of("b"), session_of("c")
    async with open_streams(first, second) as streams:
        assert set(streams.running) == {first, second}
        streams.set(first, third)
        await trio.sleep(1)
        assert set(streams.running) == {first, third}
        assert streams.forgotten == ["b"]
        assert streams.started.count(first) == 1, "who stays is not touched"
        streams.set()
        await trio.sleep(1)
        assert streams.running == []
        assert sorted(streams.forgotten) == ["a", "b", "c"]
    assert streams.running == []


async def test_replaced_session_ends_before_the_next_begins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    old, new = session_of("a"), session_of("a")
    async with open_streams(old) as streams:
        streams.slow_s = 3.0
        streams.set(new)
        await trio.sleep(2)
        assert streams.running == [old]
        await trio.sleep(2)
        assert streams.running == [new]
        assert streams.forgotten == [], "the account is still there"


@pytest.mark.parametrize("away_s", [0.0, 1.0, 5.0])
async def test_account_that_returns_is_streamed_again(
    away_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    old, new = session_of("a"), session_of("a")
    async with open_streams(old) as streams:
        streams.slow_s = 3.0
        streams.set()
        await trio.sleep(away_s)
        streams.set(new)
        await trio.sleep(4)
        assert streams.running == [new]
        assert streams.forgotten == (["a"] if away_s > streams.slow_s else [])


async def test_other_accounts_start_while_one_ends_slowly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_streams(session_of("a")) as streams:
        streams.slow_s = 60.0
        other = session_of("b")
        streams.set(other)
        await trio.sleep(0.1)
        assert other in streams.running


async def test_bug_in_one_stream_ends_them_all(autojump_clock: trio.testing.MockClock) -> None:
    async def run() -> None:
        async with open_streams(session_of("a"), session_of("b")) as streams:
            streams.bug.set()
            await trio.sleep(60)

    with pytest.RaisesGroup(InjectedError, InjectedError, flatten_subgroups=True):
        await run()
