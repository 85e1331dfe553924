"""Settings of the decision transformer."""

import dataclasses
from typing import Any

from o2o_jax.interfaces import Task, expect_task
from o2o_jax.settings import Settings, setting

# By robot. Only those of Hopper, medium, are the authors'; of the others two later repositories tell (baselines,
# section 2.7), whose unit of the pen's return is not known: there CORL's target is kept. Of Adroit's other tasks nobody
# does: D4RL's expert return is the target.
_ROBOTS: dict[str, dict[str, Any]] = {
    "hopper": {"target_return": 3_600.0},
    "walker2d": {"target_return": 5_000.0, "updates": 10_000, "lr": 1e-3, "weight_decay": 1e-3},
    "halfcheetah": {"target_return": 6_000.0},
    "pen": {"target_return": 3_100.0, "updates": 40_000, "weight_decay": 1e-4, "context": 5},
    "door": {"target_return": 2_900.0, "updates": 40_000, "weight_decay": 1e-4, "context": 5},
    "hammer": {"target_return": 12_800.0, "updates": 40_000, "weight_decay": 1e-4, "context": 5},
    "relocate": {"target_return": 4_200.0, "updates": 40_000, "weight_decay": 1e-4, "context": 5},
}
ODT = "Online DT's code (arXiv:2202.05607)"
MOST_LAYERS = 1_000
_HOPPER_REPLAY = {"lr": 2e-3, "weight_decay": 1e-4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of the decision transformer. Defaults: those of Online DT, for Hopper's medium data."""

    width: int = setting(512, "width of a token", unit="units", source=ODT)
    layers: int = setting(4, "layers of the transformer", unit="layers", source=ODT)
    heads: int = setting(4, "attention heads of a layer", unit="heads", source=ODT)
    dropout: float = setting(0.1, "share of units that training drops", source=ODT)
    context: int = setting(20, "K, length of a history in training", unit="environment steps", source=ODT)
    batch_size: int = setting(256, "histories per update", unit="histories", source=ODT)
    updates: int = setting(5_000, "updates of the run", unit="updates", source=f"{ODT}; more where others publish it")
    lr: float = setting(1e-4, "learning rate of LAMB after the warm-up", source=f"{ODT}; 2e-3 on Hopper's replay")
    weight_decay: float = setting(5e-4, "weight decay of LAMB", source=ODT)
    warmup_updates: int = setting(
        10_000, "updates over which the rate rises from 0: more than the offline phase has", unit="updates", source=ODT
    )
    max_gradient_norm: float = setting(0.25, "bound of the gradient's norm", source=ODT)
    temperature_start: float = setting(0.1, "weight of the entropy before the first update", source=ODT)
    temperature_lr: float = setting(1e-4, "Adam's learning rate of log τ", source=ODT)
    return_scale: float = setting(1e-3, "factor of returns to go as the network sees them", source=ODT)
    target_return: float | None = setting(
        None,
        "raw return that an evaluated episode is asked for; None: the best of the data's",
        unit="return units",
        source=f"{ODT}, by robot; None: this package",
    )
    eval_context: int = setting(5, "length of a history when it acts", unit="environment steps", source=ODT)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("width", "layers", "heads", "context", "batch_size", "updates", "warmup_updates", "eval_context")
        if self.layers > MOST_LAYERS:
            raise ValueError(f"layers must be at most {MOST_LAYERS}, got {self.layers}: each is compiled by itself")
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
        expect_task(task)
        if task.sparse_reward:
            return cls(target_return=1.0, return_scale=1.0)
        settings = _ROBOTS.get(task.robot, {})
        if (task.robot, task.quality) == ("hopper", "medium-replay"):
            settings = settings | _HOPPER_REPLAY
        return cls(**settings)
