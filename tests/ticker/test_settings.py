"""Settings: what the environment may say, and what is said of it when it is wrong."""

from pathlib import Path

import pytest

from ticker.environment import load_settings
from ticker.errors import ConfigurationError
from ticker.settings import Settings, is_loopback

NOWHERE = Path("no-such.env")
ONE_ACCOUNT = {"KITE_API_KEY": "k", "KITE_ACCESS_TOKEN": "t"}


def load(**environ: str) -> Settings:
    return load_settings(environ, env_file=NOWHERE)


def test_nothing_configured_is_a_local_market() -> None:
    settings = load()
    assert settings.accounts == ()
    assert settings.redis_url is None
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.publish_channel_prefix == "ticker:nifty"


def test_overrides_win_and_none_is_not_an_override() -> None:
    assert load_settings({"PORT": "1"}, env_file=NOWHERE, port=2).port == 2
    assert load_settings({"PORT": "1"}, env_file=NOWHERE, port=None).port == 1


def test_accounts_are_read_in_order_and_once() -> None:
    settings = load(
        KITE_ACCOUNTS="mother, son-2,mother",
        KITE_MOTHER_API_KEY="k1",
        KITE_MOTHER_ACCESS_TOKEN="t1",
        KITE_SON_2_API_KEY="k2",
        KITE_SON_2_ACCESS_TOKEN_FILE="/run/token",
    )
    mother, son = settings.accounts
    assert (mother.account_id, mother.api_key.get_secret_value()) == ("mother", "k1")
    assert mother.access_token is not None
    assert mother.access_token.get_secret_value() == "t1"
    assert (son.account_id, son.access_token, son.access_token_file) == (
        "son-2",
        None,
        Path("/run/token"),
    )


def test_two_accounts_with_one_key_are_refused() -> None:
    both = {f"KITE_{name}_{what}": "x" for name in "AB" for what in ("API_KEY", "ACCESS_TOKEN")}
    with pytest.raises(ConfigurationError, match="'a' and 'b'"):
        load(KITE_ACCOUNTS="a,b", **both)


def test_empty_is_unset_and_case_does_not_matter() -> None:
    settings = load(FO_UNDERLYINGS="", REDIS_URL="", LOG_LEVEL="INFO", TICKER_MODE="FULL")
    assert settings == load()


def test_single_account_is_primary() -> None:
    (account,) = load(KITE_API_KEY="k", KITE_ACCESS_TOKEN="t").accounts
    assert account.account_id == "primary"


def test_env_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("OTM_LEVELS=3\nOPTION_EXPIRY_WINDOW=2\n")
    settings = load_settings({"OTM_LEVELS": "4"}, env_file=file)
    assert (settings.otm_levels, settings.option_expiry_window) == (4, 2)


@pytest.mark.parametrize("text", ["NIFTY,BANKNIFTY", "NIFTY, BANKNIFTY", '["NIFTY", "BANKNIFTY"]'])
def test_underlyings_as_a_list(text: str) -> None:
    assert load(FO_UNDERLYINGS=text).fo_underlyings == ("NIFTY", "BANKNIFTY")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"TICKER_MODE": "everything"}, "TICKER_MODE"),
        ({"PORT": "http"}, "PORT"),
        ({"PORT": "65536"}, "PORT"),
        ({"REDIS_URL": "http://localhost"}, "REDIS_URL"),
        ({"KITE_WS_ROOT": "ws://broker.example"}, "KITE_WS_ROOT"),
        ({"KITE_API_ROOT": "http://broker.example"}, "KITE_API_ROOT"),
        ({"HOST": "0.0.0.0", "API_KEY_ENABLED": "false"}, "API_KEY_ENABLED"),
        ({"ENVIRONMENT": "live", **ONE_ACCOUNT, "API_KEY_ENABLED": "false"}, "API_KEY_ENABLED"),
        ({"DATABASE_URL": "mysql://localhost/x"}, "DATABASE_URL"),
        ({"INSTRUMENT_DB_HOST": "db", "INSTRUMENT_DB_PORT": "x"}, "DATABASE_URL"),
        ({"OPTION_GREEKS_PROFILE": "magic"}, "OPTION_GREEKS_PROFILE"),
        ({"KITE_ACCOUNTS": "a"}, "KITE_A_API_KEY"),
        ({"KITE_ACCOUNTS": "a", "KITE_A_API_KEY": "k"}, "KITE_A_ACCESS_TOKEN"),
        ({"KITE_API_KEY": "k"}, "KITE_ACCESS_TOKEN"),
        ({"KITE_ACCESS_TOKEN": "t"}, "KITE_API_KEY"),
        ({"KITE_ACCOUNT": "a", "KITE_A_API_KEY": "k"}, "KITE_A_API_KEY"),
        ({"KITE_A_ACCESS_TOKEN_FILE": "/f"}, "KITE_A_ACCESS_TOKEN_FILE"),
        ({"KITE_ACCOUNTS": "bad name"}, "bad name"),
        ({"KITE_ACCOUNTS": "a-b,a_b"}, "KITE_ACCOUNTS"),
        ({"ENVIRONMENT": "production"}, "DATABASE_URL"),
        ({"ENVIRONMENT": "production", "DATABASE_DIR": "/d"}, "KITE_ACCOUNTS"),
        ({"TICK_BATCH_WINDOW_MS": "inf"}, "TICK_BATCH_WINDOW_MS"),
        ({"REDIS_TIMEOUT_SECONDS": "nan"}, "REDIS_TIMEOUT_SECONDS"),
        ({"FO_UNDERLYINGS": ","}, "FO_UNDERLYINGS"),
        ({"CORS_ALLOWED_ORIGINS": "*"}, "CORS_ALLOWED_ORIGINS: must be origins"),
        ({"CORS_ALLOWED_ORIGINS": "https://a.example,*"}, "CORS_ALLOWED_ORIGINS: must be origins"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_setting(
    environ: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ, env_file=NOWHERE)
    message = str(caught.value)
    assert named in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "KITE_WS_ROOT", "KITE_API_ROOT"])
@pytest.mark.parametrize(
    "password",
    ["CANARY/word", "CANARY#word", "CANARY?word", "CANARY\N{ACCOUNT OF}word", "CAN[CANARY"],
)
def test_a_password_that_is_not_encoded_is_not_shown(name: str, password: str) -> None:
    scheme = {"DATABASE_URL": "postgresql", "REDIS_URL": "redis", "KITE_WS_ROOT": "wss"}
    with pytest.raises(ConfigurationError) as caught:
        load(**{name: f"{scheme.get(name, 'https')}://user:{password}@host:5432/x"})
    assert name in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["db", "db:5432", "user:p%2Fw@db:5432", "[::1]:5432", "a:5432,b:5433", "", "%2Frun%2Fpg:5433"],
)
def test_a_database_url_may_name_hosts_and_sockets(address: str) -> None:
    url = f"postgresql://{address}/x"
    assert load(DATABASE_URL=url).database_url == url


def test_the_database_is_a_url_or_its_parts() -> None:
    assert load().database_url is None
    parts = load(INSTRUMENT_DB_HOST="db", INSTRUMENT_DB_PASSWORD="p@ss/word")
    assert (
        parts.database_url == "postgresql://stocksblitz:p%40ss%2Fword@db:5432/stocksblitz_unified"
    )
    socket = load(INSTRUMENT_DB_HOST="/run/pg", INSTRUMENT_DB_USER="u", INSTRUMENT_DB_NAME="x")
    assert socket.database_url == "postgresql://u@%2Frun%2Fpg:5432/x"
    both = load(INSTRUMENT_DB_HOST="db", DATABASE_URL="postgresql://other/x")
    assert both.database_url == "postgresql://other/x"


REAL = {"DATABASE_URL": "postgresql://db/x", **ONE_ACCOUNT}


def test_pages_of_ones_own_machine_may_call_in_development_and_none_elsewhere() -> None:
    local = {
        f"http://{host}:{port}"
        for host in ("localhost", "127.0.0.1")
        for port in (3000, 5173, 8080)
    }
    assert set(load().page_origins) == local
    for environment in ("staging", "production", "prod", "live"):
        assert load(ENVIRONMENT=environment, **REAL).page_origins == ()
    named = "https://desk.example"
    for environment in ("dev", "production"):
        settings = load(ENVIRONMENT=environment, CORS_ALLOWED_ORIGINS=named, **REAL)
        assert settings.page_origins == (named,)
    assert load(CORS_ALLOWED_ORIGINS="[]").page_origins == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.example, http://b:3000", ("https://a.example", "http://b:3000")),
        ('["https://a.example", "http://b:3000"]', ("https://a.example", "http://b:3000")),
        ("HTTPS://A.example:443/,https://a.example", ("https://a.example",)),
        ("http://a:80,http://a:443", ("http://a", "http://a:443")),
        ("http://[::1]:3000,http://[::1]", ("http://[::1]:3000", "http://[::1]")),
    ],
)
def test_origins_are_kept_as_browsers_write_them(text: str, expected: tuple[str, ...]) -> None:
    assert load(CORS_ALLOWED_ORIGINS=text).page_origins == expected


@pytest.mark.parametrize(
    "text",
    [
        *("*", "null", "a.example", "//a.example", "https://", "https://*.a.example", "ftp://a"),
        *("https://a.example/desk", "https://a.example?x", "https://user:CANARY@a.example"),
        *("http://a:0", "http://a:65536", "http://a:", "http://a b", "http://a\nX: y", "https://ä"),
    ],
)
def test_what_is_no_origin_is_refused_and_not_shown(text: str) -> None:
    for value in (text, f"https://good.example,{text}", f'["{text}"]'):
        with pytest.raises(ConfigurationError) as caught:
            load(CORS_ALLOWED_ORIGINS=value)
        message = str(caught.value)
        assert message.startswith("CORS_ALLOWED_ORIGINS: must be origins, comma separated")
        assert "CANARY" not in message
        assert "\n" not in message


def test_a_secret_is_enough_for_an_account_that_logs_in() -> None:
    (account,) = load(KITE_API_KEY="k", KITE_API_SECRET="s").accounts
    assert account.access_token is None
    assert account.api_secret is not None


def test_a_real_environment_may_keep_its_accounts_in_the_database() -> None:
    assert load(ENVIRONMENT="live", DATABASE_URL="postgresql://db/x").accounts == ()


def test_secrets_are_not_shown() -> None:
    canary = "canary-5f1c"
    settings = load(
        KITE_API_KEY=canary,
        KITE_ACCESS_TOKEN=canary,
        KITE_API_SECRET=canary,
        REDIS_URL=f"redis://:{canary}@127.0.0.1/0",
        INSTRUMENT_DB_HOST="db",
        INSTRUMENT_DB_PASSWORD=canary,
        API_KEY=canary,
        ACCOUNT_ENCRYPTION_KEY=canary,
    )
    assert canary not in repr(settings)
    assert canary not in str(settings)
    with pytest.raises(ConfigurationError) as caught:
        load(REDIS_URL=f"tcp://:{canary}@127.0.0.1")
    assert canary not in str(caught.value)


def test_a_loopback_feed_is_mock_and_the_broker_is_not() -> None:
    assert not load().is_mock
    assert load(KITE_WS_ROOT="ws://127.0.0.1:8765").is_mock
    assert load(KITE_WS_ROOT="ws://[::1]:8765").is_mock


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("localhost.example", False),
    ],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
