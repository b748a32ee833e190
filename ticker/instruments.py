"""The broker's instrument dump: rows, and lookup by token and by exchange:symbol."""

import csv
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, cast

import msgspec

from ticker.errors import BrokerResponseError

OPTION_TYPES: Final = ("CE", "PE")
INDEX_SEGMENT: Final = "INDICES"

COLUMNS: Final = (
    "instrument_token",
    "exchange_token",
    "tradingsymbol",
    "name",
    "last_price",
    "expiry",
    "strike",
    "tick_size",
    "lot_size",
    "instrument_type",
    "segment",
    "exchange",
)
"""Header of ``GET /instruments`` (Kite Connect v3)."""

INDEX_UNDERLYINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NIFTY 50": "NIFTY",
        "NIFTY BANK": "BANKNIFTY",
        "NIFTY FIN SERVICE": "FINNIFTY",
        "NIFTY MID SELECT": "MIDCPNIFTY",
        "NIFTY NEXT 50": "NIFTYNXT50",
    }
)
"""Index symbol to the name its derivatives carry; other indices (SENSEX, ...) go by one name."""


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """One row of the dump. ``strike`` and ``tick_size`` in rupees; ``expiry`` None for cash."""

    instrument_token: int
    exchange_token: int
    tradingsymbol: str
    name: str
    expiry: dt.date | None
    strike: float
    tick_size: float
    lot_size: int
    instrument_type: str
    segment: str
    exchange: str

    @property
    def is_option(self) -> bool:
        return self.instrument_type in OPTION_TYPES

    @property
    def is_index(self) -> bool:
        return self.segment == INDEX_SEGMENT

    @property
    def is_future(self) -> bool:
        return self.instrument_type == "FUT"

    @property
    def key(self) -> str:
        """The broker's name for it in quotes: ``NSE:NIFTY 50``."""
        return f"{self.exchange}:{self.tradingsymbol}"

    @property
    def underlying(self) -> str:
        """Normalised symbol of what it is, or derives from: ``NIFTY`` for all of NIFTY's."""
        if self.is_index:
            return INDEX_UNDERLYINGS.get(self.tradingsymbol, self.tradingsymbol)
        if self.expiry is not None and self.name:
            return self.name
        return self.tradingsymbol


class InstrumentRegistry:
    """Immutable lookup over one dump. Building it passes over all rows: 0.1 s for 100,000."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._by_token = {row.instrument_token: row for row in instruments}
        self._by_key = {row.key: row for row in self._by_token.values()}
        self._by_underlying: dict[str, list[Instrument]] = {}
        for row in self._by_token.values():
            self._by_underlying.setdefault(row.underlying, []).append(row)

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_token.values())

    def by_token(self, token: int) -> Instrument | None:
        return self._by_token.get(token)

    def of_underlying(self, name: str) -> Sequence[Instrument]:
        """What is, or derives from, this underlying: index, shares, futures and options."""
        return self._by_underlying.get(name, ())

    def by_key(self, key: str) -> Instrument | None:
        """Look up ``EXCHANGE:TRADINGSYMBOL``."""
        return self._by_key.get(key)


def parse_instruments(lines: Iterable[str]) -> Iterator[Instrument | None]:
    """Read the broker's CSV, header first; yields None for a row that cannot be used.

    Accepts what real and older dumps contain: ``0`` or ``0.0``, empty names, quoted names,
    unknown exchanges. Raises BrokerResponseError when the header is not the dump's.
    """
    rows = csv.DictReader(lines)
    missing = set(COLUMNS) - set(rows.fieldnames or ())
    if missing:
        raise BrokerResponseError(
            200, "DataException", f"the instrument dump lacks columns {sorted(missing)}"
        )
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:  # a stray carriage return, a field beyond 128 KiB
            yield None
        else:
            yield _instrument(cast("dict[str, str]", row))


def _instrument(row: Mapping[str, str]) -> Instrument | None:
    try:
        instrument = Instrument(
            instrument_token=int(row["instrument_token"]),
            exchange_token=int(row["exchange_token"]),
            tradingsymbol=row["tradingsymbol"].strip(),
            name=row["name"].strip().strip('"'),
            expiry=dt.date.fromisoformat(row["expiry"]) if row["expiry"] else None,
            strike=float(row["strike"] or 0),
            tick_size=float(row["tick_size"] or 0),
            lot_size=int(float(row["lot_size"] or 0)),
            instrument_type=row["instrument_type"].strip(),
            segment=row["segment"].strip(),
            exchange=row["exchange"].strip(),
        )
    except (ValueError, ArithmeticError, TypeError, KeyError, AttributeError):
        return None
    usable = 0 < instrument.instrument_token < 2**32 and bool(instrument.tradingsymbol)
    return instrument if usable else None


TickMode = Literal["ltp", "quote", "full"]
"""How much of an instrument the broker sends."""
