"""The file that ``ENV_FILE`` names, and the one that a local run writes."""

from pathlib import Path

import pytest

from ticker.environment import load_settings, to_env_text
from ticker.errors import ConfigurationError
from ticker.local.market import open_env_file

ENVIRON = {
    "KITE_ACCOUNTS": "a,b-2",
    "KITE_A_API_KEY": 'k\'\\x #$HOME "q"',
    "KITE_A_API_SECRET": "s",
    "KITE_A_ACCESS_TOKEN": "t",
    "KITE_B_2_API_KEY": "other",
    "KITE_B_2_ACCESS_TOKEN_FILE": "/x y/token",
    "KITE_WS_ROOT": "ws://127.0.0.1:8765",
    "REDIS_URL": "redis://:p%23w@host/0?protocol=3",
    "FO_UNDERLYINGS": "NIFTY,SENSEX",
    "ENABLE_MOCK_DATA": "false",
    "INSTRUMENT_REFRESH_TIME": "08:31",
    "API_KEY": "bootstrap",
}


@pytest.mark.parametrize("origins", ["", "[]", "https://a.example,http://b:3000"])
def test_settings_come_back_from_the_file_as_they_were(tmp_path: Path, origins: str) -> None:
    environ = ENVIRON | {"CORS_ALLOWED_ORIGINS": origins}
    settings = load_settings(environ, env_file=Path("no-such.env"))
    file = tmp_path / "env"
    file.write_text(to_env_text(settings))
    again = load_settings({"ENV_FILE": str(file)})
    assert again.env_file == file
    assert again.model_copy(update={"env_file": None}) == settings


def test_it_stands_in_for_the_usual_file_and_the_environment_wins(tmp_path: Path) -> None:
    usual, named = tmp_path / ".env", tmp_path / "named"
    usual.write_text("PORT=1\nHOST=127.0.0.2\n")
    named.write_text("PORT=2\nLOG_LEVEL=error\n")
    settings = load_settings({"ENV_FILE": str(named), "LOG_LEVEL": "debug"}, env_file=usual)
    assert (settings.port, settings.host, settings.log_level) == (2, "127.0.0.1", "debug")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    latin = tmp_path / "latin"
    latin.write_bytes(b"HOST='\xe9'\n")
    for file in (tmp_path / "missing", tmp_path, latin):
        with pytest.raises(ConfigurationError, match=str(file)) as caught:
            load_settings({"ENV_FILE": str(file)})
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="latin"):
        load_settings({}, env_file=latin)


def test_a_local_runs_file_is_for_its_user_alone_and_ends_with_it() -> None:
    settings = load_settings(ENVIRON, env_file=Path("no-such.env"))
    with open_env_file(settings) as named:
        assert named.env_file is not None
        assert named.env_file.parent.stat().st_mode & 0o777 == 0o700
        assert load_settings({"ENV_FILE": str(named.env_file)}) == named
    assert not named.env_file.parent.exists()
