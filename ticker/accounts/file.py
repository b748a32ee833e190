"""Accounts in a YAML file: ``KITE_ACCOUNTS_FILE``.

::

    accounts:
      primary:
        api_key: ${KITE_KEY}
        api_secret: ${KITE_SECRET}
        access_token_file: /run/secrets/primary-token
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from ticker.errors import ConfigurationError
from ticker.settings import ACCOUNT_ID, AccountSettings

FILE_SIZE_MAX: Final = 1_000_000

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_NO_LONGER_USED: Final = ("username", "password", "totp_key", "token_dir")
"""What such files may hold for logins by password, which the broker forbids: left unread."""


class _Entry(BaseModel):
    """One account as the file has it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)

    api_key: SecretStr
    api_secret: SecretStr | None = None
    access_token: SecretStr | None = None
    access_token_file: str | None = None


def load_account_file(file: Path, values: Mapping[str, str]) -> tuple[AccountSettings, ...]:
    """The file's accounts, in its order. ``values``: the environment that ``${NAME}`` stands for.

    Raises ConfigurationError, in one line without a value, for a file that cannot be used.
    """
    try:
        with file.open("rb") as stream:
            text = stream.read(FILE_SIZE_MAX + 1)
        if len(text) > FILE_SIZE_MAX:
            raise ConfigurationError(f"KITE_ACCOUNTS_FILE: {file} is too large")
        content = yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(
            f"KITE_ACCOUNTS_FILE: cannot read {file}: {error.strerror}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # the error's own text quotes the line, which may hold a secret
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"KITE_ACCOUNTS_FILE: {file}{where}: not YAML") from None
    entries = content.get("accounts") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ConfigurationError(f"KITE_ACCOUNTS_FILE: {file}: 'accounts' must be a mapping by id")
    return tuple(_account(str(name), entry, values) for name, entry in entries.items())


def _account(account_id: str, entry: object, values: Mapping[str, str]) -> AccountSettings:
    where = f"KITE_ACCOUNTS_FILE: account {account_id!r}"
    if not ACCOUNT_ID.fullmatch(account_id):
        raise ConfigurationError(f"{where}: an id has 1 to 50 letters, digits, _ and -")
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where} must be a mapping")
    fields = {
        str(name): _fill_in(value, values, f"{where}: {name}")
        for name, value in entry.items()
        if name not in _NO_LONGER_USED and value is not None
    }
    try:
        parsed = _Entry.model_validate(fields)
    except ValidationError as error:
        named = sorted({str(detail["loc"][0]) for detail in error.errors(include_input=False)})
        raise ConfigurationError(f"{where}: cannot use {', '.join(named)}") from None
    if not (parsed.access_token or parsed.access_token_file or parsed.api_secret):
        raise ConfigurationError(
            f"{where}: none of access_token, access_token_file and api_secret is set"
        )
    return AccountSettings(
        account_id=account_id,
        api_key=parsed.api_key,
        api_secret=parsed.api_secret,
        access_token=parsed.access_token,
        access_token_file=Path(parsed.access_token_file) if parsed.access_token_file else None,
    )


def _fill_in(value: object, values: Mapping[str, str], where: str) -> object:
    """The value with each ``${NAME}`` replaced. Raises ConfigurationError for an unset one."""
    if not isinstance(value, str):
        return value

    def look_up(found: re.Match[str]) -> str:
        if not values.get(found[1].upper()):
            raise ConfigurationError(f"{where}: the variable {found[1]} is not set")
        return values[found[1].upper()]

    return _VARIABLE.sub(look_up, value)
