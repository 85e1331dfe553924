"""Making and reading gymnasium's vector environments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium


def make_vector(make_env: Callable[[], gymnasium.Env], num_envs: int) -> gymnasium.vector.VectorEnv:
    """Makes environments that step together, in this process.

    An episode's end resets its environment on the same step: every row is a transition, and the true last
    observation is in `info["final_obs"]` (`last_observations`). Each is a `recorder.Recorder` behind a `border.Border`.

    Args:
      make_env: makes one of them.
      num_envs: N ≥ 1.

    Raises:
      ValueError: `num_envs` below 1.
    """
    import gymnasium

    from o2o_jax.envs.border import Border
    from o2o_jax.envs.recorder import Recorder

    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, got {num_envs}")

    def make(number: int) -> gymnasium.Env:
        return Recorder(Border(make_env(), number))

    return gymnasium.vector.SyncVectorEnv(
        [functools.partial(make, i) for i in range(num_envs)], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )


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
