"""Settings of PROTO, and those that PROTO+TD3 shares with it."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.data import replay
from o2o_jax.interfaces import Replay as ReplayRule
from o2o_jax.interfaces import Task
from o2o_jax.online import constrained, o2sac, parts
from o2o_jax.online.common import ContinuedCriticsConfig
from o2o_jax.online.o2sac.config import THREE_LAYERS, Finetuning
from o2o_jax.online.parts import AUTHORS
from o2o_jax.settings import Settings, part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proximity(Settings):
    """The price of leaving π_k, a copy of the policy that follows it slowly."""

    weight: float = setting(
        2.0, "c at the first update: weight of the divergence from π_k", source=f"{AUTHORS}; 0.5 in mazes"
    )
    fall_env_steps: int = setting(
        1_111_111,
        "environment steps with updates over which c falls to 0, whatever the length of the run",
        unit="environment steps",
        source=f"{AUTHORS}: 1,000,000 / 0.9",
    )
    polyak: float = setting(
        0.005,
        "share of the policy copied into π_k each time the policy moves",
        source=f"{AUTHORS}; 0.00005 in mazes and on narrow data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("weight")
        self._counts("fall_env_steps")
        self._share("polyak")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay(Settings):
    """Replay while fine-tuning: a buffer that is pre-filled from the dataset."""

    mode: Literal["half", "prefilled", "none"] = setting(
        "half",
        "batches of the pre-filled buffer, or half of each of the whole dataset; none: fresh transitions alone",
        source=f"{AUTHORS}; prefilled for PROTO+TD3",
    )
    prefill: int = setting(
        10_000,
        "random transitions of the dataset that the buffer begins with",
        unit="transitions",
        source=f"{AUTHORS}; 25,000 where mode=prefilled",
    )
    buffer_size: int = setting(
        1_000_000,
        "fresh transitions that are kept, never more than env_steps",
        unit="transitions per seed",
        source=AUTHORS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("prefill", "buffer_size")

    def check_batch_size(self, batch_size: int) -> None:
        """Refuses batches that can't be halved where that is asked for.

        Raises:
          ValueError: the number is odd.
        """
        if self.mode == "half" and batch_size % 2:
            raise ValueError(f"replay.mode=half needs an even update.batch_size, got {batch_size}")

    def rule(self, env_steps: int, batch_size: int) -> ReplayRule:
        """Returns the rule of a run so long, with batches so large."""
        capacity = max(1, min(self.buffer_size, env_steps))
        if self.mode == "none":
            return replay.own(capacity, batch_size)
        return replay.prefilled(capacity, batch_size, self.prefill, half=self.mode == "half")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(o2sac.Networks):
    """Networks, and where the critics come from: those of the offline run."""

    num_critics: int = setting(2, "critics, whose mean value the actor maximises", source=AUTHORS)
    num_target_critics: int = setting(
        2,
        "critics, drawn anew for every update, whose lowest value is the target",
        source=f"{AUTHORS}; 1 in mazes",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_target_critics")
        self._at_most("num_critics", "num_target_critics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(o2sac.Update):
    """Settings of the updates: batches, rates, rewards, targets."""

    alpha: float = setting(
        0.01,
        "temperature at the first update, whatever the offline run's was",
        unit="return units per nat",
        source=AUTHORS,
    )
    backup_entropy: bool = setting(
        True,
        "entropy of the next action and its divergence from π_k as part of the target",
        source=f"{AUTHORS}; false in mazes and on narrow data",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ContinuedCriticsConfig):
    """Settings of PROTO. Defaults: the authors', of offline runs of this package.

    Source: Li et al., PROTO (arXiv:2305.15669), and the commands of its code.
    """

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {"env_steps": 20_000, "evaluation.every_env_steps": 1_000}
    )

    evaluation: parts.Evaluation = part(parts.Evaluation, every_env_steps=5_000)
    networks: Networks = part(
        Networks, hidden=THREE_LAYERS, critic_hidden=THREE_LAYERS, layer_norm=False, critic_source="offline"
    )
    update: Update = part(Update, actor_lr=3e-4)
    interaction: parts.Interaction = part(parts.Interaction, warmup_env_steps=0)
    replay: Replay = part(Replay)
    proximity: Proximity = part(Proximity)
    finetune: Finetuning = part(Finetuning)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.replay.check_batch_size(self.update.batch_size)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Targets without entropy and a slower π_k in mazes and on narrow data; one target critic in mazes."""
        values = settings_of_task(task)
        if task.sparse_reward or task.narrow_data:
            values["update.backup_entropy"] = False
        if task.sparse_reward:
            values["networks.num_target_critics"] = 1
        return replaced(cls(), values)

    def of_o2sac(self) -> o2sac.Config:
        """Returns O2SAC's settings with its idea switched off: its networks, and its start from offline critics."""
        return o2sac.Config(
            env_steps=self.env_steps,
            evaluation=self.evaluation,
            networks=self.networks,
            update=self.update,
            interaction=self.interaction,
            replay=parts.Replay(mode="none"),
            finetune=self.finetune,
            **constrained.switched_off(o2sac.Config()),
        )


def settings_of_task(task: Task) -> dict[str, Any]:
    """Returns the published settings for a task, by path, that PROTO and PROTO+TD3 have in common."""
    values: dict[str, Any] = {"evaluation.episodes": task.eval_episodes}
    if task.sparse_reward or task.narrow_data:
        values["proximity.polyak"] = 5e-5
    if task.sparse_reward:
        values |= {
            "env_steps": 200_000,
            "update.reward_shift": -1.0,
            "proximity.weight": 0.5,
        }
    return values
