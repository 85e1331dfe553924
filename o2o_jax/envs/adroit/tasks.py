"""Facts of the Adroit tasks."""

import functools

from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

QUALITIES = ("human", "cloned", "expert")
ENV_ID = "AdroitHandPen-v1"
SPEC = Spec(observation_dim=45, action_dim=24)
MAX_EPISODE_STEPS = 100  # that of the datasets; gymnasium-robotics registers 200
# Constants of the benchmark, not to be estimated again.
RANDOM_SCORE, EXPERT_SCORE = 96.262799, 3076.8331017826877


@functools.cache
def tasks() -> dict[str, Task]:
    """Returns all tasks by full name: "adroit/pen-human" and its like, and "adroit/pen", the environment alone."""
    found = {}
    for quality in ("", *QUALITIES):
        name = f"adroit/pen-{quality}" if quality else "adroit/pen"
        found[name] = Task(
            name=name,
            env_id=ENV_ID,
            spec=SPEC,
            max_episode_steps=MAX_EPISODE_STEPS,
            dataset_id=f"D4RL/pen/{quality}-v2" if quality else "",
            expert_data=quality == "expert",
            random_score=RANDOM_SCORE,
            expert_score=EXPERT_SCORE,
            narrow_data=quality in ("human", "cloned"),
            published_settings=False,
        )
    return found
