"""Settings of plain PPO: direct fine-tuning of an offline policy."""

import dataclasses

from o2o_jax.interfaces import Task
from o2o_jax.online import o2ppo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(o2ppo.Config):
    """O2PPO's settings with the idea of the paper switched off (baselines, section 4, "PPO direct").

    The value function is fitted to the dataset's returns all the same: no offline critic crosses to PPO, and it would
    otherwise start from noise. `reevaluate_updates=0` leaves that out too.
    """

    auxiliary_scale: float = 0.0

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """What O2PPO takes on the same task, without its auxiliary advantage."""
        return cls(**dataclasses.asdict(o2ppo.Config.for_task(task)) | {"auxiliary_scale": 0.0})
