"""One-sided 95 % upper bounds of a loss, without scipy.

Three situations, three bounds:

- *counted* losses (a decision flips or it does not): rare events that a sample may simply not contain, so the exact
  binomial bound applies: no flip in n leaves up to 3/n;
- *continuous* losses (an error every sample has): Student's t on the linearised ratio of sums, with one more sample as
  bad as the worst seen, since tails are heavier than normal;
- metrics of a whole set (F1, rank correlation): the percentile bootstrap.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 1000
ROUNDING = float(np.finfo(np.float32).eps)
"""A continuous loss below float32 rounding is not resolved: no bound is smaller."""
_COUNT_LIMIT = 1_000_000


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for x in [0, 1] and positive a, b.

    Source: Press et al., Numerical Recipes, 3rd edition, section 6.4 (modified Lentz continued fraction).
    """
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    fraction = d
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1.0 + term * d, 1.0 + term / c
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            fraction *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = probability, by bisection to about 14 digits."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if incomplete_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
        if high - low <= 1e-14 * high:
            break
    return (low + high) / 2


@functools.cache
def student_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t for a probability in [0.5, 1)."""
    if probability == 0.5:
        return 0.0
    # P(T > t) = I_x(degrees / 2, 1 / 2) / 2 with x = degrees / (degrees + t^2).
    x = beta_quantile(2.0 * (1.0 - probability), degrees / 2.0, 0.5)
    return math.sqrt(degrees * (1.0 / x - 1.0))


@functools.cache
def binomial_upper(events: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The largest event rate that `events` in `trials` leave possible: about 3 / trials for no event.

    Source: Clopper and Pearson 1934, Biometrika 26, the one-sided limit.
    """
    if trials <= 0 or events >= trials:
        return 1.0
    if events == 0:
        return -math.expm1(math.log(1.0 - confidence) / trials)
    if trials > _COUNT_LIMIT:
        # The bound of the same rate among fewer trials is larger: cheap and safe.
        events, trials = math.ceil(events * (_COUNT_LIMIT / trials)), _COUNT_LIMIT
    return beta_quantile(confidence, events + 1.0, float(trials - events))


def binomial_lower(events: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """The smallest event rate that `events` in `trials` leave possible: 0 for no event."""
    return 1.0 - binomial_upper(trials - events, trials, confidence) if events else 0.0


def samples_needed(rate: float, confidence: float = CONFIDENCE) -> int:
    """How many trials without an event prove that events are rarer than `rate`: 299 for 1 %."""
    if rate >= 1.0:
        return 1
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-max(rate, 1e-12)))


def ratio_bound(numerator: Floats, denominator: Floats, confidence: float = CONFIDENCE) -> float:
    """Upper bound of sum(numerator) / sum(denominator) over independent units, by Student's t.

    The ratio R has the standard error sqrt(n / (n - 1) * sum(r_i^2)) / sum(denominator), r_i = numerator_i - R *
    denominator_i.

    Args:
        numerator: Shape [n].
        denominator: Shape [n], with a positive sum.
        confidence: Of the bound.
    """
    n = len(numerator)
    if n < 2:
        return math.inf
    total = float(denominator.sum())
    ratio = float(numerator.sum()) / total
    residual = numerator - ratio * denominator
    error = math.sqrt(n / (n - 1) * float(residual @ residual)) / total
    return ratio + student_quantile(confidence, n - 1) * error


def continuous_bound(loss: Floats, scale: Floats, confidence: float = CONFIDENCE) -> float:
    """Upper bound of sum(loss) / sum(scale) for losses that every unit has.

    One more unit of mean scale, as bad as the worst seen, is added; a single unit proves nothing beyond a loss of 1.

    Args:
        loss: Shape [n].
        scale: Shape [n], with a positive sum.
        confidence: Of the bound.
    """
    ratio = float(loss.sum() / scale.sum())
    if len(loss) < 2:
        return max(1.0, ratio)
    worst = float(loss.max())
    bound = ratio_bound(np.append(loss, worst), np.append(scale, float(scale.mean())), confidence)
    return max(bound, ratio + ROUNDING)


def counted_bound(
    loss: Floats, scale: Floats, *, losses: int, gains: int, harm: float, trials: int, confidence: float = CONFIDENCE
) -> float:
    """Upper bound of sum(loss) / sum(scale) where losses come from decisions that flip.

    The larger of Student's t over the units and the exact bound of the flip rate times the mean harm of a flip, which
    includes one unseen flip that costs what a decision is worth on average; observed gains are subtracted.

    Args:
        loss: Net loss per unit, shape [n].
        scale: The original's value per unit, shape [n], with a positive sum.
        losses: Number of decisions that got worse.
        gains: Number of decisions that got better.
        harm: Sum of the harms of the `losses` worse decisions, in the unit of `loss`.
        trials: Number of decisions that could get worse.
        confidence: Of the bound.
    """
    worth = float(scale.sum()) / trials
    exact = binomial_upper(losses, trials, confidence) * (harm / worth + 1.0) / (losses + 1) - gains / trials
    spread = ratio_bound(loss, scale, confidence)
    return max(exact, spread if math.isfinite(spread) else 1.0)


def bootstrap_bound(
    loss_of: Callable[[npt.NDArray[np.int64]], float], units: int, *, seed: int, confidence: float = CONFIDENCE
) -> float:
    """Upper bound of the loss of a metric of a whole set, by the percentile bootstrap; at least 3 / units.

    Args:
        loss_of: The loss given how often each unit was drawn, shape [units].
        units: Number of units.
        seed: Seed of the resampling.
        confidence: Of the bound.
    """
    if units < 2:
        return 1.0
    generator = np.random.default_rng(seed)
    resamples = max(200, min(RESAMPLES, 5_000_000 // units))
    draws = (np.bincount(generator.integers(units, size=units), minlength=units) for _ in range(resamples))
    values = np.array([value for draw in draws if math.isfinite(value := loss_of(draw))])
    quantile = float(np.quantile(values, confidence)) if len(values) else 1.0
    return max(quantile, loss_of(np.ones(units, np.int64)) + binomial_upper(0, units, confidence))
