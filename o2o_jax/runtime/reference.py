"""Rule by which a policy becomes π_ref, or goes back to it: the returns of both. On the host: episodes end there."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from o2o_jax.training import where


class Comparison(NamedTuple):
    """A policy against π_ref, one value per seed [S].

    Attributes:
      candidate: mean return of the policy.
      reference: mean return of π_ref; NaN where it isn't known.
      error: e, standard error of their difference m.
      made: bool, whether there was anything to compare.
    """

    candidate: np.ndarray
    reference: np.ndarray
    error: np.ndarray
    made: np.ndarray

    @classmethod
    def paired(cls, candidate: ArrayLike, reference: ArrayLike) -> "Comparison":
        """Compares returns [S, E] from the same start states, E ≥ 2: what the start states differ by cancels.

        m = mean d,   e = √( var d / E ),   d = candidate − reference
        """
        # single precision, in which those of π_ref are kept: equal returns must differ by nothing at all
        ours, theirs = (np.asarray(returns, np.float32).astype(np.float64) for returns in (candidate, reference))
        with np.errstate(invalid="ignore"):  # infinite returns
            error = (ours - theirs).std(axis=1, ddof=1) / np.sqrt(ours.shape[1])
        return cls(ours.mean(axis=1), theirs.mean(axis=1), error, np.ones(len(ours), bool))

    @property
    def difference(self) -> np.ndarray:
        """[S] m."""
        return self.candidate - self.reference

    def better(self, standard_errors: float) -> np.ndarray:
        """[S] bool: m > c e; or any number, where π_ref has none."""
        with np.errstate(invalid="ignore"):  # 0 · ∞ where nothing was compared
            above = self.difference > standard_errors * self.error
        return self.made & (above | (np.isfinite(self.candidate) & ~np.isfinite(self.reference)))

    def worse(self, standard_errors: float, share: float) -> np.ndarray:
        """[S] bool: m < −k e and m < −p |return of π_ref|; or no number, where π_ref has one."""
        with np.errstate(invalid="ignore"):
            beyond_noise = self.difference < -standard_errors * self.error
        below = beyond_noise & (self.difference < -share * np.abs(self.reference))
        return self.made & (below | (~np.isfinite(self.candidate) & np.isfinite(self.reference)))


class Decision(NamedTuple):
    """Decision of a look at the policy, [S] bool each.

    Attributes:
      accept: it becomes π_ref.
      reject: it was worse than π_ref.
      roll_back: it goes back to π_ref.
    """

    accept: np.ndarray
    reject: np.ndarray
    roll_back: np.ndarray


@flax.struct.dataclass
class Standing:
    """State of the rule that rolls back: π_ref's returns, and how often it was better.

    Attributes:
      returns: [S, E] of π_ref from the evaluations' fixed start states, float32; NaN where it wasn't evaluated, None in
        a run without evaluations.
      rejections: [S] int32, rejections in a row of the current policy.
    """

    returns: ArrayLike | None
    rejections: ArrayLike

    @classmethod
    def start(cls, eval_episodes: int) -> "Standing":
        """Returns that of one seed, before π_ref was evaluated."""
        returns = jnp.full(eval_episodes, jnp.nan) if eval_episodes else None
        return cls(returns, jnp.zeros((), jnp.int32))

    def judge(self, config: Any, comparison: Comparison, accept: np.ndarray) -> tuple[Decision, "Standing"]:
        """Rejects and rolls back.

        A policy is worse where m < −k e and m < −p |return of π_ref|, with k `standard_errors` and p `share`. After
        `evaluations` such comparisons in a row it goes back, so that no loss lasts longer.
        A look without a comparison changes nothing, any other ends the row.

        Args:
          config: settings, of whose part `roll_back` the names above are read.
          comparison: of the current policy with π_ref.
          accept: [S] bool, whether it becomes π_ref; true for none that is worse.

        Returns:
          The decision, and the new state; its `returns` are still those of the old π_ref.
        """
        reject = comparison.worse(config.roll_back.standard_errors, config.roll_back.share)
        before = np.asarray(self.rejections)
        rejections = np.where(comparison.made, np.where(reject, before + 1, 0), before)
        roll_back = rejections >= config.roll_back.evaluations
        rejections = np.where(roll_back, 0, rejections).astype(np.int32)
        return Decision(accept, reject, roll_back), self.replace(rejections=rejections)

    def evaluated(self, accept: np.ndarray, returns: ArrayLike) -> "Standing":
        """Replaces the old π_ref's returns by those [S, E] of the policies that were accepted [S]."""
        kept = np.where(accept[:, None], returns, np.asarray(self.returns)).astype(np.float32)
        return self.replace(returns=kept)


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
    """Returns of training's own episodes, exploration included, of the current policy and of π_ref.

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

    def compare(self, min_episodes: int) -> Comparison:
        """Compares the recent episodes with the reference's, where there are `min_episodes` of them and a reference."""
        return Comparison(
            candidate=np.asarray(self.recent.mean),
            reference=np.asarray(self.reference.mean),
            error=np.hypot(self.recent.error(), self.reference.error()),
            made=self._ready(min_episodes) & ~self._first,
        )

    def consider(self, min_episodes: int, standard_errors: float) -> tuple[np.ndarray, "Returns"]:
        """Decides whether the recent episodes are better than the reference's beyond the error of both (Welch).

            m − m_ref > c √( e² + e_ref² ),   e² = var / n

        A comparison takes `min_episodes` and ends their count, accepted or not: each is of a policy that has had
        only so long to change. The first one has nothing to compare with and becomes the reference's own measure; few
        updates lie before it, or none, as long as the warm-up lasts. An accepted mean was chosen for being high, so
        that the bar tends to lie above the policy's true mean: the rule errs on the side of the old reference.

        Args:
          min_episodes: n of a comparison, at least 2.
          standard_errors: c ≥ 0.

        Returns:
          [S] bool, and the new state.
        """
        ready = self._ready(min_episodes)
        accept = self.compare(min_episodes).better(standard_errors)
        reference = where(jnp.asarray(accept | (ready & self._first)), self.recent, self.reference)
        recent = where(jnp.asarray(ready), jax.tree.map(np.zeros_like, self.recent), self.recent)
        return accept, Returns(reference, recent)

    def _ready(self, min_episodes: int) -> np.ndarray:
        return np.asarray(self.recent.count) >= min_episodes

    @property
    def _first(self) -> np.ndarray:
        return np.asarray(self.reference.count) == 0

    def metrics(self, accept: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the numbers of a comparison that ended in `accept` [S], one value per seed."""
        return {
            "accepted": accept,
            "episodes": np.asarray(self.recent.count),
            "return": np.asarray(self.recent.mean),
            "error": self.recent.error(),
            "reference_return": np.asarray(self.reference.mean),
            "reference_error": self.reference.error(),
        }
