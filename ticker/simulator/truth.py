"""What the market really is: the numbers that a client is supposed to find out."""

import datetime as dt
from collections.abc import Mapping

import numpy as np

from ticker.simulator import pricing
from ticker.simulator.market import Market
from ticker.ticks import Row


def market_truth(market: Market) -> dict[str, object]:
    """Spots, carries and, per expiry, forwards, as of the market's last step.

    ``years`` is calendar time over 365 days, ``atm_volatility`` the level that enters the smile
    before its lift for short expiries, ``expires_at`` UNIX seconds.
    """
    paths, now = market.fair.paths, np.array([market.now])
    spots = paths.spots(paths.everything, now)
    volatilities = paths.volatilities(paths.everything, now)
    underlyings = {
        row.name: {
            "spot": float(spot),
            "atm_volatility": float(volatility),
            "carry": row.carry,
            "expiries": [],
        }
        for row, spot, volatility in zip(
            market.dump.underlyings, spots[:, 0], volatilities[:, 0], strict=True
        )
    }
    for (name, expiry), positions in _expiries(market).items():
        at = np.array(positions[:1])
        _, forward, _ = market.fair.detail(at, np.array([market.now]))
        years = market.fair.years(at, np.array([market.now]))
        underlyings[name]["expiries"].append(  # type: ignore[attr-defined]
            {
                "exchange": market.dump.instruments[positions[0]].exchange,
                "expiry": expiry.isoformat(),
                "years": float(years[0, 0]),
                "forward": float(forward[0, 0]),
            }
        )
    return {
        "now": market.now,
        "step": market.step,
        "date": market.dump.date.isoformat(),
        "discount_rate": pricing.DISCOUNT_RATE,
        "smile": _smile(),
        "underlyings": underlyings,
    }


def expiry_truth(market: Market, underlying: str, expiry: dt.date) -> list[dict[str, object]]:
    """Every contract of one expiry: its fair value and, for options, the smile's volatility."""
    positions = _expiries(market).get((underlying, expiry), [])
    at = np.array(positions, dtype=np.intp)
    fair, forward, volatility = market.fair.detail(at, np.array([market.now]))
    rows = []
    for place, position in enumerate(positions):
        row = market.dump.instruments[position]
        wire = int(market.words[Row.LAST_PRICE, position])
        rows.append(
            {
                "instrument_token": row.instrument_token,
                "tradingsymbol": row.tradingsymbol,
                "instrument_type": row.instrument_type,
                "strike": row.strike,
                "tick_size": row.tick_size,
                "last_price": wire / float(market.divisor[position]),
                "fair_value": float(fair[place, 0]),
                "forward": float(forward[place, 0]),
                "implied_volatility": float(volatility[place, 0]) if row.is_option else None,
            }
        )
    return rows


def _expiries(market: Market) -> Mapping[tuple[str, dt.date], list[int]]:
    found: dict[tuple[str, dt.date], list[int]] = {}
    for position, row in enumerate(market.dump.instruments):
        if row.expiry is not None:
            found.setdefault((row.underlying, row.expiry), []).append(position)
    return found


def _smile() -> dict[str, object]:
    return {
        "skew": pricing.SKEW,
        "convexity": pricing.CONVEXITY,
        "wing": pricing.WING,
        "front_lift": pricing.FRONT_LIFT,
        "front_decay": pricing.FRONT_DECAY,
        "formula": "a = atm * (1 + front_lift * exp(-front_decay * T)); "
        "y = wing * tanh(ln(K / F) / (a * sqrt(T)) / wing); "
        "volatility = a * (1 + skew * y + convexity * y**2)",
    }
