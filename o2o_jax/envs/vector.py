"""Making and reading gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from o2o_jax.envs.failure import FAILURE, EnvironmentFailure

if TYPE_CHECKING:
    import gymnasium


def make_vector(make_env: Callable[[], gymnasium.Env], num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes environments that step together, in this process.

    An episode's end resets its environment on the same step: every row is a transition, and the true last
    observation is in `info["final_obs"]` (`last_observations`). Each is a `recorder.Recorder` of one behind a
    `border.Border`, and its failure leaves the others alone (`failed_environments`).

    Args:
      make_env: makes one of them.
      num_envs: N ≥ 1.

    Raises:
      ValueError: `num_envs` below 1.
    """
    import gymnasium

    from o2o_jax.envs.border import Border, Partition
    from o2o_jax.envs.recorder import Recorder

    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")

    def make() -> gymnasium.Env:
        return Recorder(Partition(Border(make_env())))

    return gymnasium.vector.SyncVectorEnv([make] * num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)


def failed_environments(info: dict[str, Any]) -> dict[int, str]:
    """Returns which environments of `make_vector` have failed, and how.

    Args:
      info: of a reset or step.

    Returns:
      Number of the environment -> one line.
    """
    return {int(i): info[FAILURE][i] for i in np.flatnonzero(info.get(f"_{FAILURE}", ()))}


def check_failures(info: dict[str, Any]) -> None:
    """Refuses to go on where an environment of `make_vector` has failed.

    Args:
      info: of a reset or step.

    Raises:
      EnvironmentFailure: one has.
    """
    for text in failed_environments(info).values():
        raise EnvironmentFailure(text)


def last_observations(observations: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """Returns the observations s' that a step really led to, where an environment reset itself on that very step.

    Args:
      observations: [N, O] as `step` returned them: the first of a new episode where one has just ended.
      info: the `info` of the same step, from an environment made with `AutoresetMode.SAME_STEP`.

    Returns:
      [N, O] true next observations: a copy where any episode ended, else `observations` itself.
    """
    if "final_obs" not in info:
        return observations
    ended = np.asarray(info["_final_obs"], dtype=bool)  # [N]
    observations = np.array(observations)
    observations[ended] = np.stack(list(info["final_obs"][ended]))
    return observations
