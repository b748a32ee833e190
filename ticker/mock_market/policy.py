"""How the mock market behaves."""

import msgspec

from ticker.settings import Settings


class MockPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, variations as fractions.

    ``variation``: the most that an underlying moves in one step. ``volume_variation``: the most
    that volume and open interest leave what they were seeded with. ``size_max``: instruments held;
    the least recently used goes when there is one more. ``settle_s``: how long a market has to be
    closed before the mock market speaks for it: ticks of its last second are still under way.
    ``candles_s``, ``quotes_s``: how long the broker may take to tell prices to begin from.
    """

    interval_s: float = 1.0
    variation: float = 0.00125
    volume_variation: float = 0.15
    size_max: int = 5000
    clean_up_interval_s: float = 300.0
    history_s: float = 600.0
    settle_s: float = 5.0
    candles_s: float = 10.0
    quotes_s: float = 15.0


def create_mock_policy(settings: Settings) -> MockPolicy:
    """The policy as configured."""
    return MockPolicy(
        interval_s=settings.mock_interval_seconds,
        variation=settings.mock_price_variation_bps / 10_000,
        volume_variation=settings.mock_volume_variation,
        size_max=settings.mock_state_max_size,
        clean_up_interval_s=settings.mock_state_cleanup_interval_seconds,
        history_s=settings.mock_history_minutes * 60.0,
    )
