"""The payload of one tick, built the slow and obvious way: a dictionary, and decimals."""

import json
import math
from decimal import Decimal
from typing import Any

from ticker.instruments.registry import Instrument
from ticker.kite.wire import DECIMALS
from ticker.ticks import PacketKind, Row

CARRIED = {
    PacketKind.LTP: [*range(2)],
    PacketKind.QUOTE: [*range(11)],
    PacketKind.FULL: [*range(46)],
    PacketKind.INDEX_QUOTE: [0, 1, 7, 8, 9, 10],
    PacketKind.INDEX_FULL: [0, 1, 7, 8, 9, 10, 15],
}
GREEKS = ("iv", "delta", "gamma", "theta", "vega", "rho", "vanna", "volga", "charm")


class ReferenceInstrument:
    """What the newest packet of one instrument says."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.decimals = int(DECIMALS[instrument.instrument_token & 0xFF])
        self.words: dict[int, int] = {}
        self.kind = PacketKind.LTP

    def take(self, words: list[int], kind: PacketKind) -> None:
        """``words``: 46 words of the wire, unsigned."""
        self.kind = kind
        self.words = {row: words[row] for row in CARRIED[kind]}

    def price(self, row: int) -> Decimal | None:
        word = self.words.get(row)
        if word is None:
            return None
        signed = word - 2**32 if word >= 2**31 else word
        return Decimal(signed).scaleb(-self.decimals)

    def ohlc(self) -> dict[str, Decimal | None]:
        names = {"open": Row.OPEN, "high": Row.HIGH, "low": Row.LOW, "close": Row.CLOSE}
        return {name: self.price(row) for name, row in names.items()}

    def levels(self, first: int) -> list[dict[str, Any]]:
        return [
            {
                "quantity": self.words[at],
                "price": self.price(at + 1),
                "orders": self.words[at + 2] >> 16,
            }
            for at in range(first, first + 15, 3)
            if self.words[at]
        ]

    def payload(
        self,
        greeks: list[float],
        status: str,
        *,
        received_ts: float,
        account_id: str,
        is_mock: bool,
        seq: int,
    ) -> dict[str, Any]:
        """Everything but the five fields of the forward, which no single instrument tells."""
        is_full = self.kind in (PacketKind.FULL, PacketKind.INDEX_FULL)
        stamp = self.words[Row.EXCHANGE_TIMESTAMP] if is_full else 0
        instrument = self.instrument
        payload: dict[str, Any] = {
            "symbol": instrument.underlying,
            "token": instrument.instrument_token,
            "instrument_token": instrument.instrument_token,
            "tradingsymbol": instrument.tradingsymbol,
            "segment": instrument.segment,
            "exchange": instrument.exchange,
            "ts": stamp or int(received_ts),
            "exchange_ts": stamp or None,
            "received_ts": received_ts,
            "account_id": account_id,
            "mode": self.kind.name.lower().removeprefix("index_"),
            "is_mock": is_mock,
            "repriced": False,
            "seq": seq,
            "ohlc": self.ohlc(),
        }
        if instrument.is_index:
            ohlc = self.ohlc()
            last = self.price(Row.LAST_PRICE)
            return (
                payload
                | ohlc
                | {
                    "last_price": last,
                    "close": last,
                    "volume": None,
                    "timestamp": payload["ts"],
                }
            )
        payload |= {
            "strike": instrument.strike,
            "expiry": instrument.expiry and instrument.expiry.isoformat(),
            "type": instrument.instrument_type,
            "lot_size": instrument.lot_size,
            "tick_size": instrument.tick_size,
            "price": self.price(Row.LAST_PRICE),
            "volume": self.words.get(Row.VOLUME_TRADED),
            "oi": self.words.get(Row.OI),
            "total_buy_quantity": self.words.get(Row.TOTAL_BUY_QUANTITY),
            "total_sell_quantity": self.words.get(Row.TOTAL_SELL_QUANTITY),
            "last_trade_time": None,
            "greeks_status": status,
        }
        for name, value in zip(GREEKS, greeks, strict=True):
            payload[name] = None if math.isnan(value) else value
        if self.kind == PacketKind.FULL:
            payload["last_trade_time"] = self.words[Row.LAST_TRADE_TIME] or None
            payload["depth"] = {"buy": self.levels(Row.BIDS), "sell": self.levels(Row.ASKS)}
        return payload


def parse(payload: bytes) -> Any:
    """JSON with its numbers as they are written."""
    return json.loads(payload, parse_float=Decimal)


def is_equal(actual: Any, expected: Any, within: float = 5.1e-9) -> bool:
    """Prices to the last digit; what was computed, within the digits that are written."""
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and actual.keys() == expected.keys()
            and all(is_equal(actual[key], expected[key]) for key in expected)
        )
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(is_equal, actual, expected))
    if isinstance(expected, float):
        return math.isclose(actual, expected, rel_tol=within, abs_tol=1e-15)
    return bool(actual == expected and isinstance(actual, bool) == isinstance(expected, bool))
