"""Settings of plain PPO: direct fine-tuning of an offline policy."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from o2o_jax.interfaces import Task
from o2o_jax.online import o2ppo


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(o2ppo.Config):
    """O2PPO's settings with the idea of the paper switched off.

    The value function is fitted to the dataset's returns all the same: no offline critic crosses to PPO, and it would
    otherwise start from noise. `reevaluate_updates=0` leaves that out too.
    """

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {name: o2ppo.Config.fast[name] for name in ("reevaluate_updates", "return_boundary", "env_steps")}
    )

    auxiliary_scale: float = 0.0

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Returns O2PPO's settings on the same task, without its auxiliary advantage."""
        return cls(**dataclasses.asdict(o2ppo.Config.published(task)) | {"auxiliary_scale": 0.0})

    @classmethod
    def from_scratch(cls) -> "Config":
        """PPO without offline data, as most behaviour policies are trained.

        Source: Andrychowicz et al., What Matters in On-Policy RL (2021), and common practice on MuJoCo: small networks,
        observations and rewards scaled as they come, no bonus for entropy.
        """
        return cls(
            hidden=(64, 64),
            critic_hidden=(64, 64),
            max_initial_std=0.6,
            reevaluate_updates=0,
            env_steps=5_000_000,
            eval_every_env_steps=100_000,
            minibatch_size=64,
            actor_lr=3e-4,
            critic_lr=3e-4,
            entropy_weight=0.0,
            reward_scaling="running_std",
            observation_scaling="running",
        )
