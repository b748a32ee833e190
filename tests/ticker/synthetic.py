"""A small market for tests: instruments, the packets they send, and their true prices."""

import datetime as dt
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from vollib.black import black

from ticker.engine import Engine, Enriched
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.wire import DIVISORS, encode_frame
from ticker.messages import ConnectionId, Frame, SnapshotBatch
from ticker.ticks import WORDS, PacketKind, Row, TickBatch

IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
EXPIRY = dt.date(2026, 11, 24)
NEXT_EXPIRY = dt.date(2026, 12, 29)
NOW = dt.datetime(2026, 11, 20, 11, 0, tzinfo=IST).timestamp()
ALPHA = ConnectionId("alpha", 0)
BETA = ConnectionId("beta", 1)
YEAR_S = 365 * 86_400
RATE = 0.054


def expiry_at(exchange: str, day: dt.date) -> dt.datetime:
    hour = 23 if exchange == "MCX" else 15
    return dt.datetime(day.year, day.month, day.day, hour, 30, tzinfo=IST)


def years_to(day: dt.date, exchange: str = "NFO", now: float = NOW) -> float:
    return (expiry_at(exchange, day).timestamp() - now) / YEAR_S


def create_index(number: int = 1001, symbol: str = "NIFTY 50") -> Instrument:
    token = number << 8 | 9
    return Instrument(token, number, symbol, "", None, 0.0, 0.0, 0, "EQ", "INDICES", "NSE")


def create_share(number: int, symbol: str, segment: int = 1) -> Instrument:
    token = number << 8 | segment
    return Instrument(token, number, symbol, symbol, None, 0.0, 0.05, 1, "EQ", "NSE", "NSE")


def create_future(
    number: int,
    name: str = "NIFTY",
    expiry: dt.date = EXPIRY,
    exchange: str = "NFO",
    segment: int = 2,
) -> Instrument:
    symbol = f"{name}{expiry:%y%b}FUT".upper()
    token = number << 8 | segment
    return Instrument(
        token, number, symbol, name, expiry, 0.0, 0.05, 65, "FUT", f"{exchange}-FUT", exchange
    )


def create_option(
    number: int,
    strike: float,
    kind: str,
    name: str = "NIFTY",
    expiry: dt.date = EXPIRY,
    exchange: str = "NFO",
    segment: int = 2,
    tick_size: float = 0.05,
) -> Instrument:
    symbol = f"{name}{expiry:%y%b}{strike:g}{kind}".upper()
    token = number << 8 | segment
    return Instrument(
        token,
        number,
        symbol,
        name,
        expiry,
        strike,
        tick_size,
        65,
        kind,
        f"{exchange}-OPT",
        exchange,
    )


def create_chain(
    strikes: Iterable[float], first_number: int = 40_000, **kwargs: Any
) -> list[Instrument]:
    """A call and a put at each strike."""
    each = ((strike, kind) for strike in strikes for kind in ("CE", "PE"))
    return [
        create_option(number, strike, kind, **kwargs)
        for number, (strike, kind) in enumerate(each, start=first_number)
    ]


def on_tick(price: float, tick_size: float = 0.05) -> float:
    """The nearest price that can be quoted, and at least one tick."""
    return max(round(price / tick_size), 1) * tick_size


def smile(strike: float, forward: float) -> float:
    x = math.log(strike / forward)
    return 0.13 - 0.25 * x + 1.5 * x * x


def true_price(
    option: Instrument,
    forward: float,
    volatility: Callable[[float, float], float] = smile,
    now: float = NOW,
    rate: float = RATE,
) -> float:
    assert option.expiry is not None
    return float(
        black(
            option.instrument_type[0].lower(),
            forward,
            option.strike,
            years_to(option.expiry, option.exchange, now),
            rate,
            volatility(option.strike, forward),
        )
    )


@dataclass
class Packet:
    """What to send of one instrument; prices in rupees, other words by row number."""

    instrument: Instrument
    price: float
    kind: PacketKind = PacketKind.FULL
    half_spread: float = 0.05
    words: Mapping[Any, int] = field(default_factory=dict)

    def column(self) -> list[int]:
        divisor = DIVISORS[self.instrument.instrument_token & 0xFF]
        price = round(self.price * divisor)
        spread = round(self.half_spread * divisor)
        words = [0] * WORDS
        words[Row.INSTRUMENT_TOKEN] = self.instrument.instrument_token
        words[Row.LAST_PRICE] = price
        words[Row.OPEN] = words[Row.CLOSE] = price
        words[Row.HIGH] = price + spread
        words[Row.LOW] = price - spread
        words[Row.VOLUME_TRADED] = 12_345
        words[Row.TOTAL_BUY_QUANTITY] = 1_000
        words[Row.TOTAL_SELL_QUANTITY] = 2_000
        words[Row.OI] = 777
        words[Row.EXCHANGE_TIMESTAMP] = words[Row.LAST_TRADE_TIME] = int(NOW)
        if spread:
            for level in range(5):
                for side, step in ((Row.BIDS, -spread), (Row.ASKS, spread)):
                    at = side + 3 * level
                    words[at] = 65 * (level + 1)
                    words[at + 1] = price + step * (level + 1)
                    words[at + 2] = (level + 1) << 16
        for row, word in self.words.items():
            words[row] = word
        return words


def book(bid: float | None, ask: float | None) -> dict[int, int]:
    """Words of a book of one level, in paise; None for a side without orders."""
    words = dict.fromkeys(range(Row.BIDS, WORDS), 0)
    for side, price in ((Row.BIDS, bid), (Row.ASKS, ask)):
        if price is not None:
            words |= {side: 65, side + 1: round(100 * price), side + 2: 1 << 16}
    return words


def create_frame(
    packets: Sequence[Packet], at: float = NOW, connection: ConnectionId = ALPHA
) -> Frame:
    words = np.array([packet.column() for packet in packets], np.int64).T
    batch = TickBatch(
        np.ascontiguousarray(words.astype(np.uint32).view(np.int32)),
        np.array([packet.kind for packet in packets], np.uint8),
        np.zeros(len(packets), np.int32),
    )
    return Frame(encode_frame(batch), at, connection)


def create_market_engine(instruments: Iterable[Instrument], **kwargs: Any) -> Engine:
    registry = InstrumentRegistry(instruments)
    options = {"expiry_at": expiry_at, "channel_prefix": "ticker:nifty", **kwargs}
    return Engine(lambda: registry, **options)


def payloads(snapshots: SnapshotBatch | None) -> list[dict[str, Any]]:
    """All payloads, parsed."""
    if snapshots is None:
        return []
    bounds = zip(snapshots.payload_starts, snapshots.payload_ends, strict=True)
    return [json.loads(bytes(snapshots.buffer[start:end])) for start, end in bounds]


def process(engine: Engine, packets: Sequence[Packet], at: float = NOW) -> list[dict[str, Any]]:
    """Send packets as one frame that is processed at once; returns the payloads."""
    return payloads(engine.process([create_frame(packets, at)], at).snapshots)


def published(enriched: Enriched) -> int:
    """Messages that a tick stands behind."""
    if enriched.snapshots is None:
        return 0
    return int((enriched.snapshots.sources >= 0).sum())


INDEX = create_index()
FUTURE = create_future(35_000)
CHAIN = create_chain(range(24_000, 26_050, 50))
MARKET = [INDEX, FUTURE, *CHAIN]
FORWARD = 25_031.7
"""One underlying with its index, its future and 41 strikes of options on this forward."""


def chain_packets(forward: float = FORWARD, **kwargs: Any) -> list[Packet]:
    """A full packet of each option of ``CHAIN``, at its true price rounded to the tick."""
    return [Packet(each, on_tick(true_price(each, forward)), **kwargs) for each in CHAIN]
