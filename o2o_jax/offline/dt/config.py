"""Settings of the decision transformer."""

import dataclasses
from typing import Any

from o2o_jax.interfaces import Task
from o2o_jax.settings import Settings

# By robot. Only those of Hopper, medium, are the authors'; of the others two later repositories tell (baselines,
# section 2.7), whose unit of the pen's return is not known: there CORL's target stands.
_ROBOTS: dict[str, dict[str, Any]] = {
    "hopper": {"target_return": 3_600.0},
    "walker2d": {"target_return": 5_000.0, "updates": 10_000, "lr": 1e-3, "weight_decay": 1e-3},
    "halfcheetah": {"target_return": 6_000.0},
    "pen": {"target_return": 3_100.0, "updates": 40_000, "weight_decay": 1e-4, "context": 5},
}
_HOPPER_REPLAY = {"lr": 2e-3, "weight_decay": 1e-4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of the decision transformer. Defaults: those of Online DT, for Hopper's medium data."""

    # Network
    width: int = 512  # of a token
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    # Batches
    context: int = 20  # K, steps of a history in training
    batch_size: int = 256  # histories per update
    # Updates
    updates: int = 5_000
    lr: float = 1e-4  # of LAMB, after the warm-up
    weight_decay: float = 5e-4
    warmup_updates: int = (
        10_000  # over which the rate rises from 0; longer than the offline phase, as the authors have it
    )
    max_gradient_norm: float = 0.25
    temperature_start: float = 0.1  # weight of the entropy before the first update
    temperature_lr: float = 1e-4  # Adam's, of log τ
    # Returns
    return_scale: float = 1e-3  # of returns to go as the network sees them
    target_return: float | None = None  # what an evaluated episode is asked for, raw; None: the best of the data's
    eval_context: int = 5  # steps of a history when it acts

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("width", "layers", "heads", "context", "batch_size", "updates", "warmup_updates", "eval_context")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, {self.width}, got {self.heads}")
        if self.eval_context > self.context:
            raise ValueError(f"eval_context must be at most context, {self.context}, got {self.eval_context}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        self._positive("lr", "max_gradient_norm", "temperature_start", "temperature_lr", "return_scale")
        self._not_negative("weight_decay")

    @classmethod
    def for_task(cls, task: Task) -> "Config":
        """Returns the settings for a task: its robot's return is asked for, or a goal where rewards are sparse."""
        if task.sparse_reward:
            return cls(target_return=1.0, return_scale=1.0)
        settings = _ROBOTS.get(task.robot, {})
        if (task.robot, task.quality) == ("hopper", "medium-replay"):
            settings = settings | _HOPPER_REPLAY
        return cls(**settings)
