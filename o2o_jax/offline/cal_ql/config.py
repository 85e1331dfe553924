"""Settings of Cal-QL."""

import dataclasses

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.offline.cql.config import ConservativeConfig
from o2o_jax.settings import setting

CORL = "CORL's cal_ql.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConservativeConfig):
    """Settings of Cal-QL. Defaults: CORL's, for locomotion, which the authors' code has no task of."""

    critic_hidden: tuple[int, ...] = setting(
        (256, 256), "widths of the critics' hidden layers", unit="units", source=f"{CORL}; four layers in mazes"
    )
    failure_reward: float | None = setting(
        None,
        "raw reward of a step that doesn't reach the goal: episodes of nothing else return r / (1 − γ); None: no goal",
        unit="reward units",
        source="authors' code; 0 in mazes",
    )

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the authors' settings for mazes, CORL's for Adroit's pen and for locomotion."""
        expect_task(task)
        if not (task.sparse_reward or task.family == "adroit"):
            return cls()
        best_of_ten = cls(normalize_observations=False, actor_lr=1e-4, alpha_lr=1e-4, target_actions=10)
        if not task.sparse_reward:
            return dataclasses.replace(best_of_ten, critic_hidden=(256, 256, 256), conservative_weight=1.0)
        return dataclasses.replace(
            best_of_ten,
            hidden=(256, 256),
            critic_hidden=(256, 256, 256, 256),
            reward_scale=10.0,
            reward_shift=-5.0,
            conservative_weight=5.0,
            target_gap=0.8,
            failure_reward=0.0,
        )
