"""What more training rows would gain: a power law through what was trained before, carried on.

The error at n rows is a + b n^-c: b n^-c is what rows still mend, a what no number of them does (Mukherjee et al. 2003,
doi:10.1089/106652703321825928; Hestness et al. 2017, arXiv:1712.00409). Few points leave the exponent open, and the
interval says so: it is a parametric bootstrap over the points' own intervals.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_contracts.frozen import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_POINTS = 3
"""Different numbers of rows; the law has as many parameters."""
_EXPONENTS = [step / 20 for step in range(1, 21)]
"""0.05 to 1: those that were measured of deep networks lie between 0.07 and 0.35, and theory gives 0.5 or 1."""
_LEAST_SD = 1e-3
"""An error that is known better than this weighs no more."""


class Point(Frozen):
    """The mean error, in [0, 1], of a model that learned from so many rows, with its interval."""

    rows: int = Field(ge=1)
    error: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class Gain(Frozen):
    """``error``: what the curve says at the rows that there are. ``estimate``: how much lower it would be with more,
    with its two-sided interval; never below 0, as a power law does not rise."""

    error: float
    estimate: float
    low: float
    high: float


class TooFewPoints(ValueError):
    """A curve cannot be drawn; the message says why."""


def gain(
    points: Sequence[Point], rows: int, more: int, confidence: float, resamples: int = 2_000, seed: int = 0
) -> Gain:
    """From ``rows`` to ``rows + more``. ``confidence`` is that of the points' intervals and of the result's.

    Raises `TooFewPoints` for fewer than three different numbers of rows.
    """
    import numpy as np

    sizes = {point.rows for point in points}
    if len(sizes) < MIN_POINTS:
        raise TooFewPoints(
            f"{len(points)} past releases learned from {len(sizes)} different numbers of rows, and a curve needs "
            f"{MIN_POINTS}"
        )
    reach = 2 * NormalDist().inv_cdf((1 + confidence) / 2)
    at = np.array([point.rows for point in points], dtype=float)
    errors = np.array([point.error for point in points])
    spread = np.maximum([(point.high - point.low) / reach for point in points], _LEAST_SD)
    drawn = np.random.default_rng(seed).normal(errors, spread, size=(resamples, len(points)))
    now, then = _fitted(at, np.vstack([errors, np.clip(drawn, 0, 1)]), spread**-2, np.array([rows, rows + more]))
    gains = now - then
    tail = (1 - confidence) / 2
    low, high = np.quantile(gains[1:], [tail, 1 - tail])
    estimate = float(gains[0])
    return Gain(error=float(now[0]), estimate=estimate, low=min(float(low), estimate), high=max(float(high), estimate))


def _fitted(at: "NDArray[Any]", errors: "NDArray[Any]", weights: "NDArray[Any]", wanted: "NDArray[Any]") -> Any:
    """[wanted, rows of ``errors``]: for each row of errors [rows, points], the value of its own weighted least-squares
    curve where ``wanted``. Neither a nor b is negative: where both would not be free of it, one of them is 0."""
    import numpy as np

    best = np.full(len(errors), np.inf)
    found = np.zeros((len(wanted), len(errors)))
    scale = at.min()
    total, mean = weights.sum(), errors @ weights / weights.sum()
    for exponent in _EXPONENTS:
        x = (at / scale) ** -exponent
        centred = x - x @ weights / total
        slope = np.maximum(errors @ (weights * centred) / (weights @ centred**2), 0)
        floor = mean - slope * (x @ weights / total)
        through_zero = floor < 0
        slope = np.where(through_zero, errors @ (weights * x) / (weights @ x**2), slope)
        floor = np.where(through_zero, 0, floor)
        loss = ((errors - floor[:, None] - slope[:, None] * x) ** 2) @ weights
        better = loss < best
        best = np.where(better, loss, best)
        found = np.where(better, floor + slope * ((wanted / scale) ** -exponent)[:, None], found)
    return found
