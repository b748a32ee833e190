from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ticker.accounts.secrets_box import SecretBox, create_encryption_key, load_secret_box
from ticker.errors import ConfigurationError
from ticker.settings import Settings

BOX = SecretBox([create_encryption_key()])


@given(st.text(max_size=300))
def test_sealed_secret_is_opened(secret: str) -> None:
    sealed = BOX.seal(secret, "a api_key")
    assert BOX.open(sealed, "a api_key") == secret
    assert len(secret) < 8 or secret not in sealed


def test_sealed_secret_is_for_its_place_only() -> None:
    sealed = BOX.seal("s3cret", "a access_token")
    assert BOX.open(sealed, "a username") is None
    assert BOX.open(sealed, "b access_token") is None


@pytest.mark.parametrize("sealed", ["", "x", "not base64 \u20ac", "gAAAAA=="])
def test_what_nobody_sealed_is_not_opened(sealed: str) -> None:
    assert BOX.open(sealed, "a api_key") is None


def test_first_key_seals_and_all_open() -> None:
    old, new = create_encryption_key(), create_encryption_key()
    before = SecretBox([old]).seal("s3cret", "a")
    both = SecretBox([new, old])
    assert both.open(before, "a") == "s3cret"
    after = both.seal("s3cret", "a")
    assert SecretBox([new]).open(after, "a") == "s3cret"
    assert SecretBox([old]).open(after, "a") is None


def test_same_secret_is_sealed_differently_each_time() -> None:
    assert BOX.seal("s3cret", "a") != BOX.seal("s3cret", "a")


def load(**settings: object) -> SecretBox | None:
    return load_secret_box(Settings.model_validate(settings))


def test_keys_come_from_settings_or_a_file(tmp_path: Path) -> None:
    old, new = create_encryption_key(), create_encryption_key()
    file = tmp_path / "keys"
    file.write_text(f"{new}\n{old}\n")
    sealed = SecretBox([old]).seal("s3cret", "a")
    for box in (
        load(account_encryption_key=SecretStr(f"{new}, {old}")),
        load(account_encryption_key_file=file),
    ):
        assert box is not None
        assert box.open(sealed, "a") == "s3cret"


def test_without_a_key_there_is_no_box() -> None:
    assert load() is None


def test_bad_keys_are_refused_without_being_shown(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe")
    canary = "canary-8d41c2"
    for settings, named in (
        ({"account_encryption_key": canary}, "32 bytes"),
        ({"account_encryption_key_file": empty}, "holds no key"),
        ({"account_encryption_key_file": binary}, "cannot read"),
        ({"account_encryption_key_file": tmp_path / "none"}, "cannot read"),
        (
            {"account_encryption_key": canary, "account_encryption_key_file": empty},
            "both set",
        ),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(**settings)
        assert named in str(caught.value)
        assert canary not in str(caught.value)
