"""Settings of behaviour cloning."""

import dataclasses
from typing import Literal

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.policy import CloneConfig
from o2o_jax.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(CloneConfig):
    """Settings of behaviour cloning. Defaults: those of CORL, the same on every task."""

    hidden: tuple[int, ...] = setting((256, 256), "widths of the policy's hidden layers", unit="units", source="CORL")
    updates: int = setting(1_000_000, "updates of the run", unit="updates", source="CORL")
    best_fraction: float = setting(
        1.0,
        "share of the episodes, those of highest return, that it learns from; 0.1 is known as BC-10%",
        source="CORL",
    )
    head: Literal["deterministic", "gaussian", "gaussian_free", "tanh_gaussian"] = setting(
        "deterministic",
        "distribution of the policy; a stochastic one learns by likelihood, with an entropy floor",
        source="CORL",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._share("best_fraction")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """The same on every task."""
        expect_task(task)
        return cls()
