"""The ``decode`` command's work: captured frames in hex to JSON, a line for each packet.

Field names are the official client's. Prices are the wire's integers over the divisor, correctly
rounded, so they print as the broker means them. Times are ISO 8601 in Indian time, ``+05:30``,
and null where the broker sends 0 for never. Unlike the official client, prices are signed and
times carry their offset.
"""

import codecs
import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final

import msgspec

from ticker.kite.wire import DIVISORS, decode_frames
from ticker.ticks import DEPTH_LEVELS, PacketKind, Row, TickBatch

MAX_LINE: Final = 1 << 26
"""Characters of the longest line that is read; the largest possible frame needs less than half."""

_INDIA: Final = dt.timezone(dt.timedelta(hours=5, minutes=30))

_INDICES: Final = 9

_MODES: Final = {
    PacketKind.LTP: "ltp",
    PacketKind.QUOTE: "quote",
    PacketKind.FULL: "full",
    PacketKind.INDEX_QUOTE: "quote",
    PacketKind.INDEX_FULL: "full",
}
_UNSIGNED: Final = 0xFFFF_FFFF


class Summary(msgspec.Struct, frozen=True):
    """What the lines held.

    ``frames`` counts every line that is neither blank nor a comment, heartbeats and lines that
    cannot be read included; so does the ``frame`` of a packet. ``anomalies``: by kind, those of
    ``ticker.kite.wire``, and ``invalid_hex`` and ``oversize_line`` for lines not decoded.
    """

    frames: int
    packets: int
    heartbeats: int
    anomalies: dict[str, int]

    def to_json(self) -> str:
        """The summary as one line of JSON, without a line end."""
        return msgspec.json.encode(self).decode()


def read_lines(stream: BinaryIO, max_line: int = MAX_LINE) -> Iterator[bytes | None]:
    """Lines as they come, for ``decode_lines``; None in place of one longer than ``max_line``.

    Memory stays bounded also for input that never ends its line.
    """
    mark = codecs.BOM_UTF8  # as some editors begin a file
    while line := stream.readline(max_line + 1):
        line, mark = line.removeprefix(mark), b""
        oversize = False
        while len(line) > max_line and not line.endswith(b"\n"):
            oversize = True
            line = stream.readline(max_line + 1)
        yield None if oversize else line


def decode_lines(lines: Iterable[str | bytes | None], write: Callable[[str], object]) -> Summary:
    """Decode one frame a line; returns when ``lines`` end.

    Blank lines are skipped, and what follows a ``#``. Bytes of a line may be separated by blanks;
    None stands for a line too long to read. ``write`` is called once for each frame that holds
    packets, with all its lines and their ends; what it raises comes out of here. Nothing else is
    raised, whatever the lines hold.
    """
    frames = packets = heartbeats = 0
    anomalies: Counter[str] = Counter()
    for line in lines:
        if line is None:
            frames += 1
            anomalies["oversize_line"] += 1
            continue
        digits = _hex_digits(line)
        if not digits:
            continue
        frames += 1
        try:
            frame = bytes.fromhex(digits)
        except ValueError:
            anomalies["invalid_hex"] += 1
            continue
        decoded = decode_frames([frame])
        heartbeats += decoded.heartbeats
        anomalies.update(decoded.anomalies)
        if len(decoded.ticks):
            packets += len(decoded.ticks)
            write(_to_json(decoded.ticks, frames - 1))
    return Summary(frames, packets, heartbeats, anomalies)


def _hex_digits(line: str | bytes) -> str:
    text = line.decode("latin-1") if isinstance(line, bytes) else line
    return text.partition("#")[0].strip()


def _to_json(ticks: TickBatch, frame: int) -> str:
    packets = zip(ticks.words.T.tolist(), ticks.kind.tolist(), strict=True)
    lines = [{"frame": frame, **_describe(words, PacketKind(kind))} for words, kind in packets]
    return msgspec.json.Encoder().encode_lines(lines).decode()


def _describe(words: Sequence[int], kind: PacketKind) -> dict[str, Any]:
    """One packet in the official client's words; only what its kind carries."""
    token = words[Row.INSTRUMENT_TOKEN] & _UNSIGNED
    segment = token & 0xFF
    divisor = float(DIVISORS[segment])
    packet: dict[str, Any] = {
        "instrument_token": token,
        "mode": _MODES[kind],
        "tradable": segment != _INDICES,
        "last_price": words[Row.LAST_PRICE] / divisor,
    }
    if kind is PacketKind.LTP:
        return packet
    if kind in (PacketKind.QUOTE, PacketKind.FULL):
        packet |= {
            "last_traded_quantity": words[Row.LAST_TRADED_QUANTITY] & _UNSIGNED,
            "average_traded_price": words[Row.AVERAGE_TRADED_PRICE] / divisor,
            "volume_traded": words[Row.VOLUME_TRADED] & _UNSIGNED,
            "total_buy_quantity": words[Row.TOTAL_BUY_QUANTITY] & _UNSIGNED,
            "total_sell_quantity": words[Row.TOTAL_SELL_QUANTITY] & _UNSIGNED,
        }
    ohlc = {
        "open": words[Row.OPEN] / divisor,
        "high": words[Row.HIGH] / divisor,
        "low": words[Row.LOW] / divisor,
        "close": words[Row.CLOSE] / divisor,
    }
    packet |= {"ohlc": ohlc, "change": _change_percent(packet["last_price"], ohlc["close"])}
    if kind is PacketKind.FULL:
        packet |= {
            "last_trade_time": _time(words[Row.LAST_TRADE_TIME]),
            "oi": words[Row.OI] & _UNSIGNED,
            "oi_day_high": words[Row.OI_DAY_HIGH] & _UNSIGNED,
            "oi_day_low": words[Row.OI_DAY_LOW] & _UNSIGNED,
        }
    if kind in (PacketKind.FULL, PacketKind.INDEX_FULL):
        packet["exchange_timestamp"] = _time(words[Row.EXCHANGE_TIMESTAMP])
    if kind is PacketKind.FULL:
        packet["depth"] = {
            "buy": _levels(words, Row.BIDS, divisor),
            "sell": _levels(words, Row.ASKS, divisor),
        }
    return packet


def _change_percent(last_price: float, close: float) -> float:
    # In the official client's order of operations, so that the last digit agrees.
    return (last_price - close) * 100 / close if close else 0.0


def _time(word: int) -> str | None:
    seconds = word & _UNSIGNED
    return dt.datetime.fromtimestamp(seconds, _INDIA).isoformat() if seconds else None


def _levels(words: Sequence[int], first: int, divisor: float) -> list[dict[str, float]]:
    return [
        {
            "quantity": words[row] & _UNSIGNED,
            "price": words[row + 1] / divisor,
            "orders": (words[row + 2] & _UNSIGNED) >> 16,
        }
        for row in range(first, first + 3 * DEPTH_LEVELS, 3)
    ]
