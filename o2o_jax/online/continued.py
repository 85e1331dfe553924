"""Parts of methods that continue online as they trained offline: settings, state, exploration."""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp

from o2o_jax.data import replay
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Online, Requires, Schedule, Task, Update
from o2o_jax.offline.common import OfflineConfig
from o2o_jax.online.common import OnlineConfig, memoryless
from o2o_jax.policy import Handoff
from o2o_jax.settings import Settings, from_dict, part, replaced, setting
from o2o_jax.types import Array, Spec

SIZES = ("hidden", "critic_hidden", "width", "layers")  # settings that say how large an offline method's networks are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay(Settings):
    """Replay while fine-tuning (Table 6)."""

    mode: Literal["half", "all", "part", "none"] = setting(
        "all", "share of the dataset in the batches", source="Table 6: all; CORL's finetune scripts"
    )
    part_episodes: int = setting(50, "best episodes that mode=part draws from", unit="episodes", source="D-59")
    buffer_size: int = setting(
        2_000_000,
        "fresh transitions that are kept, never more than env_steps",
        unit="transitions per seed",
        source="CORL's finetune scripts",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("part_episodes", "buffer_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interaction(Settings):
    """Environment steps and updates while fine-tuning."""

    updates_per_env_step: int = setting(
        1, "updates per environment step, on fresh batches", source="CORL's finetune scripts"
    )
    warmup_env_steps: int = setting(
        0,
        "environment steps without updates, in which the policy itself acts",
        unit="environment steps",
        source="CORL's finetune scripts",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts("updates_per_env_step")
        self._not_negative("warmup_env_steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfflineUpdateConfig(OnlineConfig):
    """Settings of a method that continues its offline update, whatever batches are drawn from.

    `update` is what the offline run was trained with: `after` takes it from there, and `--set=update.batch_size=…`
    changes it. Networks, rewards and discount can't be changed, since the state holds what came of them.
    """

    online_parts: ClassVar[frozenset[str]] = OnlineConfig.online_parts | {"replay", "interaction"}
    fast: ClassVar[Mapping[str, Any]] = types.MappingProxyType({"env_steps": 20_000})

    update: Any = part(OfflineConfig)  # of the method, which says what it is

    @property
    def networks(self) -> Any:
        """Sizes of the networks, which are those of the offline method."""
        return self.update

    @classmethod
    def published(cls, task: Task) -> Self:
        """The protocol of the paper's comparisons: 100,000 environment steps, in mazes 200,000."""
        default = super().published(task)
        env_steps = 200_000 if task.sparse_reward else 100_000
        return replaced(default, {"env_steps": env_steps, "update": type(default.update).for_task(task)})

    def after(self, source: str, config: Mapping[str, Any]) -> Self:
        """Returns these settings with `update` as the offline run had it, where it is a run of the same method."""
        del source
        try:
            return replaced(self, {"update": from_dict(type(self.update), config)})
        except TypeError:  # the run of another method, whose state `init` refuses by its name
            return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContinuedConfig(OfflineUpdateConfig):
    """Settings of an actor-critic that continues its offline update, on transitions."""

    update: OfflineConfig = part(OfflineConfig)
    replay: Replay = part(Replay)
    interaction: Interaction = part(Interaction)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.replay.mode == "half" and self.update.batch_size % 2:
            raise ValueError(f"replay.mode=half needs an even update.batch_size, got {self.update.batch_size}")


def make(
    config: ContinuedConfig, spec: Spec, method: Algorithm, head: str, update: Update, begin: Callable | None = None
) -> Algorithm:
    """Returns an offline method that continues in the environment, on its own state.

    Args:
      config: settings.
      spec: sizes of the environment.
      method: the offline method; its policies are distributions, whose samples explore.
      head: of its policies.
      update: (state, batch, key) -> (state, metrics), on replay samples.
      begin: (state) -> state before the first environment step; None leaves it as offline training did.
    """
    requires = Requires(head, state=True, sources=(method.name,))

    def act(state: Any, observation: Array, key: Array) -> Array:
        return method.policy(state).distribution(observation).sample(key)

    return Algorithm(
        name=method.name,
        init=functools.partial(init, config, spec, method, requires),
        phases=(),
        policy=method.policy,
        critic=method.critic,
        requires=requires,
        online=online_part(config, act, update, begin),
    )


def online_part(config: ContinuedConfig, act: Callable, update: Update, begin: Callable | None = None) -> Online:
    """Returns what a method that continues does in the environment.

    Args:
      config: settings.
      act: (state, observation [O], key) -> action [A].
      update: (state, batch, key) -> (state, metrics), on replay samples.
      begin: (state) -> state before the first environment step; None leaves it as it is.
    """
    interaction, capacity = config.interaction, max(1, min(config.replay.buffer_size, config.env_steps))

    def start(state: Any, accept: Array) -> Any:
        del accept
        state = begin(state) if begin else state
        return state.replace(step=jnp.zeros_like(state.step))

    return Online(
        schedule=Schedule(
            updates=interaction.updates_per_env_step,
            warmup_env_steps=interaction.warmup_env_steps,
            num_envs=config.schedule.num_envs,
        ),
        begin=start,
        act=memoryless(act),
        update=update,
        replay=replay.make(config.replay.mode, capacity, config.update.batch_size, config.replay.part_episodes),
    )


def init(
    config: OfflineUpdateConfig,
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
    fresh = functools.partial(method.init, key, Normalizer.identity(spec.observation_dim))
    if handoff is None:
        return fresh()
    name, state = method.name, handoff.state
    requires.check_source(name, handoff.source)
    if state is None:
        raise ValueError(
            f"{name} continues from its offline state, and this policy comes without one: pass the state too"
        )
    if hasattr(state, "transform"):  # of rewards
        scale, shift = state.transform.reward_scale, state.transform.reward_shift
        if (scale, shift) != (config.update.reward_scale, config.update.reward_shift):
            raise ValueError(
                f"the {name} run was trained on other rewards: set update.reward_scale={scale} and "
                f"update.reward_shift={shift}"
            )
    wanted = jax.tree.leaves(jax.eval_shape(fresh))
    if [jnp.shape(leaf) for leaf in jax.tree.leaves(state)] != [leaf.shape for leaf in wanted]:
        sizes = " and ".join(f"update.{size}" for size in SIZES if hasattr(config.update, size))
        raise ValueError(
            f"the networks of the {name} run are others than these settings ask for: set {sizes} as that run has them"
        )
    return state
