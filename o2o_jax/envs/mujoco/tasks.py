"""Facts of the MuJoCo tasks."""

import functools
import re

from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

# Robot: (gymnasium's name, observations, actions, D4RL's random score, D4RL's expert score). The scores are constants
# of the benchmark, not to be estimated again.
ROBOTS = {
    "hopper": ("Hopper", 11, 3, -20.272305, 3234.3),
    "halfcheetah": ("HalfCheetah", 17, 6, -280.178953, 12135.0),
    "walker2d": ("Walker2d", 17, 6, 1.629008, 4592.3),
}
QUALITIES = ("random", "medium", "medium-replay", "medium-expert", "expert")
EXPERT_QUALITIES = ("medium-expert", "expert")
PUBLISHED_QUALITIES = ("medium", "medium-replay", "medium-expert", "expert")  # LOCO-M and LOCO-E of the paper
REMOTE = {"": "simple", "medium": "medium", "expert": "expert"}  # Minari's own sets; no quality of D4RL is "simple"
VERSIONS = {"": "v5", "-v4": "v4"}  # of the environment, by what a task's name says after the robot
# Versions that move alike; of other robots all of these. In v5 Walker2d's right foot got another friction.
MOVE_ALIKE = {"walker2d": (("v2", "v3", "v4"), ("v5",))}
ALL_VERSIONS = ("v2", "v3", "v4", "v5")
MAX_EPISODE_STEPS = 1_000

# D4RL's datasets: rows, one million where nothing is said.
MEDIUM_EXPERT_TRANSITIONS = 2_000_000
MEDIUM_REPLAY_TRANSITIONS = {"hopper": 402_000, "halfcheetah": 202_000, "walker2d": 302_000}
# Mean returns over the episodes of D4RL's v2 datasets, printed by a loader for Decision Transformer; HalfCheetah's
# medium-expert is the mean of its halves, whose episodes are alike in length.
PUBLISHED_RETURNS = {
    "hopper": {"random": 18.4, "medium": 1422.1, "expert": 3511.4},
    "halfcheetah": {"random": -288.8, "medium": 4770.3, "medium-expert": 7713.4, "expert": 10656.4},
    "walker2d": {"random": 1.9, "medium": 2852.1, "expert": 4920.5},
}

_NAME = re.compile(r"mujoco/(\w+)(?:-v\d+)?(?:-(.+))?")


@functools.cache
def tasks() -> dict[str, Task]:
    """Returns all tasks by full name.

    "mujoco/hopper-medium" and its like have a dataset. "mujoco/hopper" alone is the environment, to learn in from
    scratch: its `dataset_id` is "". "mujoco/hopper-v4" and "mujoco/hopper-v4-medium" are the same in Hopper-v4.
    """
    found = {}
    for robot, (env_name, observation_dim, action_dim, random_score, expert_score) in ROBOTS.items():
        for suffix, version in VERSIONS.items():
            (alike,) = (group for group in MOVE_ALIKE.get(robot, (ALL_VERSIONS,)) if version in group)
            for quality in ("", *QUALITIES):
                name = f"mujoco/{robot}{suffix}-{quality}" if quality else f"mujoco/{robot}{suffix}"
                found[name] = Task(
                    name=name,
                    env_id=f"{env_name}-{version}",
                    spec=Spec(observation_dim, action_dim),
                    max_episode_steps=MAX_EPISODE_STEPS,
                    dataset_id=f"o2o/{robot}{suffix}/{quality}-v0" if quality else "",
                    expert_data=quality in EXPERT_QUALITIES,
                    random_score=random_score,
                    expert_score=expert_score,
                    transitions={
                        "medium-expert": MEDIUM_EXPERT_TRANSITIONS,
                        "medium-replay": MEDIUM_REPLAY_TRANSITIONS[robot],
                    }.get(quality, Task.transitions),
                    remote_ids=(f"mujoco/{robot}/{REMOTE[quality]}-v0",) if quality in REMOTE and not suffix else (),
                    same_dynamics=tuple(f"{env_name}-{other}" for other in alike if other != version),
                    published_settings=quality in PUBLISHED_QUALITIES,
                    published_score=_published_score(robot, quality),
                )
    return found


def _published_score(robot: str, quality: str) -> float | None:
    random_score, expert_score = ROBOTS[robot][3:]
    if quality not in PUBLISHED_RETURNS[robot]:
        return None
    return 100.0 * (PUBLISHED_RETURNS[robot][quality] - random_score) / (expert_score - random_score)


def benchmark() -> list[str]:
    """Lists the fifteen tasks that make up the locomotion benchmark: every robot and quality, in v5."""
    return [f"mujoco/{robot}-{quality}" for robot in ROBOTS for quality in QUALITIES]


def robot_and_quality(task: Task) -> tuple[str, str]:
    """Returns ("hopper", "medium") of "mujoco/hopper-medium" and of "mujoco/hopper-v4-medium"; "" for no quality."""
    match = _NAME.fullmatch(task.name)
    assert match, task.name
    return match[1], match[2] or ""
