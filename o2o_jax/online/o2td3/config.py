"""Settings of O2TD3."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online.constrained import ConstrainedConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConstrainedConfig):
    """Settings of O2TD3. Defaults: the authors', for MuJoCo medium data."""

    online_fields: ClassVar[frozenset[str]] = ConstrainedConfig.online_fields | {
        "exploration_std", "policy_delay", "normalize_actor_q", "target_penalty",
    }  # fmt: skip

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType({**ConstrainedConfig.fast, "align_lagrange": 20.0})

    threshold_start: float = 0.0025  # τ in squared units of the action: (σ/2)² of the exploration noise
    threshold_end: float = 0.04  # (2σ)²; the paper prints 0.01 (D-21)
    exploration_std: float = 0.1  # σ of the noise on executed actions, in units of the action
    smoothing_std: float = 0.2  # of the noise on target actions and probes
    smoothing_clip: float = 0.5
    policy_delay: int = 2  # critic updates per update of actor, λ and targets, while fine-tuning
    decay: float = 1.0  # k of Eq. 15
    normalize_actor_q: bool = True  # divides Q by its mean magnitude in the actor's loss; the paper: False (D-25)
    target_penalty: Literal["batch_mean", "per_sample"] = "batch_mean"  # of Eq. 47; the paper: per_sample (D-26)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("exploration_std", "smoothing_std", "smoothing_clip", "decay")
        self._counts("policy_delay")

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Sections C.2, G.2, H.3: less noise and tighter bounds where the data is expert; the bounds alone where
        it is narrow.

        Where rewards are sparse: longer phases, and critics without LayerNorm unless the horizon is long.
        """
        if task.sparse_reward:
            return cls(
                layer_norm=task.long_horizon,
                reward_shift=-1.0,
                align_updates=1_000_000,
                env_steps=200_000,
                lagrange_travel=10.0,
                threshold_ramp=0.5,
                eval_every_env_steps=5_000,
                eval_episodes=task.eval_episodes,
            )
        config = cls(eval_episodes=task.eval_episodes)
        if task.expert_data:
            config = dataclasses.replace(
                config, exploration_std=0.05, threshold_start=2.5e-5, threshold_end=6.25e-4, stop_distance=0.0025
            )
            if task.robot == "hopper" or (task.robot, task.quality) == ("walker2d", "expert"):  # section C.3, D-31
                config = dataclasses.replace(config, reference_every_evaluations=10, interval_actor_grad_norm=0.25)
        elif task.narrow_data:  # nothing is published: this package's choice
            config = dataclasses.replace(config, threshold_start=2.5e-5, threshold_end=6.25e-4)
        return config
