"""Whether silence means anything: a connection need not tick while its markets are closed."""

import datetime as dt
from pathlib import Path

from ticker.calendar.market_hours import market_phase
from ticker.errors import ConfigurationError
from ticker.instruments.registry import InstrumentRegistry
from ticker.messages import ConnectionId
from ticker.planning.plan import Plan


def expects_ticks(
    connection: ConnectionId,
    plan: Plan,
    registry: InstrumentRegistry,
    now: float,
    market_hours_file: Path | None = None,
    *,
    open_for_s: float = 60.0,
) -> bool:
    """Whether any exchange of what the connection carries is open at ``now``, UNIX seconds, and
    was ``open_for_s`` ago.

    At the opening the newest tick is of the last session: a silence counts only when the market
    has been open for as long as it may last. An exchange, or a year, that the calendar does not
    know counts as closed.
    """
    found = (registry.by_token(token) for token in plan.shard(connection))
    moments = [dt.datetime.fromtimestamp(at, dt.UTC) for at in (now, now - open_for_s)]
    exchanges = {instrument.exchange for instrument in found if instrument is not None}
    return any(
        all(_is_open(exchange, at, market_hours_file) for at in moments) for exchange in exchanges
    )


def _is_open(exchange: str, at: dt.datetime, path: Path | None) -> bool:
    try:
        return market_phase(exchange, at, path).is_open
    except ConfigurationError:
        return False
