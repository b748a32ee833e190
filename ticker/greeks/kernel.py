"""Implied volatility and Greeks of a batch of European options in one call without the GIL.

All models here are Black's formula on a forward: with F = U exp(b T) and s = sigma sqrt(T), the
premium is exp(-r T) Black(F, K, s). ``carry`` b = 0 is Black-76 (U is the forward), b = r
Black-Scholes, b = r - q Black-Scholes-Merton.

How a lane is solved. Put-call parity leaves the out-of-the-money time value, which is divided by
exp(-r T) sqrt(F K): beta. With a = |ln(F / K)|, h = a / s and t = s / 2,

    beta = phi(h) exp(-t^2 / 2) (R(h - t) - R(h + t)),    R(z) = Phi(-z) / phi(z)

where the difference of the Mills ratios R is summed as a series in t, so that nothing cancels.

1. Guess: to leading order in t this is Bachelier's formula, whose inverse is a function of beta / a
   alone: a polynomial in sqrt(v / atanh(v)), v = a / (a + 2 beta) (Choi, Kim and Kwak, "Numerical
   approximation of the implied volatility under arithmetic Brownian motion", 2009); then the next
   order in t.
2. One Householder step of fourth order on ln(beta) (as in Jaeckel, "Let's be rational", 2015).
   The guess is good to 2e-5, so its fourth power is below the rounding error.
3. Greeks in closed form from phi, R(h + t) and, by the price itself, R(h - t).

The loop has no branch and calls nothing, so that LLVM turns it into vector instructions. Lanes
beyond its domain (s >= 0.4, strike and forward a factor of two apart) are then solved one by one
with libm's erfc.

Everything compiled stands in this one file: numba's disk cache looks at no other.
"""

import functools
import math
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit, types

FloatArray = npt.NDArray[np.float64]
UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


class GreekRow(IntEnum):
    """Row of each result in ``out``.

    Units are vollib's, and those of most option chains, where vollib has the Greek; the second
    order is in raw partial derivatives. V is the premium and t the calendar in years of 365 days,
    so that d/dt = -d/dT.
    """

    IV = 0
    """Implied volatility sigma as a fraction per square root of a year."""
    DELTA = 1
    """dV/dU; in Black-76 discounted, and with respect to the forward."""
    GAMMA = 2
    """d2V/dU2, per rupee."""
    THETA = 3
    """dV/dt per calendar day: a 365th of the derivative, U and sigma held."""
    VEGA = 4
    """dV/dsigma per volatility point: a 100th of the derivative."""
    RHO = 5
    """dV/dr per percentage point: a 100th of the derivative. With b != 0, b moves with r; with
    b = 0 the forward is held (Black-76), which leaves -T V."""
    VANNA = 6
    """d2V/dUdsigma = d(delta)/dsigma, per 1.0 of volatility."""
    VOLGA = 7
    """d2V/dsigma2, per 1.0 of volatility squared."""
    CHARM = 8
    """d(delta)/dt = -d(delta)/dT per year, U, sigma, r and b held."""


class GreeksStatus(IntEnum):
    """Why a lane has, or has not, a price-implied volatility; the payload's ``greeks_status``."""

    OK = 0
    NO_TIME_VALUE = 1
    """Time value within the price's uncertainty of zero: no volatility can be told."""
    BELOW_INTRINSIC = 2
    """Premium under the discounted intrinsic value by more than the price's uncertainty."""
    ABOVE_MAXIMUM = 3
    """Premium at or above the discounted forward (call) or strike (put)."""
    EXPIRED = 4
    BAD_INPUT = 5
    """NaN, infinite, a negative premium, or no positive underlying and strike."""
    UNSOLVED = 6
    """Finite and arbitrage-free, but its volatility or a Greek leaves the range of doubles."""


OK: Final = float(GreeksStatus.OK)
NO_TIME_VALUE: Final = float(GreeksStatus.NO_TIME_VALUE)
BELOW_INTRINSIC: Final = float(GreeksStatus.BELOW_INTRINSIC)
ABOVE_MAXIMUM: Final = float(GreeksStatus.ABOVE_MAXIMUM)
EXPIRED: Final = float(GreeksStatus.EXPIRED)
BAD_INPUT: Final = float(GreeksStatus.BAD_INPUT)
UNSOLVED: Final = float(GreeksStatus.UNSOLVED)
PENDING: Final = float(len(GreeksStatus))
"""The statuses as the kernel works on them, and one for a lane left to ``_price_wide``."""

MILLS_SCALE: Final = 6.0
"""z0 of the map q = (z - z0) / (z + z0) that takes [0, infinity) to [-1, 1)."""
MONEYNESS_MAX: Final = 7.0
"""Greatest h of the vector loop; further out the time value is under 1e-12 of the forward."""
DEVIATION_MAX: Final = 0.4
"""s from which the series in t is no longer summed to the last bit."""
STEP_MAX: Final = 4e-5
"""Householder step, relative, beyond which a lane is not trusted to be solved by one: what it
leaves is under 35 of its fourth powers."""

# The four polynomials, lowest power first; tests/ticker/greeks/derive_coefficients.py derives them.
# (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2
EXP: Final = (
    0.5000000000000001,
    0.16666666666666669,
    0.041666666666624164,
    0.008333333333330065,
    0.0013888888917196719,
    0.00019841269863040545,
    2.4801521322368692e-05,
    2.7557268480310024e-06,
    2.7620075879983367e-07,
    2.5100375832561234e-08,
)
# (atanh(z) / z - 1) / z^2 in z^2 on |z| <= 1 / 3
ATANH: Final = (
    0.3333333333333333,
    0.20000000000007292,
    0.1428571428355438,
    0.11111111358713932,
    0.09090894718066429,
    0.07692785032479312,
    0.06657072104827468,
    0.06000536404795356,
    0.04400369243072337,
    0.08082022805971766,
)
# (z + z0) R(z) in q on z <= MONEYNESS_MAX + DEVIATION_MAX / 2
MILLS: Final = (
    1.9485319307624096,
    -1.757169054344103,
    1.426193511608398,
    -1.037502431076552,
    0.671711821498925,
    -0.38271258661896657,
    0.1884280497727152,
    -0.07766866809679586,
    0.025141000571732297,
    -0.005343405792699729,
    8.117241677426822e-05,
    0.0004508539553072495,
    -0.0001704491586069525,
    -1.0072202771151064e-05,
    2.588530368461332e-06,
    -1.6005210796232788e-05,
    -7.084621745383861e-06,
    -9.131246538729234e-07,
)
# Bachelier's deviation over sqrt(pi / 2) straddles, in u = sqrt(v / atanh(v))
GUESS: Final = (
    0.15664497205864764,
    -3.7837875242624706,
    50.350631515120284,
    -360.04457060554864,
    1718.7279448121105,
    -5743.514730893207,
    13839.918884541883,
    -24349.665326934457,
    31307.898045834634,
    -29102.88959697512,
    19048.218293292535,
    -8329.124211055465,
    2184.8358013771785,
    -260.08402239865836,
)
# next order of the lognormal deviation over the normal one, beside 1 + s^2 / 24: s^4 and a^2 s^2
GUESS_NEXT: Final = (0.0035048, -0.00072819)

LN2_HIGH: Final = 6.93147180369123816490e-01
LN2_LOW: Final = 1.90821492927058770002e-10
"""ln(2) in two parts, the first short enough that k * LN2_HIGH is exact."""
ROUND: Final = 1.5 * 2.0**52
"""Added to a double under 2^51, it leaves the nearest integer in the low bits."""
EXPONENT_MAX: Final = 700.0
MANTISSA: Final = 2**52 - 1
ROOT_HALF_BITS: Final = 0x3FE6A09E667F3BCD
"""Bit pattern of sqrt(1/2): the mantissas of logarithms lie in [sqrt(1/2), sqrt(2))."""
INVERSE_ROOT_TWO_PI: Final = 0.3989422804014327
ROOT_HALF_PI: Final = 1.2533141373155003
ROOT_HALF: Final = 0.7071067811865476

# Not full fastmath: it would assume that there are no NaNs, and delete the checks for them.
_FASTMATH: Final = {"contract", "nsz"}
_inline: Any = njit(forceinline=True, error_model="numpy", fastmath=_FASTMATH)
_compiled: Any = njit(error_model="numpy", fastmath=_FASTMATH)


@_inline
def _polynomial(x: float, c: tuple[float, ...]) -> float:
    """Sum of c[k] x^k for an even number of coefficients, as two chains of half the latency."""
    x2 = x * x
    n = len(c)
    odd = c[n - 1]
    even = c[n - 2]
    for k in range(n - 4, -1, -2):
        odd = odd * x2 + c[k + 1]
        even = even * x2 + c[k]
    return odd * x + even


@_inline
def _exp(x: float) -> float:
    """Exponential to 1 ulp, exact at 0, for |x| <= EXPONENT_MAX; clipped beyond."""
    x = min(max(x, -EXPONENT_MAX), EXPONENT_MAX)
    shifted = x * (1.0 / math.log(2.0)) + ROUND
    k = shifted - ROUND
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    y = 1.0 + (r + r * r * _polynomial(r, EXP))
    power = np.float64(shifted).view(np.int64) << np.int64(52)
    scaled = np.float64(y).view(np.int64) + power
    return np.int64(scaled).view(np.float64)


@_inline
def _rough_log(x: float) -> float:
    """Natural logarithm to 2e-9 of a normal x >= 1: enough for the guess."""
    bits = np.float64(x).view(np.int64) - np.int64(ROOT_HALF_BITS)
    exponent = bits >> np.int64(52)
    mantissa = (bits & np.int64(MANTISSA)) + np.int64(ROOT_HALF_BITS)
    m = np.int64(mantissa).view(np.float64)
    z = (m - 1.0) / (m + 1.0)
    z2 = z * z
    series = 1.0 + z2 * (1 / 3 + z2 * (1 / 5 + z2 * (1 / 7 + z2 * (1 / 9))))
    return exponent * math.log(2.0) + 2.0 * z * series


@_inline
def _mills(z: float) -> float:
    """Mills ratio R(z) = Phi(-z) / phi(z) on 0 <= z <= MONEYNESS_MAX + DEVIATION_MAX / 2."""
    inverse = 1.0 / (z + MILLS_SCALE)
    scaled: float = _polynomial((z - MILLS_SCALE) * inverse, MILLS)
    return scaled * inverse


@_inline
def guess_deviation(beta: float, a: float) -> float:
    """Deviation s to 2e-5 relative, for s < DEVIATION_MAX and h < MONEYNESS_MAX."""
    flat = beta / (1.0 + a * a * (1 / 24))
    straddle = 2.0 * flat + a
    v = a / straddle
    # at the money atanh(v) / v is 0 / 0: its series instead
    near = 1.0 - v * v * (1 / 6)
    u = near if v < 0.03 else math.sqrt(2.0 * v / _rough_log(1.0 + a / flat))
    s: float = ROOT_HALF_PI * straddle * _polynomial(u, GUESS)
    s2 = s * s
    return s * (1.0 + s2 * (1 / 24 + GUESS_NEXT[0] * s2 + GUESS_NEXT[1] * a * a))


@_inline
def householder_step(beta: float, a: float, s: float) -> float:
    """Householder's fourth-order step on ln(beta) from s, as a fraction of s.

    ``c0 ...`` are the terms of (R(h - t) - R(h + t)) / 2 t, from R' = h R - 1. An absolute error
    there becomes a relative error of s, whatever h: d ln(beta) / d ln(s) is 1 over their sum.
    """
    h = a / s
    h2 = h * h
    t2 = 0.25 * s * s
    c0: float = 1.0 - h * _mills(h)
    c1 = t2 * (1 / 6) * ((h2 + 3.0) * c0 - 1.0)
    c2 = t2 * (1 / 20) * ((h2 + 7.0) * c1 - t2 * c0)
    c3 = t2 * (1 / 42) * ((h2 + 11.0) * c2 - t2 * c1)
    c4 = t2 * (1 / 72) * ((h2 + 15.0) * c3 - t2 * c2)
    c5 = t2 * (1 / 110) * ((h2 + 19.0) * c4 - t2 * c3)
    c6 = t2 * (1 / 156) * ((h2 + 23.0) * c5 - t2 * c4)
    series = c0 + (c1 + (c2 + (c3 + (c4 + (c5 + c6)))))
    density: float = s * INVERSE_ROOT_TWO_PI * _exp(-0.5 * (h2 + t2))
    inverse = 1.0 / (density * series)
    e = density * inverse
    excess = beta * inverse - 1.0
    log_ratio = excess * (1.0 - excess * (1 / 2 - excess * (1 / 3 - excess * (1 / 4 - excess / 5))))
    newton = log_ratio * series
    # s^k B^(k+1) / B' of the model's beta B, then of ln(B)
    u2 = h2 - t2
    u3 = u2 * u2 - 3.0 * h2 - t2
    p2 = u2 - e
    p3 = u3 - 3.0 * e * u2 + 2.0 * e * e
    return newton * (1.0 + 0.5 * p2 * newton) / (1.0 + newton * (p2 + p3 * newton * (1 / 6)))


@_inline
def _greeks(
    lane: tuple[float, ...], x: float, s: float, density: float, in_money: tuple[float, float]
) -> tuple[float, ...]:
    """All nine outputs of a lane (price, underlying, years, rate, carry, sign).

    ``density`` is exp(-r T) F phi(d1); ``in_money`` exp(-r T) times F Phi(sign d1) and times
    K Phi(sign d2).
    """
    price, U, T, r, b, sign = lane
    root_T = math.sqrt(T)
    inverse_root_T = 1.0 / root_T
    inverse_U = 1.0 / U
    inverse_s = 1.0 / s
    sigma = s * inverse_root_T
    inverse_sigma = root_T * inverse_s
    half_inverse_T = 0.5 * inverse_root_T * inverse_root_T
    d1 = x * inverse_s + 0.5 * s
    d2 = x * inverse_s - 0.5 * s
    per_U = density * inverse_U
    vega = density * root_T
    delta = sign * in_money[0] * inverse_U
    theta = r * price - b * delta * U - density * s * half_inverse_T
    rho = -T * price if b == 0.0 else sign * T * in_money[1]
    return (
        sigma,
        delta,
        per_U * inverse_U * inverse_s,
        theta * (1 / 365),
        vega * 0.01,
        rho * 0.01,
        -per_U * d2 * inverse_sigma,
        vega * d1 * d2 * inverse_sigma,
        (r - b) * delta - per_U * (b * inverse_s - d2 * half_inverse_T),
    )


@_inline
def _side(
    near: float, far: float, x: float, sign: float, F: float, K: float, discount: float
) -> tuple[float, float]:
    """Discounted F Phi(sign d1) and K Phi(sign d2) of a lane.

    ``near`` and ``far`` are sqrt(F K) phi times R(h - t) and R(h + t): the two parts of the option
    out of the money, from which those in the money follow by parity.
    """
    call_is_out = x < 0.0
    forward_out = near if call_is_out else far
    strike_out = far if call_is_out else near
    is_out = (sign > 0.0) == call_is_out
    forward = forward_out if is_out else F - forward_out
    strike = strike_out if is_out else K - strike_out
    return discount * forward, discount * strike


@_inline
def _status(
    lane: tuple[float, ...], K: float, half_tick: float, time_value: float, maximum: float
) -> float:
    """What can be said before solving; OK for a lane that has a volatility."""
    price, U, T, r, b, _ = lane
    # a premium is known to half a tick, and to the rounding of the prices that enter it
    uncertainty = max(half_tick, 2.0**-40 * (U + K))
    status = ABOVE_MAXIMUM if time_value >= maximum else OK
    status = NO_TIME_VALUE if time_value < uncertainty else status
    status = BELOW_INTRINSIC if time_value < -uncertainty else status
    status = EXPIRED if T <= 0.0 else status
    finite = (price + U + K + T + r + b + half_tick) * 0.0 == 0.0
    return status if finite & (price >= 0.0) & (U > 0.0) & (K > 0.0) else BAD_INPUT


BLOCK: Final = 64
"""Lanes worked on at once: 18 rows of them stay in the first-level cache."""
STRIDE: Final = 16
"""Blocks are filled up to a multiple of this, which no vector is longer than: every lane goes
through the same instructions, whatever its place in the batch."""
_RESULTS: Final = 8
_STATUS: Final = 17
"""Rows of a block: 7 inputs and the sign (+1 call, -1 put), 9 results, the status."""


@_compiled
def _price_block(rows: FloatArray, lanes: int) -> None:
    """Price the first ``lanes`` columns of a block, shape (18, BLOCK).

    All in one array, because LLVM gives up on telling 19 separate ones apart.
    """
    for j in range(lanes):
        price, U, K, T = rows[0, j], rows[1, j], rows[2, j], rows[3, j]
        r, b, half_tick, sign = rows[4, j], rows[5, j], rows[6, j], rows[7, j]
        lane = (price, U, T, r, b, sign)
        discount = _exp(-r * T)
        F = U * _exp(b * T)
        # ln(F / K) = 2 atanh(z) keeps its relative accuracy at the money
        z = (F - K) / (F + K)
        z2 = z * z
        x = 2.0 * z + 2.0 * z * z2 * _polynomial(z2, ATANH)
        a = abs(x)
        scale = discount * math.sqrt(F * K)
        time_value = price - discount * max(sign * (F - K), 0.0)
        beta = time_value / scale
        guess = guess_deviation(beta, a)
        step = householder_step(beta, a, guess)
        s = guess + guess * step
        h = a / s
        phi = INVERSE_ROOT_TWO_PI * _exp(-0.5 * (h * h + 0.25 * s * s))
        far = _mills(h + 0.5 * s)
        near = far + beta / phi
        peak = math.sqrt(F * K) * phi
        in_money = _side(peak * near, peak * far, x, sign, F, K, discount)
        greeks = _greeks(lane, x, s, scale * phi, in_money)
        total = 0.0
        for k in range(9):
            total += greeks[k]
        solved = (
            (s > 0.0)
            & (s < DEVIATION_MAX)
            & (h < MONEYNESS_MAX)
            & (abs(z) <= 1 / 3)
            & (abs(step) < STEP_MAX)
            & (abs(r * T) < EXPONENT_MAX)
            & (abs(b * T) < EXPONENT_MAX)
            & (total * 0.0 == 0.0)
        )
        status = _status(lane, K, half_tick, time_value, discount * min(F, K))
        status = PENDING if (status == OK) & (not solved) else status
        for k in range(9):
            rows[_RESULTS + k, j] = greeks[k] if status == OK else np.nan
        rows[_STATUS, j] = status


@_compiled
def _otm_value(s: float, a: float) -> float:
    """beta of a deviation."""
    h, t = a / s, 0.5 * s
    return 0.5 * (
        math.exp(-0.5 * a) * math.erfc((h - t) * ROOT_HALF)
        - math.exp(0.5 * a) * math.erfc((h + t) * ROOT_HALF)
    )


@_compiled
def _deviation(beta: float, a: float) -> float:
    """s of a beta: Newton's method on ln(beta), kept inside a bracket. NaN if out of range."""
    low, high = 0.0, 16.0 + a
    if not 0.0 < beta < _otm_value(high, a):
        return math.nan
    s = max(math.sqrt(2.0 * a), 0.5)
    for _ in range(100):
        value = _otm_value(s, a)
        low, high = (s, high) if value < beta else (low, s)
        h = a / s
        vega = INVERSE_ROOT_TWO_PI * math.exp(-0.5 * h * h - 0.125 * s * s)
        following = s + math.log(beta / value) * value / vega if value > 0.0 else low
        if not low < following < high:
            following = 0.5 * (low + high)
        if abs(following - s) <= 4e-16 * s:
            break
        s = following
    return s


@_compiled
def _price_wide(
    price: float, U: float, K: float, T: float, r: float, b: float, sign: float, out: FloatArray
) -> float:
    """Solve one lane anywhere with libm, into ``out`` of shape (9,); returns its status."""
    discount = math.exp(-r * T)
    F = U * math.exp(b * T)
    gap = (F - K) / K
    x = math.log1p(gap) if abs(gap) < 0.5 else math.log(F / K)
    a = abs(x)
    scale = discount * math.sqrt(F) * math.sqrt(K)
    beta = (price - discount * max(sign * (F - K), 0.0)) / scale
    s = _deviation(beta, a)
    if s < DEVIATION_MAX and a < MONEYNESS_MAX * s:
        s += s * householder_step(beta, a, s)  # mends what erfc loses far out of the money
    h, t = a / s, 0.5 * s
    phi = INVERSE_ROOT_TWO_PI * math.exp(-0.5 * (h * h + t * t))
    near = 0.5 * min(F, K) * math.erfc((h - t) * ROOT_HALF)
    far = 0.5 * max(F, K) * math.erfc((h + t) * ROOT_HALF)
    in_money = _side(near, far, x, sign, F, K, discount)
    greeks = _greeks((price, U, T, r, b, sign), x, s, scale * phi, in_money)
    for value in greeks:
        if not math.isfinite(value):
            return UNSOLVED
    for k in range(9):
        out[k] = greeks[k]
    return OK


def _price_batch(
    price: FloatArray,
    underlying: FloatArray,
    strike: FloatArray,
    years: FloatArray,
    rate: FloatArray,
    carry: FloatArray,
    is_call: UInt8Array,
    half_tick: FloatArray,
    out: FloatArray,
    status: UInt8Array,
) -> None:
    """Fill blocks, price them, empty them; then the lanes that need libm."""
    rows = np.ones((_STATUS + 1, BLOCK))
    total = price.shape[0]
    for start in range(0, total, BLOCK):
        lanes = min(BLOCK, total - start)
        for j in range(lanes):
            rows[0, j] = price[start + j]
            rows[1, j] = underlying[start + j]
            rows[2, j] = strike[start + j]
            rows[3, j] = years[start + j]
            rows[4, j] = rate[start + j]
            rows[5, j] = carry[start + j]
            rows[6, j] = half_tick[start + j]
            rows[7, j] = 1.0 if is_call[start + j] != 0 else -1.0
        _price_block(rows, (lanes + STRIDE - 1) // STRIDE * STRIDE)
        for k in range(9):
            for j in range(lanes):
                out[k, start + j] = rows[_RESULTS + k, j]
        for j in range(lanes):
            status[start + j] = np.uint8(rows[_STATUS, j])
    for i in range(total):
        if status[i] == PENDING:
            sign = 1.0 if is_call[i] != 0 else -1.0
            status[i] = np.uint8(
                _price_wide(
                    price[i], underlying[i], strike[i], years[i], rate[i], carry[i], sign, out[:, i]
                )
            )


def create_kernel(*, cache: bool) -> Any:
    """Compile ``_price_batch``, or with ``cache`` load it from numba's cache on disk.

    For one signature only, so that no call compiles another one while the feed runs.
    """
    column = types.Array(types.float64, 1, "C", readonly=True)
    flags = types.Array(types.uint8, 1, "C", readonly=True)
    out = types.Array(types.float64, 2, "C")
    status = types.Array(types.uint8, 1, "C")
    signature = types.void(*[column] * 6, flags, column, out, status)
    return njit([signature], nogil=True, cache=cache, error_model="numpy", fastmath=_FASTMATH)(
        _price_batch
    )


@functools.cache
def _kernel() -> Any:
    return create_kernel(cache=True)


def price_options(
    price: FloatArray,
    underlying: FloatArray,
    strike: FloatArray,
    years: FloatArray,
    rate: FloatArray,
    carry: FloatArray,
    is_call: UInt8Array | BoolArray,
    half_tick: FloatArray,
    out: FloatArray,
    status: UInt8Array,
) -> None:
    """Solve n options for their implied volatility and its Greeks, into ``out`` and ``status``.

    All arrays are C-contiguous, the inputs of shape (n,) and float64 unless said otherwise; the
    inputs may be read-only.

    ``price``: premium in rupees; ``underlying``: U in rupees, what delta refers to; ``strike``:
    rupees; ``years``: to expiry; ``rate``: r, continuously compounded; ``carry``: b, so that the
    forward is U exp(b years); ``is_call``: bool or uint8; ``half_tick``: half the price step in
    rupees, the uncertainty of the premium.
    ``out``: float64 (9, n), a ``GreekRow`` each; ``status``: uint8 (n,), a ``GreeksStatus`` each.

    A lane whose status is not OK is NaN in all nine rows, one that is OK finite in all nine. No
    value of any input raises, and no lane depends on another or on its place in the batch. Raises
    TypeError for another dtype or layout. Releases the GIL; may be called from several threads.
    """
    _kernel()(
        price,
        underlying,
        strike,
        years,
        rate,
        carry,
        is_call.view(np.uint8),
        half_tick,
        out,
        status,
    )


def warm_up() -> None:
    """Compile or load the kernel and run it once: seconds, or a quarter of one from the cache."""
    column = np.ones(1)
    price_options(
        column * 0.1, column, column, column, column * 0.0, column * 0.0,
        np.ones(1, np.uint8), column * 0.0, np.empty((len(GreekRow), 1)), np.empty(1, np.uint8),
    )  # fmt: skip
