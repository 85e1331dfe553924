"""Settings of IQL."""

import dataclasses

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OfflineConfig):
    """Settings of IQL. Defaults: the authors', for locomotion.

    The actor's learning rate falls from `actor_lr` to 0 over `updates`, by a cosine.
    """

    value_lr: float = setting(3e-4, "learning rate of the value function", source="arXiv:2110.06169, appendix B")
    expectile: float = setting(
        0.7,
        "κ of the values among those of the data's actions",
        source="arXiv:2110.06169, appendix B; 0.9 in mazes, 0.8 on Adroit",
    )
    inverse_temperature: float = setting(
        3.0, "b on the advantage", unit="per return unit", source="arXiv:2110.06169, appendix B; 10 in mazes"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("value_lr")
        self._inside(0, 1, "expectile")
        self._not_negative("inverse_temperature")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: a higher expectile and a sharper policy where rewards are sparse."""
        expect_task(task)
        if task.sparse_reward:
            return cls(expectile=0.9, inverse_temperature=10.0, reward_shift=-1.0)
        return cls(expectile=0.8) if task.family == "adroit" else cls()
