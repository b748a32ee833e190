"""One exchange's instrument dump as it arrives, whether it can be believed, and what it changes.

No I/O. The passes over all rows belong in a worker thread; they hold the interpreter for a row at
a time.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from ticker.calendar.india import INDIA
from ticker.calendar.market_hours import is_trading_day, market_date, segments
from ticker.errors import BrokerResponseError
from ticker.instruments.registry import Instrument, InstrumentParser, InstrumentRegistry

_DAY: Final = dt.timedelta(days=1)
_CLOSED_MAX: Final = 14  # days that exchanges stay closed in a row; beyond, any day will do

ROWS_MAX: Final = 1_000_000
"""Rows of one exchange; the whole market has 140,000. More is not a dump."""

LINE_MAX: Final = 65_536
"""Bytes of one row; real ones have 85. More is not a dump."""

SHRINK_MAX: Final = 0.5
"""A dump with less than this part of the last one's rows is not believed."""


class ExchangeDump(msgspec.Struct, frozen=True, gc=False):
    """What an exchange lists. ``day``: the trading day it is of; ``rejected``: unusable rows.

    ``is_confirmed``: somebody answers for it, however few rows it has.
    """

    exchange: str
    day: dt.date
    instruments: tuple[Instrument, ...]
    rejected: int = 0
    is_confirmed: bool = False


class DumpReader:
    """Takes the CSV piece by piece.

    ``known``: the registry so far; a row that it has already is taken from there, so that a day's
    dump costs the memory of what is new in it. Rows of another exchange are rejected.
    """

    def __init__(self, exchange: str, known: InstrumentRegistry) -> None:
        self.exchange = exchange
        self._known = known
        self._parser: InstrumentParser | None = None
        self._rest = b""
        self._rows: dict[int, Instrument] = {}
        self._rejected = 0

    def feed(self, chunk: bytes) -> None:
        """Read what is whole of the bytes so far; any size, best 64 KiB: 10 ms of work.

        Raises BrokerResponseError for what is not the dump: another header, endless rows.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._read(line)
        if len(self._rest) > LINE_MAX or len(self._rows) > ROWS_MAX:
            raise BrokerResponseError(200, "DataException", "the instrument dump has no end")

    def finish(self, day: dt.date, *, is_confirmed: bool = False) -> ExchangeDump:
        """The dump, when all of it has been fed; of two rows with one token, the later counts."""
        self._read(self._rest)
        self._rest = b""
        rows = tuple(self._rows.values())
        return ExchangeDump(self.exchange, day, rows, self._rejected, is_confirmed)

    def _read(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip("\r\n")
        if self._parser is None:
            self._parser = InstrumentParser(text.lstrip("\ufeff"))
        elif text:
            row = self._parser.parse(text)
            if row is None or row.exchange != self.exchange:
                self._rejected += 1
                return
            known = self._known.by_token(row.instrument_token)
            is_same = known is not None and known == row
            self._rows[row.instrument_token] = known if known is not None and is_same else row


def doubt(dump: ExchangeDump, listed_before: int) -> str | None:
    """Why a dump cannot be believed; None if it can.

    An exchange does not delist half of what it has overnight; a dump that says so was cut off on
    its way to the broker's server, or made before the exchange's own files were there. One without
    a row is never believed.
    """
    rows = len(dump.instruments)
    if rows == 0:
        return f"{dump.exchange}: the dump has no usable row ({dump.rejected} unusable)"
    if rows < SHRINK_MAX * listed_before and not dump.is_confirmed:
        return f"{dump.exchange}: the dump has {rows} usable rows, the last had {listed_before}"
    return None


def dump_day(
    now: dt.datetime, made_at: dt.time, exchanges: Iterable[str], path: Path | None = None
) -> dt.date:
    """The trading day whose dump is in force at ``now``.

    The broker makes a dump each trading day and has it by ``made_at``, at the exchanges' time. A
    trading day is one of any of the ``exchanges``; ``path``: a file of market hours.
    """
    known = [name for name in exchanges if name in segments(path)] or ["NSE"]
    day = market_date(now, path)
    if now.astimezone(INDIA).time() < made_at:
        day -= _DAY
    for _ in range(_CLOSED_MAX):
        if any(is_trading_day(name, day, path) for name in known):
            break
        day -= _DAY
    return day


class RegistryDifference(msgspec.Struct, frozen=True):
    """What a later registry has changed.

    ``moved``: token before to token after, of contracts that are there under another one.
    ``reused``: tokens that are another contract's since. ``gone``: tokens of contracts that are
    not there any more. ``added``: how many contracts were not there before.
    """

    moved: Mapping[int, int]
    reused: frozenset[int]
    gone: frozenset[int]
    added: int


def registry_difference(old: InstrumentRegistry, new: InstrumentRegistry) -> RegistryDifference:
    """Compare contracts, not tokens. Passes over all rows, 0.1 s for 100,000: in a thread."""
    moved: dict[int, int] = {}
    reused: set[int] = set()
    gone: set[int] = set()
    for row in old:
        token = row.instrument_token
        successor = new.by_token(token)
        if successor is not None and successor.contract == row.contract:
            continue
        present = new.find(*row.contract)
        if present is None:
            gone.add(token)
        else:
            moved[token] = present.instrument_token
        if successor is not None:
            reused.add(token)
    added = len(new) - (len(old) - len(gone))
    return RegistryDifference(moved, frozenset(reused), frozenset(gone), added)
