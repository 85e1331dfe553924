"""Facts of the MuJoCo tasks."""

import functools

from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

# Robot: (env id, observations, actions, D4RL's random score, D4RL's expert score). The scores are constants of the
# benchmark, not to be estimated again.
ROBOTS = {
    "hopper": ("Hopper-v5", 11, 3, -20.272305, 3234.3),
    "halfcheetah": ("HalfCheetah-v5", 17, 6, -280.178953, 12135.0),
    "walker2d": ("Walker2d-v5", 17, 6, 1.629008, 4592.3),
}
QUALITIES = ("random", "medium", "medium-replay", "medium-expert", "expert")
EXPERT_QUALITIES = ("medium-expert", "expert")
PUBLISHED_QUALITIES = ("medium", "medium-replay", "medium-expert", "expert")  # LOCO-M and LOCO-E of the paper
REMOTE = {"": "simple", "medium": "medium", "expert": "expert"}  # Minari's own sets; no quality of D4RL is "simple"
# Earlier versions with the dynamics of v5. Walker2d has none: v5 changed the friction under its right foot.
SAME_DYNAMICS = {"hopper": ("Hopper-v4",), "halfcheetah": ("HalfCheetah-v4",)}
MAX_EPISODE_STEPS = 1_000


@functools.cache
def tasks() -> dict[str, Task]:
    """All tasks by full name.

    "mujoco/hopper-medium" and its like have a dataset. "mujoco/hopper" alone is the environment, to learn in from
    scratch: its `dataset_id` is "".
    """
    found = {}
    for robot, (env_id, observation_dim, action_dim, random_score, expert_score) in ROBOTS.items():
        for quality in ("", *QUALITIES):
            name = f"mujoco/{robot}-{quality}" if quality else f"mujoco/{robot}"
            found[name] = Task(
                name=name,
                env_id=env_id,
                spec=Spec(observation_dim, action_dim),
                max_episode_steps=MAX_EPISODE_STEPS,
                dataset_id=f"o2o/{robot}/{quality}-v0" if quality else "",
                expert_data=quality in EXPERT_QUALITIES,
                random_score=random_score,
                expert_score=expert_score,
                remote_ids=(f"mujoco/{robot}/{REMOTE[quality]}-v0",) if quality in REMOTE else (),
                same_dynamics=SAME_DYNAMICS.get(robot, ()),
                published=quality in PUBLISHED_QUALITIES,
            )
    return found
