"""Hosts in several time zones."""

import os
import time
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/New_York"])
def host_zone(request: pytest.FixtureRequest) -> Iterator[ZoneInfo]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield ZoneInfo(request.param)
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()
