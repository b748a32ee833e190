"""What a dump has beside the market: scrips that nobody trades, and the day before's tokens."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ticker.instruments.registry import OPTION_TYPES, Instrument
from ticker.simulator.underlyings import SEGMENT_IDS

WHOLE_MARKET: Final = 100_000
"""Rows of all exchanges together; the real dump has between 90,000 and 140,000."""

_FIRST_TOKENS: Final = {
    "NSE": 60_001, "BSE": 500_001, "BFO": 2_000_001, "MCX": 2_000_001, "CDS": 2_000_001,
}  # fmt: skip
_SHARES: Final = {"NSE": 0.15, "BSE": 0.25, "BFO": 0.25, "MCX": 0.20, "CDS": 0.15}


def create_dormant(instruments: Sequence[Instrument], total: int) -> tuple[Instrument, ...]:
    """Rows that bring a dump to ``total``: shares and options that are listed and never quoted.

    Options are of the exchange's last expiry, so that they leave the dump with it.
    """
    missing = max(total - len(instruments), 0)
    expiries: dict[str, dt.date] = {}
    for row in instruments:
        if row.expiry is not None:
            expiries[row.exchange] = max(row.expiry, expiries.get(row.exchange, row.expiry))
    return tuple(
        _dormant(exchange, number, expiries.get(exchange))
        for exchange, share in _SHARES.items()
        for number in range(round(missing * share))
    )


def _dormant(exchange: str, number: int, expiry: dt.date | None) -> Instrument:
    exchange_token = _FIRST_TOKENS[exchange] + number
    name = f"DORMANT{number // 200:03d}"
    strike, right = float(10 * (number // 2 % 100 + 1)), OPTION_TYPES[number % 2]
    symbol = f"{name}X{number % 200:03d}"
    if expiry is not None:
        symbol = f"{name}{expiry:%y%b}{strike:g}{right}".upper()
    return Instrument(
        instrument_token=exchange_token << 8 | SEGMENT_IDS[exchange],
        exchange_token=exchange_token,
        tradingsymbol=symbol,
        name=name if expiry is not None else f"DORMANT COMPANY {number} LIMITED",
        expiry=expiry,
        strike=0.0 if expiry is None else strike,
        tick_size=0.05,
        lot_size=1,
        instrument_type="EQ" if expiry is None else right,
        segment=exchange if expiry is None else f"{exchange}-OPT",
        exchange=exchange,
    )


def with_tokens_of(
    before: Sequence[Instrument], following: Sequence[Instrument]
) -> tuple[Instrument, ...]:
    """Another day's rows, numbered as exchanges do it.

    A contract that was there keeps its token, and one that is listed since takes that of a
    contract that is gone, as long as there are any.
    """
    kept = {row.contract: row.exchange_token for row in before}
    staying = {row.contract for row in following}
    free: dict[str, list[int]] = defaultdict(list)
    highest: dict[str, int] = defaultdict(int)
    for row in (*before, *following):
        highest[row.exchange] = max(highest[row.exchange], row.exchange_token)
    for row in before:
        if row.contract not in staying and not row.is_index:
            free[row.exchange].append(row.exchange_token)

    def numbers(exchange: str) -> Iterator[int]:
        yield from free[exchange]
        while True:
            highest[exchange] += 1
            yield highest[exchange]

    fresh = {exchange: numbers(exchange) for exchange in highest}
    return tuple(
        _numbered(row, kept[row.contract] if row.contract in kept else next(fresh[row.exchange]))
        for row in following
    )


def _numbered(row: Instrument, exchange_token: int) -> Instrument:
    return msgspec.structs.replace(
        row,
        exchange_token=exchange_token,
        instrument_token=exchange_token << 8 | row.instrument_token & 0xFF,
    )
