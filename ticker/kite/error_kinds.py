"""What a failed call to the broker is counted as."""

from typing import Final

from ticker.errors import BrokerBusyError, BrokerError, BrokerResponseError, BrokerTimeoutError

BROKER_WORDS: Final = frozenset(
    f"{name}Exception"
    for name in (
        *("Token", "User", "Order", "Input", "Margin"),
        *("Holding", "Network", "Data", "General", "Permission"),
    )
)
"""The broker's error types (Kite Connect v3, and the official client). Others are one to us, so
that no answer can make labels without end."""


def error_kind(error: BrokerError) -> str:
    """The broker's own word for it or ``other``; ``busy``, ``timeout``, ``unreachable`` are ours.

    ``busy``: no call was made. ``unreachable``: no usable answer.
    """
    if isinstance(error, BrokerResponseError):
        return error.error_type if error.error_type in BROKER_WORDS else "other"
    if isinstance(error, BrokerBusyError):
        return "busy"
    return "timeout" if isinstance(error, BrokerTimeoutError) else "unreachable"
