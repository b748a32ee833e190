"""What anybody may read says nothing of where the service's servers are; the log does."""

import time
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from tests.api.control_rig import ControlRig, open_control
from tests.api.rig import header
from tests.api.test_routes import PUBLIC
from tests.postgres import open_test_url
from ticker.errors import StoreUnavailableError
from ticker.stores.database import open_database

pytestmark = pytest.mark.slow

PATHS = [path.replace("<account_id>", "a0") for path in PUBLIC if not path.startswith("/docs")]


async def test_where_postgresql_is_and_what_it_says_is_told_to_the_log_alone(
    tmp_path: Path, lines: list[structlog.typing.EventDict]
) -> None:
    folder = tmp_path / "folder-canary"
    canaries = (
        *("user-canary", "name-canary", "password-canary", "folder-canary", "127.0.0.1"),
        *("table_canary", "SELECT", "test_"),
    )
    away = "postgresql://user-canary:password-canary@127.0.0.1:9/name-canary"
    async with open_test_url() as there:
        for url in (away, f"postgresql://user-canary@/name-canary?host={folder}", there):
            async with (
                open_database(url, wall_clock=time.time) as database,
                open_control(database=database) as rig,
            ):
                with suppress(StoreUnavailableError):
                    await database.run(
                        lambda connection: connection.execute("SELECT FROM table_canary")
                    )
                rig.status.report_database(database.status)
                assert not database.status.available
                texts = await read_what_anybody_may(rig)
                if url is not there:
                    client = rig.app.test_client()
                    refused = await client.get("/subscriptions", headers=header())
                    texts["problem"] = await refused.get_data(as_text=True)
                    assert refused.status_code == 503
                for path, text in texts.items():
                    found = [canary for canary in canaries if canary in text]
                    assert not found, (path, found, text)
    told = [line["detail"] for line in lines if line["event"] == "request_refused"]
    assert any("127.0.0.1" in detail for detail in told)
    assert any("folder-canary" in detail for detail in told)
    assert not [line for line in lines if "password-canary" in str(line)]


async def read_what_anybody_may(rig: ControlRig) -> dict[str, str]:
    client = rig.app.test_client()
    page = rig.control.logins.create_page("a0")
    paths = [*PATHS, f"/login/callback?request_token=t&state={page.state}"]
    return {path: await (await client.get(path)).get_data(as_text=True) for path in paths}
