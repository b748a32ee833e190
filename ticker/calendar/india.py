"""The exchanges' and the broker's time zone, and the day it is there."""

import datetime as dt
from typing import Final
from zoneinfo import ZoneInfo

INDIA: Final = ZoneInfo("Asia/Kolkata")


def india_date(now: float) -> dt.date:
    """The date in India at ``now``, UNIX seconds."""
    return dt.datetime.fromtimestamp(now, INDIA).date()
