"""The broker's REST quotes, from the market's newest words."""

import datetime as dt
from typing import Final, Literal

from ticker.simulator.days import IST
from ticker.simulator.market import Market
from ticker.ticks import DEPTH_LEVELS, Row

Level = Literal["full", "ohlc", "ltp"]
"""How much a quote says: ``/quote``, ``/quote/ohlc`` or ``/quote/ltp``."""

_DECIMALS: Final = 7
_OPTION_CIRCUIT: Final = 0.05, 20_000.0
_CIRCUIT: Final = 0.10
_EMPTY_LEVEL: Final = {"price": 0, "quantity": 0, "orders": 0}


def create_quote(market: Market, position: int, level: Level) -> dict[str, object]:
    """The value under one key of a quote answer."""
    words = market.words[:, position]
    divisor = float(market.divisor[position])

    def price(row: int) -> float:
        return round(float(words[row]) / divisor, _DECIMALS)

    answer: dict[str, object] = {
        "instrument_token": int(market.tokens[position]),
        "last_price": price(Row.LAST_PRICE),
    }
    if level == "ltp":
        return answer
    ohlc = (("open", Row.OPEN), ("high", Row.HIGH), ("low", Row.LOW), ("close", Row.CLOSE))
    answer["ohlc"] = {name: price(row) for name, row in ohlc}
    if level == "ohlc":
        return answer
    close = price(Row.CLOSE)
    is_option = market.dump.instruments[position].is_option
    lower, upper = (
        _OPTION_CIRCUIT if is_option else (close * (1 - _CIRCUIT), close * (1 + _CIRCUIT))
    )
    counts = words.view("uint32")
    return answer | {
        "timestamp": _ist(int(counts[Row.EXCHANGE_TIMESTAMP])),
        "last_trade_time": _ist(int(counts[Row.LAST_TRADE_TIME])),
        "last_quantity": int(counts[Row.LAST_TRADED_QUANTITY]),
        "buy_quantity": int(counts[Row.TOTAL_BUY_QUANTITY]),
        "sell_quantity": int(counts[Row.TOTAL_SELL_QUANTITY]),
        "volume": int(counts[Row.VOLUME_TRADED]),
        "average_price": price(Row.AVERAGE_TRADED_PRICE),
        "oi": int(counts[Row.OI]),
        "oi_day_high": int(counts[Row.OI_DAY_HIGH]),
        "oi_day_low": int(counts[Row.OI_DAY_LOW]),
        "net_change": round(price(Row.LAST_PRICE) - close, _DECIMALS),
        "lower_circuit_limit": round(lower, 2),
        "upper_circuit_limit": round(upper, 2),
        "depth": {
            "buy": [_level(market, position, Row.BIDS + 3 * rank) for rank in range(DEPTH_LEVELS)],
            "sell": [_level(market, position, Row.ASKS + 3 * rank) for rank in range(DEPTH_LEVELS)],
        },
    }


def _level(market: Market, position: int, row: int) -> dict[str, object]:
    quantity, price, orders = (int(word) for word in market.words[row : row + 3, position])
    if quantity == 0:
        return dict(_EMPTY_LEVEL)
    rupees = round(price / float(market.divisor[position]), _DECIMALS)
    return {"price": rupees, "quantity": quantity, "orders": orders >> 16}


def _ist(seconds: int) -> str | None:
    if seconds == 0:
        return None
    return f"{dt.datetime.fromtimestamp(seconds, IST):%Y-%m-%d %H:%M:%S}"
