"""Settings that O2SAC and O2TD3 share: what they are, what contradicts, what Appendix B allows to leave out."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Protocol

import jax.numpy as jnp
import optax

from o2o_jax.interfaces import Requires
from o2o_jax.online import parts
from o2o_jax.settings import get
from o2o_jax.types import Array

EVALUATED_AS_ONLINE = ("td3_bc", "awac")  # offline methods that constrain the policy alone (Appendix B)
# Values by path that the schedule "fast" sets for both
FAST: Mapping[str, Any] = types.MappingProxyType(
    {
        "reevaluate.updates": 8_000,
        "reevaluate.polyak": 0.05,
        "align.updates": 4_000,
        "update.actor_lr": 3e-4,
        "align.actor_lr": 1e-4,
        "early_stopping.critic_report": True,
        "start.carry_actor_moments": False,
        "start.actor_ramp_updates": 1_000,
        "roll_back.enabled": True,
        "roll_back.evaluations": 1,
        "roll_back.tightening": 10.0,
        "env_steps": 20_000,
    }
)
# Parts that both read online only
ONLINE_PARTS = frozenset({"interaction", "replay", "start", "constraint", "reference", "roll_back", "finetune"})
# Paths of what a method shares with its control for a task: rewards, depths, lengths, evaluation
OF_TASK = (
    "networks.critic_hidden", "update.reward_scale", "update.reward_shift", "env_steps", "interaction.warmup_env_steps",
    "evaluation",
)  # fmt: skip
# Values by path of a control that trains without offline data
FROM_SCRATCH: Mapping[str, Any] = {
    "networks.critic_source": "random",
    "update.actor_lr": 3e-4,
    "replay.mode": "none",
    "replay.buffer_size": 1_000_000,
    "interaction.random_env_steps": 5_000,
    "interaction.warmup_env_steps": 5_000,
    "env_steps": 1_000_000,
    "evaluation.every_env_steps": 5_000,
}


class ConstrainedSettings(Protocol):
    """Settings that O2SAC and O2TD3 share: what the functions here read of a `Config`."""

    @property
    def env_steps(self) -> int:
        """Length of fine-tuning."""

    @property
    def evaluation(self) -> parts.Evaluation:
        """Evaluations."""

    @property
    def networks(self) -> parts.ActorCritic:
        """Networks."""

    @property
    def update(self) -> parts.Update:
        """Updates of all phases."""

    @property
    def reevaluate(self) -> parts.Reevaluation:
        """Re-evaluation."""

    @property
    def align(self) -> parts.Alignment:
        """Alignment."""

    @property
    def early_stopping(self) -> parts.EarlyStopping:
        """Early stopping of both."""

    @property
    def interaction(self) -> parts.Interaction:
        """Environment steps and updates."""

    @property
    def replay(self) -> parts.Replay:
        """Replay."""

    @property
    def start(self) -> parts.Start:
        """Actor at the first environment step."""

    @property
    def constraint(self) -> parts.Constraint | None:
        """Constraint to π_ref; None for none."""

    @property
    def reference(self) -> parts.ConstrainedReference | None:
        """π_ref; None for none, where there is no constraint either."""

    @property
    def roll_back(self) -> parts.RollBack:
        """The way back to it."""


def check(config: ConstrainedSettings) -> None:
    """Refuses settings whose parts contradict each other.

    Raises:
      ValueError: they do; the message has their paths.
    """
    reevaluate, settings, reference = config.reevaluate, config.early_stopping, config.reference
    if reevaluate.critic_bias == "returns" and config.networks.critic_source == "offline":
        raise ValueError(
            "reevaluate.critic_bias=returns is for random critics: with networks.critic_source=offline set it to zero"
        )
    if settings.mode == "measures" and settings.min_updates < reevaluate.return_updates:
        raise ValueError(
            f"early_stopping.min_updates must be at least reevaluate.return_updates, {reevaluate.return_updates}, got "
            f"{settings.min_updates}"
        )
    if config.constraint is not None and reference is None:
        raise ValueError("constraint is one to π_ref: with reference=none set constraint=none too")
    if config.roll_back.enabled and reference is None:
        raise ValueError("roll_back.enabled goes back to π_ref: with reference=none set it to false")
    choices = {"start.actor": config.start.actor} | ({"reference.init": reference.init} if reference else {})
    for path, choice in choices.items():
        if not config.evaluation.episodes and choice == "best_of":
            raise ValueError(
                f"{path}=best_of needs evaluations: with evaluation.episodes=0 set it to aligned or offline"
            )
    if reference is not None:
        reference.check(config.evaluation, config.roll_back)
    config.replay.check_batch_size(config.update.batch_size)


def requires(config: ConstrainedSettings, head: str) -> Requires:
    """Returns what a method with these settings, whose actor has that head, asks of the offline policy."""
    return Requires(head, state=config.networks.critic_source == "offline")


def warnings(config: ConstrainedSettings, source: str) -> list[str]:
    """Returns warnings where other phases are left out than Appendix B allows, a line each.

    What it advises to leave out, by the offline method:

    - TD3+BC and AWAC constrain the policy alone and evaluate it as online methods do, so that their critics may be
      kept and re-evaluation left out, never alignment: `networks.critic_source=offline`, `reevaluate.updates=0`.
    - CQL, whose critics are aligned with its policy but pessimistic, may go to constrained fine-tuning alone:
      `networks.critic_source=offline`, `reevaluate.updates=0`, `align.updates=0`.
    - All others need every phase.
    """
    if config.constraint is None:
        return []  # a control, which leaves the idea out on purpose
    offline_critics, reevaluations = config.networks.critic_source == "offline", config.reevaluate.updates
    found = []
    if not reevaluations and not offline_critics:
        found.append("critics start at random and nothing re-evaluates the policy: set reevaluate.updates")
    elif not reevaluations and source == "cql" and config.align.updates:
        found.append(
            "the critics of cql are pessimistic, and alignment keeps them so: re-evaluate them, or leave alignment out "
            "too and fine-tune under the constraint alone (Appendix B)"
        )
    elif not reevaluations and source not in (*EVALUATED_AS_ONLINE, "cql"):
        found.append(
            f"{source} evaluates its policy unlike online methods: its critics need re-evaluation (Appendix B)"
        )
    horizon, wanted = reevaluate_rate(config) * reevaluations, 3.0 / (1.0 - config.update.discount)
    if reevaluations and not offline_critics and horizon < wanted:
        found.append(
            f"re-evaluation looks {horizon:.3g} steps ahead where 3/(1−γ) asks for {wanted:.3g}: set "
            "reevaluate.updates or reevaluate.polyak"
        )
    if not config.align.updates and not (source == "cql" and offline_critics):
        found.append("critics that are not aligned lead the policy away from where it is: set align.updates")
    return found


def align_rate(config: ConstrainedSettings) -> float:
    """Returns the learning rate of the actor while aligning."""
    return config.update.actor_lr if config.align.actor_lr is None else config.align.actor_lr


def reevaluate_rate(config: ConstrainedSettings) -> float:
    """Returns the share of the critics copied into their targets per update of re-evaluation."""
    return config.update.polyak if config.reevaluate.polyak is None else config.reevaluate.polyak


def lagrange_start(config: ConstrainedSettings) -> Array:
    """Returns [] log λ at the first environment step; 0 without a constraint."""
    return jnp.log(jnp.asarray(config.constraint.lagrange_init if config.constraint else 1.0, jnp.float32))


def lagrange_optimizer(config: ConstrainedSettings) -> optax.GradientTransformation:
    """Returns that of log λ, which Adam moves by at most its learning rate per environment step."""
    return optax.adam(config.constraint.lagrange_lr(config.env_steps) if config.constraint else 0.0)


def settings_of_task(config: ConstrainedSettings) -> dict[str, Any]:
    """Returns the settings for a task, by path, that a method shares with its control."""
    return {path: get(config, path) for path in OF_TASK}


def switched_off(config: ConstrainedSettings) -> dict[str, Any]:
    """Returns the parts that leave the idea of the paper out of a method, in the place of those of `config`."""
    return {
        "reevaluate": dataclasses.replace(config.reevaluate, updates=0),
        "align": dataclasses.replace(config.align, updates=0),
        "start": dataclasses.replace(config.start, actor="offline"),
        "constraint": None,
        "reference": None,
    }
