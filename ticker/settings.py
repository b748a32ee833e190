"""Frozen settings and their rules; ``ticker.environment`` reads them."""

import datetime as dt
import ipaddress
import re
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from ticker.instruments.registry import TickMode
from ticker.page_origins import LOCAL_ORIGINS, parse_origins

BROKER_WS_ROOT: Final = "wss://ws.kite.trade"
BROKER_API_ROOT: Final = "https://api.kite.trade"
BROKER_LOGIN_ROOT: Final = "https://kite.zerodha.com"
CALLBACK_PATH: Final = "/login/callback"
"""The API's route that a login at the broker leads back to."""
REAL_ENVIRONMENTS: Final = ("staging", "production", "prod", "live")
DEFAULT_REDIS_URL: Final = "redis://localhost:6379/0"
DEFAULT_DATABASE_URL: Final = "postgresql://stocksblitz@localhost:5432/stocksblitz_unified"


_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d*)?")
"""A host and its port in a URL. What else stands there may be a part of a password."""

ACCOUNT_ID: Final = re.compile(r"^(?!mock$)[A-Za-z0-9_-]{1,50}$")
"""What an account may be called; ``mock`` is what the mock market is called in metrics."""


class AccountSettings(BaseModel):
    """One broker account. Without a token or a file of one, a login has to bring it."""

    model_config = ConfigDict(frozen=True)

    account_id: str = Field(pattern=ACCOUNT_ID)
    api_key: SecretStr
    api_secret: SecretStr | None = None
    access_token: SecretStr | None = None
    access_token_file: Path | None = None


class Settings(BaseModel):
    """The service's configuration; unset fields have the values that suit a local run."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    env_file: Path | None = None  # another than .env, which holds these settings
    environment: Literal["dev", "test", "staging", "production", "prod", "live"] = "dev"
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"

    accounts: tuple[AccountSettings, ...] = ()
    kite_ws_root: str = BROKER_WS_ROOT
    kite_api_root: str = BROKER_API_ROOT
    max_ws_connections_per_account: int = Field(3, ge=1, le=3)
    max_instruments_per_ws_connection: int = Field(3000, ge=1, le=3000)
    kite_tokens_per_message: int = Field(500, ge=1, le=3000)
    kite_silence_seconds: float = Field(5.0, gt=0)
    kite_mute_seconds: float = Field(60.0, gt=0)
    kite_token_retry_seconds: float = Field(60.0, gt=0)

    kite_login_root: str = BROKER_LOGIN_ROOT
    kite_accounts_file: Path | None = None
    account_encryption_key: SecretStr | None = None
    account_encryption_key_file: Path | None = None

    database_url: str | None = Field(None, repr=False)  # it may carry a password
    database_dir: Path | None = None
    database_pool_size: int = Field(4, ge=1, le=100)
    database_connect_timeout_seconds: float = Field(5.0, gt=0)
    database_statement_timeout_seconds: float = Field(5.0, gt=0)
    subscription_reload_debounce_seconds: float = Field(1.0, ge=0)
    subscription_reload_interval_seconds: float = Field(5.0, ge=0)
    account_failover_seconds: float = Field(30.0, ge=0)
    rebalance_interval_seconds: float = Field(60.0, gt=0)
    rebalance_hold_seconds: float = Field(300.0, ge=0)
    rebalance_strike_steps: float = Field(1.0, ge=0)
    instrument_segments: tuple[str, ...] = Field(
        ("NFO", "BFO", "NSE", "BSE", "MCX", "CDS"), min_length=1
    )
    instrument_refresh_time: dt.time = dt.time(8, 30)
    instrument_archive_dir: Path | None = None
    historical_days: int = Field(10, ge=0)
    historical_bootstrap_batch: int = Field(6, ge=1)

    api_key_enabled: bool = True
    api_key: SecretStr | None = None
    api_rate_limit_per_minute: int = Field(600, ge=1)
    api_body_max_bytes: int = Field(1_048_576, ge=1024)
    cors_allowed_origins: tuple[str, ...] | None = None
    jwt_jwks_url: str | None = None
    jwt_issuer: str = "user_service"
    jwt_audience: str = "trading_platform"

    enable_mock_data: bool = True
    mock_interval_seconds: float = Field(1.0, gt=0)
    mock_history_minutes: int = Field(10, ge=0)
    mock_price_variation_bps: float = Field(12.5, ge=0, le=1000)
    mock_volume_variation: float = Field(0.15, ge=0, le=1)
    mock_state_max_size: int = Field(5000, ge=1)
    mock_state_cleanup_interval_seconds: float = Field(300.0, gt=0)
    mock_channel_suffix: str = ""

    fo_underlyings: tuple[str, ...] = Field(("NIFTY", "BANKNIFTY", "FINNIFTY"), min_length=1)
    option_expiry_window: int = Field(3, ge=1)
    otm_levels: int = Field(10, ge=1)
    ticker_mode: TickMode = "full"

    tick_validation_enabled: bool = True
    tick_validation_strict: bool = False
    tick_batch_enabled: bool = True
    tick_batch_window_ms: float = Field(100.0, gt=0)
    tick_batch_max_size: int = Field(1000, ge=1)

    option_greeks_profile: Literal["parity", "nse", "futures"] = "parity"
    option_greeks_interest_rate: float | None = Field(None, ge=0, le=1)
    option_reprice_interval_seconds: float = Field(1.0, ge=0)
    market_hours_file: Path | None = None
    greeks_threads: int = Field(2, ge=1)

    redis_url: str | None = Field(None, repr=False)  # it may carry a password
    redis_timeout_seconds: float = Field(1.0, gt=0)
    redis_circuit_failures: int = Field(10, ge=1)
    redis_circuit_open_seconds: float = Field(60.0, gt=0)
    redis_circuit_half_open_tries: int = Field(3, ge=1)
    redis_probe_interval_seconds: float = Field(0.5, gt=0)
    redis_last_values: bool = False
    redis_stream_max_length: int = Field(0, ge=0)
    publish_channel_prefix: str = Field("ticker:nifty", min_length=1)

    @field_validator("fo_underlyings", "instrument_segments", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = (part.strip().strip("\"'") for part in value.strip("[] ").split(","))
        return tuple(name.upper() for name in names if name)

    @field_validator("log_level", "log_format", "ticker_mode", "environment", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("kite_ws_root")
    @classmethod
    def _ws_scheme(cls, value: str) -> str:
        return _checked_url(value, {"wss"}, "ws")

    @field_validator("kite_api_root", "kite_login_root")
    @classmethod
    def _api_scheme(cls, value: str) -> str:
        return _checked_url(value, {"https"}, "http")

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        if value is not None and _split_url(value).scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_scheme(cls, value: str | None) -> str | None:
        if value is not None and _split_url(value).scheme not in {"postgresql", "postgres"}:
            raise ValueError("must start with postgresql://")
        return value

    @field_validator("cors_allowed_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return parse_origins(value) if isinstance(value, (str, tuple, list)) else value

    @model_validator(mode="after")
    def _no_open_door(self) -> Self:
        if self.api_key_enabled:
            return self
        if not is_loopback(self.host) or self.environment in REAL_ENVIRONMENTS:
            raise ValueError(
                "API_KEY_ENABLED: can be false only in development and on this machine's own "
                "address, such as 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _accounts_differ(self) -> Self:
        keys: dict[str, str] = {}
        for account in self.accounts:
            key = account.api_key.get_secret_value()
            if key in keys:
                raise ValueError(
                    f"accounts {keys[key]!r} and {account.account_id!r} have the same API key: "
                    "the broker allows three sockets a key"
                )
            keys[key] = account.account_id
        if self.environment in REAL_ENVIRONMENTS and not (self.database_url or self.database_dir):
            raise ValueError(
                f"ENVIRONMENT is {self.environment}, but neither DATABASE_URL nor DATABASE_DIR is "
                "set: subscriptions would end with the run"
            )
        if self.environment in REAL_ENVIRONMENTS and self.is_local_market:
            raise ValueError(
                f"ENVIRONMENT is {self.environment}, but neither KITE_ACCOUNTS, "
                "KITE_ACCOUNTS_FILE nor DATABASE_URL may name an account: a simulated market is "
                "for development"
            )
        return self

    @property
    def is_local_market(self) -> bool:
        """True if no account can come from anywhere: the market has to be simulated."""
        return not self.accounts and self.kite_accounts_file is None and self.database_url is None

    @property
    def page_origins(self) -> tuple[str, ...]:
        """The origins whose pages may call the API from a browser."""
        if self.cors_allowed_origins is not None:
            return self.cors_allowed_origins
        # without keys a page would be admin: then only what is named may call
        is_closed = self.environment in REAL_ENVIRONMENTS or not self.api_key_enabled
        return () if is_closed else LOCAL_ORIGINS

    @property
    def account_capacity(self) -> int:
        """How many instruments one account carries."""
        return self.max_ws_connections_per_account * self.max_instruments_per_ws_connection

    @property
    def is_mock(self) -> bool:
        """True if the feed is a simulator: the broker is never on a loopback address."""
        return is_loopback(urlsplit(self.kite_ws_root).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def without_passwords(url: str) -> str:
    """The URL as it can be used by whoever knows its passwords, without these."""
    parts = urlsplit(url)
    shown = "&".join(
        pair for pair in parts.query.split("&") if "password" not in pair.partition("=")[0]
    )
    # put together by hand: the library drops the slashes before a host that is empty
    login, _, host = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    address = f"{parts.scheme}://{user}{'@' if user else ''}{host}{parts.path}"
    return f"{address}?{shown}" if shown else address


def _split_url(value: str) -> SplitResult:
    """The URL's parts. Raises ValueError, in whose text none of them stands: urlsplit's own
    quotes what it takes for the port, which in ``//user:pass/word@host`` is half a password.
    """
    refusal = ValueError("not a URL; in a password, such signs as / # ? @ : [ are percent-encoded")
    try:
        parts = urlsplit(value)
    except ValueError:
        raise refusal from None
    hosts = parts.netloc.rpartition("@")[2].split(",")  # PostgreSQL's may be several
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise refusal
    return parts


def _checked_url(value: str, anywhere: set[str], on_loopback: str) -> str:
    parts = _split_url(value)
    if parts.scheme in anywhere or (
        parts.scheme == on_loopback and is_loopback(parts.hostname or "")
    ):
        return value.rstrip("/")
    raise ValueError(
        f"must start with {'/'.join(sorted(anywhere))}:// ({on_loopback}:// for loopback only)"
    )
