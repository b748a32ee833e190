"""Whether silence means anything: a connection need not tick while its markets are closed."""

import datetime as dt
from pathlib import Path

from ticker.calendar.market_hours import market_phase, segments
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
    moments = [dt.datetime.fromtimestamp(at, dt.UTC) for at in (now, now - open_for_s)]
    is_open = {
        exchange
        for exchange in segments(market_hours_file)
        if all(_is_open(exchange, at, market_hours_file) for at in moments)
    }
    if not is_open:  # asked once a second by each silent socket: at night, nobody reads its plan
        return False
    found = map(registry.by_token, plan.shard(connection))
    return any(instrument is not None and instrument.exchange in is_open for instrument in found)


def _is_open(exchange: str, at: dt.datetime, path: Path | None) -> bool:
    try:
        return market_phase(exchange, at, path).is_open
    except ConfigurationError:
        return False
