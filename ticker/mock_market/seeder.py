"""Where the mock market's first prices come from, each asked for once however many want it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from ticker.engine import Newest
from ticker.errors import BrokerError, UnknownAccountError
from ticker.instruments.registry import Instrument
from ticker.mock_market.market import MockMarket
from ticker.mock_market.packets import is_price
from ticker.mock_market.seeds import LastValue, Source

LoadNewest = Callable[[Sequence[int]], Mapping[int, Newest]]
"""``Engine.newest``: called in a worker thread."""
LoadCandle = Callable[[Instrument, float, float], Awaitable[float | None]]
"""The close of the newest minute candle that opens between two UNIX times, the second of them not
included; rupees, None if there is none. Raises BrokerError, or UnknownAccountError because there is
no account."""
LoadQuotes = Callable[[Sequence[str]], Awaitable[Mapping[str, float]]]
"""Last prices in rupees by ``EXCHANGE:TRADINGSYMBOL``, of those that have one. Raises as
``LoadCandle``."""

LastSession = Callable[[str, float], tuple[float, float] | None]
"""``TradingHours.last_session``."""

QUOTES_MAX: Final = 500
"""Keys in one call of ``LoadQuotes``."""


@dataclass(eq=False)
class _Attempt:
    tokens: tuple[int, ...]
    ended: trio.Event = field(default_factory=trio.Event)
    is_complete: bool = False


class Seeder:
    """Admits instruments to the market: at their newest price on record, else at the close of
    their last minute candle, else at the broker's last price, else at the model's.

    Candles are looked for in the last ``policy.history_s`` of continuous trading: the auctions
    and the post-close session make none, and each segment has hours of its own.

    What is on record is admitted before the broker is asked for the others. It is asked within
    ``policy.candles_s`` and ``policy.quotes_s``, underlyings and futures first, and after its
    first refusal no more: without a session, models do.
    """

    def __init__(
        self,
        market: MockMarket,
        *,
        load_newest: LoadNewest,
        last_session: LastSession,
        load_candle: LoadCandle | None = None,
        load_quotes: LoadQuotes | None = None,
        wall_clock: Callable[[], float],
    ) -> None:
        self._market = market
        self._load_newest = load_newest
        self._last_session = last_session
        self._load_candle = load_candle
        self._load_quotes = load_quotes
        self._wall_clock = wall_clock
        self._under_way: dict[int, _Attempt] = {}

    async def seed(self, instruments: Sequence[Instrument]) -> None:
        """Return when all are held, or were refused a place.

        Of many callers with one instrument, one asks and the others wait; if it is cancelled,
        another takes over.
        """
        tried: set[int] = set()
        while True:
            left = [
                each
                for each in self._market.missing(instruments)
                if each.instrument_token not in tried
            ]
            free = [each for each in left if each.instrument_token not in self._under_way]
            if free:
                tried.update(each.instrument_token for each in free)
                await self._attempt(free)
            elif left:
                attempt = self._under_way[left[0].instrument_token]
                await attempt.ended.wait()
                if attempt.is_complete:
                    tried.update(attempt.tokens)
            else:
                return

    async def _attempt(self, instruments: Sequence[Instrument]) -> None:
        attempt = _Attempt(tuple(each.instrument_token for each in instruments))
        self._under_way |= dict.fromkeys(attempt.tokens, attempt)
        try:
            values = await self._read(attempt.tokens)
            on_record = [each for each in instruments if each.instrument_token in values]
            await self._admit(on_record, values)  # these need not wait for the broker
            rest = [each for each in instruments if each.instrument_token not in values]
            await self._admit(rest, await self._ask(rest))
            attempt.is_complete = True
        finally:
            for token in attempt.tokens:
                del self._under_way[token]
            attempt.ended.set()

    async def _admit(
        self, instruments: Sequence[Instrument], values: Mapping[int, LastValue]
    ) -> None:
        if instruments:
            now = self._wall_clock()
            await trio.to_thread.run_sync(self._market.admit, instruments, values, now)

    async def _read(self, tokens: Sequence[int]) -> dict[int, LastValue]:
        newest = await trio.to_thread.run_sync(self._load_newest, tokens)
        return {
            token: LastValue(each.price, "live", each.words, each.forward, each.is_mock)
            for token, each in newest.items()
            if each.price > 0
        }

    async def _ask(self, instruments: Sequence[Instrument]) -> dict[int, LastValue]:
        values: dict[int, LastValue] = {}
        for ask in (self._ask_candles, self._ask_quotes):
            rest = [each for each in instruments if each.instrument_token not in values]
            rest.sort(key=lambda each: each.is_option)
            try:
                await ask(rest, values)
            except (BrokerError, UnknownAccountError):  # the latter: no account is left
                continue
        return values

    async def _ask_candles(
        self, instruments: Sequence[Instrument], values: dict[int, LastValue]
    ) -> None:
        policy = self._market.policy
        if self._load_candle is None or policy.history_s == 0:
            return
        now = self._wall_clock()
        exchanges = {each.exchange for each in instruments}
        sessions = {exchange: self._last_session(exchange, now) for exchange in exchanges}
        with trio.move_on_after(policy.candles_s):
            for each in instruments:
                if (session := sessions[each.exchange]) is None:
                    continue
                since, until = session
                price = await self._load_candle(each, max(since, until - policy.history_s), until)
                _note(values, each, price, "candle")

    async def _ask_quotes(
        self, instruments: Sequence[Instrument], values: dict[int, LastValue]
    ) -> None:
        if self._load_quotes is None:
            return
        with trio.move_on_after(self._market.policy.quotes_s):
            for start in range(0, len(instruments), QUOTES_MAX):
                part = instruments[start : start + QUOTES_MAX]
                prices = await self._load_quotes([each.key for each in part])
                for each in part:
                    _note(values, each, prices.get(each.key), "quote")


def _note(
    values: dict[int, LastValue], instrument: Instrument, price: float | None, source: Source
) -> None:
    if price is not None and is_price(instrument, price):
        values[instrument.instrument_token] = LastValue(price, source)
