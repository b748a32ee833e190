"""Settings from the environment; this module is its only reader.

Every setting is an environment variable named like the field in upper case, or a line of a ``.env``
file in the working directory, or of another file that ``ENV_FILE`` names. Accounts are named in
``KITE_ACCOUNTS`` (comma separated) and described by ``KITE_<ID>_API_KEY`` and
``KITE_<ID>_ACCESS_TOKEN``, or ``KITE_<ID>_ACCESS_TOKEN_FILE`` naming a file that is watched for a
new token, or ``KITE_<ID>_API_SECRET`` for an account that logs in. A single account may use
``KITE_API_KEY``, ``KITE_API_SECRET`` and ``KITE_ACCESS_TOKEN`` instead; it is called ``primary``.
Further accounts are in the YAML file that ``KITE_ACCOUNTS_FILE`` names (``ticker.accounts.file``).
The database is ``DATABASE_URL``, or the parts ``INSTRUMENT_DB_HOST``, ``_PORT``, ``_NAME``,
``_USER`` and ``_PASSWORD``.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError

from ticker.accounts.file import load_account_file
from ticker.errors import ConfigurationError
from ticker.settings import ACCOUNT_ID, AccountSettings, Settings

_CREDENTIAL: Final = re.compile(
    r"(KITE(?:_.+)?)_(?:API_KEY|API_SECRET|ACCESS_TOKEN|ACCESS_TOKEN_FILE)"
)


def load_settings(
    environ: Mapping[str, str] | None = None, *, env_file: Path = Path(".env"), **overrides: object
) -> Settings:
    """Read settings from the environment and a file of it; ``overrides`` win.

    ``env_file`` need not be there; the one that ``ENV_FILE`` names instead has to.

    Raises ConfigurationError with one line that names each setting that cannot be used. Values
    never appear in it: they may be secrets.
    """
    given_values = os.environ if environ is None else environ
    values = _read_file(given_values.get("ENV_FILE"), env_file)
    values |= {key.upper(): text for key, text in given_values.items() if text}
    fields: dict[str, str | None] = {
        name: values[name.upper()] for name in Settings.model_fields if name.upper() in values
    }
    fields.setdefault("database_url", _database_url(values))
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings.model_validate({**fields, "accounts": _accounts(values), **given})
    except ValidationError as error:
        raise ConfigurationError(_one_line(error)) from None


def to_env_text(settings: Settings) -> str:
    """What a file holds from which ``load_settings`` reads these settings, secrets included."""
    given = settings.model_dump(exclude_defaults=True, exclude={"accounts", "env_file"})
    values = {name.upper(): _to_text(value) for name, value in given.items()}
    if settings.accounts:
        values["KITE_ACCOUNTS"] = ",".join(account.account_id for account in settings.accounts)
    for account in settings.accounts:
        for name, value in account.model_dump(exclude={"account_id"}, exclude_none=True).items():
            values[f"{_prefix(account.account_id)}_{name.upper()}"] = _to_text(value)
    quoted = {name: re.sub(r"([\\'])", r"\\\1", text) for name, text in values.items()}
    return "".join(f"{name}='{text}'\n" for name, text in quoted.items())


def _to_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(value) or "[]"  # an empty text is no value
    return str(value)


def _read_file(named: str | None, usual: Path) -> dict[str, str]:
    file = Path(named) if named else usual
    if named and not file.is_file():
        raise ConfigurationError(f"ENV_FILE: there is no file {named}")
    try:
        found = dotenv_values(file, interpolate=False)  # a secret may have ${ in it
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(f"cannot read {file}: {reason}") from None
    return {key.upper(): text for key, text in found.items() if text}


def _database_url(values: Mapping[str, str]) -> str | None:
    """The database's URL from its parts; None if not even its host is named."""
    host = values.get("INSTRUMENT_DB_HOST")
    if not host:
        return None
    user = quote(values.get("INSTRUMENT_DB_USER", "stocksblitz"), safe="")
    password = quote(values.get("INSTRUMENT_DB_PASSWORD", ""), safe="")
    name = quote(values.get("INSTRUMENT_DB_NAME", "stocksblitz_unified"), safe="")
    login = f"{user}:{password}" if password else user
    address = f"[{host}]" if ":" in host else quote(host, safe=",")  # it may be a socket's folder
    return f"postgresql://{login}@{address}:{values.get('INSTRUMENT_DB_PORT', '5432')}/{name}"


def _accounts(values: Mapping[str, str]) -> tuple[AccountSettings, ...]:
    """Those that ``KITE_ACCOUNTS`` names and those of ``KITE_ACCOUNTS_FILE``."""
    named = _account_settings(values)
    file = values.get("KITE_ACCOUNTS_FILE")
    if not file:
        return named
    found = load_account_file(Path(file), values)
    both = {account.account_id for account in named} & {account.account_id for account in found}
    if both:
        raise ConfigurationError(
            f"KITE_ACCOUNTS_FILE: KITE_ACCOUNTS names {', '.join(sorted(both))} too"
        )
    return (*named, *found)


def _account_settings(values: Mapping[str, str]) -> tuple[AccountSettings, ...]:
    names = [name.strip() for name in values.get("KITE_ACCOUNTS", "").split(",") if name.strip()]
    prefixes = {_prefix(name): name for name in dict.fromkeys(names)}
    if len(prefixes) < len(set(names)):
        raise ConfigurationError("KITE_ACCOUNTS: two of the names read the same variables")
    # an accounts file may be filled in from variables that are called like an account's own
    if not values.get("KITE_ACCOUNTS_FILE"):
        if not names and (values.get("KITE_API_KEY") or values.get("KITE_ACCESS_TOKEN")):
            prefixes = {"KITE": "primary"}
        _require_named(values, prefixes)
    return tuple(_account(name, prefix, values) for prefix, name in prefixes.items())


def _require_named(values: Mapping[str, str], prefixes: Mapping[str, str]) -> None:
    """A credential of no account is a name misspelt somewhere."""
    for variable in values:
        found = _CREDENTIAL.fullmatch(variable)
        if found and found[1] not in prefixes:
            raise ConfigurationError(
                f"{variable} is set, but KITE_ACCOUNTS does not name its account"
            )


def _prefix(account_id: str) -> str:
    return "KITE_" + account_id.upper().replace("-", "_")


def _account(account_id: str, prefix: str, values: Mapping[str, str]) -> AccountSettings:
    if not ACCOUNT_ID.fullmatch(account_id):
        raise ConfigurationError(
            f"KITE_ACCOUNTS: {account_id!r} is not a name of letters, digits, _ and -"
        )
    api_key = values.get(f"{prefix}_API_KEY")
    token = values.get(f"{prefix}_ACCESS_TOKEN")
    token_file = values.get(f"{prefix}_ACCESS_TOKEN_FILE")
    if not api_key:
        raise ConfigurationError(f"account {account_id!r}: {prefix}_API_KEY is not set")
    secret = values.get(f"{prefix}_API_SECRET")
    if not token and not token_file and not secret:
        raise ConfigurationError(
            f"account {account_id!r}: none of {prefix}_ACCESS_TOKEN, "
            f"{prefix}_ACCESS_TOKEN_FILE and {prefix}_API_SECRET is set"
        )
    return AccountSettings(
        account_id=account_id,
        api_key=SecretStr(api_key),
        api_secret=SecretStr(secret) if secret else None,
        access_token=SecretStr(token) if token else None,
        access_token_file=Path(token_file) if token_file else None,
    )


def _one_line(error: ValidationError) -> str:
    problems = []
    for detail in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in detail["loc"]).upper()
        message = detail["msg"].removeprefix("Value error, ")
        problems.append(f"{name}: {message}" if name else message)
    return "; ".join(problems)
