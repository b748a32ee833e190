"""What to say to a socket so that it carries what the plan wants."""

from collections.abc import Iterator, Mapping

from ticker.instruments.registry import TickMode
from ticker.kite.text import set_mode, subscribe, unsubscribe

_MODES: tuple[TickMode, ...] = ("full", "quote", "ltp")


def subscription_difference(
    current: Mapping[int, TickMode], wanted: Mapping[int, TickMode], *, tokens_per_message: int
) -> Iterator[str]:
    """The messages that turn what the socket carries into what is wanted, in sending order.

    Unsubscribing comes first, so that the socket never carries more than the larger of the two.
    Every new token is given its mode explicitly, after its subscription: the broker's default
    mode is not documented, and a mode for a token that is not subscribed has no effect.
    """
    gone = [token for token in current if token not in wanted]
    new = [token for token in wanted if token not in current]
    for part in _parts(gone, tokens_per_message):
        yield unsubscribe(part)
    for part in _parts(new, tokens_per_message):
        yield subscribe(part)
    for mode in _MODES:
        changed = [token for token, to in wanted.items() if to == mode != current.get(token)]
        for part in _parts(changed, tokens_per_message):
            yield set_mode(mode, part)


def _parts(tokens: list[int], size: int) -> Iterator[list[int]]:
    return (tokens[start : start + size] for start in range(0, len(tokens), size))
