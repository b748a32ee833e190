"""What the parts of the simulator share: its terms, its market and who is connected."""

import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from ticker.errors import ConfigurationError
from ticker.simulator import faults
from ticker.simulator.book import BoolArray
from ticker.simulator.candles import TOKEN_DIGITS
from ticker.simulator.dump import create_dump, create_following, dump_date
from ticker.simulator.hours import TradingInstruments
from ticker.simulator.ledger import Counts
from ticker.simulator.market import Market
from ticker.simulator.sessions import Sessions, SimulatedAccount, create_accounts
from ticker.simulator.underlyings import InstrumentSet
from ticker.simulator.websocket import MarketSocket, SocketTerms

DEFAULT_SEED: Final = 1
DEFAULT_TERMS: Final = SocketTerms()
_REMEMBERED: Final = 1000
"""Closed sockets whose counts are kept; the oldest are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """Everything that can be chosen.

    ``rate``: market steps, and so ticks of a busy instrument, a second. ``speed``: seconds of
    market time in one of the wall clock's, from the start of the simulator on.
    ``market_hours``: keep the exchanges' hours; by default the market never closes.
    ``fourth_socket``: what happens to sockets above ``max_sockets`` of one api_key.
    ``tokens_expire``: access tokens die at 06:00 IST. ``single_session``: logging in kills the
    account's older tokens. ``redirect_url``: where a login leads if the request does not say.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    seed: int = DEFAULT_SEED
    instruments: InstrumentSet = "near"
    rate: float = 1.0
    speed: float = 1.0
    market_hours: bool = False
    accounts: tuple[SimulatedAccount, ...] = create_accounts(DEFAULT_SEED, 1)
    rate_limits: bool = True
    socket_terms: SocketTerms = DEFAULT_TERMS
    max_sockets: int = 3
    fourth_socket: Literal["reject429", "drop_oldest", "allow"] = "reject429"
    tokens_expire: bool = False
    single_session: bool = False
    redirect_url: str | None = None

    def __post_init__(self) -> None:
        if self.instruments not in get_args(InstrumentSet):
            sets = " or ".join(get_args(InstrumentSet))
            raise ConfigurationError(f"instruments must be {sets}, not {self.instruments!r}")
        if not (self.rate > 0 and self.speed > 0):
            raise ConfigurationError("rate and speed must be above 0")
        target = urlsplit(self.redirect_url or "http://nowhere")
        if target.scheme not in {"http", "https"} or not target.netloc:
            raise ConfigurationError(f"a redirect must be an http:// address: {self.redirect_url}")


class MarketTime:
    """Market time as a function of the wall clock. ``frozen``: nothing moves by itself."""

    def __init__(self, wall_clock: Callable[[], float], speed: float) -> None:
        self._wall_clock = wall_clock
        self._started_at = wall_clock()
        self._speed = speed
        self.frozen = False

    def now(self) -> float:
        return self._started_at + (self._wall_clock() - self._started_at) * self._speed


@dataclass(slots=True)
class SocketTable:
    """Open sockets by id, and the ledger of those that are gone."""

    open: dict[int, MarketSocket] = field(default_factory=dict)
    closed: deque[tuple[int, str, Counts]] = field(
        default_factory=lambda: deque(maxlen=_REMEMBERED)
    )
    handshakes: int = 0

    def next_id(self) -> int:
        self.handshakes += 1
        return self.handshakes

    def of(self, api_key: str) -> list[MarketSocket]:
        """Open sockets of an account, the oldest first."""
        return [socket for socket in self.open.values() if socket.api_key == api_key]

    def hit_by(self, fault: faults.SocketFault) -> Iterator[MarketSocket]:
        for socket in list(self.open.values()):
            if fault.api_key in (None, socket.api_key) and fault.socket in (None, socket.id):
                yield socket

    def remove(self, socket: MarketSocket) -> None:
        del self.open[socket.id]
        self.closed.append((socket.id, socket.api_key, socket.counts))

    def ring(self) -> None:
        for socket in self.open.values():
            socket.ring()


class Simulation:
    """One simulated broker: built once, handed to its routes and sockets."""

    def __init__(
        self, config: SimulatorConfig, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.config = config
        self.wall_clock = wall_clock
        self.time = MarketTime(wall_clock, config.speed)
        now = self.time.now()
        self.dump = create_dump(config.seed, dump_date(now), config.instruments)
        self.market = Market(config.seed, self.dump, now)
        self._trading = TradingInstruments(self.dump)
        self.sessions = Sessions(
            config.accounts,
            seed=config.seed,
            wall_clock=wall_clock,
            tokens_expire=config.tokens_expire,
            single_session=config.single_session,
        )
        self.refusals = faults.Refusals()
        self.sockets = SocketTable()
        self._position_of_key = {row.key: at for at, row in enumerate(self.dump.instruments)}

    def relist(self, date: dt.date) -> None:
        """List what there is on another day; every socket is closed, as it is overnight.

        Contracts that stay keep their tokens, those listed since take the ones that came free.
        """
        seed = self.config.seed
        self.dump = create_following(self.dump, seed, date, self.config.instruments)
        self.market = Market(seed, self.dump, self.time.now())
        self._position_of_key = {row.key: at for at, row in enumerate(self.dump.instruments)}
        for socket in list(self.sockets.open.values()):
            socket.close()

    def position(self, key: str) -> int | None:
        """The market's column for ``EXCHANGE:TRADINGSYMBOL`` or a bare token in digits."""
        if key.isdecimal() and len(key) <= TOKEN_DIGITS:
            return self.market.position(int(key))
        return self._position_of_key.get(key)

    def step(self) -> None:
        """Move the market to where it is now and tell every socket."""
        now = self.time.now()
        self.market.advance(now, self._are_trading(now) if self.config.market_hours else None)
        self.sockets.ring()

    def _are_trading(self, now: float) -> BoolArray:
        if self._trading.dump is not self.dump:
            self._trading = TradingInstruments(self.dump)
        return self._trading.at(now)
