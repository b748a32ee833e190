"""Candles of any range, from whichever account answers."""

import datetime as dt

from ticker.history.range import INDIA, Span, split
from ticker.instruments.registry import Instrument
from ticker.kite.models import Candles, Interval, join_candles
from ticker.kite.rest import BrokerRest, Brokers


async def load_range(
    brokers: Brokers,
    token: int,
    interval: Interval,
    span: Span,
    *,
    account_id: str | None = None,
    continuous: bool = False,
    oi: bool = False,
) -> Candles:
    """An instrument's candles, in as many calls as the broker takes for them, of one account.

    What the broker sends beyond the span is left out. ``account_id`` None: whichever answers
    first. Raises what ``Brokers.ask`` does.
    """
    since_at = span.since_at.astimezone(INDIA)
    if interval == "day":  # it opens at midnight, whatever the hour that is asked from
        since_at = since_at.replace(hour=0, minute=0, second=0, microsecond=0)

    async def ask(broker: BrokerRest) -> Candles:
        parts = [
            await broker.load_candles(token, interval, *piece, continuous=continuous, oi=oi)
            for piece in split(span, interval)
        ]
        return join_candles(parts).between(since_at.timestamp(), span.until_at.timestamp())

    return await brokers.ask(ask, account_id)


async def load_last_close(
    brokers: Brokers, instrument: Instrument, since: float, until: float
) -> float | None:
    """The close of the newest minute that opens between two UNIX times, before the second."""
    # the broker includes both ends, and what opens as trading ends is the auction's
    since_at, until_at = (dt.datetime.fromtimestamp(at, dt.UTC) for at in (since, until - 1))
    span = Span(since_at, until_at)
    candles = await load_range(brokers, instrument.instrument_token, "minute", span)
    return float(candles.close[-1]) if len(candles) else None
