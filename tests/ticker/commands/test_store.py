import datetime as dt
import time

import pytest
from pydantic import SecretStr

from tests.postgres import open_test_url
from ticker.accounts.secrets_box import SecretBox, create_encryption_key
from ticker.commands.store import (
    run_create_key,
    run_list_keys,
    run_revoke_key,
    run_rotate_secrets,
)
from ticker.errors import ConfigurationError, UnknownItemError
from ticker.settings import Settings
from ticker.stores.accounts import AccountStore
from ticker.stores.api_keys import ApiKeyStore
from ticker.stores.database import open_database
from ticker.stores.migrate import migrate

pytestmark = pytest.mark.slow


async def test_keys_are_made_listed_and_revoked() -> None:
    async with open_test_url(is_migrated=False) as url:
        settings = Settings(database_url=url)
        said: list[str] = []
        await run_list_keys(settings, said.append)
        assert said.pop() == "There are none: keys create makes one."
        await run_create_key(settings, "dashboard", ["read"], 30, said.append)
        text = next(word for word in said[0].split() if word.startswith("tk_"))
        key_id = text.split("_")[1]
        async with open_database(url, wall_clock=time.time) as database:
            store = ApiKeyStore(database, wall_clock=time.time)
            await store.refresh()
            assert store.find(text) is not None
            said.clear()
            await run_list_keys(settings, said.append)
            assert len(said) == 1
            assert key_id in said[0]
            assert text not in said[0]
            await run_revoke_key(settings, key_id, said.append)
            assert "revoked" in said[-1]
            await store.refresh()
            assert store.find(text) is None
        with pytest.raises(UnknownItemError):
            await run_revoke_key(settings, "nothing", said.append)


async def test_secrets_are_sealed_anew_and_lost_ones_are_named() -> None:
    old, new = create_encryption_key(), create_encryption_key()
    async with (
        open_test_url() as url,
        open_database(url, wall_clock=lambda: 0.0) as database,
    ):
        await migrate(database)
        for account_id, key in (("a", old), ("lost", create_encryption_key())):
            await AccountStore(database, SecretBox([key])).create(
                account_id,
                api_key=f"key-{account_id}",
                api_secret=None,
                access_token=None,
                username=None,
                metadata={},
                now=dt.datetime.now(dt.UTC),
            )
        settings = Settings(database_url=url, account_encryption_key=SecretStr(f"{new},{old}"))
        said: list[str] = []
        with pytest.raises(ConfigurationError, match="lost"):
            await run_rotate_secrets(settings, said.append)
        assert said == ["1 account(s) are sealed with the first key."]
        rows = await AccountStore(database, SecretBox([new])).load_all()
        assert [(row.account_id, row.error is None) for row in rows] == [
            ("a", True),
            ("lost", False),
        ]


async def test_commands_need_a_database_and_rotation_a_key() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        await run_list_keys(Settings(), print)
    with pytest.raises(ConfigurationError, match="ACCOUNT_ENCRYPTION_KEY"):
        await run_rotate_secrets(Settings(database_url="postgresql://x/y"), print)
