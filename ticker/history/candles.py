"""Candles of any range, from whichever account answers."""

from ticker.history.range import Span, split
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

    ``account_id`` None: whichever answers first. Raises what ``Brokers.ask`` does.
    """

    async def ask(broker: BrokerRest) -> Candles:
        parts = [
            await broker.load_candles(token, interval, *piece, continuous=continuous, oi=oi)
            for piece in split(span, interval)
        ]
        return join_candles(parts)

    return await brokers.ask(ask, account_id)
