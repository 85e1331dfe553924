"""Settings of O2PPO."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online import parts
from o2o_jax.online.common import OnlineConfig
from o2o_jax.ops.advantage import Baseline, Pairing
from o2o_jax.settings import Settings, part, replaced, setting

ROLLOUT_EVALUATION = {"every_env_steps": 2_500}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(parts.Networks):
    """Networks of actor and value function, whose activation is tanh."""

    critic_hidden: tuple[int, ...] = setting(
        (256, 256, 256), "widths of the value function's hidden layers", unit="units", source="authors' code, D-37"
    )
    max_initial_std: float | None = setting(
        None,
        "bound of the transferred policy's σ; None: none",
        unit="action units",
        source="D-41; 0.05 on Hopper's expert data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_initial_std is not None:
            self._positive("max_initial_std")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(Settings):
    """Common ground of the updates of every phase: discount, rewards, observations."""

    discount: float = setting(0.99, "γ, per environment step", source="authors' code")
    reward_scale: float = setting(1.0, "factor of the raw rewards", source="D-54")
    reward_shift: float = setting(0.0, "added to the rewards after the scale", unit="reward units", source="D-54")
    reward_scaling: Literal["none", "running_std"] = setting(
        "none", "division of rewards by the running deviation of their discounted sums", source="D-40; on HalfCheetah"
    )
    observation_scaling: Literal["policy", "running"] = setting(
        "policy",
        "scale of observations: the policy's own, or that of all so far, for agents from scratch",
        source="D-38",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._inside(0, 1, "discount")
        self._positive("reward_scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reevaluation(Settings):
    """Regression of the value function on the dataset's returns (section 4.1)."""

    updates: int = setting(1_000_000, "updates of the phase; 0 leaves it out", unit="updates", source="D-37")
    lr: float = setting(1e-4, "learning rate", source="D-37")
    batch_size: int = setting(512, "rows of the dataset per update", unit="transitions", source="D-37")
    return_boundary: Literal["terminals_and_timeouts", "bootstrap", "terminals_only"] = setting(
        "terminals_and_timeouts",
        "end of returns: with their episode; beyond a time limit bootstrapped by V, as in "
        "fine-tuning; or by terminals alone, so that they run into the next episode",
        source="D-36; bootstrap: this package",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("updates")
        self._positive("lr", "batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollouts(Settings):
    """Rollouts and passes over them."""

    env_steps: int = setting(2_048, "environment steps of a rollout", unit="environment steps", source="authors' code")
    epochs: int = setting(10, "passes over a rollout", unit="passes", source="D-39; 5 on Hopper's expert data")
    minibatch_size: int = setting(128, "steps per update", unit="environment steps", source="authors' code")
    gae_lambda: float = setting(0.95, "λ of generalised advantages", source="authors' code")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("env_steps", "epochs", "minibatch_size")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda must lie in [0, 1], got {self.gae_lambda}")
        if self.env_steps % self.minibatch_size:
            raise ValueError(
                f"minibatch_size must divide the rollout's env_steps, {self.env_steps}, got {self.minibatch_size}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetuning(Settings):
    """Updates of PPO while fine-tuning; both learning rates fall linearly to 0 over env_steps."""

    actor_lr: float = setting(3e-5, "learning rate of the actor at the start", source="authors' code")
    critic_lr: float = setting(2e-4, "learning rate of the value function at the start", source="authors' code")
    adam_eps: float = setting(1e-5, "ε of Adam", source="authors' code")
    max_grad_norm: float = setting(
        0.5, "bound of the gradient's norm, of actor and value function each", source="authors' code"
    )
    clip: float = setting(0.2, "ε of the probability ratio", source="Eq. 7, authors' code")
    entropy_weight: float = setting(0.01, "weight of the entropy", unit="advantages per nat", source="authors' code")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("actor_lr", "critic_lr", "adam_eps", "max_grad_norm")
        self._inside(0, 1, "clip")
        self._not_negative("entropy_weight")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Auxiliary(Settings):
    """The auxiliary advantage for what π_ref would do (section 4.3), and its weight β."""

    scale: float = setting(2.0, "α; 0 leaves plain PPO", unit="standard deviations of the advantage", source="D-35")
    baseline: Baseline = setting(
        "entropy",
        "what log π_ref(a|s) is compared with: minus the entropy of π_ref, which shrinks σ whatever the rewards "
        "say, or log π(a|s) of the policy that acted, which holds σ too",
        source="Eq. 17, D-44; policy: this package",
    )
    weight: Literal["linear", "target_divergence"] = setting(
        "linear",
        "course of β: from 1 to 0, or such that KL(π, π_ref) comes to lie near a target",
        source="section H.5; target_divergence: this package",
    )
    env_steps: int = setting(
        250_000,
        "weight=linear: length of the fall",
        unit="environment steps",
        source="section H.5; 500,000 on expert data",
    )
    target_divergence_per_dim: float = setting(
        0.05, "weight=target_divergence: KL per dimension of the action", unit="nats", source="this package"
    )
    pairing: Pairing = setting(
        "paired",
        "sum with the advantage: step by step, or of all pairs, the broadcast of the authors' code",
        source="D-32",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("env_steps", "target_divergence_per_dim")
        self._not_negative("scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of O2PPO. Defaults: the authors', for MuJoCo medium data.

    Without `auxiliary` fine-tuning is that of PPO; without `reference` there is no π_ref either.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | {
        "rollout", "finetune", "auxiliary", "reference", "roll_back"
    }  # fmt: skip
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {
            "reevaluate.updates": 20_000,
            "reevaluate.return_boundary": "bootstrap",
            "auxiliary.baseline": "policy",
            "auxiliary.weight": "target_divergence",
            "roll_back.enabled": True,
            "env_steps": 150_000,
        }
    )

    env_steps: int = setting(
        250_000, "length of fine-tuning, per seed", unit="environment steps", source="authors' code, D-42"
    )
    evaluation: parts.Evaluation = part(parts.Evaluation, **ROLLOUT_EVALUATION)
    networks: Networks = part(Networks)
    update: Update = part(Update)
    reevaluate: Reevaluation = part(Reevaluation)
    rollout: Rollouts = part(Rollouts)
    finetune: Finetuning = part(Finetuning)
    auxiliary: Auxiliary | None = part(Auxiliary)
    reference: parts.Reference | None = part(parts.Reference)
    roll_back: parts.RollBack = part(parts.RollBack)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference is not None:
            self.reference.check(self.evaluation, self.roll_back)
        elif self.roll_back.enabled:
            raise ValueError("roll_back.enabled goes back to π_ref: with reference=none set it to false")
        elif self.auxiliary is not None:
            raise ValueError("auxiliary is for what π_ref would do: with reference=none set auxiliary=none too")

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Sections C.3, H.5 and the authors' settings: the auxiliary advantage lasts where the data is expert."""
        values = shared_with_control(task)
        if task.expert_data:
            values |= {"auxiliary.env_steps": 500_000}
            if task.robot == "hopper":
                values |= {"reference.every_evaluations": 4}
        return replaced(cls(), values)


def shared_with_control(task: Task) -> dict[str, Any]:
    """Returns what is published for a task and has nothing to do with π_ref, by path."""
    values: dict[str, Any] = {"evaluation.episodes": task.eval_episodes}
    if task.expert_data and task.robot == "hopper":
        values |= {"rollout.epochs": 5, "networks.max_initial_std": 0.05}
    if task.robot == "halfcheetah":
        values |= {"update.reward_scaling": "running_std"}
    if task.family == "adroit":  # nothing is published: this package's choice
        values |= {"env_steps": 100_000, "evaluation.every_env_steps": 1_000}
    return values
