"""Encryption at rest: secrets as text that only the holder of a key can read.

Fernet (AES-128-CBC with HMAC-SHA-256) of the ``cryptography`` library. Of several keys the first
encrypts and all decrypt, so a key is replaced by putting another in front of it, sealing
everything anew, and taking the old one away.
"""

from collections.abc import Sequence
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ticker.errors import ConfigurationError
from ticker.settings import Settings

_SEPARATOR: Final = "\0"


class SecretBox:
    """Seals secrets. Neither ``repr`` nor an error shows a key or a secret."""

    def __init__(self, keys: Sequence[str]) -> None:
        """``keys``: 32 bytes each in URL-safe base64. Raises ConfigurationError for others."""
        try:
            self._box = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise ConfigurationError(
                "ACCOUNT_ENCRYPTION_KEY: each key must be 32 bytes in URL-safe base64, as "
                "`python -m ticker encryption-key` prints one"
            ) from None

    def seal(self, secret: str, purpose: str) -> str:
        """The secret, readable by ``open`` with the same purpose only.

        ``purpose`` says what it is and whose, so that a sealed text that somebody moves to
        another row or column is not taken for what belongs there.
        """
        return self._box.encrypt(f"{purpose}{_SEPARATOR}{secret}".encode()).decode()

    def open(self, sealed: str, purpose: str) -> str | None:
        """The secret; None if no key of ours, or another purpose, sealed it."""
        try:
            text = self._box.decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeError):
            return None
        found, _, secret = text.partition(_SEPARATOR)
        return secret if found == purpose else None


def create_encryption_key() -> str:
    """A random key for ``ACCOUNT_ENCRYPTION_KEY``."""
    return Fernet.generate_key().decode()


def has_encryption_key(settings: Settings) -> bool:
    """Whether one is configured, good or not."""
    return bool(settings.account_encryption_key or settings.account_encryption_key_file)


def load_secret_box(settings: Settings) -> SecretBox | None:
    """The box of the configured keys; None without a key.

    Raises ConfigurationError for keys that cannot be used or read.
    """
    keys = _split(_configured_keys(settings))
    return SecretBox(keys) if keys else None


def _configured_keys(settings: Settings) -> str:
    given, file = settings.account_encryption_key, settings.account_encryption_key_file
    if given is not None and file is not None:
        raise ConfigurationError(
            "ACCOUNT_ENCRYPTION_KEY and ACCOUNT_ENCRYPTION_KEY_FILE are both set: one will do"
        )
    if given is not None:
        return given.get_secret_value()
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"ACCOUNT_ENCRYPTION_KEY_FILE: cannot read {file}: {type(error).__name__}"
        ) from None
    if not _split(text):
        raise ConfigurationError(f"ACCOUNT_ENCRYPTION_KEY_FILE: {file} holds no key")
    return text


def _split(text: str) -> list[str]:
    return [key for key in text.replace(",", " ").split() if key]
