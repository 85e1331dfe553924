"""Settings of RLPD."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from o2o_jax.interfaces import Task
from o2o_jax.online import parts
from o2o_jax.online.common import OnlineConfig
from o2o_jax.online.parts import AUTHORS
from o2o_jax.settings import part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(parts.Networks):
    """Sizes of the networks; all critics have LayerNorm."""

    hidden: tuple[int, ...] = setting(
        (256, 256),
        "widths of the actor's hidden layers",
        unit="units",
        source=f"{AUTHORS}; three layers in mazes and on Adroit",
    )
    critic_hidden: tuple[int, ...] = setting(
        (256, 256), "widths of the critics' hidden layers", unit="units", source=f"{AUTHORS}; as the actor's"
    )
    num_critics: int = setting(10, "critics, whose mean the actor maximises", source=AUTHORS)
    num_target_critics: int = setting(
        2,
        "critics, drawn anew for every update, whose lowest value is the target",
        source=f"{AUTHORS}; one in mazes",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_critics", "num_target_critics")
        self._at_most("num_critics", "num_target_critics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(parts.Update):
    """Settings of the updates: batches, rates, rewards, the temperature."""

    actor_lr: float = setting(3e-4, "learning rate of the actor", source=AUTHORS)
    reward_shift: float = setting(
        0.0, "added to the rewards after the scale", unit="reward units", source=f"{AUTHORS}; −1 in mazes"
    )
    alpha: float = setting(1.0, "temperature at the first update", unit="return units per nat", source=AUTHORS)
    alpha_lr: float = setting(3e-4, "learning rate of log α", source=AUTHORS)
    backup_entropy: bool = setting(
        True, "entropy of the next action as part of the target", source=f"{AUTHORS}; not in mazes and on Adroit"
    )

    target_actions: int = setting(
        1,
        "actions sampled per next state, of which the best counts",
        unit="actions",
        source=f"{AUTHORS}; 10 in mazes as WSRL's authors compare it",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("target_actions")
        self._positive("alpha")
        self._not_negative("alpha_lr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interaction(parts.Interaction):
    """Environment steps and updates."""

    updates_per_env_step: int = setting(
        20,
        "critic updates per environment step, on fresh batches; actor and temperature move with the last",
        source=AUTHORS,
    )
    warmup_env_steps: int = setting(
        5_000, "environment steps without updates", unit="environment steps", source=f"{AUTHORS}: start_training"
    )
    random_env_steps: int = setting(
        5_000,
        "environment steps with uniform actions at the very start",
        unit="environment steps",
        source=f"{AUTHORS}: start_training",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of RLPD. Defaults: the authors', for MuJoCo data.

    Source: Ball et al., RLPD (arXiv:2302.02948), and the commands and configs of its code.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | {"interaction", "replay"}
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {"env_steps": 20_000, "evaluation.every_env_steps": 1_000}
    )

    env_steps: int = setting(
        250_000,
        "length of training, per seed",
        unit="environment steps",
        source=f"{AUTHORS}; 300,000 in mazes, 1,000,000 on Adroit",
    )
    evaluation: parts.Evaluation = part(parts.Evaluation, every_env_steps=5_000)
    networks: Networks = part(Networks)
    update: Update = part(Update)
    interaction: Interaction = part(Interaction)
    replay: parts.Replay = part(parts.Replay)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay.mode == "auto":
            raise ValueError("replay.mode=auto goes by the worth of the offline policy, which isn't taken: set half")
        self.replay.check_batch_size(self.update.batch_size)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Three layers and targets without entropy in mazes and on Adroit; single targets and r − 1 in mazes."""
        values: dict[str, Any] = {"evaluation.episodes": task.eval_episodes}
        if task.sparse_reward or task.family == "adroit":
            three_layers = (256, 256, 256)
            values |= {
                "networks.hidden": three_layers,
                "networks.critic_hidden": three_layers,
                "update.backup_entropy": False,
                "env_steps": 1_000_000,
            }
        if task.sparse_reward:
            values |= {"networks.num_target_critics": 1, "update.reward_shift": -1.0, "env_steps": 300_000}
        return replaced(cls(), values)
