"""Reading gymnasium's vector environments."""

from typing import Any

import numpy as np


def last_observations(observations: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """The observations s' that a step really led to, where an environment reset itself on that very step.

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
