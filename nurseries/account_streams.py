"""Every account's sockets, as accounts come and go.

::

    stream_accounts
    └── _follow <account id>        while the account is there
        └── stream(session)         one session at a time: a replaced one ends before the next
"""

from collections.abc import Awaitable, Callable

import trio

from ticker.accounts.sessions import Session, Sessions
from ticker.latest import Latest


async def stream_accounts(
    sessions: Latest[Sessions],
    stream: Callable[[Session], Awaitable[None]],
    *,
    forget: Callable[[str], None],
) -> None:
    """Keep ``stream`` running for each session until cancelled.

    A session that goes, or is replaced, has its stream cancelled; the account's next stream
    starts when that one has ended, so that the broker's three sockets a key are never exceeded.
    ``forget`` is called in place with the account's id once an account has gone. What a stream
    raises propagates and ends them all: streams restart by themselves what is to be restarted.
    """
    followed: set[str] = set()

    async def follow(account_id: str) -> None:
        while (session := sessions.value.get(account_id)) is not None:
            await _stream_until_replaced(sessions, session, stream)
        # no await since the look above, so an account that returns later is followed anew
        followed.discard(account_id)
        forget(account_id)

    async with trio.open_nursery() as nursery:
        version = 0
        while True:
            version = await sessions.wait_newer(version)
            for account_id in sessions.value.keys() - followed:
                followed.add(account_id)
                nursery.start_soon(follow, account_id, name=f"account {account_id}")


async def _stream_until_replaced(
    sessions: Latest[Sessions], session: Session, stream: Callable[[Session], Awaitable[None]]
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream, session)
        await sessions.wait_until(lambda present: present.get(session.account_id) is not session)
        nursery.cancel_scope.cancel()
