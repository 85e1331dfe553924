"""Settings of IQL."""

import dataclasses

from o2o_jax.interfaces import Task
from o2o_jax.offline.common import OfflineConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OfflineConfig):
    """Settings of IQL. Defaults: the authors', for locomotion.

    The actor's learning rate falls from `actor_lr` to 0 over `updates`, by a cosine.
    """

    value_lr: float = 3e-4
    expectile: float = 0.7  # κ of the values among those of the data's actions
    inverse_temperature: float = 3.0  # b on the advantage, per return unit

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("value_lr")
        self._inside(0, 1, "expectile")
        self._not_negative("inverse_temperature")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: a higher expectile and a sharper policy where rewards are sparse."""
        if task.sparse_reward:
            return cls(expectile=0.9, inverse_temperature=10.0, reward_shift=-1.0)
        return cls(expectile=0.8) if task.robot == "pen" else cls()
