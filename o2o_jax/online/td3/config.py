"""Settings of plain TD3: direct fine-tuning from offline critics, or training from scratch."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from o2o_jax.interfaces import Task
from o2o_jax.online import constrained, o2td3, parts
from o2o_jax.online.common import ContinuedCriticsConfig
from o2o_jax.online.o2td3.config import Finetuning, Smoothing
from o2o_jax.settings import part, replaced


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ContinuedCriticsConfig):
    """Settings of TD3, those of O2TD3 that are left once the idea of the paper is switched off.

    The critics are those that TD3+BC leaves: two hidden layers without LayerNorm.
    """

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {path: o2td3.Config.fast[path] for path in ("env_steps", "update.actor_lr")}
    )

    networks: parts.ActorCritic = part(parts.ActorCritic, layer_norm=False, critic_source="offline")
    update: parts.Update = part(parts.Update)
    smoothing: Smoothing = part(Smoothing)
    interaction: parts.Interaction = part(parts.Interaction)
    replay: parts.Replay = part(parts.Replay)
    finetune: Finetuning = part(Finetuning)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.replay.check_batch_size(self.update.batch_size)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """O2TD3's exploration noise, rewards and lengths on the same task; all else is the same everywhere."""
        config = o2td3.Config.published(task)
        std = config.finetune.exploration_std
        return replaced(cls(), constrained.settings_of_task(config) | {"finetune.exploration_std": std})

    @classmethod
    def from_scratch(cls) -> "Config":
        """TD3 without offline data."""
        return replaced(cls(), {**constrained.FROM_SCRATCH, "finetune.normalize_actor_q": False})

    def of_o2td3(self) -> o2td3.Config:
        """Returns O2TD3's settings with its idea switched off: no phase before the first step, no π_ref."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return o2td3.Config(**own, **constrained.switched_off(o2td3.Config()))
