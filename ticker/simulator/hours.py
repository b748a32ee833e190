"""Which instruments trade at a moment, for a simulator that keeps the exchanges' hours."""

import datetime as dt
from typing import Final

import numpy as np
import numpy.typing as npt

from ticker.calendar.market_hours import market_phase
from ticker.errors import ConfigurationError
from ticker.simulator.book import BoolArray
from ticker.simulator.dump import InstrumentDump

_UNKNOWN_S: Final = 60.0
"""How long a segment of which the calendar tells no change is taken to stay as it is."""


class TradingInstruments:
    """The instruments of a dump whose exchange is not closed.

    The pre-open and the post-close session count: the exchange sends in them. A year that the
    calendar does not know is closed.
    """

    def __init__(self, dump: InstrumentDump) -> None:
        self.dump = dump
        exchanges = [row.exchange for row in dump.instruments]
        self._exchanges = sorted(set(exchanges))
        self._exchange: npt.NDArray[np.intp] = np.searchsorted(self._exchanges, exchanges)
        self._since = self._until = 0.0
        self._are_trading: BoolArray = np.zeros(len(exchanges), np.bool_)

    def at(self, now: float) -> BoolArray:
        """True for each that trades at ``now``, UNIX seconds; the same array until that changes."""
        if not self._since <= now < self._until:
            moment = dt.datetime.fromtimestamp(now, dt.UTC)
            told = [_activity(exchange, moment) for exchange in self._exchanges]
            self._since, self._until = now, min(until for _, until in told)
            self._are_trading = np.array([is_active for is_active, _ in told])[self._exchange]
        return self._are_trading


def _activity(exchange: str, at: dt.datetime) -> tuple[bool, float]:
    """Whether an exchange is not closed, and until when that is known, UNIX seconds."""
    unknown_until = at.timestamp() + _UNKNOWN_S
    try:
        phase = market_phase(exchange, at)
    except ConfigurationError:
        return False, unknown_until
    until = phase.until.timestamp() if phase.until else unknown_until
    return phase.name != "closed", until
