"""Settings of plain PPO: direct fine-tuning of an offline policy."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar

from o2o_jax.interfaces import Task
from o2o_jax.online import o2ppo, parts
from o2o_jax.online.common import OnlineConfig
from o2o_jax.online.o2ppo import config as settings
from o2o_jax.settings import part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of PPO, those of O2PPO that are left once the idea of the paper is switched off.

    The value function is fitted to the dataset's returns all the same: no offline critic crosses to PPO, and it would
    otherwise start from noise. `reevaluate.updates=0` leaves that out too.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | {"rollout", "finetune"}
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {path: o2ppo.Config.fast[path] for path in ("reevaluate.updates", "reevaluate.return_boundary", "env_steps")}
    )

    env_steps: int = setting(
        250_000, "length of fine-tuning, per seed", unit="environment steps", source="authors' code, D-42"
    )
    evaluation: parts.Evaluation = part(parts.Evaluation, **settings.ROLLOUT_EVALUATION)
    networks: settings.Networks = part(settings.Networks)
    update: settings.Update = part(settings.Update)
    reevaluate: settings.Reevaluation = part(settings.Reevaluation)
    rollout: settings.Rollouts = part(settings.Rollouts)
    finetune: settings.Finetuning = part(settings.Finetuning)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Returns O2PPO's settings on the same task, without its auxiliary advantage."""
        return replaced(cls(), settings.shared_with_control(task))

    @classmethod
    def from_scratch(cls) -> "Config":
        """PPO without offline data, as most behaviour policies are trained.

        Source: Andrychowicz et al., What Matters in On-Policy RL (2021), and common practice on MuJoCo: small networks,
        observations and rewards scaled as they come, no bonus for entropy.
        """
        return replaced(
            cls(),
            {
                "networks.hidden": (64, 64),
                "networks.critic_hidden": (64, 64),
                "networks.max_initial_std": 0.6,
                "reevaluate.updates": 0,
                "env_steps": 5_000_000,
                "evaluation.every_env_steps": 100_000,
                "rollout.minibatch_size": 64,
                "finetune.actor_lr": 3e-4,
                "finetune.critic_lr": 3e-4,
                "finetune.entropy_weight": 0.0,
                "update.reward_scaling": "running_std",
                "update.observation_scaling": "running",
            },
        )

    def of_o2ppo(self) -> o2ppo.Config:
        """Returns O2PPO's settings with its idea switched off: no auxiliary advantage, no π_ref."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return o2ppo.Config(**own, auxiliary=None, reference=None)
