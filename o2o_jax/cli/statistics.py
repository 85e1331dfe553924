"""Statistics over seeds and tasks. Pure numpy."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over seeds.

    Draws seeds with replacement, `resamples` times, and returns the (1 ∓ confidence) / 2 quantiles of the means. With
    few seeds it is too narrow (three of them know nothing of a fourth), and of one seed it is a point.

    Args:
      values: [S] one number per seed.
      confidence: in (0, 1).
      resamples: draws.
      seed: of the draws, so that a report says the same twice.

    Returns:
      Lower and upper end; NaN where there are no values.

    Raises:
      ValueError: `confidence` outside (0, 1), or `values` with more than one axis.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"values need one axis, the seeds, got the shape {values.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if not len(values):
        return np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half: ⌊n/4⌋ values are left out at either end; NaN where there are no values.

    Source: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (2021), section 4.3.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=None)
    cut = len(ordered) // 4
    return float(np.mean(ordered[cut : len(ordered) - cut])) if len(ordered) else np.nan


def stratified_interval(
    scores: Sequence[ArrayLike],
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of all scores, whose seeds are drawn within each task.

    Args:
      scores: per task [S], of which there may be as many as there are.
      statistic: of the scores of all tasks together [N].
      confidence: in (0, 1).
      resamples: draws.
      seed: of the draws.

    Returns:
      Lower and upper end; NaN where there are no scores.

    Source: Agarwal et al. (2021), section 4.1.
    """
    tasks = [np.asarray(values, np.float64) for values in scores if np.size(values)]
    if not tasks:
        return np.nan, np.nan
    random = np.random.default_rng(seed)
    drawn = np.concatenate(
        [values[random.integers(len(values), size=(resamples, len(values)))] for values in tasks], axis=1
    )
    found = [statistic(row) for row in drawn]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike]) -> float:
    """Probability that a seed of ours scores higher than one of theirs, ties by half, as the mean over tasks.

    Args:
      ours: per task [S].
      theirs: per task [S'], in the same order; tasks that either has no scores of are left out.

    Returns:
      In [0, 1]; NaN where no task has scores of both.

    Source: Agarwal et al. (2021), section 4.3.
    """
    found = []
    for own, other in zip(ours, theirs, strict=True):
        difference = np.subtract.outer(np.asarray(own, np.float64), np.asarray(other, np.float64))
        if difference.size:
            found.append(np.mean((difference > 0) + 0.5 * (difference == 0)))
    return float(np.mean(found)) if found else np.nan


def area(steps: ArrayLike, values: ArrayLike) -> float:
    """Mean of a curve over its environment steps, by trapezoids: the area under it per step.

    Args:
      steps: [T] increasing; of a single one the value itself counts.
      values: [T]; NaN where any is.
    """
    steps, values = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(steps) < 2:
        return float(values[0]) if len(values) else np.nan
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def steps_to(steps: ArrayLike, values: ArrayLike, threshold: float) -> float:
    """Environment steps after which a curve is at a threshold or above for the first time; NaN where it never is.

    Args:
      steps: [T] increasing.
      values: [T].
      threshold: in the unit of the values.
    """
    reached = np.flatnonzero(np.asarray(values, np.float64) >= threshold)
    return float(np.asarray(steps, np.float64)[reached[0]]) if len(reached) else np.nan
