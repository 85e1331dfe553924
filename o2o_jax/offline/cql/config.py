"""Settings of CQL."""

import dataclasses

from o2o_jax.interfaces import Task
from o2o_jax.offline.common import OfflineConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OfflineConfig):
    """Settings of CQL. Defaults: the authors', for locomotion."""

    hidden: tuple[int, ...] = (256, 256, 256)
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    normalize_observations: bool = True
    actor_lr: float = 3e-5
    # Temperature of the actor
    alpha: float = 1.0  # at the start, return units per nat
    alpha_lr: float = 3e-5  # of log α
    # Backup
    target_actions: int = 1  # sampled per next state; the best one counts ("max-target backup" from 2 on)
    # Penalty
    conservative_weight: float = 10.0  # w, on the gap
    num_actions: int = 10  # sampled per state and kind: uniform, π(·|s), π(·|s')
    gap_temperature: float = 1.0  # T of the soft maximum, return units per nat
    gap_min: float | None = None  # lower bound of a state's gap, return units
    # Lagrange version
    target_gap: float | None = None  # return units; a number makes the penalty's weight w α', α' learned
    log_alpha_prime: float = 1.0  # log α' at the start
    alpha_prime_lr: float = 3e-4  # of log α'

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("alpha", "gap_temperature", "target_actions", "num_actions")
        self._not_negative("alpha_lr", "conservative_weight", "alpha_prime_lr")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: of sparse rewards, the Lagrange version, best backups, deeper critics.

        On Adroit's pen a lower weight and a faster actor.
        """
        if task.robot == "pen":
            return cls(conservative_weight=1.0, actor_lr=1e-4, alpha_lr=1e-4)
        if not task.sparse_reward:
            return cls()
        return cls(
            critic_hidden=(256,) * 5,
            normalize_observations=False,
            actor_lr=1e-4,
            alpha_lr=1e-4,
            reward_scale=10.0,
            reward_shift=-5.0,
            target_actions=10,
            conservative_weight=5.0,
            gap_min=-200.0,
            target_gap=0.8,
        )
