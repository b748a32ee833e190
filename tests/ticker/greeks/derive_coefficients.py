"""Derive the polynomials of ``ticker.greeks.kernel`` from their definitions.

``python -m tests.ticker.greeks.derive_coefficients`` prints each tuple as it stands in the
kernel, with its greatest error over a fine grid. Each is the Chebyshev interpolant, within a
small factor of the best possible, computed to 40 digits and then rounded to doubles.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
from scipy.optimize import linprog

from ticker.greeks import kernel

Function = Callable[[Any], Any]


class Fit(NamedTuple):
    """What a tuple of the kernel stands for: ``function`` on ``[low, high]``."""

    function: Function
    low: Any
    high: Any
    coefficients: int


def mills(z: Any) -> Any:
    """Mills ratio of the normal distribution, Phi(-z) / phi(z)."""
    return mp.sqrt(mp.pi / 2) * mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2))


def _exp(r: Any) -> Any:
    return (mp.expm1(r) - r) / r**2 if r else mp.mpf(1) / 2


def _atanh(y: Any) -> Any:
    root = mp.sqrt(y)
    return (mp.atanh(root) / root - 1) / y if y else mp.mpf(1) / 3


def _mills(q: Any) -> Any:
    z = kernel.MILLS_SCALE * (1 + q) / (1 - q)
    return (z + kernel.MILLS_SCALE) * mills(z)


def bachelier(h: Any) -> tuple[Any, Any]:
    """The guess's variables for a Bachelier option ``h`` deviations out of the money.

    With time value w per unit of moneyness and v = 1 / (1 + 2 w): u = sqrt(v / atanh(v)), and
    the deviation over sqrt(pi / 2) straddles.
    """
    density = mp.exp(-h * h / 2) / mp.sqrt(2 * mp.pi)
    w = density * (1 / h - mills(h))
    v = 1 / (1 + 2 * w)
    return mp.sqrt(v / mp.atanh(v)), mp.sqrt(2 / mp.pi) * v / h


def _guess(u: Any) -> Any:
    low, high = mp.mpf("1e-9"), mp.mpf(kernel.MONEYNESS_MAX) * 2
    for _ in range(90):
        middle = (low + high) / 2
        low, high = (middle, high) if bachelier(middle)[0] > u else (low, middle)
    return bachelier(low)[1]


FITS = {
    "EXP": Fit(_exp, -mp.log(2) / 2, mp.log(2) / 2, 10),
    "ATANH": Fit(_atanh, mp.mpf(0), mp.mpf(1) / 9, 10),
    "MILLS": Fit(
        _mills,
        mp.mpf(-1),
        (mp.mpf(kernel.MONEYNESS_MAX) + mp.mpf("0.2") - kernel.MILLS_SCALE)
        / (mp.mpf(kernel.MONEYNESS_MAX) + mp.mpf("0.2") + kernel.MILLS_SCALE),
        18,
    ),
    "GUESS": Fit(_guess, bachelier(mp.mpf(kernel.MONEYNESS_MAX))[0], mp.mpf(1), 14),
}


def interpolate(fit: Fit) -> list[float]:
    """Coefficients, lowest power first, of the Chebyshev interpolant, as doubles."""
    n = fit.coefficients
    with mp.workdps(40):
        centre, half = (fit.high + fit.low) / 2, (fit.high - fit.low) / 2
        nodes = [mp.cos(mp.pi * (k + mp.mpf(1) / 2) / n) for k in range(n)]
        points = [centre + half * node for node in nodes]
        values = mp.matrix([fit.function(point) for point in points])
        powers = mp.matrix(n, n)
        for row, point in enumerate(points):
            for column in range(n):
                powers[row, column] = point**column
        return [float(c) for c in mp.lu_solve(powers, values)]


def error(fit: Fit, coefficients: Sequence[float], points: int = 500) -> float:
    """Greatest relative error of these coefficients, evaluated exactly, on a grid."""
    worst = mp.mpf(0)
    for k in range(points + 1):
        x = fit.low + (fit.high - fit.low) * k / points
        exact = fit.function(x)
        worst = max(worst, abs(mp.polyval(list(coefficients), x, asc=True) / exact - 1))
    return float(worst)


def deviations() -> Iterator[tuple[float, float, float]]:
    """s, a and beta over the vector loop's domain, as far as options have time value there."""
    for s in np.geomspace(1e-3, kernel.DEVIATION_MAX, 16):
        for h in np.linspace(0.0, kernel.MONEYNESS_MAX, 29):
            a, t = s * h, s / 2
            density = mp.npdf(h) * mp.exp(-t * t / 2)
            beta = float(density * (mills(mp.mpf(h) - t) - mills(mp.mpf(h) + t)))
            if beta > 2.0**-39:
                yield s, a, beta


def next_order() -> list[float]:
    """``GUESS_NEXT``: the smallest greatest error of the guess, as a linear programme."""
    rows, targets = [], []
    for s, a, beta in deviations():
        flat = beta / (1.0 + a * a / 24.0)
        if a:
            w = mp.mpf(flat / a)
            h = mp.findroot(lambda h, w=w: mp.log(mp.npdf(h) * (1 / h - mills(h)) / w), a / s)
            normal = a / float(h)
        else:
            normal = flat * float(mp.sqrt(2 * mp.pi))
        rows.append([normal**4, a**2 * normal**2])
        targets.append(s / normal - 1.0 - normal**2 / 24.0)
    terms, wanted = np.array(rows), np.array(targets)
    slack = np.ones((len(wanted), 1))
    bounded = np.block([[terms, -slack], [-terms, -slack]])
    solution = linprog(
        [0.0, 0.0, 1.0], bounded, np.concatenate([wanted, -wanted]), bounds=[(None, None)] * 3
    )
    return [float(c) for c in solution.x[:2]]


def main() -> None:
    """Print every tuple and its error."""
    for name, fit in FITS.items():
        coefficients = interpolate(fit)
        print(f"# relative error {error(fit, coefficients):.1e}")  # noqa: T201
        print(f"{name}: Final = (")  # noqa: T201
        for coefficient in coefficients:
            print(f"    {coefficient!r},")  # noqa: T201
        print(")")  # noqa: T201
    print(f"GUESS_NEXT: Final = {next_order()}")  # noqa: T201


if __name__ == "__main__":
    mp.mp.dps = 40
    main()
