"""What O2SAC and O2TD3 share: settings, who goes online, the first reference, the threshold of the constraint."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from o2o_jax.interfaces import Cadence
from o2o_jax.online.common import OnlineConfig
from o2o_jax.ops.lagrangian import linear_threshold
from o2o_jax.policy import Handoff
from o2o_jax.training import where
from o2o_jax.types import Array, Params

Choice = Literal["best_of", "aligned", "offline"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstrainedConfig(OnlineConfig):
    """Settings common to the off-policy algorithms. Defaults: the authors', for MuJoCo medium data."""

    # Networks
    layer_norm: bool = True  # in the critics
    num_critics: int = 2
    # Updates
    polyak: float = 0.005  # share of the critic copied into its target per update
    align_updates: int = 500_000  # 0 leaves the phase out
    critic_source: Literal["random", "offline"] = "random"  # "offline": direct fine-tuning of the offline critics
    # Fine-tuning
    updates_per_env_step: int = 1
    warmup_env_steps: int = 1_000  # without updates; the policy itself acts
    random_env_steps: int = 0  # uniform actions before that, for agents without a policy
    replay: Literal["half", "all", "part", "none"] = "half"  # Table 6
    part_episodes: int = 50  # best episodes that "part" preloads
    buffer_size: int = 2_000_000  # transitions per seed, never more than env_steps
    start_actor: Choice = "best_of"  # who acts online first; the paper: "aligned"
    reference_init: Choice = "best_of"  # first π_ref; the paper's text: "aligned"
    interval_threshold_divisor: float = 4.0  # interval mode: divides threshold_end
    interval_actor_grad_norm: float | None = None  # interval mode: clips the actor's gradient
    # Constraint
    constrain: bool = True
    lagrange_init: float = 1.0  # λ at the start
    lagrange_lr: float = 5e-5  # of log λ
    asymmetry: float = 0.7  # weight of violated constraints, Eq. 49
    threshold_start: float = 0.125  # τ at the first environment step
    threshold_end: float = 2.0  # τ at the last of threshold_env_steps
    threshold_env_steps: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.polyak <= 1:
            raise ValueError(f"polyak must lie in (0, 1], got {self.polyak}")
        if not 0.5 <= self.asymmetry < 1:
            raise ValueError(f"asymmetry must lie in [0.5, 1), got {self.asymmetry}")
        self._positive("num_critics", "updates_per_env_step", "buffer_size", "part_episodes", "lagrange_init")
        self._positive("interval_threshold_divisor", "threshold_env_steps")
        if self.interval_actor_grad_norm is not None:
            self._positive("interval_actor_grad_norm")
        self._not_negative("align_updates", "warmup_env_steps", "random_env_steps", "lagrange_lr", "threshold_start")
        if not self.threshold_end >= self.threshold_start:
            raise ValueError(f"threshold_end must not lie below threshold_start, got {self.threshold_end}")
        if self.replay == "half" and self.batch_size % 2:
            raise ValueError(f"replay=half needs an even batch_size, got {self.batch_size}")

    @property
    def cadence(self) -> Cadence:
        """One environment step, then `updates_per_env_step` updates on fresh batches."""
        return Cadence(
            updates=self.updates_per_env_step,
            warmup_env_steps=max(self.warmup_env_steps, self.random_env_steps),
            random_env_steps=self.random_env_steps,
        )

    @property
    def interval(self) -> bool:
        """Whether π_ref is copied on a schedule rather than chosen by evaluation."""
        return self.reference_update == "interval"


def settings_of_task(config: ConstrainedConfig) -> dict[str, Any]:
    """What a method's settings for a task leave to its control: rewards, depth of critics, lengths, evaluation."""
    names = ("critic_hidden", "reward_scale", "reward_shift", "env_steps", "warmup_env_steps")
    return {name: getattr(config, name) for name in (*names, "eval_every_env_steps", "eval_episodes")}


def actor_optimizer(config: ConstrainedConfig) -> optax.GradientTransformation:
    """Adam for the actor, behind a clip of the gradient's norm where interval mode asks for it (D-31)."""
    adam = optax.adam(config.actor_lr)
    if config.interval and config.interval_actor_grad_norm is not None:
        return optax.chain(optax.clip_by_global_norm(config.interval_actor_grad_norm), adam)
    return adam


def threshold(config: ConstrainedConfig, step: Array) -> Array:
    """τ at the environment step of update `step` [] of fine-tuning, in units of the divergence (section H.3)."""
    env_steps = config.cadence.warmup_env_steps + step // config.updates_per_env_step
    end = config.threshold_end / (config.interval_threshold_divisor if config.interval else 1.0)
    return linear_threshold(env_steps, min(config.threshold_start, end), end, config.threshold_env_steps)


def moves_lagrange(config: ConstrainedConfig, step: Array) -> Array:
    """Whether update `step` [] moves λ: once per environment step, whatever the update-to-data ratio (section C.6)."""
    return step % config.updates_per_env_step == 0


def offline_state(handoff: Handoff | None, critic: Params, algorithm: str) -> Any:
    """What offline training left, for direct fine-tuning of its critics.

    Args:
      handoff: with a `state` that has `critic` and `target_critic`.
      critic: parameters of this algorithm's own critics: what the offline ones must look like.
      algorithm: name for the error messages.

    Returns:
      The offline algorithm's state.

    Raises:
      ValueError: if there is no offline state, or its critics have other shapes.
    """
    if handoff is None or not hasattr(handoff.state, "critic"):
        raise ValueError(
            f"{algorithm} with critic_source=offline goes on from the critics of offline training, and this policy "
            "comes without any: start from a run whose policy needs no cloning, or set critic_source=random"
        )
    found, wanted = jax.tree.map(jnp.shape, handoff.state.critic), jax.tree.map(jnp.shape, critic)
    if found != wanted:
        raise ValueError(
            f"the critics of {handoff.source} do not fit those of {algorithm}: set critic_hidden, layer_norm and "
            f"num_critics to the offline values, or critic_source=random (found {found}, expected {wanted})"
        )
    return handoff.state


def begin_finetuning(
    config: ConstrainedConfig, optimizer: optax.GradientTransformation, state: Any, accept: Array
) -> Any:
    """Chooses who goes online and who is the first reference, and makes the aligned critics the targets.

    Args:
      config: `start_actor` and `reference_init` say how to choose.
      optimizer: the actor's; an actor that alignment's gradients did not lead to starts with fresh moments.
      state: after alignment: `actor` is π_on, `reference` is π_off.
      accept: [] bool, whether π_on scored better than π_off.

    Returns:
      The state at update 0 of fine-tuning.

    Source: section 4.3 and the authors' code for `reference_init`; `start_actor=best_of` departs from both (D-06a).
    """
    verdicts = {"best_of": accept, "aligned": jnp.asarray(True), "offline": jnp.asarray(False)}
    aligned, offline = state.actor, state.reference
    aligned_starts = verdicts[config.start_actor]
    return state.replace(
        actor=where(aligned_starts, aligned, offline),
        reference=where(verdicts[config.reference_init], aligned, offline),
        # critics that came from offline training bring their own targets
        target_critic=state.critic if config.align_updates else state.target_critic,
        opt=state.opt.replace(actor=where(aligned_starts, state.opt.actor, optimizer.init(offline))),
        step=jnp.zeros_like(state.step),
    )
