"""Whether silence means anything: a connection need not tick while its markets are closed."""

import datetime as dt
from pathlib import Path

from ticker.errors import ConfigurationError
from ticker.instruments import InstrumentRegistry
from ticker.market_hours import market_phase
from ticker.messages import ConnectionId
from ticker.planning import Plan


def expects_ticks(
    connection: ConnectionId,
    plan: Plan,
    registry: InstrumentRegistry,
    now: float,
    market_hours_file: Path | None = None,
) -> bool:
    """Whether any exchange of what the connection carries is open at ``now``, UNIX seconds.

    An exchange, or a year, that the calendar does not know counts as closed.
    """
    found = (registry.by_token(token) for token in plan.shard(connection))
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    exchanges = {instrument.exchange for instrument in found if instrument is not None}
    return any(_is_open(exchange, at, market_hours_file) for exchange in exchanges)


def _is_open(exchange: str, at: dt.datetime, path: Path | None) -> bool:
    try:
        return market_phase(exchange, at, path).is_open
    except ConfigurationError:
        return False
