"""What a history request is answered with: candles, and why a Greek is missing."""

import datetime as dt
from typing import Final, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from ticker.greeks.forward import ForwardSource
from ticker.greeks.history import PricedHistory
from ticker.greeks.kernel import GreekRow
from ticker.greeks.pricing import STATUS_NAMES
from ticker.history.range import INDIA, Span
from ticker.instruments.registry import Instrument
from ticker.kite.models import Candles, Interval
from ticker.ticks import FloatArray

_SOURCES: Final = {
    int(source): None if source is ForwardSource.NONE else source.name.lower()
    for source in ForwardSource
}
_SHOWN: Final = (GreekRow.IV, GreekRow.DELTA, GreekRow.GAMMA, GreekRow.THETA, GreekRow.VEGA)


class HistoryCandle(msgspec.Struct, frozen=True, gc=False):
    """One candle, in rupees; ``date`` is its opening, in India's time.

    From ``iv`` on the fields are there if Greeks were asked for, and null where there are none:
    ``greeks_status`` says why. They are of the candle's close, in the units of live payloads.
    ``underlying`` is the spot price then, ``forward`` what the option was priced from, and
    ``forward_source`` where that came from: ``future``, ``carry`` or ``spot``.
    """

    date: dt.datetime
    open: float
    high: float
    low: float
    close: float
    volume: int
    oi: int | UnsetType = UNSET
    iv: float | UnsetType | None = UNSET
    delta: float | UnsetType | None = UNSET
    gamma: float | UnsetType | None = UNSET
    theta: float | UnsetType | None = UNSET
    vega: float | UnsetType | None = UNSET
    underlying: float | UnsetType | None = UNSET
    forward: float | UnsetType | None = UNSET
    forward_source: str | UnsetType | None = UNSET
    greeks_status: str | UnsetType = UNSET


class HistoryAnswer(msgspec.Struct, frozen=True):
    """Candles of an instrument, oldest first. ``symbol``: of its underlying.

    If Greeks were asked for, ``forward_symbol`` is the future that they are priced from where
    ``forward_source`` does not say spot, null if there is none, and ``greeks_error`` says what of
    the underlying could not be loaded, null if all was.
    """

    instrument_token: int
    symbol: str
    tradingsymbol: str
    segment: str
    interval: str
    from_ts: dt.datetime
    to_ts: dt.datetime
    candles: list[HistoryCandle]
    forward_symbol: str | UnsetType | None = UNSET
    greeks_error: str | UnsetType | None = UNSET


class GreekColumns(NamedTuple):
    """Greeks of candles; ``underlying``: the spot price at each close, NaN for none."""

    priced: PricedHistory
    underlying: FloatArray
    forward_symbol: str | None
    error: str | None


def create_answer(
    instrument: Instrument,
    interval: Interval,
    span: Span,
    candles: Candles,
    greeks: GreekColumns | None,
) -> HistoryAnswer:
    """Columns as objects: 5 us a candle, for a worker thread."""
    return HistoryAnswer(
        instrument_token=instrument.instrument_token,
        symbol=instrument.underlying,
        tradingsymbol=instrument.tradingsymbol,
        segment=instrument.segment,
        interval=interval,
        from_ts=span.since_at,
        to_ts=span.until_at,
        candles=_create_rows(candles, greeks),
        forward_symbol=UNSET if greeks is None else greeks.forward_symbol,
        greeks_error=UNSET if greeks is None else greeks.error,
    )


def _create_rows(candles: Candles, greeks: GreekColumns | None) -> list[HistoryCandle]:
    dates = [dt.datetime.fromtimestamp(start, INDIA) for start in candles.starts.tolist()]
    columns: list[list[object]] = [*candles.prices.tolist(), candles.volume.tolist()]
    columns.append([UNSET] * len(dates) if candles.oi is None else candles.oi.tolist())
    if greeks is not None:
        priced = greeks.priced
        columns += [_nullable(priced.greeks[row]) for row in _SHOWN]
        columns += [_nullable(greeks.underlying), _nullable(priced.forward)]
        columns.append([_SOURCES[source] for source in priced.sources.tolist()])
        columns.append([STATUS_NAMES[status] for status in priced.statuses.tolist()])
    return [HistoryCandle(*row) for row in zip(dates, *columns, strict=True)]


def _nullable(values: FloatArray) -> list[object]:
    if not np.isnan(values).any():
        return list(values.tolist())
    return [None if value != value else value for value in values.tolist()]
