"""Whether a policy is better than π_ref by the returns of training's own episodes. On the host: episodes end there."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from o2o_jax.training import where


@flax.struct.dataclass
class Tally:
    """Undiscounted raw returns of some episodes, summed up.

    Attributes:
      count: [S] float32, episodes.
      mean: [S] of their returns, 0 without any.
      squares: [S] sum of squared deviations from the mean.
    """

    count: ArrayLike
    mean: ArrayLike
    squares: ArrayLike

    @classmethod
    def empty(cls) -> "Tally":
        """Of one seed, without an episode."""
        return cls(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))

    def add(self, returns: Sequence[Sequence[float]]) -> "Tally":
        """With the returns of more episodes: S lists, each of any length."""
        count, mean, squares = (np.asarray(part, np.float64) for part in (self.count, self.mean, self.squares))
        more = np.array([len(values) for values in returns], np.float64)
        mean_of_more = np.array([np.mean(values) if len(values) else 0.0 for values in returns])
        squares_of_more = np.array([np.var(values) * len(values) if len(values) else 0.0 for values in returns])
        total, step = np.maximum(count + more, 1.0), mean_of_more - mean
        return Tally(
            (count + more).astype(np.float32),
            (mean + step * more / total).astype(np.float32),
            (squares + squares_of_more + step**2 * count * more / total).astype(np.float32),
        )

    def error(self) -> np.ndarray:
        """[S] standard error of the mean, infinite below two episodes."""
        count, squares = np.asarray(self.count), np.asarray(self.squares)
        return np.where(count > 1, np.sqrt(squares / np.maximum(count * (count - 1.0), 1.0)), np.inf)


@flax.struct.dataclass
class Returns:
    """What training's own episodes, exploration included, say of the current policy and of π_ref.

    Attributes:
      reference: of the episodes for which π_ref was accepted; at first of those that the start was measured by.
      recent: of the episodes since the last comparison.
    """

    reference: Tally
    recent: Tally

    @classmethod
    def empty(cls) -> "Returns":
        """Of one seed, before the first episode."""
        return cls(Tally.empty(), Tally.empty())

    def consider(self, min_episodes: int, standard_errors: float) -> tuple[np.ndarray, "Returns"]:
        """Whether the recent episodes are better than the reference's beyond the error of both (Welch).

            m − m_ref > c √( e² + e_ref² ),   e² = var / n

        A comparison takes `min_episodes` and ends their count, accepted or not: each is of a policy that has had
        only so long to change. The first one has nothing to compare with and becomes the reference's own measure; few
        updates lie before it, or none, as long as the warm-up lasts. An accepted mean was chosen for being high, so
        that the bar tends to lie above the policy's true mean: the rule errs on the side of the old reference.

        Args:
          min_episodes: n of a comparison, at least 2.
          standard_errors: c ≥ 0.

        Returns:
          [S] bool, and what to go on with.
        """
        ready = np.asarray(self.recent.count) >= min_episodes
        first = np.asarray(self.reference.count) == 0
        difference = np.asarray(self.recent.mean) - np.asarray(self.reference.mean)
        error = np.hypot(self.recent.error(), self.reference.error())
        with np.errstate(invalid="ignore"):  # 0 · ∞, of seeds that aren't ready
            accept = ready & ~first & (difference > standard_errors * error)
        reference = where(jnp.asarray(accept | (ready & first)), self.recent, self.reference)
        recent = where(jnp.asarray(ready), jax.tree.map(np.zeros_like, self.recent), self.recent)
        return accept, Returns(reference, recent)

    def metrics(self, accept: np.ndarray) -> dict[str, np.ndarray]:
        """What a comparison that ended in `accept` [S] looked at, one value per seed."""
        return {
            "accepted": accept,
            "episodes": np.asarray(self.recent.count),
            "return": np.asarray(self.recent.mean),
            "error": self.recent.error(),
            "reference_return": np.asarray(self.reference.mean),
            "reference_error": self.reference.error(),
        }
