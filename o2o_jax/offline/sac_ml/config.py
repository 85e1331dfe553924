"""Settings of SAC+ML."""

import dataclasses
from typing import Literal

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.settings import setting

AUTHORS = "authors' code"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OfflineConfig):
    """Settings of SAC+ML. Defaults: the authors', for locomotion.

    Source: Yu and Zhang, ACA (ICML 2023), and the configs of its code.
    """

    head: Literal["tanh_gaussian", "gaussian"] = setting(
        "tanh_gaussian",
        "distribution of the policy: squashed, or a normal that is clipped",
        source=f"{AUTHORS}; gaussian in mazes",
    )
    updates: int = setting(500_000, "updates of the run", unit="updates", source=AUTHORS)
    batch_size: int = setting(256, "transitions per update", unit="transitions", source=AUTHORS)
    actor_lr: float = setting(3e-4, "learning rate of the actor", source=AUTHORS)
    critic_lr: float = setting(3e-4, "learning rate of the critics", source=AUTHORS)
    baseline_lr: float = setting(3e-4, "learning rate of the functions Z", source=AUTHORS)
    alpha: float = setting(
        1.0,
        "temperature of the actor at the start; ACA goes back to it online",
        unit="return units per nat",
        source=AUTHORS,
    )
    alpha_lr: float = setting(3e-4, "learning rate of log α", source=AUTHORS)
    target_entropy: float = setting(
        -1.0, "H̄ of the temperature", unit="nats per dimension of the action", source=f"{AUTHORS}; −0.5 in mazes"
    )
    value_weight: float = setting(
        30.0, "weight of the soft value, once the mean magnitude of Q is scaled to 1, beside likelihood", source=AUTHORS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("baseline_lr", "alpha")
        self._not_negative("alpha_lr", "value_weight")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: of sparse rewards −1 and 0, a clipped normal, more entropy."""
        expect_task(task)
        return cls(head="gaussian", target_entropy=-0.5, reward_shift=-1.0) if task.sparse_reward else cls()
