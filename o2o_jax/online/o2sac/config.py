"""Settings of O2SAC."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online.constrained import ConstrainedConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ConstrainedConfig):
    """Settings of O2SAC. Defaults: the authors', for MuJoCo medium data."""

    online_fields: ClassVar[frozenset[str]] = ConstrainedConfig.online_fields | {
        "alpha_lr", "divergence", "reference_log_prob_min",
    }  # fmt: skip

    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {**ConstrainedConfig.fast, "align_lagrange": 0.2, "align_log_prob_min": -50.0, "divergence": "exact"}
    )

    hidden: tuple[int, ...] = (256, 256, 256)
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    # temperature before fine-tuning and its start online, return units per nat; where offline critics go to fine-tuning
    # at once, their own temperature goes with them
    alpha: float = 0.2
    alpha_lr: float = 3e-4  # of log α, online
    align_log_prob_min: float | None = None  # nats; bounds log π_off of probes from below; the paper: −50 (D-08)
    divergence: Literal["sample", "exact"] = "sample"  # one action's log-ratio, or KL(π, π_ref) in closed form (D-51)
    reference_log_prob_min: float = -50.0  # nats; bounds log π_ref from below, so that one sample can't dominate

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("alpha")
        self._not_negative("alpha_lr")

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Sections C.2, G.1, H.3: a higher temperature and tighter bounds where the data is expert; the bounds
        alone where it is narrow.

        Where rewards are sparse: one deep critic and longer phases; on a long horizon a higher temperature and λ too.
        """
        if task.sparse_reward:
            return cls(
                critic_hidden=(256,) * 5,
                num_critics=1,
                reward_scale=10.0,
                reward_shift=-5.0,
                alpha=0.5 if task.long_horizon else 0.2,
                lagrange_init=2.0 if task.long_horizon else 1.0,
                align_updates=1_000_000,
                env_steps=200_000,
                lagrange_travel=10.0,
                threshold_ramp=0.5,
                warmup_env_steps=5_000,
                eval_every_env_steps=5_000,
                eval_episodes=task.eval_episodes,
            )
        config = cls(eval_episodes=task.eval_episodes)
        if task.expert_data:
            config = dataclasses.replace(config, alpha=0.5, threshold_start=0.005, threshold_end=0.125)
            if task.robot == "hopper":  # section C.3, D-31
                config = dataclasses.replace(config, reference_every_evaluations=10, interval_actor_grad_norm=0.25)
        elif task.narrow_data:  # nothing is published: this package's choice
            config = dataclasses.replace(config, threshold_start=0.005, threshold_end=0.125)
        return config
