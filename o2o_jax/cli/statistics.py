"""Statistics over seeds. Pure numpy."""

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
