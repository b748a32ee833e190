"""``GET /market/status``, asked without a server."""

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog
from quart.typing import ResponseTypes
from quart_trio import QuartTrio

from api.app import create_app
from tests.api.rig import create_access, header
from ticker.calendar.file import DEFAULT_FILE
from ticker.metrics import Metrics
from ticker.status import ServiceStatus

IST = ZoneInfo("Asia/Kolkata")


def create_api(now: dt.datetime, path: Path | None = None) -> QuartTrio:
    status = ServiceStatus(started_at=0.0, environment="test", account_ids=())
    return create_app(
        status,
        Metrics(),
        access=create_access(),
        wall_clock=now.timestamp,
        market_hours_file=path,
    )


async def ask(now: dt.datetime, path: Path | None = None) -> ResponseTypes:
    return await create_api(now, path).test_client().get("/market/status", headers=header())


async def test_it_says_what_each_segment_does_and_when_that_changes() -> None:
    response = await ask(dt.datetime(2026, 8, 3, 15, 20, tzinfo=IST))
    assert response.status_code == 200
    body = await response.get_json()
    assert body["at"] == "2026-08-03T09:50:00+00:00"
    assert (body["date"], body["covered_until"]) == ("2026-08-03", "2026-12-31")
    assert list(body["segments"]) == ["NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCO"]
    assert body["segments"]["NSE"] == {
        "is_open": True,
        "phase": "closing_auction",
        "since": "2026-08-03T09:45:00+00:00",
        "next_change": "2026-08-03T10:05:00+00:00",
        "next_open": "2026-08-04T03:45:00+00:00",
        "trading_day": True,
        "day_name": None,
    }


async def test_a_holiday_is_named_and_no_trading_day() -> None:
    body = await (await ask(dt.datetime(2026, 3, 3, 10, tzinfo=IST))).get_json()
    nse, mcx = body["segments"]["NSE"], body["segments"]["MCX"]
    assert (nse["phase"], nse["trading_day"], nse["day_name"]) == ("closed", False, "Holi")
    assert (mcx["is_open"], mcx["trading_day"]) == (False, True)
    assert mcx["next_change"] == "2026-03-03T11:30:00+00:00"


async def test_a_year_not_covered_is_a_problem_and_never_open(
    tmp_path: Path, lines: list[structlog.typing.EventDict]
) -> None:
    path = tmp_path / "hours-canary.toml"
    path.write_text(DEFAULT_FILE.read_text())
    response = await ask(dt.datetime(2027, 1, 4, 10, tzinfo=IST), path)
    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert "do not cover 2027" in (await response.get_json())["detail"]
    assert "canary" not in str(await response.get_json())
    (refused,) = (line for line in lines if line["event"] == "request_refused")
    assert str(path) in refused["detail"]


async def test_the_settings_file_is_the_one_that_answers(tmp_path: Path) -> None:
    path = tmp_path / "hours.toml"
    path.write_text(DEFAULT_FILE.read_text().replace("until = 15:35:00", "until = 15:36:00"))
    body = await (await ask(dt.datetime(2026, 8, 3, 15, 20, tzinfo=IST), path)).get_json()
    assert body["segments"]["NSE"]["next_change"] == "2026-08-03T10:06:00+00:00"
