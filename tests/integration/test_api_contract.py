"""The running API against its own OpenAPI document, asked by schemathesis."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from api.server import serve_api
from tests.api.control_rig import open_control
from tests.api.rig import BOOTSTRAP
from tests.integration.live import API_KEY, open_live

pytestmark = pytest.mark.slow

EXAMPLES: Final = 5
"""Random requests for each route, besides those at the edges of its schema."""

EXCLUDED: Final = (
    # a schema cannot say which accounts, instruments and ranges of time there are
    "positive_data_acceptance",
    # /trading-accounts/reload is also an account's path
    "allow_header_conformance",
)


async def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    """No 5xx, no HTML, no status or body that is not in the document; 401 without a key."""
    async with open_control() as rig, trio.open_nursery() as nursery:
        serve = partial(
            serve_api, rig.app, host="127.0.0.1", port=0, wait_shutdown=trio.sleep_forever
        )
        url: str = await nursery.start(serve)
        await ask_everything(url, BOOTSTRAP, tmp_path, examples=EXAMPLES)
        nursery.cancel_scope.cancel()


async def test_a_running_service_bears_every_request(tmp_path: Path) -> None:
    """Whatever is asked of it, all of the document's answers, and the ticks go on."""
    async with open_live() as live:
        await ask_everything(live.api_url, API_KEY, tmp_path, examples=1)
        await live.wait_ticks(200)
        assert (await live.api.get("/readyz")).status_code == 200


async def ask_everything(url: str, key: str, folder: Path, *, examples: int) -> None:
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"),
        *("--header", f"X-API-Key: {key}", "--no-color", "--continue-on-failure"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(examples)),
        *("--generation-deterministic", "--exclude-checks", ",".join(EXCLUDED)),
    ]
    with trio.fail_after(300):
        finished = await trio.run_process(
            command,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=folder,  # it leaves its database of examples where it stands
            env=os.environ | {"NO_PROXY": "*"},
        )
    report = finished.stdout.decode()
    assert finished.returncode == 0, report + finished.stderr.decode()
    assert " generated" in report
