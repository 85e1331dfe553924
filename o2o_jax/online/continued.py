"""Parts of methods that go on online as they trained offline: settings, state, exploration."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp

from o2o_jax.data import replay
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Online, Requires, Schedule, Task, Update
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.online.common import LoopConfig, memoryless
from o2o_jax.policy import Handoff
from o2o_jax.settings import from_dict
from o2o_jax.types import Array, Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContinuedConfig(LoopConfig):
    """Settings of a method that goes on with its offline update. Defaults: those that the paper compares with.

    `update` is what the offline run was trained with: `after` takes it from there, and `--set=update.batch_size=…`
    changes it. Networks, rewards and discount can't be changed, since the state holds what came of them.
    """

    online_fields: ClassVar[frozenset[str]] = LoopConfig.online_fields | {
        "replay", "part_episodes", "buffer_size", "updates_per_env_step", "warmup_env_steps"
    }  # fmt: skip
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType({"env_steps": 20_000})

    update: OfflineConfig = dataclasses.field(default_factory=OfflineConfig)  # of the offline method
    replay: Literal["half", "all", "part", "none"] = "all"  # Table 6
    part_episodes: int = 50  # best episodes that "part" draws from
    buffer_size: int = 2_000_000  # transitions per seed, never more than env_steps
    updates_per_env_step: int = 1
    warmup_env_steps: int = 0  # without updates; the policy itself acts

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("part_episodes", "buffer_size", "updates_per_env_step")
        self._not_negative("warmup_env_steps")
        if self.replay == "half" and self.update.batch_size % 2:
            raise ValueError(f"replay=half needs an even update.batch_size, got {self.update.batch_size}")

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the actor's layers."""
        return self.update.hidden

    @property
    def batch_size(self) -> int:
        """Transitions per update."""
        return self.update.batch_size

    @property
    def discount(self) -> float:
        """γ per environment step."""
        return self.update.discount

    @classmethod
    def published(cls, task: Task) -> Self:
        """The protocol of the paper's comparisons: 100,000 environment steps, in mazes 200,000."""
        env_steps = 200_000 if task.sparse_reward else 100_000
        update = typing.get_type_hints(cls)["update"].for_task(task)
        return cls(eval_episodes=task.eval_episodes, env_steps=env_steps, update=update)

    def after(self, source: str, config: Mapping[str, Any]) -> Self:
        """Returns these settings with `update` as the offline run had it, where it is a run of the same method."""
        del source
        try:
            return dataclasses.replace(self, update=from_dict(type(self.update), config))
        except TypeError:  # the run of another method, whose state `init` refuses by its name
            return self


def make(
    config: ContinuedConfig, spec: Spec, method: Algorithm, head: str, update: Update, begin: Callable | None = None
) -> Algorithm:
    """Returns an offline method that goes on in the environment, on its own state.

    Args:
      config: settings.
      spec: sizes of the environment.
      method: the offline method; its policies are distributions, whose samples explore.
      head: of its policies.
      update: (state, batch, key) -> (state, metrics), on replay samples.
      begin: (state) -> state before the first environment step; None leaves it as offline training did.
    """
    capacity = max(1, min(config.buffer_size, config.env_steps))
    requires = Requires(head, state=True, sources=(method.name,))

    def start(state: Any, accept: Array) -> Any:
        del accept
        state = begin(state) if begin else state
        return state.replace(step=jnp.zeros_like(state.step))

    def act(state: Any, observation: Array, key: Array) -> Array:
        return method.policy(state).distribution(observation).sample(key)

    return Algorithm(
        name=method.name,
        init=functools.partial(init, config, spec, method, requires),
        phases=(),
        policy=method.policy,
        critic=method.critic,
        requires=requires,
        online=Online(
            schedule=Schedule(updates=config.updates_per_env_step, warmup_env_steps=config.warmup_env_steps),
            begin=start,
            act=memoryless(act),
            update=update,
            replay=replay.make(config.replay, capacity, config.update.batch_size, config.part_episodes),
        ),
    )


def init(
    config: ContinuedConfig,
    spec: Spec,
    method: Algorithm,
    requires: Requires,
    key: Array,
    handoff: Handoff | None = None,
) -> Any:
    """The state that offline training left, or from scratch that before its first update.

    Args:
      config: settings.
      spec: sizes of the environment.
      method: the offline method.
      requires: what the handoff must be.
      key: initialises what the handoff doesn't bring.
      handoff: of the same method, with its state; None for random networks.

    Raises:
      ValueError: the handoff is of another method, or its networks or rewards are others than the settings say.
    """
    fresh = method.init(key, Normalizer.identity(spec.observation_dim))
    if handoff is None:
        return fresh
    name, state = method.name, handoff.state
    requires.check_source(name, handoff.source)
    if state is None:
        raise ValueError(
            f"{name} goes on from its offline state, and this policy comes without one: pass the state too"
        )
    scale, shift = state.transform.reward_scale, state.transform.reward_shift
    if (scale, shift) != (config.update.reward_scale, config.update.reward_shift):
        raise ValueError(
            f"the {name} run was trained on other rewards: set update.reward_scale={scale} and "
            f"update.reward_shift={shift}"
        )
    if [jnp.shape(leaf) for leaf in jax.tree.leaves(state)] != [leaf.shape for leaf in jax.tree.leaves(fresh)]:
        raise ValueError(
            f"the networks of the {name} run are others than these settings ask for: set update.hidden and "
            "update.critic_hidden as that run has them"
        )
    return state
