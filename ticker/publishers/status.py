"""What the publisher says of itself."""

import msgspec

from ticker.circuit_breaker import CircuitState


class PublisherStatus(msgspec.Struct, frozen=True):
    """Where the publisher stands, reported after each batch and on every change.

    ``pending``: messages waiting. ``published``: messages acknowledged since the start. ``age_s``:
    frame received to acknowledged, of the oldest tick in the last batch. ``last_acknowledged_at``:
    UNIX seconds, None before the first. ``last_error``: kind of the failure that keeps Redis away
    (``unreachable``, ``timeout`` or the code of an error reply), None while all is well.
    """

    circuit: CircuitState = "closed"
    connected: bool = False
    pending: int = 0
    published: int = 0
    age_s: float | None = None
    last_acknowledged_at: float | None = None
    last_error: str | None = None
