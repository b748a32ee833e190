"""One option at a time with vollib: slow, obvious, and what the kernel is measured against."""

from typing import Any, NamedTuple

from vollib.black.greeks import analytical as black_greeks
from vollib.black.implied_volatility import implied_volatility as black_volatility
from vollib.black_scholes.greeks import analytical as spot_greeks
from vollib.black_scholes.implied_volatility import implied_volatility as spot_volatility
from vollib.black_scholes_merton.greeks import analytical as yield_greeks
from vollib.black_scholes_merton.implied_volatility import implied_volatility as yield_volatility


class ReferenceGreeks(NamedTuple):
    """The first six rows of the kernel's ``out``, in the same units."""

    iv: float
    delta: float
    gamma: float
    theta: float
    vega: float
    rho: float


def price_reference(
    price: float,
    underlying: float,
    strike: float,
    years: float,
    rate: float,
    carry: float,
    *,
    is_call: bool,
) -> ReferenceGreeks:
    """Implied volatility and Greeks of one option; arguments as one lane of ``price_options``.

    ``carry`` chooses vollib's model: 0 is ``black``, ``rate`` is ``black_scholes``, all else
    ``black_scholes_merton`` with the dividend yield ``rate - carry``.

    Raises what vollib raises: PriceIsBelowIntrinsic or PriceIsAboveMaximum of
    ``vollib.helpers.exceptions`` where no volatility fits the price, ValueError or
    ZeroDivisionError for other values that it cannot use.
    """
    flag = "c" if is_call else "p"
    U, K, T, r, q = underlying, strike, years, rate, rate - carry
    if carry == 0.0:
        return _greeks(black_greeks, flag, U, K, T, r, black_volatility(price, U, K, r, T, flag))
    if carry == rate:
        return _greeks(spot_greeks, flag, U, K, T, r, spot_volatility(price, U, K, T, r, flag))
    sigma = yield_volatility(price, U, K, T, r, q, flag)
    return _greeks(yield_greeks, flag, U, K, T, r, sigma, q)


def _greeks(
    model: Any, flag: str, U: float, K: float, T: float, r: float, sigma: float, *q: float
) -> ReferenceGreeks:
    """All of a model's analytical Greeks; ``q`` where the model has a dividend yield."""
    order = (model.delta, model.gamma, model.theta, model.vega, model.rho)
    return ReferenceGreeks(
        float(sigma), *(float(greek(flag, U, K, T, r, sigma, *q)) for greek in order)
    )
