"""Settings of O2TD3."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online import constrained, finetuning, parts
from o2o_jax.online.common import OnlineConfig
from o2o_jax.settings import Settings, part, replaced, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothing(Settings):
    """Noise on target actions and on the probes of alignment."""

    std: float = setting(0.2, "standard deviation; 2σ of Eq. 15", unit="action units", source="section G.2, D-22")
    clip: float = setting(0.5, "bound of the noise", unit="action units", source="authors' code")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("std", "clip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment(parts.Alignment):
    """Alignment of the critics' values with the offline policy (section 4.2)."""

    decay: float = setting(1.0, "k, by which values fall with the distance from the policy's action", source="Eq. 15")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("decay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraint(parts.Constraint):
    """The constraint (π − π_ref)² ≤ τ and its multiplier λ (section 4.3)."""

    threshold_start: float = setting(
        0.0025,
        "τ at the first environment step",
        unit="squared action units",
        source="section H.3: (σ/2)² of the exploration; tighter on expert data",
    )
    threshold_end: float = setting(
        0.04, "τ at the end of its ramp", unit="squared action units", source="section H.3: (2σ)²; D-21"
    )
    target_penalty: Literal["batch_mean", "per_sample"] = setting(
        "batch_mean",
        "penalty in the critics' targets: its mean over the batch, or each sample's own",
        source="Eq. 47, D-26",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetuning(Settings):
    """Updates and exploration of TD3 while fine-tuning."""

    exploration_std: float = setting(
        0.1,
        "σ of the noise on executed actions",
        unit="action units",
        source="section H.3; 0.05 on expert data",
    )
    policy_delay: int = setting(
        2, "critic updates per update of actor, λ and targets", unit="updates", source="authors' code, D-28"
    )
    normalize_actor_q: bool = setting(
        True, "division of Q by its mean magnitude in the actor's loss", source="D-25; false from scratch"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("exploration_std")
        self._counts("policy_delay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of O2TD3. Defaults: the authors', for MuJoCo medium data.

    Without `constraint` fine-tuning is that of TD3; without `reference` there is no π_ref either.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | constrained.ONLINE_PARTS
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType({**constrained.FAST, "align.lagrange": 20.0})

    networks: parts.ActorCritic = part(parts.ActorCritic)
    update: parts.Update = part(parts.Update)
    smoothing: Smoothing = part(Smoothing)
    reevaluate: parts.Reevaluation = part(parts.Reevaluation)
    align: Alignment = part(Alignment)
    early_stopping: parts.EarlyStopping = part(parts.EarlyStopping)
    start: parts.Start = part(parts.Start)
    interaction: parts.Interaction = part(parts.Interaction)
    replay: parts.Replay = part(parts.Replay)
    finetune: Finetuning = part(Finetuning)
    constraint: Constraint | None = part(Constraint)
    reference: parts.ConstrainedReference | None = part(parts.ConstrainedReference)
    roll_back: parts.RollBack = part(parts.RollBack)

    def __post_init__(self) -> None:
        super().__post_init__()
        constrained.check(self)

    @classmethod
    def published(cls, task: Task) -> "Config":
        """Sections C.2, G.2, H.3: less noise and tighter bounds where the data is expert; the bounds alone where
        it is narrow.

        Where rewards are sparse: longer phases, and critics without LayerNorm unless the horizon is long.
        """
        values: dict[str, Any] = {"evaluation.episodes": task.eval_episodes}
        tight = {"constraint.threshold_start": 2.5e-5, "constraint.threshold_end": 6.25e-4}
        if task.sparse_reward:
            values |= {
                "networks.layer_norm": task.long_horizon,
                "update.reward_shift": -1.0,
                "align.updates": 1_000_000,
                "env_steps": 200_000,
                "constraint.lagrange_travel": 10.0,
                "constraint.threshold_ramp": 0.5,
                "evaluation.every_env_steps": 5_000,
            }
        elif task.expert_data:
            values |= tight | {"finetune.exploration_std": 0.05, "early_stopping.distance": 0.0025}
            if task.robot == "hopper" or (task.robot, task.quality) == ("walker2d", "expert"):  # section C.3, D-31
                values |= {"reference.every_evaluations": 10, "reference.interval_actor_grad_norm": 0.25}
        elif task.narrow_data:  # nothing is published: this package's choice
            values |= tight
        return replaced(cls(), values)

    def aligned_reference(self, accept: Any) -> Any:
        """Returns [...] bool, where the first π_ref is the aligned policy, as `reference.init` says."""
        return finetuning.aligned_reference(self, accept)

    def warnings(self, source: str) -> list[str]:
        """Returns warnings where other phases are left out than Appendix B allows, a line each."""
        return constrained.warnings(self, source)
