"""Settings of O2SAC."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from o2o_jax.interfaces import Task
from o2o_jax.online import constrained, finetuning, parts
from o2o_jax.online.common import OnlineConfig
from o2o_jax.settings import Settings, part, replaced, setting

THREE_LAYERS = (256, 256, 256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(parts.ActorCritic):
    """Networks of soft actor-critics, and where their critics come from."""

    actor_layer_norm: bool = setting(
        False, "LayerNorm in the actor, before the activation", source="authors' code; as the offline policy has it"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(parts.Update):
    """Common ground of the updates of every phase: batches, rates, rewards, the temperature."""

    alpha: float = setting(
        0.2,
        "temperature before fine-tuning and its start online; that of offline critics which go to fine-tuning at "
        "once comes with them",
        unit="return units per nat",
        source="section H.3, D-18; 0.5 on expert data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("alpha")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment(parts.Alignment):
    """Alignment of the critics' values with the offline policy (section 4.2)."""

    log_prob_min: float | None = setting(
        None,
        "bound of log π_off of the probes from below; None: none",
        unit="nats",
        source="D-08; the paper and fast: −50",
    )
    divergence: Literal["sample", "exact"] = setting(
        "sample",
        "measure of the distance that align.lagrange puts a price on, as constraint.divergence",
        source="this package",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraint(parts.Constraint):
    """The constraint KL(π, π_ref) ≤ τ and its multiplier λ (section 4.3)."""

    threshold_start: float = setting(
        0.125, "τ at the first environment step", unit="nats", source="section H.3; tighter on expert data"
    )
    threshold_end: float = setting(2.0, "τ at the end of its ramp", unit="nats", source="section H.3")
    divergence: Literal["sample", "exact"] = setting(
        "sample", "divergence: one action's log-ratio, or KL(π, π_ref) in closed form", source="D-51"
    )
    reference_log_prob_min: float = setting(
        -50.0,
        "bound of log π_ref from below, so that one sample can't dominate",
        unit="nats",
        source="section H.3, D-08",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetuning(Settings):
    """Updates of SAC while fine-tuning."""

    alpha_lr: float = setting(3e-4, "learning rate of log α", source="authors' code, D-56")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("alpha_lr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(OnlineConfig):
    """Settings of O2SAC. Defaults: the authors', for MuJoCo medium data.

    Without `constraint` fine-tuning is that of SAC; without `reference` there is no π_ref either.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | constrained.ONLINE_PARTS
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType(
        {
            **constrained.FAST,
            "reevaluate.return_updates": 4_000,
            "align.lagrange": 0.2,
            "align.log_prob_min": -50.0,
            "align.divergence": "exact",
            "constraint.divergence": "exact",
        }
    )

    networks: Networks = part(Networks, hidden=THREE_LAYERS, critic_hidden=THREE_LAYERS)
    update: Update = part(Update)
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
        """Sections C.2, G.1, H.3: a higher temperature and tighter bounds where the data is expert; the bounds
        alone where it is narrow.

        Where rewards are sparse: one deep critic and longer phases; on a long horizon a higher temperature and λ too.
        """
        values: dict[str, Any] = {"evaluation.episodes": task.eval_episodes}
        tight = {"constraint.threshold_start": 0.005, "constraint.threshold_end": 0.125}
        if task.sparse_reward:
            values |= {
                "networks.critic_hidden": (256,) * 5,
                "networks.num_critics": 1,
                "update.reward_scale": 10.0,
                "update.reward_shift": -5.0,
                "update.alpha": 0.5 if task.long_horizon else 0.2,
                "constraint.lagrange_init": 2.0 if task.long_horizon else 1.0,
                "align.updates": 1_000_000,
                "env_steps": 200_000,
                "constraint.lagrange_travel": 10.0,
                "constraint.threshold_ramp": 0.5,
                "interaction.warmup_env_steps": 5_000,
                "evaluation.every_env_steps": 5_000,
            }
        elif task.expert_data:
            values |= tight | {"update.alpha": 0.5}
            if task.robot == "hopper":  # section C.3, D-31
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
