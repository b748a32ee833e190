"""The one retry policy of the broker's REST API: for reads, after failures that may pass."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import stamina
import trio

from ticker.errors import (
    BrokerError,
    BrokerResponseError,
    BrokerTimeoutError,
    BrokerUnreachableError,
)

T = TypeVar("T")

WAIT_FIRST_S: Final = 0.2
WAIT_MAX_S: Final = 2.0
JITTER_S: Final = 0.3
"""The wait doubles from the first to the most, plus up to this at random."""

_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


def may_pass(error: Exception) -> bool:
    """Whether asking again may help: no answer, the server's own trouble, or too many calls."""
    if isinstance(error, BrokerResponseError):
        return error.status == _TOO_MANY or error.status >= _SERVER_ERROR
    return isinstance(error, BrokerUnreachableError)


async def retry_reads(attempt: Callable[[], Awaitable[T]], *, attempts: int, deadline: float) -> T:
    """Call ``attempt`` up to ``attempts`` times, and return what it returns.

    Raises the last error, at once if it will not pass, and no later than at ``deadline``, a Trio
    time. Only for what may be done twice.
    """
    last: BrokerError | None = None
    with trio.move_on_at(deadline):
        async for again in stamina.retry_context(
            on=may_pass,
            attempts=attempts,
            timeout=None,
            wait_initial=WAIT_FIRST_S,
            wait_max=WAIT_MAX_S,
            wait_jitter=JITTER_S,
        ):
            with again:
                try:
                    return await attempt()
                except BrokerError as error:
                    last = error
                    raise
    raise last or BrokerTimeoutError("the broker has not answered in time")
