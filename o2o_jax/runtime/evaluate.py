"""Returns of a policy in the environment. Impure: steps environments of its own, never those of training."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from o2o_jax.interfaces import Task


def start_seeds(seed: int, episodes: int, stream: int) -> list[int]:
    """Seeds of the start states of `episodes` episodes, from a stream of the run's seed apart from training."""
    return [int(value) for value in np.random.SeedSequence([seed, stream]).generate_state(episodes)]


class Evaluator:
    """Runs the episodes of all seeds side by side, from the same start states at every call (D-46).

    Args:
      make_env: () -> a gymnasium environment with the task's time limit, actions in [-1, 1].
      seeds: the run's seeds, S of them.
      episodes: E per seed.
      stream: which start states; two evaluators of one run with different streams start from different ones.
    """

    def __init__(self, make_env: Callable, seeds: Sequence[int], episodes: int, stream: int = 1) -> None:
        self._starts = [start_seeds(seed, episodes, stream) for seed in seeds]
        self._envs = [[make_env() for _ in range(episodes)] for _ in seeds]

    def __call__(self, act: Callable[[np.ndarray], ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
        """Undiscounted raw returns [S, E] and lengths [S, E] in environment steps.

        Args:
          act: observations [S, E, O] to actions [S, E, A] in [-1, 1].
        """
        observations = np.stack(
            [
                np.stack([env.reset(seed=start)[0] for env, start in zip(envs, starts, strict=True)])
                for envs, starts in zip(self._envs, self._starts, strict=True)
            ]
        ).astype(np.float32)
        shape = observations.shape[:2]
        returns, lengths, alive = np.zeros(shape), np.zeros(shape, np.int64), np.ones(shape, bool)
        while alive.any():
            actions = np.asarray(act(observations))
            # episodes that have ended are no longer stepped, so that no reset row can count
            for s, e in zip(*np.nonzero(alive), strict=True):
                observation, reward, terminated, truncated, _ = self._envs[s][e].step(actions[s, e])
                observations[s, e] = observation
                returns[s, e] += reward
                lengths[s, e] += 1
                alive[s, e] = not (terminated or truncated)
        return returns, lengths

    def close(self) -> None:
        """Closes the environments."""
        for envs in self._envs:
            for env in envs:
                env.close()


def evaluation_metrics(task: Task, returns: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Terms of an evaluation, one value per seed [S]: return, normalised score, episode length; from [S, E]."""
    mean = returns.mean(axis=1)
    return {"return": mean, "score": task.score(mean), "length": lengths.mean(axis=1)}
