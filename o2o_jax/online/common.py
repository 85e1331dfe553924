"""Parts of online algorithms: settings that loop and scripts read, the policy they start from, π_ref."""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, Self

import jax
import jax.numpy as jnp
import optax

from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.interfaces import Act, Task
from o2o_jax.policy import Handoff, Policy
from o2o_jax.settings import Settings
from o2o_jax.training import where
from o2o_jax.types import Array, Params

ScheduleName = Literal["paper", "fast"]  # the published settings, or the best found at a tenth of their updates


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig(Settings):
    """Settings that the loop reads of every online method. Defaults: the authors', for O2TD3 on MuJoCo medium data."""

    # Read from the first environment step on: runs that differ in these alone may share all that comes before it
    online_fields: ClassVar[frozenset[str]] = frozenset({"env_steps", "eval_every_env_steps", "eval_episodes"})
    # Set by the schedule "fast": the best found that needs at most a tenth of the published updates
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType({})

    env_steps: int = 100_000
    eval_every_env_steps: int = 1_000  # between two rows of every log, too, and two looks at π_ref
    eval_episodes: int = 10  # 0: no evaluation at all

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("eval_every_env_steps")
        self._not_negative("env_steps", "eval_episodes")

    @classmethod
    def published(cls, task: Task) -> Self:
        """The settings that were published for a task, or this package's where none were; subclasses read its facts."""
        return cls(eval_episodes=task.eval_episodes)

    @classmethod
    def for_task(cls, task: Task, schedule: ScheduleName = "paper") -> Self:
        """The settings of a schedule for a task: `published`, and `scheduled` from there."""
        return cls.published(task).scheduled(schedule)

    def scheduled(self, schedule: ScheduleName) -> Self:
        """These settings where the schedule is "paper"; with `fast`, the same for all tasks, where it is "fast"."""
        return dataclasses.replace(self, **self.fast) if schedule == "fast" else self

    def after(self, source: str, config: Mapping[str, Any]) -> Self:
        """Returns these settings for a policy of the offline method `source`, which was trained with `config`."""
        del source, config
        return self

    def remarks(self, source: str) -> list[str]:
        """Returns warnings about these settings for policies of the offline method `source`, a line each."""
        del source
        return []


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineConfig(LoopConfig):
    """Settings common to the methods that are held to π_ref, and to their controls."""

    online_fields: ClassVar[frozenset[str]] = LoopConfig.online_fields | {
        "reference_update", "reference_every_evaluations", "reference_min_episodes", "reference_standard_errors",
        "roll_back", "reject_standard_errors", "reject_share", "reject_evaluations",
    }  # fmt: skip

    # Networks
    hidden: tuple[int, ...] = (256, 256)  # actor
    critic_hidden: tuple[int, ...] = (256, 256)
    # Updates
    batch_size: int = 256
    discount: float = 0.99
    actor_lr: float = 1e-4
    critic_lr: float = 3e-4
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    reevaluate_updates: int = 500_000  # 0 leaves the phase out
    # Fine-tuning
    # "best" by evaluation; a copy at an "interval" (section C.3) and the "returns" of training's own episodes need none
    reference_update: Literal["best", "interval", "returns"] = "best"
    reference_every_evaluations: int = 1  # interval mode: evaluations between two copies
    reference_min_episodes: int = 5  # returns mode: training episodes of a comparison
    # returns mode, and best mode that rolls back: of the difference of two means, by which the policy must be better
    reference_standard_errors: float = 1.0
    # The policy goes back to π_ref where it is worse, and becomes π_ref where it is better from fresh start states too
    roll_back: bool = False  # not published
    reject_standard_errors: float = 2.0  # of the difference, by which a policy that is rejected is worse
    reject_share: float = 0.02  # of π_ref's return, by which it is worse as well
    reject_evaluations: int = 2  # rejections in a row after which it goes back; comparisons in returns mode

    def __post_init__(self) -> None:
        super().__post_init__()
        self._widths("hidden", "critic_hidden")
        self._inside(0, 1, "discount")
        self._positive("actor_lr", "critic_lr", "reward_scale", "batch_size")
        self._positive("reference_every_evaluations")
        self._not_negative("reevaluate_updates", "reference_standard_errors")
        if self.reference_min_episodes < 2:
            raise ValueError(f"reference_min_episodes must be at least 2, got {self.reference_min_episodes}")
        if not self.eval_episodes and self.reference_update == "best":
            raise ValueError("reference_update=best needs evaluations: with eval_episodes=0 set it to returns")

        self._not_negative("reject_standard_errors", "reject_share")
        self._counts("reject_evaluations")
        if self.roll_back and self.reference_update == "interval":
            raise ValueError("roll_back needs returns to compare: with reference_update=interval set it to false")
        if self.roll_back and self.reference_update == "best" and self.eval_episodes < 2:
            raise ValueError(
                f"roll_back needs the spread of evaluations: set eval_episodes to 2 or more, got {self.eval_episodes}"
            )

    def aligned_reference(self, accept: Any) -> Any:
        """Returns [...] bool, where the first π_ref is the aligned policy, which `accept` [...] says scored better."""
        return jnp.zeros_like(accept)


class Rewards(Protocol):
    """Settings of a linear transform of rewards."""

    @property
    def reward_scale(self) -> float:
        """Factor of raw rewards."""

    @property
    def reward_shift(self) -> float:
        """Added after it."""


def initial_transform(config: Rewards, handoff: Handoff | None, observation_dim: int) -> Transform:
    """The offline policy's own normaliser, or none for an agent from scratch, with the task's reward transform."""
    normalizer = handoff.policy.normalizer if handoff else Normalizer.identity(observation_dim)
    return Transform(normalizer, config.reward_scale, config.reward_shift)


def offline_actor(handoff: Handoff | None, actor: Params, head: str) -> Params:
    """Parameters of the offline policy, checked against this algorithm's actor.

    Args:
      handoff: with a policy of the right head, or None to start from scratch.
      actor: freshly initialised parameters: what the policy's must look like, and what is returned from scratch.
      head: the expected distribution.

    Raises:
      ValueError: if the head or the shapes differ.
    """
    if handoff is None:
        return actor
    policy = handoff.policy
    if policy.head != head:
        raise ValueError(f"expected a {head} policy, got a {policy.head} one; clone it first: policy.with_head")
    found, wanted = jax.tree.map(jnp.shape, policy.params), jax.tree.map(jnp.shape, actor)
    if found != wanted:
        raise ValueError(
            f"the policy's network differs from this algorithm's: set hidden to {policy.actor.hidden}, or mind the "
            "sizes of observations and actions"
        )
    return policy.params


def memoryless(act: Callable[[Any, Array, Array], Array]) -> Act:
    """Returns an `interfaces.Act` on the observation alone, from (state, observation [O], key) -> action [A]."""

    def remember_nothing(state: Any, memory: Any, observation: Array, reward: Array, key: Array) -> tuple[Array, Any]:
        del reward
        return act(state, observation, key), memory

    return remember_nothing


def set_reference(state: Any, accept: Array) -> Any:
    """Makes the current actor π_ref where `accept` [] bool (section 4.3)."""
    return state.replace(reference=where(accept, state.actor, state.reference))


def roll_back(optimizer: optax.GradientTransformation, state: Any, reject: Array) -> Any:
    """Makes π_ref the current actor where `reject` [] bool, with fresh moments of the actor's `optimizer`."""
    return state.replace(
        actor=where(reject, state.reference, state.actor),
        opt=state.opt.replace(actor=where(reject, optimizer.init(state.reference), state.opt.actor)),
    )


def reference_policy(policy: Callable, state: Any) -> Policy:
    """Returns what `policy` would, a function of the state, were π_ref the actor."""
    return policy(state.replace(actor=state.reference))
