"""What the board has of one expiry's options, copied at one moment, and read value by value."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np

from ticker.board import NO_SLOT, Board, Known
from ticker.greeks.chains import Chains
from ticker.greeks.forward import ForwardSource
from ticker.greeks.kernel import GreekRow
from ticker.greeks.pricing import STATUS_NAMES
from ticker.instruments.registry import Instrument
from ticker.ticks import Int32Array, PacketKind, Row

STALE_S: Final = 5.0
"""Age from which a value is told to be old."""

Reason = Literal["no_tick"]
IsMock = Callable[[int], bool]
"""Whether what came over a connection, by its number on the board, is not the market's."""

_OK: Final = STATUS_NAMES.index("ok")


class OptionQuote(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a strike; prices in rupees, Greeks as in the payloads.

    ``bid``, ``ask``: best of the book, if the newest tick had one. ``oi_day_high``,
    ``oi_day_low``: the broker tells the day's range of the open interest, not its change.
    ``change``: since the previous close. ``age_s``: since the newest tick arrived. ``is_mock``:
    whether that was one of a mock or simulated market.
    ``reason``: why there are no values; None if there are.
    """

    instrument_token: int
    tradingsymbol: str
    lot_size: int
    last_price: float | None = None
    change: float | None = None
    bid: float | None = None
    bid_quantity: int | None = None
    ask: float | None = None
    ask_quantity: int | None = None
    volume: int | None = None
    oi: int | None = None
    oi_day_high: int | None = None
    oi_day_low: int | None = None
    iv: float | None = None
    delta: float | None = None
    gamma: float | None = None
    theta: float | None = None
    vega: float | None = None
    rho: float | None = None
    greeks_status: str | None = None
    age_s: float | None = None
    is_stale: bool | None = None
    is_mock: bool | None = None
    reason: Reason | None = None


class Straddle(msgspec.Struct, frozen=True, kw_only=True):
    """Call and put at the money; each price is the middle of its book, or its last price."""

    strike: float
    call: float
    put: float
    price: float


class Price(msgspec.Struct, frozen=True):
    """Rupees, and how old that is; None if unknown."""

    price: float | None = None
    age_s: float | None = None


_NO_PRICE: Final = Price()
_COUNT_BITS: Final[Mapping[Row, Known]] = {
    Row.VOLUME_TRADED: Known.FLOW,
    Row.OI: Known.INTEREST,
    Row.OI_DAY_HIGH: Known.INTEREST,
    Row.OI_DAY_LOW: Known.INTEREST,
}


class ChainView:
    """A copy of what the board has of some options of one expiry, all of one moment."""

    def __init__(
        self, board: Board, chains: Chains, listed: Sequence[Instrument], is_mock: IsMock | None
    ) -> None:
        tokens = np.array([row.instrument_token for row in listed], np.uint32)
        self.listed = listed
        self._group: Any = None
        self._spot: Any = None
        with board.lock:  # the forward and the prices it comes from are of one batch
            slots = board.find(tokens)
            self.rows = board.rows[slots]
            self.words: Int32Array = board.words[slots]
            # A new registry reaches the board with the next frame: till then, a token that is
            # another contract's since has that one's prices there.
            self.is_seen = [
                slot != NO_SLOT
                and bool(board.rows[slot]["known"] & Known.PRICE)
                and board.instruments[slot].contract == row.contract
                for slot, row in zip(slots.tolist(), listed, strict=True)
            ]
            self.is_mock = [
                is_mock(int(source)) if is_mock is not None and is_seen else None
                for source, is_seen in zip(self.rows["source"], self.is_seen, strict=True)
            ]
            groups = self.rows["group"][self.is_seen]
            if len(groups) and groups[0] >= 0:
                self._group = chains.groups[groups[0]].copy()
                if self._group["spot"] != NO_SLOT:
                    self._spot = board.rows[self._group["spot"]].copy()

    def quote(self, row: Instrument, place: int, now: float) -> OptionQuote:
        """One side as it is told."""
        if not self.is_seen[place]:
            return OptionQuote(
                instrument_token=row.instrument_token,
                tradingsymbol=row.tradingsymbol,
                lot_size=row.lot_size,
                reason="no_tick",
            )
        state = self.rows[place]
        age_s = max(now - float(state["received_at"]), 0.0)
        bid, bid_quantity = self._best(place, Row.BIDS)
        ask, ask_quantity = self._best(place, Row.ASKS)
        is_priced = int(state["status"]) == _OK
        greeks = [float(value) if is_priced else None for value in state["greeks"]]
        return OptionQuote(
            instrument_token=row.instrument_token,
            tradingsymbol=row.tradingsymbol,
            lot_size=row.lot_size,
            last_price=self._rupees(place, Row.LAST_PRICE),
            change=self._change(place),
            bid=bid,
            bid_quantity=bid_quantity,
            ask=ask,
            ask_quantity=ask_quantity,
            volume=self.count(place, Row.VOLUME_TRADED),
            oi=self.count(place, Row.OI),
            oi_day_high=self.count(place, Row.OI_DAY_HIGH),
            oi_day_low=self.count(place, Row.OI_DAY_LOW),
            iv=greeks[GreekRow.IV],
            delta=greeks[GreekRow.DELTA],
            gamma=greeks[GreekRow.GAMMA],
            theta=greeks[GreekRow.THETA],
            vega=greeks[GreekRow.VEGA],
            rho=greeks[GreekRow.RHO],
            greeks_status=STATUS_NAMES[int(state["status"])],
            age_s=age_s,
            is_stale=age_s > STALE_S,
            is_mock=self.is_mock[place],
        )

    def count(self, place: int, word: Row) -> int | None:
        """A quantity; None if no packet so far carried it."""
        if not self.is_seen[place] or not self.rows[place]["known"] & _COUNT_BITS[word]:
            return None
        return int(self.words[place, word]) & 0xFFFF_FFFF

    def forward(self, now: float) -> Price:
        """What the options are priced from."""
        group = self._group
        return _NO_PRICE if group is None else _price(group["forward"], group["forward_at"], now)

    def forward_source(self) -> str | None:
        """Where that comes from, as the payloads name it."""
        source = 0 if self._group is None else int(self._group["source"])
        return ForwardSource(source).name.lower() if source else None

    def spot(self, now: float) -> Price:
        """The index, or the share; a middle of the book, or a last price."""
        spot = self._spot
        return _NO_PRICE if spot is None else _price(spot["quote"], spot["quoted_at"], now)

    def straddle(self, strike: float) -> Straddle | None:
        """Both sides of a strike; None if one has no price."""
        legs: dict[str, float] = {}
        for place, row in enumerate(self.listed):
            quote = float(self.rows[place]["quote"])
            if row.strike == strike and self.is_seen[place] and math.isfinite(quote):
                legs[row.instrument_type] = quote
        call, put = legs.get("CE"), legs.get("PE")
        if call is None or put is None:
            return None
        return Straddle(strike=strike, call=call, put=put, price=call + put)

    def max_pain(self) -> float | None:
        """The strike with the least sum of intrinsic values of the open interest, if any."""
        open_interest = np.array([self.count(i, Row.OI) or 0 for i in range(len(self.listed))])
        strikes = np.array([row.strike for row in self.listed])
        sign = np.array([1.0 if row.instrument_type == "CE" else -1.0 for row in self.listed])
        if not open_interest.any():
            return None
        levels = np.unique(strikes)
        worth = np.maximum(sign * (levels[:, None] - strikes), 0.0) @ open_interest
        return float(levels[int(np.argmin(worth))])

    def _rupees(self, place: int, word: int) -> float:
        return int(self.words[place, word]) / float(self.rows[place]["divisor"])

    def _change(self, place: int) -> float | None:
        close = self._rupees(place, Row.CLOSE)
        if not self.rows[place]["known"] & Known.DAY or close == 0:
            return None
        return self._rupees(place, Row.LAST_PRICE) - close

    def _best(self, place: int, side: int) -> tuple[float | None, int | None]:
        """Price and quantity of the first level; None where the tick had no book or no order."""
        quantity = int(self.words[place, side]) & 0xFFFF_FFFF
        if self.rows[place]["kind"] != PacketKind.FULL or quantity == 0:
            return None, None
        return self._rupees(place, side + 1), quantity


def _price(price: Any, at: Any, now: float) -> Price:
    if not math.isfinite(price):
        return _NO_PRICE
    return Price(float(price), max(now - float(at), 0.0) if math.isfinite(at) else None)
