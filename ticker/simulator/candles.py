"""Historical candles from the same functions of time that the live market follows.

Every candle, of any interval, aggregates the same minutes, and every minute is four looks at the
fair value, so candles of different intervals and of different requests agree.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ticker.instruments.registry import Instrument
from ticker.simulator.days import IST, sessions
from ticker.simulator.market import Market
from ticker.simulator.paths import FloatArray, uniforms

_MINUTES: Final[Mapping[str, int]] = {
    "minute": 1,
    "2minute": 2,
    "3minute": 3,
    "4minute": 4,
    "5minute": 5,
    "10minute": 10,
    "15minute": 15,
    "30minute": 30,
    "60minute": 60,
    "day": 1440,
}
_MAX_DAYS: Final = ((1, 60), (10, 100), (30, 200), (60, 400), (1440, 2000))
_LOOKS: Final[FloatArray] = np.array([0.0, 20.0, 40.0, 59.0])
_DAY_S: Final = 86_400
_CONTINUOUS: Final = frozenset({"NFO", "MCX"})
TOKEN_DIGITS: Final = 10
_YEARS: Final = range(1990, 2100)


class CandleRequestError(Exception):
    """The broker's words for a history request that it does not serve."""


@dataclass(frozen=True, slots=True)
class CandleRequest:
    """``start`` and ``end`` are UNIX seconds, both inclusive, of candle openings."""

    token: int
    minutes: int
    start: float
    end: float
    with_oi: bool
    is_continuous: bool


def parse_request(path: str, query: Mapping[str, list[str]]) -> CandleRequest:
    """Read ``<token>/<interval>`` and the query; raises CandleRequestError."""
    token, _, interval = path.partition("/")
    minutes = _MINUTES.get(interval)
    if not (token.isdecimal() and len(token) <= TOKEN_DIGITS):
        raise CandleRequestError("invalid token")
    if minutes is None:
        raise CandleRequestError("invalid interval")
    start, end = _moment(query, "from"), _moment(query, "to")
    if end < start:
        raise CandleRequestError("from date cannot be after to date")
    most = next(days for limit, days in _MAX_DAYS if minutes <= limit)
    if (end - start) > most * _DAY_S:
        raise CandleRequestError(f"interval exceeds max limit: {most} days")
    return CandleRequest(
        int(token),
        minutes,
        start,
        end,
        with_oi=query.get("oi", ["0"])[0] == "1",
        is_continuous=query.get("continuous", ["0"])[0] == "1",
    )


def may_be_continuous(row: Instrument, request: CandleRequest) -> bool:
    """Only days of NFO and MCX futures are stitched to those of the contracts before them.

    They need no stitching here: a simulated contract has always been there.
    """
    is_future = row.instrument_type == "FUT" and row.exchange in _CONTINUOUS
    return is_future and request.minutes == _MINUTES["day"]


def _moment(query: Mapping[str, list[str]], name: str) -> float:
    text = query.get(name, [""])[0]
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise CandleRequestError(f"invalid {name} date") from error
    if moment.year not in _YEARS:
        raise CandleRequestError(f"invalid {name} date")
    return moment.replace(tzinfo=IST).timestamp()


def create_candles(
    market: Market, position: int, request: CandleRequest, until: float
) -> list[list[object]]:
    """Rows of time, open, high, low, close, volume and, if asked for, open interest.

    The candle that is being formed at ``until`` is included; nothing after it is.
    """
    minutes, starts = _minutes(market, position, request)
    wanted = (starts >= request.start) & (starts <= request.end) & (minutes <= until)
    minutes, starts = minutes[wanted], starts[wanted]
    if len(minutes) == 0:
        return []
    looks = np.minimum(minutes[:, None] + _LOOKS, until)
    prices = market.rupees(position, looks.ravel()).reshape(looks.shape)
    volume, oi = _activity(market, position, minutes)
    begin = np.flatnonzero(np.diff(starts, prepend=-1.0))
    end = np.append(begin[1:], len(starts)) - 1
    columns: list[list[object]] = [
        [_stamp(start) for start in starts[begin].tolist()],
        prices[begin, 0].tolist(),
        np.maximum.reduceat(prices.max(axis=1), begin).tolist(),
        np.minimum.reduceat(prices.min(axis=1), begin).tolist(),
        prices[end, -1].tolist(),
        np.add.reduceat(volume, begin).tolist(),
    ]
    if request.with_oi:
        columns.append(oi[end].tolist())
    return [list(row) for row in zip(*columns, strict=True)]


def _minutes(
    market: Market, position: int, request: CandleRequest
) -> tuple[FloatArray, FloatArray]:
    """Every minute of the sessions asked for, and the opening of the candle it belongs to."""
    exchange = market.dump.instruments[position].exchange
    first = dt.datetime.fromtimestamp(request.start, IST).date()
    last = dt.datetime.fromtimestamp(request.end, IST).date()
    minutes: list[FloatArray] = [np.zeros(0)]
    starts: list[FloatArray] = [np.zeros(0)]
    for day, opened_at, closed_at in sessions(exchange, first, last):
        session = np.arange(opened_at, closed_at, 60.0)
        minutes.append(session)
        if request.minutes == _MINUTES["day"]:
            midnight = dt.datetime.combine(day, dt.time(), IST).timestamp()
            starts.append(np.full(len(session), midnight))
        else:
            length = 60.0 * request.minutes
            starts.append(opened_at + (session - opened_at) // length * length)
    return np.concatenate(minutes), np.concatenate(starts)


def _activity(
    market: Market, position: int, minutes: FloatArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    row = market.dump.instruments[position]
    if row.is_index:
        nothing = np.zeros(len(minutes), dtype=np.int64)
        return nothing, nothing
    token = int(market.tokens[position])
    scale = float(market.liquidity[position])
    lots = 120 * scale * uniforms(token, minutes)
    volume = lots.astype(np.int64) * row.lot_size
    if row.expiry is None:
        return volume, np.zeros(len(minutes), dtype=np.int64)
    held = 500 + 60_000 * scale * (0.5 + 0.2 * uniforms(token, minutes // 180))
    return volume, held.astype(np.int64) * row.lot_size


def _stamp(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, IST):%Y-%m-%dT%H:%M:%S%z}"
