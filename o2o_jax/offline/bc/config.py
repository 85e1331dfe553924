"""Settings of behaviour cloning."""

import dataclasses
from typing import Literal

from o2o_jax.interfaces import Task
from o2o_jax.policy import CloneConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(CloneConfig):
    """Settings of behaviour cloning. Defaults: those of CORL, the same on every task."""

    hidden: tuple[int, ...] = (256, 256)
    updates: int = 1_000_000
    best_fraction: float = 1.0  # of the episodes, those of highest return; 0.1 is known as BC-10%
    # a stochastic head learns by likelihood, with an entropy floor
    head: Literal["deterministic", "gaussian", "gaussian_free", "tanh_gaussian"] = "deterministic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.best_fraction <= 1:
            raise ValueError(f"best_fraction must lie in (0, 1], got {self.best_fraction}")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """The same on every task."""
        del task
        return cls()
