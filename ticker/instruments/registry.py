"""The broker's instruments: rows, lookup by token, by exchange:symbol and by what a contract is."""

import csv
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from sys import intern
from types import MappingProxyType
from typing import Final, Literal

import msgspec
import numpy as np

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

TickMode = Literal["ltp", "quote", "full"]
"""How much of an instrument the broker sends."""


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
    def contract(self) -> tuple[str, str, dt.date | None]:
        """What it is for good: tokens are given to other contracts after an expiry, and symbols
        come back after a decade.
        """
        return self.exchange, self.tradingsymbol, self.expiry

    @property
    def underlying(self) -> str:
        """Normalised symbol of what it is, or derives from: ``NIFTY`` for all of NIFTY's."""
        if self.is_index:
            return INDEX_UNDERLYINGS.get(self.tradingsymbol, self.tradingsymbol)
        if self.expiry is not None and self.name:
            return self.name
        return self.tradingsymbol


class InstrumentQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which instruments are looked for; None asks nothing. Both strikes are included.

    ``prefix``: how the trading symbol begins. Capitals matter everywhere, as the broker writes.
    """

    underlying: str | None = None
    expiry: dt.date | None = None
    strike_min: float | None = None
    strike_max: float | None = None
    instrument_type: str | None = None
    segment: str | None = None
    exchange: str | None = None
    prefix: str | None = None

    def select(self, rows: Iterable[Instrument]) -> Iterable[Instrument]:
        """Those of the rows that are looked for, in their order; lazily."""
        for name in ("exchange", "segment", "instrument_type", "expiry", "underlying"):
            wanted = getattr(self, name)
            if wanted is not None:
                rows = _equal(rows, attrgetter(name), wanted)
        low, high, prefix = self.strike_min, self.strike_max, self.prefix
        if low is not None:
            rows = (row for row in rows if row.strike >= low)
        if high is not None:
            rows = (row for row in rows if row.strike <= high)
        if prefix is not None:
            rows = (row for row in rows if row.tradingsymbol.startswith(prefix))
        return rows


def _equal(
    rows: Iterable[Instrument], read: Callable[[Instrument], object], wanted: object
) -> Iterator[Instrument]:
    return (row for row in rows if read(row) == wanted)


class InstrumentRegistry:
    """Immutable lookup over the instruments of a day; of two with one token, the later counts.

    Building it passes over all rows, 0.3 s for 100,000: in a worker thread.
    """

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._by_token = {row.instrument_token: row for row in instruments}
        self._by_symbol: dict[str, dict[str, Instrument]] = {}
        self._by_underlying: dict[str, list[Instrument]] = {}
        for row in self._by_token.values():
            self._by_symbol.setdefault(row.exchange, {})[row.tradingsymbol] = row
            self._by_underlying.setdefault(row.underlying, []).append(row)
        # numpy sorts without the interpreter lock: sorted() would hold the event loop up
        tokens = np.fromiter((token for token in self._by_token), np.uint32)
        self._tokens = np.sort(tokens)

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
        exchange, _, tradingsymbol = key.partition(":")
        return self._by_symbol.get(exchange, {}).get(tradingsymbol)

    def find(self, exchange: str, tradingsymbol: str, expiry: dt.date | None) -> Instrument | None:
        """Look a contract up by what it is for good, whatever its token is today."""
        row = self._by_symbol.get(exchange, {}).get(tradingsymbol)
        return row if row is not None and row.expiry == expiry else None

    def search(self, query: InstrumentQuery, *, limit: int, after: int = 0) -> list[Instrument]:
        """The first ``limit`` instruments with tokens above ``after``, by token.

        The last one's token is the next page's ``after``. Microseconds with an underlying; else it
        may pass over all rows, 15 ms for 100,000: in a worker thread.
        """
        found: Iterable[Instrument]
        if query.underlying is not None:
            rows = self._by_underlying.get(query.underlying, [])
            found = sorted(
                (row for row in rows if row.instrument_token > after),
                key=lambda row: row.instrument_token,
            )
        else:
            first = int(np.searchsorted(self._tokens, after, "right"))
            found = map(self._by_token.__getitem__, self._later(first))
        return list(islice(query.select(found), limit))

    def _later(self, first: int) -> Iterator[int]:
        """Tokens in order, from a position on."""
        for start in range(first, len(self._tokens), _BLOCK):
            yield from self._tokens[start : start + _BLOCK].tolist()

    def replaced(self, exchanges: Mapping[str, Iterable[Instrument]]) -> "InstrumentRegistry":
        """The registry in which these exchanges list these instruments, and no others."""
        kept = (row for row in self if row.exchange not in exchanges)
        return InstrumentRegistry(row for rows in (kept, *exchanges.values()) for row in rows)

    def count(self, exchange: str) -> int:
        """How many symbols an exchange lists."""
        return len(self._by_symbol.get(exchange, ()))


class InstrumentParser:
    """Reads rows of the broker's CSV, whose header line it is built from.

    Raises BrokerResponseError when the header is not the dump's.
    """

    def __init__(self, header: str) -> None:
        try:
            names = next(csv.reader([header]), [])
        except csv.Error:
            names = []
        missing = set(COLUMNS) - set(names)
        if missing:
            raise BrokerResponseError(
                200, "DataException", f"the instrument dump lacks columns {sorted(missing)}"
            )
        self._places = [names.index(name) for name in COLUMNS]

    def parse(self, line: str) -> Instrument | None:
        """One row; None if it cannot be used.

        Accepts what real and older dumps contain: ``0`` or ``0.0``, empty names, quoted names,
        unknown exchanges. Each line is read by itself, so that a stray quote costs one row.
        """
        try:
            fields = next(csv.reader([line]))
            token, exchange_token, symbol, name, _, expiry, strike, tick, lot, kind, segment, on = (
                fields[place] for place in self._places
            )
            row = Instrument(
                instrument_token=int(token),
                exchange_token=int(exchange_token),
                tradingsymbol=symbol.strip(),
                name=intern(name.strip().strip('"')),
                expiry=_date(expiry) if expiry else None,
                strike=float(strike or 0),
                tick_size=float(tick or 0),
                lot_size=int(float(lot or 0)),
                instrument_type=intern(kind.strip()),
                segment=intern(segment.strip()),
                exchange=intern(on.strip()),
            )
        except (ValueError, ArithmeticError, IndexError, StopIteration, csv.Error):
            return None
        return row if _is_usable(row) else None


def parse_instruments(lines: Iterable[str]) -> Iterator[Instrument | None]:
    """Read the broker's CSV, header first; yields None for a row that cannot be used.

    Raises BrokerResponseError when the header is not the dump's.
    """
    rest = iter(lines)
    parser = InstrumentParser(next(rest, ""))
    return map(parser.parse, rest)


_BLOCK: Final = 1024  # tokens made into Python integers at a time
_TOKENS: Final = 2**32
_LOTS: Final = 2**31
_RUPEES_MAX: Final = 1e9
_TEXT_MAX: Final = 200
_YEARS: Final = range(2000, 2100)  # the broker's zero date is of the year 1


def _is_usable(row: Instrument) -> bool:
    """Whether every number is one, every text is one that can be stored and shown, and the expiry
    one that a calendar can tell.
    """
    texts = (row.tradingsymbol, row.name, row.instrument_type, row.segment, row.exchange)
    return (
        0 < row.instrument_token < _TOKENS
        and 0 <= row.exchange_token < _TOKENS
        and 0 <= row.lot_size < _LOTS
        and 0 <= row.strike <= _RUPEES_MAX
        and 0 <= row.tick_size <= _RUPEES_MAX
        and (row.expiry is None or row.expiry.year in _YEARS)
        and bool(row.tradingsymbol and row.exchange)
        and all(text.isprintable() and len(text) <= _TEXT_MAX for text in texts)
    )


@lru_cache(maxsize=1024)  # some hundred dates in a dump: the oldest are read again
def _date(text: str) -> dt.date:
    return dt.date.fromisoformat(text)
