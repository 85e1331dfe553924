"""A dataset on the host: transitions, and where their episodes end."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.data.transform import STD_OFFSET, Normalizer
from o2o_jax.types import Rollout, Spec, Transition

ACTION_TOLERANCE = 1e-6  # rounding of float32; what lies this little outside [-1, 1] is clipped


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Raw transitions in the order of their episodes.

    Attributes:
      transitions: `Transition` of numpy float32 arrays [N, ...]. `terminated` is 0 at a time limit, and
        `next_observation` is the true one everywhere, at the end of an episode too.
      episode_ends: [episodes] int64, one past the last row of each episode; the last one is N.
      name: what the data was loaded from.
      env_id: gymnasium id of the environment that it was recorded in; "" where the source doesn't say.

    Raises:
      ValueError: no rows, columns of different lengths, or `episode_ends` that don't increase up to N.
    """

    transitions: Transition
    episode_ends: np.ndarray
    name: str
    env_id: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in vars(self.transitions).items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.name}: columns differ in length: {lengths}")
        if self.size == 0:
            raise ValueError(f"{self.name} is empty: it has no transitions")
        empty = np.diff(self.episode_ends, prepend=0) <= 0
        if empty.any():
            raise ValueError(f"{self.name}: episode {int(np.argmax(empty))} is empty: remove it")
        if not len(self.episode_ends) or self.episode_ends[-1] != self.size:
            raise ValueError(f"{self.name}: the last of episode_ends must be the number of rows, {self.size}")

    @property
    def size(self) -> int:
        """N, in transitions."""
        return len(self.transitions.reward)

    def returns(self) -> np.ndarray:
        """[episodes] float64 undiscounted return of each episode, as far as it was recorded."""
        starts = np.concatenate([[0], self.episode_ends[:-1]])
        return np.add.reduceat(np.asarray(self.transitions.reward, np.float64), starts)

    def on_device(self) -> Transition:
        """The transitions [N] as arrays on the device; all seeds share them."""
        return jax.tree.map(jnp.asarray, self.transitions)

    def rollout(self) -> Rollout:
        """The transitions [N] with the ends of their episodes, as numpy arrays.

        An episode whose recording stopped counts as truncated, as one that reached a time limit.
        """
        truncated: Any = np.zeros(self.size, np.float32)
        last = self.episode_ends - 1
        truncated[last] = 1.0 - self.transitions.terminated[last]
        return Rollout(**vars(self.transitions), truncated=truncated)

    def best_episodes(self, count: int) -> "Dataset":
        """The `count` episodes of highest return, or all if there are fewer: what replay mode `part` preloads.

        Episodes keep their order. Of equal returns the earlier episode counts as better.

        Raises:
          ValueError: `count` below 1.
        """
        if count < 1:
            raise ValueError(f"best_episodes needs a count of at least 1, got {count}")
        best = np.sort(np.argsort(-self.returns(), kind="stable")[:count])
        lengths = np.diff(self.episode_ends, prepend=0)
        rows = np.concatenate([np.arange(self.episode_ends[e] - lengths[e], self.episode_ends[e]) for e in best])
        return dataclasses.replace(
            self,
            transitions=jax.tree.map(lambda column: column[rows], self.transitions),
            episode_ends=np.cumsum(lengths[best]),
        )

    def normalizer(self) -> Normalizer:
        """Mean and standard deviation of the observations, summed in float64 and kept in float32."""
        observations = np.asarray(self.transitions.observation, np.float64)
        mean, std = observations.mean(axis=0), observations.std(axis=0) + STD_OFFSET
        return Normalizer(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def validate(dataset: Dataset, spec: Spec) -> Dataset:
    """Checks that a dataset can be learnt from and fits the environment.

    Returns:
      The dataset; actions outside [-1, 1] by no more than 1e-6 are clipped.

    Raises:
      ValueError: shapes other than the environment's, NaN or infinity, actions outside [-1, 1].
    """
    rows = dataset.transitions
    expected = {
        "observation": (dataset.size, spec.observation_dim),
        "action": (dataset.size, spec.action_dim),
        "reward": (dataset.size,),
        "next_observation": (dataset.size, spec.observation_dim),
        "terminated": (dataset.size,),
    }
    for column, shape in expected.items():
        values = getattr(rows, column)
        if values.shape != shape:
            raise ValueError(
                f"{dataset.name} doesn't fit the environment: {column} has shape {values.shape}, expected {shape}; "
                "choose the --env that the data was recorded in"
            )
        bad = ~np.isfinite(values.reshape(dataset.size, -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{dataset.name} has NaN or infinity in {bad.sum()} of {dataset.size} rows of {column}, first in row "
                f"{int(np.argmax(bad))}: remove these episodes"
            )
    worst = float(np.abs(rows.action).max())
    if worst > 1.0 + ACTION_TOLERANCE:
        raise ValueError(
            f"{dataset.name} has actions outside [-1, 1], the farthest {worst:.6g} from 0: rescale them from the "
            "environment's bounds to [-1, 1]"
        )
    if worst > 1.0:
        rows = rows.replace(action=np.clip(rows.action, -1.0, 1.0))
    return dataclasses.replace(dataset, transitions=rows)
