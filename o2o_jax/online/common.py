"""Parts of online algorithms: settings that loop and scripts read, the policy they start from, π_ref."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self

import jax
import jax.numpy as jnp
import optax

from o2o_jax import registry
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.interfaces import Act, Task, expect_task
from o2o_jax.online import parts
from o2o_jax.policy import Handoff, Policy
from o2o_jax.settings import Settings, part, replaced, setting
from o2o_jax.training import where
from o2o_jax.types import Array, Params

# Settings of an offline run that its critics and its policy can't do without, by their paths here
OF_OFFLINE_RUN = {
    "hidden": "networks.hidden",
    "critic_hidden": "networks.critic_hidden",
    "discount": "update.discount",
    "reward_scale": "update.reward_scale",
    "reward_shift": "update.reward_shift",
}

ScheduleName = Literal["paper", "fast"]  # the published settings, or the best found at a tenth of their updates


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnlineConfig(Settings):
    """Settings that every online method has; it adds the parts that it reads, and no others."""

    # Fields and parts that nothing reads before the first environment step: runs that differ in these alone may share
    # all that comes before it
    online_parts: ClassVar[frozenset[str]] = frozenset({"env_steps", "evaluation"})
    # Values by path that the schedule "fast" sets: the best found that needs at most a tenth of the published updates
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType({})

    env_steps: int = setting(
        100_000, "length of fine-tuning, per seed", unit="environment steps", source="authors' code; 200,000 in mazes"
    )
    evaluation: parts.Evaluation = part(parts.Evaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._not_negative("env_steps")

    @classmethod
    def published(cls, task: Task) -> Self:
        """The settings that were published for a task, or this package's where none were; subclasses read its facts."""
        return replaced(cls(), {"evaluation.episodes": task.eval_episodes})

    @classmethod
    def for_task(cls, task: Task, schedule: ScheduleName = "paper") -> Self:
        """The settings of a schedule for a task: `published`, and `scheduled` from there.

        Raises:
          TypeError: `task` is none.
          ValueError: no such schedule.
        """
        expect_task(task)
        return cls.published(task).scheduled(schedule)

    def scheduled(self, schedule: ScheduleName) -> Self:
        """These settings where the schedule is "paper"; with `fast`, the same for all tasks, where it is "fast".

        Raises:
          ValueError: no such schedule.
        """
        if schedule not in typing.get_args(ScheduleName):
            raise ValueError(registry.unknown("schedule", schedule, typing.get_args(ScheduleName)))
        return replaced(self, self.fast) if schedule == "fast" else self

    def after(self, source: str, config: Mapping[str, Any]) -> Self:
        """Returns these settings for a policy of the offline method `source`, which was trained with `config`."""
        del source, config
        return self

    def warnings(self, source: str) -> list[str]:
        """Returns warnings about these settings for policies of the offline method `source`, a line each."""
        del source
        return []

    def aligned_reference(self, accept: Any) -> Any:
        """Returns [...] bool, where the first π_ref is the aligned policy, which `accept` [...] says scored better."""
        return jnp.zeros_like(accept)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContinuedCriticsConfig(OnlineConfig):
    """Settings of a method that goes on from offline critics, whichever method trained them."""

    networks: parts.ActorCritic = part(parts.ActorCritic, critic_source="offline")

    def after(self, source: str, config: Mapping[str, Any]) -> Self:
        """Returns these settings with networks, discount and rewards of an offline run that trained critics."""
        del source
        own = {field.name for field in dataclasses.fields(self.networks)}
        values = {
            path: value
            for path, value in settings_of_run(config).items()
            if not path.startswith("networks.") or path.removeprefix("networks.") in own
        }
        if values and "num_target_critics" in own:
            targets = min(self.networks.num_target_critics, values["networks.num_critics"])
            values["networks.num_target_critics"] = targets
        return replaced(self, values)


class Rewards(Protocol):
    """Settings of a linear transform of rewards."""

    @property
    def reward_scale(self) -> float:
        """Factor of raw rewards."""

    @property
    def reward_shift(self) -> float:
        """Added after it."""


def initial_transform(rewards: Rewards, handoff: Handoff | None, observation_dim: int) -> Transform:
    """The offline policy's own normaliser, or none for an agent from scratch, with the task's reward transform."""
    normalizer = handoff.policy.normalizer if handoff else Normalizer.identity(observation_dim)
    return Transform(normalizer, rewards.reward_scale, rewards.reward_shift)


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
    stated = policy.normalizer.mean.shape
    if len(stated) > 1:
        raise ValueError(f"the policy is of {stated[0]} seeds: take one of them, or vmap over keys and handoffs")
    found, wanted = jax.tree.map(jnp.shape, policy.params), jax.tree.map(jnp.shape, actor)
    if found != wanted:
        normalized, own = policy.actor.layer_norm, "LayerNorm_0" in actor["params"]["MLP_0"]
        layer_norm = "" if normalized == own else f", networks.actor_layer_norm to {str(normalized).lower()}"
        raise ValueError(
            f"the policy's network differs from this algorithm's: set networks.hidden to {policy.actor.hidden}"
            f"{layer_norm}, or mind the sizes of observations and actions"
        )
    return policy.params


def carried(fresh: Any, offline: Any, names: Sequence[str] = ("actor", "critic", "alpha")) -> Any:
    """Returns optimiser states with those of offline training in the place of fresh ones, where they are alike.

    Args:
      fresh: `OptStates` of an online method.
      offline: those of an offline method, by the names of its parts.
      names: parts whose moments of offline training are wanted.
    """
    found = {name: getattr(offline, name, None) for name in names}
    kept = {name: opt for name, opt in found.items() if _shapes(opt) == _shapes(getattr(fresh, name))}
    return fresh.replace(**kept)


def _shapes(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [leaf.shape for leaf in leaves]


def settings_of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings, by path, that the critics and the policy of an offline run can't do without.

    Args:
      config: of the offline run; one without critics gives nothing.
    """
    if "critic_hidden" not in config:
        return {}
    values = {path: config[name] for name, path in OF_OFFLINE_RUN.items() if name in config}
    values |= {
        "networks.num_critics": config.get("num_critics", 2),
        "networks.layer_norm": config.get("layer_norm", False),
        "networks.actor_layer_norm": config.get("actor_layer_norm", False),
    }
    return {path: tuple(value) if isinstance(value, list) else value for path, value in values.items()}


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
