"""``GET /history``: candles of the past."""

import datetime as dt
import re
from typing import Annotated, Final, cast

import msgspec
import trio
from quart import Blueprint

from api.auth import requires
from api.operations import AccountId, InstrumentToken, Query, operation
from ticker.errors import InvalidRequestError
from ticker.history.answer import HistoryAnswer, HistoryCandle
from ticker.history.history import History, HistoryRequest
from ticker.kite.models import Interval

DEADLINE_S: Final = 30.0
"""Four calls, their turns behind those of others, and a retry or two."""

SLICE: Final = 1000
"""Candles written in one go: a millisecond in which no other thread runs."""

_LOST_PLUS: Final = re.compile(r"(?<=.{11}) (?=\d)")
"""A plus sign that was not escaped arrives as a space: one with more than a date before it."""

_Instant = Annotated[
    str,
    msgspec.Meta(
        max_length=40,
        extra={"words": "an ISO 8601 time, such as 2026-08-03T09:15:00+05:30"},
        description="ISO 8601; without an offset it is India's time, a date is its midnight.",
        examples=["2026-08-03T09:15:00+05:30"],
    ),
]


class HistoryQuery(Query, frozen=True):
    instrument_token: InstrumentToken
    from_ts: _Instant
    to_ts: _Instant
    interval: Interval = "minute"
    account_id: Annotated[
        AccountId | None, msgspec.Meta(description="None: whichever account answers.")
    ] = None
    continuous: Annotated[
        bool, msgspec.Meta(description="A future's days, with those of the contracts before it.")
    ] = False
    oi: Annotated[
        bool, msgspec.Meta(description="With open interest and, for an option, Greeks.")
    ] = False


def create_history_blueprint(history: History) -> Blueprint:
    """Candles, with Greeks for options."""
    blueprint = Blueprint("history", __name__)

    @blueprint.get("/history")
    @requires("read")
    @operation(problems=(404, 502, 504), deadline_s=DEADLINE_S)
    async def load(query: HistoryQuery) -> HistoryAnswer:
        """Candles of an instrument, oldest first; both ends of the range are included."""
        answer = await history.load(
            HistoryRequest(
                instrument_token=query.instrument_token,
                from_at=_instant(query.from_ts, "from_ts"),
                to_at=_instant(query.to_ts, "to_ts"),
                interval=query.interval,
                account_id=query.account_id,
                continuous=query.continuous,
                oi=query.oi,
            )
        )
        candles = await trio.to_thread.run_sync(_encode, answer.candles)
        # already JSON, which the encoder takes in place of the list
        return msgspec.structs.replace(answer, candles=cast("list[HistoryCandle]", candles))

    return blueprint


def _instant(text: str, field: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(_LOST_PLUS.sub("+", text.strip()))
    except ValueError:
        raise InvalidRequestError(
            f"{text!r} is not an ISO 8601 time, such as 2026-08-03T09:15:00+05:30", field=field
        ) from None


def _encode(candles: list[HistoryCandle]) -> msgspec.Raw:
    parts = [
        msgspec.json.encode(candles[at : at + SLICE])[1:-1] for at in range(0, len(candles), SLICE)
    ]
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")
