"""Settings of ReBRAC."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.settings import setting

AUTHORS = "authors' code"
SEVERAL = f"{AUTHORS}, of each dataset its own"
# β₁ and β₂ by robot, or maze, and quality: configs/rebrac of the authors' code
PENALTIES: Mapping[tuple[str, str], tuple[float, float]] = types.MappingProxyType(
    {
        ("hopper", "random"): (0.001, 0.01),
        ("hopper", "medium"): (0.01, 0.01),
        ("hopper", "medium-replay"): (0.05, 0.5),
        ("hopper", "medium-expert"): (0.1, 0.01),
        ("hopper", "expert"): (0.1, 0.1),
        ("halfcheetah", "random"): (0.001, 0.1),
        ("halfcheetah", "medium"): (0.001, 0.01),
        ("halfcheetah", "medium-replay"): (0.01, 0.001),
        ("halfcheetah", "medium-expert"): (0.01, 0.1),
        ("halfcheetah", "expert"): (0.01, 0.01),
        ("walker2d", "random"): (0.01, 0.0),
        ("walker2d", "medium"): (0.05, 0.1),
        ("walker2d", "medium-replay"): (0.05, 0.01),
        ("walker2d", "medium-expert"): (0.01, 0.01),
        ("walker2d", "expert"): (0.01, 0.5),
        ("umaze", ""): (0.003, 0.002),
        ("umaze", "diverse"): (0.003, 0.001),
        ("medium", "play"): (0.001, 0.0005),
        ("medium", "diverse"): (0.001, 0.0),
        ("large", "play"): (0.002, 0.001),
        ("large", "diverse"): (0.002, 0.002),
        ("pen", "human"): (0.1, 0.5),
        ("pen", "cloned"): (0.05, 0.5),
        ("pen", "expert"): (0.01, 0.01),
        ("door", "human"): (0.1, 0.1),
        ("door", "cloned"): (0.01, 0.1),
        ("door", "expert"): (0.05, 0.01),
        ("hammer", "human"): (0.01, 0.5),
        ("hammer", "cloned"): (0.1, 0.5),
        ("hammer", "expert"): (0.01, 0.01),
        ("relocate", "human"): (0.1, 0.01),
        ("relocate", "cloned"): (0.1, 0.01),
        ("relocate", "expert"): (0.05, 0.01),
    }
)
MAZE_PENALTIES = (0.002, 0.001)  # where a maze has none of its own: those of AntMaze's large-play


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OfflineConfig):
    """Settings of ReBRAC. Defaults: the authors', for Hopper's medium data.

    Source: Tarasov et al., ReBRAC (arXiv:2305.09836), and the configs of its code.
    """

    hidden: tuple[int, ...] = setting(
        (256, 256, 256), "widths of the actor's hidden layers", unit="units", source=AUTHORS
    )
    critic_hidden: tuple[int, ...] = setting(
        (256, 256, 256), "widths of the critics' hidden layers, all with LayerNorm", unit="units", source=AUTHORS
    )
    batch_size: int = setting(
        1_024, "transitions per update", unit="transitions", source=f"{AUTHORS}; 256 in mazes and on Adroit"
    )
    discount: float = setting(0.99, "γ, per environment step", source=f"{AUTHORS}; 0.999 in mazes")
    actor_lr: float = setting(1e-3, "learning rate of the actor", source=f"{AUTHORS}; 3e-4 in mazes and on Adroit")
    critic_lr: float = setting(1e-3, "learning rate of the critics", source=f"{AUTHORS}; 5e-5 in mazes, 3e-4 on Adroit")
    reward_scale: float = setting(1.0, "factor of the raw rewards", source=f"{AUTHORS}; 100 in mazes")
    actor_penalty: float = setting(
        0.01, "β₁ of the actor's squared distance from the data's action, beside Q at the scale 1", source=SEVERAL
    )
    critic_penalty: float = setting(
        0.01,
        "β₂ of the same distance at s', which the value there is lowered by",
        unit="return units per squared action unit",
        source=SEVERAL,
    )
    policy_noise: float = setting(
        0.2, "standard deviation of the noise on target actions", unit="action units", source=f"{AUTHORS}, as TD3+BC"
    )
    noise_clip: float = setting(0.5, "bound of that noise", unit="action units", source=f"{AUTHORS}, as TD3+BC")
    policy_delay: int = setting(
        2,
        "critic updates per update of the actor and of all targets",
        unit="updates",
        source=f"{AUTHORS}, as TD3+BC",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("actor_penalty", "critic_penalty", "policy_noise", "noise_clip")
        self._counts("policy_delay")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: penalties of each dataset; in mazes r · 100, γ = 0.999, smaller steps."""
        expect_task(task)
        values: dict[str, Any] = {}
        penalties = PENALTIES.get((task.robot, task.quality), MAZE_PENALTIES if task.sparse_reward else None)
        if penalties:
            values |= dict(zip(("actor_penalty", "critic_penalty"), penalties, strict=True))
        if task.sparse_reward or task.family == "adroit":
            values |= {"batch_size": 256, "actor_lr": 3e-4, "critic_lr": 3e-4}
        if task.sparse_reward:
            values |= {"critic_lr": 5e-5, "discount": 0.999, "reward_scale": 100.0}
        return cls(**values)
