"""Settings of Online DT."""

import dataclasses
from typing import Self

from o2o_jax.interfaces import Task
from o2o_jax.offline import dt
from o2o_jax.offline.dt.config import ODT
from o2o_jax.online import continued
from o2o_jax.settings import Settings, part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay(Settings):
    """Replay while fine-tuning."""

    max_episodes: int = setting(
        1_000,
        "episodes that are drawn from: the best of the dataset, then fresh ones, of which the oldest leaves, of the "
        "dataset's the worst",
        unit="episodes",
        source=ODT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("max_episodes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interaction(Settings):
    """Episodes and updates while fine-tuning."""

    updates_per_episode: int = setting(300, "updates after each episode, on fresh batches", unit="updates", source=ODT)
    return_factor: float = setting(
        2.0,
        "how much more than an evaluated episode one of training is asked for: R̂ + (factor − 1) |R̂|",
        source=f"{ODT}: 2; 1 on the pen, by later repositories",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("updates_per_episode")
        self._positive("return_factor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(continued.OfflineUpdateConfig):
    """Settings of Online DT. Defaults: the authors', for Hopper's medium data.

    Source: Zheng et al., Online Decision Transformer (arXiv:2202.05607), and its code.
    """

    update: dt.Config = part(dt.Config)
    replay: Replay = part(Replay)
    interaction: Interaction = part(Interaction)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule.num_envs > 1:
            raise ValueError(
                "schedule.num_envs must be 1: Online DT keeps episodes whole, one after the other, got "
                f"{self.schedule.num_envs}"
            )

    @classmethod
    def published(cls, task: Task) -> Self:
        """The authors' settings in the protocol of the other methods; the return asked for is the task's."""
        default = super().published(task)
        return replaced(default, {"interaction.return_factor": 1.0}) if task.robot == "pen" else default
