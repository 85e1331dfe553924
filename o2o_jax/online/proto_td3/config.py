"""Settings of PROTO+TD3."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online import constrained, o2td3, parts, proto
from o2o_jax.online.common import ContinuedCriticsConfig
from o2o_jax.online.parts import AUTHORS
from o2o_jax.online.proto.config import Proximity, Replay, settings_of_task
from o2o_jax.settings import Settings, part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Settings):
    """Noise on actions, clipped."""

    std: float = setting(0.2, "standard deviation, before the bound", unit="action units", source=AUTHORS)
    clip: float = setting(0.5, "bound of the noise", unit="action units", source=AUTHORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("std", "clip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(parts.ActorCritic):
    """Networks, and where the critics come from: those of the offline run."""

    num_target_critics: int = setting(
        2,
        "critics, drawn anew for every update, whose lowest value is the target",
        source=f"{AUTHORS}; 1 in mazes and on narrow data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_target_critics")
        self._at_most("num_critics", "num_target_critics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(parts.Update):
    """Settings of the updates: batches, rates, rewards, targets, the delay."""

    q_weight: float = setting(
        2.5, "weight of the Q term in the actor's loss once its mean magnitude is scaled to 1", source=AUTHORS
    )
    policy_delay: int = setting(
        2, "critic updates per update of actor, π_k and target critics", unit="updates", source=AUTHORS
    )
    target: Literal["intended", "official"] = setting(
        "intended",
        "action of the critics' targets: that of π_k with clipped noise; or as the authors' code has it, that of π_k "
        "without noise, and where not all critics count that of π with noise",
        source="this package: intended",
    )
    backup_divergence: bool = setting(
        True, "divergence from π_k as part of the target", source=f"{AUTHORS}; false in mazes and on narrow data"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("q_weight")
        self._counts("policy_delay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ContinuedCriticsConfig):
    """Settings of PROTO+TD3. Defaults: the authors', of offline runs of this package.

    Source: Li et al., PROTO (arXiv:2305.15669), and the commands of its code.
    """

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType({**proto.Config.fast})

    evaluation: parts.Evaluation = part(parts.Evaluation, every_env_steps=5_000)
    networks: Networks = part(Networks, layer_norm=False, critic_source="offline")
    update: Update = part(Update, actor_lr=3e-4)
    smoothing: Noise = part(Noise)
    exploration: Noise = part(Noise)
    interaction: parts.Interaction = part(parts.Interaction, warmup_env_steps=0)
    replay: Replay = part(Replay, mode="prefilled", prefill=25_000, buffer_size=2_000_000)
    proximity: Proximity = part(Proximity)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.replay.check_batch_size(self.update.batch_size)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """A slower π_k, targets without divergence and of one critic in mazes and on narrow data."""
        values = settings_of_task(task)
        if task.sparse_reward or task.narrow_data:
            values |= {"update.backup_divergence": False, "networks.num_target_critics": 1}
        return replaced(cls(), values)

    def of_o2td3(self) -> o2td3.Config:
        """Returns O2TD3's settings with its idea switched off: its networks, and its start from offline critics."""
        return o2td3.Config(
            env_steps=self.env_steps,
            evaluation=self.evaluation,
            networks=self.networks,
            update=self.update,
            interaction=self.interaction,
            replay=parts.Replay(mode="none"),
            **constrained.switched_off(o2td3.Config()),
        )
