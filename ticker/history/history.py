"""Candles of the past, with Greeks for options.

The broker reads and writes India's wall clock; here every time is aware, and one without a zone
is taken for India's. Ranges longer than the broker serves at once are asked for in pieces.
"""

import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import trio

from ticker.errors import InvalidRequestError, StoreUnavailableError, UnknownInstrumentError
from ticker.greeks.pricing import INTEREST_RATES, Profile
from ticker.history.answer import HistoryAnswer, create_answer
from ticker.history.candles import load_range
from ticker.history.greeks import HistoryGreeks
from ticker.history.range import create_span, parse_interval
from ticker.history.reference_bars import ReferenceBars
from ticker.instruments.registry import Instrument, InstrumentRegistry
from ticker.kite.rest import Brokers
from ticker.latest import Latest
from ticker.stores.instruments import InstrumentStore

_CONTINUOUS_EXCHANGES: Final = frozenset({"NFO", "MCX"})


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; both ends are included, by the candle's opening.

    ``account_id`` None: whichever account answers. ``continuous``: a future's days, with those of
    the contracts before it. ``oi``: with open interest and, for an option, with Greeks.
    """

    instrument_token: int
    from_at: dt.datetime
    to_at: dt.datetime
    interval: str = "minute"
    account_id: str | None = None
    continuous: bool = False
    oi: bool = False


class History:
    """Answers history requests. ``interest_rate`` None: the profile's own. ``archive``: where
    contracts are that have expired, to be named; None: they are unknown.
    """

    def __init__(
        self,
        registry: Latest[InstrumentRegistry],
        brokers: Brokers,
        references: ReferenceBars,
        *,
        wall_clock: Callable[[], float],
        archive: InstrumentStore | None = None,
        profile: Profile = Profile.PARITY,
        interest_rate: float | None = None,
        market_hours_file: Path | None = None,
    ) -> None:
        self._registry = registry
        self._brokers = brokers
        self._archive = archive
        self._wall_clock = wall_clock
        self._greeks = HistoryGreeks(
            registry,
            references,
            wall_clock=wall_clock,
            profile=profile,
            rate=INTEREST_RATES[profile] if interest_rate is None else interest_rate,
            market_hours_file=market_hours_file,
        )

    async def load(self, request: HistoryRequest) -> HistoryAnswer:
        """The candles that were asked for.

        Raises InvalidRequestError for a request that makes no sense, UnknownInstrumentError,
        UnknownAccountError, and BrokerError when the instrument's own candles cannot be loaded.
        Greeks are null, with a reason, when those of its underlying cannot.
        """
        now = dt.datetime.fromtimestamp(self._wall_clock(), dt.UTC)
        interval = parse_interval(request.interval)
        span = create_span(request.from_at, request.to_at, interval, now)
        instrument = self._registry.value.by_token(request.instrument_token)
        if instrument is None:
            raise await self._create_unknown(request.instrument_token)
        if request.continuous:
            _check_continuous(instrument, interval)
        account_id = request.account_id
        candles = await load_range(
            self._brokers,
            instrument.instrument_token,
            interval,
            span,
            account_id=account_id,
            continuous=request.continuous,
            oi=request.oi,
        )
        greeks = None
        if request.oi and instrument.is_option:
            greeks = await self._greeks.price(instrument, candles, interval, span, account_id)
        return await trio.to_thread.run_sync(
            create_answer, instrument, interval, span, candles, greeks
        )

    async def _create_unknown(self, token: int) -> UnknownInstrumentError:
        """The broker keeps no candles of a contract that has expired, and gives its token away."""
        says = f"there is no instrument {token}"
        with suppress(StoreUnavailableError):
            found = self._archive and await self._archive.find_token(token, dt.date.max)
            if found and found.last_day is not None:  # else it is listed, though not in use here
                gone = found.instrument
                says = (
                    f"instrument {token} was {gone.key}, last listed on {found.last_day}: the "
                    "broker has no candles of contracts that are gone"
                )
                if _can_be_continuous(gone):
                    says += (
                        ", but the days of this future with those of its successor: ask for that "
                        "one with interval=day and continuous=true"
                    )
        return UnknownInstrumentError(says, field="instrument_token")


def _can_be_continuous(instrument: Instrument) -> bool:
    return instrument.is_future and instrument.exchange in _CONTINUOUS_EXCHANGES


def _check_continuous(instrument: Instrument, interval: str) -> None:
    if not _can_be_continuous(instrument):
        raise InvalidRequestError(
            "continuous candles are of futures on NFO and MCX", field="continuous"
        )
    if interval != "day":
        raise InvalidRequestError("continuous candles are of days", field="interval")
