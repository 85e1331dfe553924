"""Settings of AWAC."""

import dataclasses

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OfflineConfig):
    """Settings of AWAC. Defaults: those of CORL, which the paper ran, for locomotion."""

    hidden: tuple[int, ...] = setting(
        (256, 256, 256), "widths of the actor's hidden layers", unit="units", source="CORL"
    )
    critic_hidden: tuple[int, ...] = setting(
        (256, 256, 256), "widths of the critics' hidden layers", unit="units", source="CORL"
    )
    temperature: float = setting(
        0.3333, "λ under the advantage", unit="return units", source="CORL; 0.1 in mazes and on Adroit"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("temperature")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: a sharper policy where rewards are sparse, and on Adroit."""
        expect_task(task)
        sharp = task.sparse_reward or task.family == "adroit"
        return cls(temperature=0.1 if sharp else cls().temperature, reward_shift=-1.0 if task.sparse_reward else 0.0)
