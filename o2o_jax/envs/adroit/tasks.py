"""Facts of the Adroit tasks."""

import functools

from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

QUALITIES = ("human", "cloned", "expert")
# What the hand does: (gymnasium-robotics' name, observations, actions, steps of an episode of the data, D4RL's random
# score, D4RL's expert score). The scores are constants of the benchmark, not to be estimated again.
ROBOTS = {
    "pen": ("Pen", 45, 24, 100, 96.262799, 3076.8331017826877),  # for which gymnasium-robotics registers 200 steps
    "door": ("Door", 39, 28, 200, -56.512833, 2880.5693087298737),
    "hammer": ("Hammer", 46, 26, 200, -274.856578, 12794.134825156867),
    "relocate": ("Relocate", 39, 30, 200, -6.425911, 4233.877797728884),
}


@functools.cache
def tasks() -> dict[str, Task]:
    """Returns all tasks by full name: "adroit/pen-human" and its like, and "adroit/pen", the environment alone."""
    found = {}
    for robot, (env_name, observation_dim, action_dim, steps, random_score, expert_score) in ROBOTS.items():
        for quality in ("", *QUALITIES):
            name = f"adroit/{robot}-{quality}" if quality else f"adroit/{robot}"
            found[name] = Task(
                name=name,
                env_id=f"AdroitHand{env_name}-v1",
                spec=Spec(observation_dim, action_dim),
                max_episode_steps=steps,
                dataset_id=f"D4RL/{robot}/{quality}-v2" if quality else "",
                expert_data=quality == "expert",
                random_score=random_score,
                expert_score=expert_score,
                narrow_data=quality in ("human", "cloned"),
                published_settings=False,
            )
    return found
