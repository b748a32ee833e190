"""How each part behaves, as configured."""

from typing import Final

from nurseries.publisher import PublishPolicy
from nurseries.rebalance_strikes import RebalancePolicy
from nurseries.refresh_instruments import RefreshPolicy
from nurseries.reload import ReloadPolicy
from nurseries.shard_stream import StreamPolicy
from ticker.circuit_breaker import BreakerPolicy
from ticker.planning.strikes import StrikePolicy
from ticker.planning.wishes import TICK_MODES
from ticker.settings import Settings
from ticker.stores.database import DatabasePolicy

_MODES: Final = {tick_mode: mode for mode, tick_mode in TICK_MODES.items()}


def create_publish_policy(settings: Settings) -> PublishPolicy:
    """How to publish."""
    return PublishPolicy(
        batch_max=settings.tick_batch_max_size if settings.tick_batch_enabled else 1,
        window_s=settings.tick_batch_window_ms / 1000,
        timeout_s=settings.redis_timeout_seconds,
        breaker=BreakerPolicy(
            failures=settings.redis_circuit_failures,
            open_s=settings.redis_circuit_open_seconds,
            tries=settings.redis_circuit_half_open_tries,
        ),
        probe_interval_s=settings.redis_probe_interval_seconds,
        last_values=settings.redis_last_values,
        stream_max_length=settings.redis_stream_max_length,
        mock_suffix=settings.mock_channel_suffix,
    )


def create_stream_policy(settings: Settings) -> StreamPolicy:
    """How to hold an account's sockets."""
    return StreamPolicy(
        sockets=settings.max_ws_connections_per_account,
        tokens_per_message=settings.kite_tokens_per_message,
        silence_s=settings.kite_silence_seconds,
        mute_s=settings.kite_mute_seconds,
        token_retry_s=settings.kite_token_retry_seconds,
    )


def create_database_policy(settings: Settings) -> DatabasePolicy:
    """How many connections PostgreSQL is given, and how long it."""
    return DatabasePolicy(
        pool_size=settings.database_pool_size,
        connect_timeout_s=settings.database_connect_timeout_seconds,
        statement_timeout_s=settings.database_statement_timeout_seconds,
    )


def create_reload_policy(settings: Settings) -> ReloadPolicy:
    """When to plan anew, and what the accounts carry."""
    return ReloadPolicy(
        debounce_s=settings.subscription_reload_debounce_seconds,
        interval_s=settings.subscription_reload_interval_seconds,
        failover_s=settings.account_failover_seconds,
        sockets_per_account=settings.max_ws_connections_per_account,
        instruments_per_socket=settings.max_instruments_per_ws_connection,
    )


def create_rebalance_policy(settings: Settings) -> RebalancePolicy:
    """Which chains to keep, and when they follow the money."""
    return RebalancePolicy(
        underlyings=settings.fo_underlyings,
        exchanges=settings.instrument_segments,
        mode=_MODES[settings.ticker_mode],
        strikes=StrikePolicy(
            expiries=settings.option_expiry_window,
            otm_levels=settings.otm_levels,
            hold_s=settings.rebalance_hold_seconds,
            steps=settings.rebalance_strike_steps,
        ),
        interval_s=settings.rebalance_interval_seconds,
    )


def create_refresh_policy(settings: Settings) -> RefreshPolicy:
    """Which exchanges to list, and when."""
    return RefreshPolicy(
        exchanges=settings.instrument_segments,
        made_at=settings.instrument_refresh_time,
        market_hours_file=settings.market_hours_file,
        archive_dir=settings.instrument_archive_dir,
    )
