from pathlib import Path

import pytest

from ticker.accounts.file import load_account_file
from ticker.errors import ConfigurationError

CANARY = "canary-31f0a7"


def load(tmp_path: Path, text: str, **values: str) -> object:
    file = tmp_path / "accounts.yaml"
    file.write_text(text)
    return load_account_file(file, values)


def test_accounts_come_in_the_files_order_with_variables_filled_in(tmp_path: Path) -> None:
    file = tmp_path / "accounts.yaml"
    file.write_text(
        """
        accounts:
          second-1:
            api_key: ${KEY}
            api_secret: pre-${SECRET}-post
          first:
            api_key: plain
            access_token_file: /run/token
            api_secret: null
            totp_key: ${NOT_SET}
            password: whatever
        """
    )
    second, first = load_account_file(file, {"KEY": "k1", "SECRET": "s1"})
    assert (second.account_id, second.api_key.get_secret_value()) == ("second-1", "k1")
    assert second.api_secret is not None
    assert second.api_secret.get_secret_value() == "pre-s1-post"
    assert (second.access_token, second.access_token_file) == (None, None)
    assert first.access_token_file == Path("/run/token")
    assert first.api_secret is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"accounts: [{CANARY}", "line 1: not YAML"),
        (f"accounts: {CANARY}", "mapping by id"),
        (f"{CANARY}", "mapping by id"),
        ("", "mapping by id"),
        (f"accounts: {{a: {CANARY}}}", "must be a mapping"),
        (f"accounts: {{'a b': {{api_key: {CANARY}}}}}", "an id has"),
        (f"accounts: {{a: {{api_key: {CANARY}}}}}", "none of access_token"),
        (f"accounts: {{a: {{api_secret: {CANARY}}}}}", "cannot use api_key"),
        ("accounts: {a: {api_key: 5, access_token: x}}", "cannot use api_key"),
        (f"accounts: {{a: {{api_key: x, api_token: {CANARY}}}}}", "cannot use api_token"),
        (f"accounts: {{a: {{api_key: '{CANARY}${{NONE}}'}}}}", "NONE is not set"),
        (f"accounts: !!python/object/apply:os.system [{CANARY}]", "not YAML"),
    ],
)
def test_what_cannot_be_used_is_named_without_a_value(
    tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert named in str(caught.value)
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_binary_or_huge_file_is_refused(tmp_path: Path) -> None:
    binary, huge = tmp_path / "binary", tmp_path / "huge"
    binary.write_bytes(b"\xff\xff\x00")
    huge.write_text("#" * 1_000_001)
    for file in (tmp_path / "none", binary, huge):
        with pytest.raises(ConfigurationError, match="KITE_ACCOUNTS_FILE"):
            load_account_file(file, {})
