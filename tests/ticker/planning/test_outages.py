"""Who is away, and since when."""

from ticker.messages import ConnectionId, FeedState, FeedStatus
from ticker.planning.outages import AccountState, Outages

ACCOUNTS = [AccountState("a0"), AccountState("a1")]


def feed(name: str, shard: int, state: FeedState, target: int = 5) -> FeedStatus:
    return FeedStatus(ConnectionId(name, shard), state, since=0.0, target=target)


def away(
    outages: Outages,
    now: float,
    *feeds: FeedStatus,
    accounts: list[AccountState] = ACCOUNTS,
) -> set[str]:
    found = outages.find_away(
        accounts, {status.connection: status for status in feeds}, sockets_per_account=3, now=now
    )
    return {str(socket) for socket in found}


def test_a_socket_is_away_after_a_while_and_back_at_once() -> None:
    outages = Outages(30.0)
    down, up = feed("a0", 0, "backing_off"), feed("a0", 1, "live")
    assert away(outages, 0.0, down, up) == set()
    assert away(outages, 29.9, feed("a0", 0, "connecting"), up) == set()
    assert away(outages, 30.0, down, up) == {"a0/0"}
    assert away(outages, 31.0, feed("a0", 0, "live"), up) == set()
    assert away(outages, 32.0, down, up) == set(), "the wait begins anew"


def test_an_account_is_away_with_all_its_sockets() -> None:
    outages = Outages(30.0)
    feeds = feed("a0", 0, "waiting_for_token"), feed("a0", 1, "idle", target=0)
    away(outages, 0.0, *feeds)
    assert away(outages, 30.0, *feeds) == {"a0/0", "a0/1", "a0/2"}


def test_without_a_token_an_account_is_away_at_once() -> None:
    accounts = [AccountState("a0", has_token=False), AccountState("a1")]
    assert away(Outages(30.0), 0.0, accounts=accounts) == {"a0/0", "a0/1", "a0/2"}


def test_an_idle_socket_and_an_account_that_is_gone_are_not_away() -> None:
    outages = Outages(0.0)
    assert away(outages, 0.0, feed("a0", 0, "idle", target=0), feed("x", 0, "backing_off")) == set()
