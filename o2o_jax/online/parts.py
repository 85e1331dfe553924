"""Parts that the settings of online algorithms are composed of."""

import dataclasses
import math
from typing import Literal

from o2o_jax.data import replay
from o2o_jax.interfaces import Replay as ReplayRule
from o2o_jax.interfaces import Schedule as ScheduleRule
from o2o_jax.settings import Settings, setting

Choice = Literal["best_of", "aligned", "offline"]
AUTHORS = "authors' code"
OWN = "this package"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(Settings):
    """Evaluation while fine-tuning: how often, and by how much."""

    every_env_steps: int = setting(
        1_000,
        "interval between two evaluations, two rows of every log and two looks at π_ref",
        unit="environment steps",
        source=f"{AUTHORS}; 5,000 in mazes, 2,500 for O2PPO",
    )
    episodes: int = setting(10, "episodes of an evaluation; 0 leaves evaluations out", unit="episodes", source="D-20")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("every_env_steps")
        self._not_negative("episodes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(Settings):
    """Environment steps of a seed, side by side."""

    num_envs: int = setting(
        1,
        "environments per seed that step together; the updates per environment step stay what they are",
        unit="environments",
        source=OWN,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("num_envs")

    def check(self, path: str, env_steps: int) -> None:
        """Refuses a number of environment steps, the setting of that path, between two steps of all environments.

        Raises:
          ValueError: it is no multiple of `num_envs`.
        """
        if env_steps % self.num_envs:
            raise ValueError(
                f"{path} must be a multiple of schedule.num_envs, {self.num_envs}, which step together, got {env_steps}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks(Settings):
    """Sizes of the networks."""

    hidden: tuple[int, ...] = setting(
        (256, 256),
        "widths of the actor's hidden layers",
        unit="units",
        source="authors' code, as offline",
    )
    critic_hidden: tuple[int, ...] = setting(
        (256, 256), "widths of the critics' hidden layers", unit="units", source="D-30"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._widths("hidden", "critic_hidden")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(Networks):
    """Networks of the off-policy algorithms, and where their critics come from.

    Offline critics have two hidden layers (TD3+BC) or three (CQL, AWAC) and no LayerNorm. They don't depend on the
    head, and so stay where the policy was cloned. Both they and their targets are taken over, the targets being what
    alignment is anchored to; Adam begins anew.
    """

    layer_norm: bool = setting(True, "LayerNorm in the critics, before the activation", source="D-02, D-30")
    num_critics: int = setting(2, "critics, whose lowest value counts", source="D-16; one in mazes for O2SAC")
    critic_source: Literal["random", "offline"] = setting(
        "random",
        "initial parameters of the critics: random ones, or those that offline training left",
        source="D-14; offline where fine-tuning is direct",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("num_critics")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update(Settings):
    """Common ground of the updates of every phase: batches, rates, rewards."""

    batch_size: int = setting(256, "transitions per update", unit="transitions", source=AUTHORS)
    discount: float = setting(0.99, "γ, per environment step", source=AUTHORS)
    actor_lr: float = setting(1e-4, "learning rate of the actor", source=f"{AUTHORS}; fast and from scratch 3e-4")
    critic_lr: float = setting(3e-4, "learning rate of the critics", source=AUTHORS)
    polyak: float = setting(0.005, "share of the networks copied into their targets per update", source=AUTHORS)
    reward_scale: float = setting(1.0, "factor of the raw rewards", source="D-15, D-54")
    reward_shift: float = setting(0.0, "added to the rewards after the scale", unit="reward units", source="D-15, D-54")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._inside(0, 1, "discount")
        self._positive("actor_lr", "critic_lr", "reward_scale", "batch_size")
        self._share("polyak")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reevaluation(Settings):
    """Optimistic re-evaluation of the offline policy by fresh critics (section 4.1)."""

    updates: int = setting(
        500_000,
        "updates of the phase, at most where early stopping has a say; 0 leaves it out",
        unit="updates",
        source=AUTHORS,
    )
    polyak: float | None = setting(
        None, "share of the critics copied into their targets per update; None: update.polyak", source=OWN
    )
    return_updates: int = setting(
        0, "updates over which targets go from the data's returns to bootstrapped ones", unit="updates", source=OWN
    )
    critic_bias: Literal["zero", "returns"] = setting(
        "zero", "level at which random critics begin: zero, or that of the data's returns", source=f"{AUTHORS}: zero"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("updates", "return_updates")
        if self.polyak is not None and not 0 < self.polyak <= 1:
            raise ValueError(f"polyak must lie in (0, 1] or be none, got {self.polyak}")
        if self.critic_bias == "returns" and not self.updates:
            raise ValueError("critic_bias=returns is for critics that are re-evaluated: set it to zero")
        if 0 < self.updates < self.return_updates:
            raise ValueError(f"return_updates must be at most updates, {self.updates}, got {self.return_updates}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment(Settings):
    """Alignment of the critics' values with the offline policy (section 4.2)."""

    updates: int = setting(
        500_000,
        "updates of the phase, at most where early stopping has a say; 0 leaves it out",
        unit="updates",
        source=f"{AUTHORS}; 1,000,000 in mazes",
    )
    actor_lr: float | None = setting(
        None, "learning rate of the actor while aligning; None: update.actor_lr", source=OWN
    )
    lagrange: float = setting(
        0.0, "price of leaving π_off while aligning", unit="mean |Q| per unit of divergence", source=f"{OWN}; 0: none"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("updates", "lagrange")
        if self.actor_lr is not None:
            self._positive("actor_lr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping(Settings):
    """Early stopping of re-evaluation and alignment, seed by seed, by measures on held-out episodes of the dataset.

    The thresholds are this package's: see `constrained.reevaluation_decision` and `alignment_decision`. With
    `mode=updates` the phases take their fixed counts, and all of the dataset.
    """

    mode: Literal["updates", "measures"] = setting(
        "updates", "end of the phases: after all their updates, or by measures", source=f"{AUTHORS}: updates"
    )
    critic_report: bool = setting(
        False,
        "comparison of the critics with held-out returns during re-evaluation; mode=measures always makes it",
        source=OWN,
    )
    held_out_share: float = setting(
        0.05, "share of the dataset's episodes that no batch of the two phases draws from", source=OWN
    )
    check_every_updates: int = setting(1_000, "interval between two checks", unit="updates", source=OWN)
    window_checks: int = setting(5, "checks that a comparison looks back", unit="checks", source=OWN)
    min_updates: int = setting(5_000, "updates before which nothing stops", unit="updates", source=OWN)
    residual: float = setting(
        0.02, "re-evaluation: relative fall of the squared error in the window that counts as none", source=OWN
    )
    missing_value: float = setting(0.05, "re-evaluation: share of the value that may still be missing", source=OWN)
    correlation: float = setting(
        0.02, "re-evaluation: rise of the rank correlation in the window that counts as none", source=OWN
    )
    overestimated: float = setting(
        0.08, "alignment: share of probes that may be worth more than the policy's own action", source=OWN
    )
    distance: float = setting(
        0.01,
        "alignment: mean squared distance of π_on to π_off that may be left",
        unit="squared action units",
        source=f"{OWN}: σ² of O2TD3's exploration",
    )
    settled: float = setting(
        0.02, "alignment: relative range of both in the window that counts as no change", source=OWN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("check_every_updates", "window_checks", "missing_value")
        self._not_negative("min_updates", "residual", "correlation", "overestimated", "distance", "settled")
        self._inside(0, 1, "held_out_share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interaction(Settings):
    """Environment steps and updates while fine-tuning."""

    updates_per_env_step: int = setting(1, "updates per environment step, on fresh batches", source="D-01")
    warmup_env_steps: int = setting(
        1_000,
        "environment steps without updates, in which the policy itself acts",
        unit="environment steps",
        source="D-17; 5,000 in mazes for O2SAC",
    )
    random_env_steps: int = setting(
        0,
        "environment steps with uniform actions at the very start, for agents without a policy",
        unit="environment steps",
        source=OWN,
    )
    overlap: bool = setting(
        False, "environments step while updates are computed: every action is a round of updates older", source=OWN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("updates_per_env_step")
        self._not_negative("warmup_env_steps", "random_env_steps")

    def rule(self, num_envs: int = 1) -> ScheduleRule:
        """Returns the rule of so many environments per seed: updates after each of their steps."""
        return ScheduleRule(
            updates=self.updates_per_env_step,
            warmup_env_steps=max(self.warmup_env_steps, self.random_env_steps),
            random_env_steps=self.random_env_steps,
            overlap=self.overlap,
            num_envs=num_envs,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay(Settings):
    """Replay while fine-tuning (section H.2)."""

    mode: Literal["half", "all", "part", "none", "auto"] = setting(
        "half",
        "share of the dataset in the batches; auto, seed by seed: none where the policy is better than its data, "
        "half where it is like it, all where it is worse",
        source="Table 6; auto: this package",
    )
    part_episodes: int = setting(50, "best episodes that mode=part draws from", unit="episodes", source="D-59")
    auto_warmup_env_steps: int = setting(
        5_000,
        "mode=auto: steps with half of the data, where the policy is better than it",
        unit="environment steps",
        source=OWN,
    )
    buffer_size: int = setting(
        2_000_000,
        "fresh transitions that are kept, never more than env_steps",
        unit="transitions per seed",
        source=AUTHORS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("buffer_size", "part_episodes")
        self._not_negative("auto_warmup_env_steps")

    def check_batch_size(self, batch_size: int) -> None:
        """Refuses batches that can't be halved where that is asked for.

        Raises:
          ValueError: the number is odd.
        """
        if self.mode in ("half", "auto") and batch_size % 2:
            raise ValueError(f"replay.mode={self.mode} needs an even update.batch_size, got {batch_size}")

    def rule(self, env_steps: int, batch_size: int) -> ReplayRule:
        """Returns the rule of a run so long, with batches so large."""
        capacity = max(1, min(self.buffer_size, env_steps))
        return replay.make(self.mode, capacity, batch_size, self.part_episodes, self.auto_warmup_env_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start(Settings):
    """Actor at the first environment step."""

    actor: Choice = setting(
        "best_of",
        "policy that acts online first: the aligned one, the offline one, or the better by evaluation",
        source="D-06a",
    )
    carry_actor_moments: bool = setting(
        True, "Adam's moments of alignment stay with the aligned actor; false: fresh ones", source="D-13"
    )
    actor_ramp_updates: int = setting(
        0,
        "updates over which the actor's steps grow to their full size while moments are fresh",
        unit="updates",
        source=OWN,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("actor_ramp_updates")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference(Settings):
    """π_ref: how a policy becomes it (section 4.3)."""

    update: Literal["best", "interval", "returns"] = setting(
        "best",
        "rule: the best by evaluation, a copy at an interval, or by the returns of training's own episodes",
        source="section 4.3; interval: section C.3; returns: this package",
    )
    every_evaluations: int = setting(
        1, "update=interval: interval between two copies", unit="evaluations", source="section C.3, D-31"
    )
    min_episodes: int = setting(5, "update=returns: training episodes of a comparison", unit="episodes", source=OWN)
    standard_errors: float = setting(
        1.0,
        "update=returns, and best where it rolls back: by how much a policy must be better",
        unit="standard errors of the difference",
        source=OWN,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("every_evaluations")
        self._not_negative("standard_errors")
        if self.min_episodes < 2:
            raise ValueError(f"min_episodes must be at least 2, got {self.min_episodes}")

    def check(self, evaluation: Evaluation, roll_back: "RollBack") -> None:
        """Refuses a rule whose comparisons need evaluations that aren't made.

        Raises:
          ValueError: the settings contradict each other; the message has their paths.
        """
        if not evaluation.episodes and self.update == "best":
            raise ValueError("reference.update=best needs evaluations: with evaluation.episodes=0 set it to returns")
        if roll_back.enabled and self.update == "interval":
            raise ValueError(
                "roll_back.enabled needs returns to compare: with reference.update=interval set it to false"
            )
        if roll_back.enabled and self.update == "best" and evaluation.episodes < 2:
            raise ValueError(
                "roll_back.enabled needs the spread of evaluations: set evaluation.episodes to 2 or more, got "
                f"{evaluation.episodes}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstrainedReference(Reference):
    """π_ref of the constrained algorithms: how a policy becomes it (section 4.3)."""

    init: Choice = setting(
        "best_of", "first π_ref: the aligned policy, the offline one, or the better by evaluation", source="D-06"
    )
    interval_threshold_divisor: float = setting(
        4.0, "update=interval: divisor of constraint.threshold_end", source="D-31"
    )
    interval_actor_grad_norm: float | None = setting(
        None,
        "update=interval: bound of the norm of the actor's gradient; None: none",
        source="D-31; 0.25 on Hopper's expert data",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("interval_threshold_divisor")
        if self.interval_actor_grad_norm is not None:
            self._positive("interval_actor_grad_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollBack(Settings):
    """The way back: a policy that is worse than π_ref becomes it again; nothing of it is published."""

    enabled: bool = setting(
        False,
        "policies go back to π_ref where they are worse, and become it where they are better from fresh start "
        "states too",
        source=OWN,
    )
    standard_errors: float = setting(
        2.0, "by how much a rejected policy is worse", unit="standard errors of the difference", source=OWN
    )
    share: float = setting(
        0.02, "by how much a rejected policy is worse as well", unit="share of π_ref's return", source=OWN
    )
    evaluations: int = setting(
        2,
        "rejections in a row after which it goes back; comparisons with reference.update=returns",
        unit="evaluations",
        source=OWN,
    )
    tightening: float = setting(
        2.0, "by which factor the constraint is tighter after it; an accepted policy loosens it by 2", source=OWN
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("standard_errors", "share")
        self._counts("evaluations")
        if not 1.0 <= self.tightening < math.inf:
            raise ValueError(f"tightening must be at least 1, got {self.tightening}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraint(Settings):
    """The constraint f(π, π_ref) ≤ τ and its multiplier λ (section 4.3)."""

    lagrange_init: float = setting(
        1.0,
        "λ at the first environment step",
        unit="return units per unit of divergence",
        source="D-05; 2 in larger mazes for O2SAC",
    )
    lagrange_travel: float = setting(
        5.0,
        "learning rate of log λ times env_steps, which Adam moves it by at most",
        unit="nats",
        source=f"{AUTHORS}: 5e-5 · 100,000; D-04",
    )
    asymmetry: float = setting(0.7, "weight of violated constraints", source="Eq. 49, D-03")
    threshold_start: float = setting(
        0.125, "τ at the first environment step", unit="units of the divergence", source="section H.3"
    )
    threshold_end: float = setting(
        2.0, "τ at the end of its ramp", unit="units of the divergence", source="section H.3"
    )
    threshold_ramp: float = setting(
        1.0, "share of env_steps that τ rises over", source=f"{AUTHORS}: 100,000 of 100,000; D-19"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 <= self.asymmetry < 1:
            raise ValueError(f"asymmetry must lie in [0.5, 1), got {self.asymmetry}")
        self._positive("lagrange_init", "threshold_ramp")
        self._not_negative("lagrange_travel", "threshold_start")
        if not self.threshold_end >= self.threshold_start:
            raise ValueError(f"threshold_end must not lie below threshold_start, got {self.threshold_end}")

    def lagrange_lr(self, env_steps: int) -> float:
        """Learning rate of log λ in a run of so many environment steps, one of which moves it by at most that much."""
        return self.lagrange_travel / max(env_steps, 1)
