"""Settings of O2PPO."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Schedule, Task
from o2o_jax.online.common import OnlineConfig
from o2o_jax.ops.advantage import Baseline, Pairing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of O2PPO. Defaults: the authors', for MuJoCo medium data."""

    online_fields: ClassVar[frozenset[str]] = OnlineConfig.online_fields | {
        "rollout_env_steps", "epochs", "minibatch_size", "actor_lr", "critic_lr", "adam_eps", "max_grad_norm",
        "gae_lambda", "clip", "entropy_weight", "auxiliary_scale", "auxiliary_env_steps",
        "auxiliary_pairing", "auxiliary_baseline", "auxiliary_schedule", "target_divergence_per_dim",
    }  # fmt: skip
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {
            "reevaluate_updates": 20_000,
            "return_boundary": "bootstrap",
            "auxiliary_baseline": "policy",
            "auxiliary_schedule": "target_divergence",
            "roll_back": True,
            "env_steps": 150_000,
        }
    )
    align_updates: ClassVar[int] = 0  # the auxiliary advantage takes the place of the phase

    # Networks
    critic_hidden: tuple[int, ...] = (256, 256, 256)  # of V, whose activation is tanh
    max_initial_std: float | None = None  # bounds the transferred policy's σ, in units of the action (D-41)
    # Value regression on the dataset's returns
    reevaluate_updates: int = 1_000_000
    reevaluate_lr: float = 1e-4
    batch_size: int = 512  # rows of the dataset per update
    # "terminals_and_timeouts" ends returns with their episode; "bootstrap" goes on with V beyond a time limit, as
    # fine-tuning does; "terminals_only" lets them run into the next episode, the authors' code's mistake (D-36)
    return_boundary: Literal["terminals_and_timeouts", "bootstrap", "terminals_only"] = "terminals_and_timeouts"
    # Fine-tuning
    env_steps: int = 250_000  # both learning rates fall linearly to 0 over them
    eval_every_env_steps: int = 2_500
    rollout_env_steps: int = 2_048
    epochs: int = 10  # passes over a rollout
    minibatch_size: int = 128
    actor_lr: float = 3e-5
    critic_lr: float = 2e-4
    adam_eps: float = 1e-5
    max_grad_norm: float = 0.5  # of actor and critic, each by itself
    gae_lambda: float = 0.95
    clip: float = 0.2  # ε of the probability ratio
    entropy_weight: float = 0.01
    reward_scaling: Literal["none", "running_std"] = "none"  # by the deviation of discounted sums (D-40)
    # "running": mean and deviation of all observations so far, for agents from scratch, whose policy brings neither
    observation_scaling: Literal["policy", "running"] = "policy"
    # Auxiliary advantage
    auxiliary_scale: float = 2.0  # α, in standard deviations of the advantage (D-35); 0 leaves plain PPO
    # What log π_ref(a|s) is compared with: minus the "entropy" of π_ref, which shrinks σ whatever the rewards say, or
    # log π(a|s) of the "policy" that acted, which holds σ too
    auxiliary_baseline: Baseline = "entropy"
    # "linear": β falls from 1 to 0; "target_divergence": β moves so that KL(π, π_ref) comes to lie near a target
    auxiliary_schedule: Literal["linear", "target_divergence"] = "linear"
    auxiliary_env_steps: int = 250_000  # linear: over which β falls
    target_divergence_per_dim: float = 0.05  # target_divergence: KL per dimension of the action, nats
    auxiliary_pairing: Pairing = "paired"  # "outer": the square broadcast of the authors' code (D-32)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("reevaluate_lr", "rollout_env_steps", "epochs", "minibatch_size", "adam_eps", "max_grad_norm")
        self._positive("auxiliary_env_steps", "target_divergence_per_dim")
        if self.max_initial_std is not None:
            self._positive("max_initial_std")
        self._not_negative("entropy_weight", "auxiliary_scale")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda must lie in [0, 1], got {self.gae_lambda}")
        self._inside(0, 1, "clip")
        if self.rollout_env_steps % self.minibatch_size:
            raise ValueError(
                f"minibatch_size must divide rollout_env_steps, {self.rollout_env_steps}, got {self.minibatch_size}"
            )

    @property
    def schedule(self) -> Schedule:
        """A fresh rollout, then all epochs on it as one update."""
        return Schedule(env_steps=self.rollout_env_steps)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Sections C.3, H.5 and the authors' settings: the auxiliary advantage lasts where the data is expert."""
        config = cls(eval_episodes=task.eval_episodes)
        if task.expert_data:
            config = dataclasses.replace(config, auxiliary_env_steps=500_000)
        if task.expert_data and task.robot == "hopper":
            config = dataclasses.replace(config, epochs=5, max_initial_std=0.05, reference_every_evaluations=4)
        if task.robot == "halfcheetah":
            config = dataclasses.replace(config, reward_scaling="running_std")
        if task.robot == "pen":  # nothing is published: this package's choice
            config = dataclasses.replace(config, env_steps=100_000, eval_every_env_steps=1_000)
        return config
