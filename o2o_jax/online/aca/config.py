"""Settings of ACA."""

import dataclasses
from typing import Any, ClassVar, Self

from o2o_jax.interfaces import Task
from o2o_jax.offline import sac_ml
from o2o_jax.online import continued
from o2o_jax.online.parts import AUTHORS
from o2o_jax.settings import Settings, part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Density(Settings):
    """The log-density of the offline policy as part of the critics: its bound, and its weight as that falls."""

    deviations: float = setting(
        7.0,
        "β: the density is bounded from below by that of actions β standard deviations from the mean",
        unit="standard deviations",
        source=f"{AUTHORS}; 15 on expert data, 3 in mazes",
    )
    fall_env_steps: int = setting(
        40_000,
        "environment steps with updates over which the weight would fall from 1 to 0, whatever the length of the run",
        unit="environment steps",
        source=f"{AUTHORS}; 10,000 on random data, 200,000 in mazes",
    )
    weight_end: float = setting(
        0.5,
        "weight below which it doesn't fall; 1: constant",
        source=f"{AUTHORS}; 0 on random data, 1 on expert data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("deviations", "weight_end")
        self._counts("fall_env_steps")
        if self.weight_end > 1:
            raise ValueError(f"weight_end must be at most 1, where the weight begins, got {self.weight_end}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(continued.ContinuedConfig):
    """Settings of ACA. Defaults: the authors', for medium data of locomotion.

    `update` is what the run of SAC+ML was trained with; its temperature begins anew at `update.alpha`.

    Source: Yu and Zhang, ACA (ICML 2023), and the configs of its code.
    """

    online_parts: ClassVar[frozenset[str]] = continued.ContinuedConfig.online_parts | {"density", "actor_grad_norm"}

    update: sac_ml.Config = part(sac_ml.Config)
    replay: continued.Replay = part(continued.Replay, mode="none", buffer_size=1_000_000)
    interaction: continued.Interaction = part(continued.Interaction, warmup_env_steps=256)
    density: Density = part(Density)
    actor_grad_norm: float = setting(0.25, "bound of the norm of the actor's gradient", source=AUTHORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("actor_grad_norm")

    @classmethod
    def published(cls, task: Task) -> Self:
        """The best 50 episodes of replay and of expert data, a firmer density on expert data, one that goes on random.

        Without data the first update waits for a batch of fresh transitions.
        """
        values: dict[str, Any] = {}
        if task.sparse_reward:
            values |= {"density.deviations": 3.0, "density.fall_env_steps": 200_000}
        elif task.expert_data:
            values |= {"density.deviations": 15.0, "density.weight_end": 1.0}
        elif task.quality == "random":
            values |= {"density.fall_env_steps": 10_000, "density.weight_end": 0.0}
        if not task.sparse_reward and (task.expert_data or task.quality == "medium-replay"):
            values |= {"replay.mode": "part", "interaction.warmup_env_steps": 0}
        return replaced(super().published(task), values)
