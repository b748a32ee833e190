"""What the simulated market trades: every underlying with its contract terms and dynamics.

Contract terms (lots, steps, expiry days, ticks) are those of the exchanges in early 2026; prices
are of the right size and nothing more. Volatilities and carries are annual fractions.
"""

import csv
from dataclasses import dataclass, replace
from importlib import resources
from typing import Final, Literal

InstrumentSet = Literal["near", "full", "whole"]
"""``near``: what an index-options trader watches, a few thousand instruments. ``full``: every
expiry and every stock, about 45,000. ``whole``: beside those what nobody trades, 100,000 in all."""

TUESDAY: Final = 1
WEDNESDAY: Final = 2
THURSDAY: Final = 3
FRIDAY: Final = 4

SEGMENT_IDS: Final = {
    "NSE": 1,
    "NFO": 2,
    "CDS": 3,
    "BSE": 4,
    "BFO": 5,
    "BCD": 6,
    "MCX": 7,
    "INDICES": 9,
    "NCO": 12,
}
"""Low byte of an instrument token."""


@dataclass(frozen=True, slots=True)
class Spot:
    """The listed thing itself. ``exchange_token`` None: one is made up."""

    tradingsymbol: str
    name: str
    exchange: str
    exchange_token: int | None
    is_index: bool
    tick_size: float


@dataclass(frozen=True, slots=True)
class Chain:
    """Contract terms of the derivatives.

    ``strikes``: how many on each side of the money, for the nearest expiry, the second, and all
    later ones (the last number repeats); empty where there are no options. ``weeklies``,
    ``months``, ``quarters``, ``half_years``: how many expiries of each; futures have the months.
    """

    exchange: str
    lot_size: int
    strike_step: float
    strikes: tuple[int, ...]
    expiry_weekday: int
    weeklies: int
    months: int
    future_tick: float
    option_tick: float
    quarters: int = 0
    half_years: int = 0


@dataclass(frozen=True, slots=True)
class Underlying:
    """One price process and what is listed on it.

    ``volatility``: at the money, also scales the spot's own moves. ``carry``: the forward is
    spot times exp(carry times years). ``market_weight``: correlation with the common factor.
    """

    name: str
    price: float
    volatility: float
    carry: float
    market_weight: float
    spot: Spot | None
    chain: Chain | None


def _index(symbol: str, exchange: str, exchange_token: int) -> Spot:
    return Spot(symbol, symbol, exchange, exchange_token, is_index=True, tick_size=0.05)


VIX: Final = "INDIA VIX"
"""Not traded: shows the 30-day volatility of NIFTY's smile, in percent."""

INDEX_SPOTS_ONLY: Final = (
    Underlying(VIX, 13.0, 0.0, 0.0, 0.0, _index(VIX, "NSE", 1035), None),
    Underlying("NIFTY 500", 23_600.0, 0.13, 0.0, 0.95, _index("NIFTY 500", "NSE", 1047), None),
    Underlying("NIFTY IT", 36_400.0, 0.20, 0.0, 0.6, _index("NIFTY IT", "NSE", 1015), None),
)

NIFTY: Final = Underlying(
    "NIFTY", 25_900.0, 0.125, 0.061, 0.97, _index("NIFTY 50", "NSE", 1001),
    Chain("NFO", 65, 50, (45, 45, 45), TUESDAY, 4, 3, 0.10, 0.05, quarters=3, half_years=8),
)  # fmt: skip
BANKNIFTY: Final = Underlying(
    "BANKNIFTY", 58_900.0, 0.145, 0.060, 0.90, _index("NIFTY BANK", "NSE", 1016),
    Chain("NFO", 30, 100, (62, 55, 45), TUESDAY, 0, 3, 0.20, 0.05, quarters=3),
)  # fmt: skip
FINNIFTY: Final = Underlying(
    "FINNIFTY", 27_500.0, 0.15, 0.060, 0.90, _index("NIFTY FIN SERVICE", "NSE", 1007),
    Chain("NFO", 60, 50, (48, 30, 20), TUESDAY, 0, 3, 0.10, 0.05),
)  # fmt: skip
MIDCPNIFTY: Final = Underlying(
    "MIDCPNIFTY", 13_900.0, 0.17, 0.058, 0.85, _index("NIFTY MID SELECT", "NSE", 1125),
    Chain("NFO", 120, 25, (60, 50, 40), TUESDAY, 0, 3, 0.05, 0.05),
)  # fmt: skip
NIFTYNXT50: Final = Underlying(
    "NIFTYNXT50", 69_500.0, 0.18, 0.058, 0.85, _index("NIFTY NEXT 50", "NSE", 1058),
    Chain("NFO", 25, 100, (70, 70, 70), TUESDAY, 0, 3, 0.20, 0.05),
)  # fmt: skip
SENSEX: Final = Underlying(
    "SENSEX", 84_700.0, 0.125, 0.061, 0.97, _index("SENSEX", "BSE", 1),
    Chain("BFO", 20, 100, (50, 50, 50), THURSDAY, 2, 3, 0.05, 0.05),
)  # fmt: skip
BANKEX: Final = Underlying(
    "BANKEX", 66_100.0, 0.145, 0.060, 0.90, _index("BANKEX", "BSE", 1072),
    Chain("BFO", 30, 100, (40, 30, 20), THURSDAY, 0, 1, 0.05, 0.05),
)  # fmt: skip

CURRENCIES: Final = (
    Underlying(
        "USDINR", 88.6, 0.035, 0.018, 0.0, None,
        Chain("CDS", 1000, 0.25, (12, 12, 12), WEDNESDAY, 0, 3, 0.0025, 0.0025),
    ),
    Underlying(
        "EURINR", 102.3, 0.06, 0.03, 0.0, None,
        Chain("BCD", 1000, 0.25, (), WEDNESDAY, 0, 3, 0.0025, 0.0025),
    ),
)  # fmt: skip

COMMODITIES: Final = (
    Underlying(
        "CRUDEOIL", 5_250.0, 0.33, 0.0, 0.1, None,
        Chain("MCX", 1, 50, (20, 15), THURSDAY, 0, 2, 1.0, 0.1),
    ),
    Underlying(
        "GOLD", 122_500.0, 0.16, 0.06, -0.1, None,
        Chain("MCX", 1, 500, (), FRIDAY, 0, 3, 1.0, 0.5),
    ),
    Underlying(
        "GOLDM", 122_400.0, 0.16, 0.06, -0.1, None,
        Chain("NCO", 1, 500, (), FRIDAY, 0, 2, 1.0, 0.5),
    ),
)  # fmt: skip


def load_underlyings(which: InstrumentSet) -> tuple[Underlying, ...]:
    """Every underlying of the set, in the order of the dump: indices first."""
    everywhere = (NIFTY, BANKNIFTY, FINNIFTY, MIDCPNIFTY)
    elsewhere = (SENSEX, BANKEX, *CURRENCIES, *COMMODITIES)
    stocks = _load_stocks()
    if which == "near":
        well_known = (stock for stock in stocks if stock.spot and stock.spot.exchange_token)
        near = (_without_far_expiries(index) for index in everywhere)
        return (*near, *INDEX_SPOTS_ONLY, *elsewhere, *(_cash_only(row) for row in well_known))
    return (*everywhere, NIFTYNXT50, *INDEX_SPOTS_ONLY, *elsewhere, *stocks)


def _load_stocks() -> tuple[Underlying, ...]:
    source = resources.files(__package__) / "stocks.csv"
    rows = csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    return tuple(_stock(row) for row in rows)


def _stock(row: dict[str, str]) -> Underlying:
    price = float(row["price"])
    tick = stock_tick(price)
    symbol = row["tradingsymbol"]
    exchange_token = int(row["exchange_token"]) if row["exchange_token"] else None
    spot = Spot(symbol, row["name"] or symbol, "NSE", exchange_token, False, tick)
    step = _stock_strike_step(price)
    lot = max(round(700_000 / price / 25), 1) * 25
    option_tick = 0.01 if price < 250 else 0.05
    chain = Chain("NFO", lot, step, (26, 15, 6), TUESDAY, 0, 3, tick, option_tick)
    return Underlying(symbol, price, 0.27, 0.062, 0.55, spot, chain)


def _without_far_expiries(index: Underlying) -> Underlying:
    if index.chain is None:
        return index
    return replace(index, chain=replace(index.chain, quarters=0, half_years=0))


def _cash_only(stock: Underlying) -> Underlying:
    """The share itself and its near-month future, without the rest of its derivatives."""
    if stock.chain is None:
        return stock
    return replace(stock, chain=replace(stock.chain, strikes=(), months=1))


def stock_tick(price: float) -> float:
    """Tick size in rupees of a share at ``price`` (NSE, since 2025)."""
    for limit, tick in ((250, 0.01), (1000, 0.05), (5000, 0.10), (10_000, 0.50), (20_000, 1.0)):
        if price < limit:
            return tick
    return 5.0


def _stock_strike_step(price: float) -> float:
    limits = ((25, 0.5), (50, 1), (250, 2.5), (500, 5), (1000, 10), (2500, 20), (5000, 50))
    return next((step for limit, step in limits if price < limit), 100.0)
