"""Settings of plain TD3: direct fine-tuning from offline critics, or training from scratch."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online import o2td3
from o2o_jax.online.constrained import settings_of_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(o2td3.Config):
    """O2TD3's settings with the idea of the paper switched off.

    The critics are those that TD3+BC leaves: two hidden layers without LayerNorm.
    """

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {name: o2td3.Config.fast[name] for name in ("env_steps", "actor_lr")}
    )

    layer_norm: bool = False
    reevaluate_updates: int = 0
    align_updates: int = 0
    constrain: bool = False
    critic_source: Literal["random", "offline"] = "offline"

    @classmethod
    def published(cls, task: Task) -> "Config":
        """O2TD3's exploration noise, rewards and lengths on the same task; all else is the same everywhere."""
        config = o2td3.Config.published(task)
        return cls(exploration_std=config.exploration_std, **settings_of_task(config))

    @classmethod
    def from_scratch(cls) -> "Config":
        """TD3 without offline data."""
        return cls(
            actor_lr=3e-4,
            normalize_actor_q=False,
            critic_source="random",
            replay="none",
            random_env_steps=5_000,
            warmup_env_steps=5_000,
            buffer_size=1_000_000,
            env_steps=1_000_000,
            eval_every_env_steps=5_000,
        )
