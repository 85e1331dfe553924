"""Settings of plain SAC: direct fine-tuning from offline critics, or training from scratch."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online import o2sac
from o2o_jax.online.constrained import settings_of_task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(o2sac.Config):
    """O2SAC's settings with the idea of the paper switched off.

    The critics are those that CQL leaves: three hidden layers without LayerNorm.
    """

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {name: o2sac.Config.fast[name] for name in ("env_steps", "actor_lr")}
    )

    layer_norm: bool = False
    reevaluate_updates: int = 0
    align_updates: int = 0
    constrain: bool = False
    critic_source: Literal["random", "offline"] = "offline"

    @classmethod
    def published(cls, task: Task) -> "Config":
        """O2SAC's temperature, rewards, depth and lengths on the same task; two critics, since CQL leaves two."""
        config = o2sac.Config.published(task)
        return cls(alpha=config.alpha, **settings_of_task(config))

    @classmethod
    def from_scratch(cls) -> "Config":
        """SAC without offline data, as the behaviour policies are trained."""
        return cls(
            hidden=(256, 256),
            critic_hidden=(256, 256),
            actor_lr=3e-4,
            alpha=1.0,
            critic_source="random",
            replay="none",
            random_env_steps=5_000,
            warmup_env_steps=5_000,
            buffer_size=1_000_000,
            env_steps=1_000_000,
            eval_every_env_steps=5_000,
        )
