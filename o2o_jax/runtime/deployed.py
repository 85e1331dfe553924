"""A policy as whoever deploys it calls it: NumPy in and out, in the environment's own units. Impure: it remembers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from o2o_jax.data.dataset import to_float32
from o2o_jax.data.transform import Bounds
from o2o_jax.interfaces import Task
from o2o_jax.policy import AnyPolicy, SequencePolicy
from o2o_jax.reading import read_numbers
from o2o_jax.types import Array, Spec


@dataclasses.dataclass
class DeployedPolicy:
    """A policy of one seed that acts by its mode, compiled once for each number of observations.

        policy = o2o_jax.load_policy("runs/o2td3")
        action = policy(observation)

    A policy on histories remembers its episode: tell it the reward of the step before, and `reset` it where an episode
    begins. To all others neither makes a difference.

    Attributes:
      policy: of one seed, whose actions are in [-1, 1].
      task: facts of its environment, bounds of actions and reference scores among them; None where it is of data alone.
      made: where it comes from, for people, JSON-like.

    Raises:
      ValueError: its numbers are not all finite.
    """

    policy: AnyPolicy
    task: Task | None = None
    made: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(self.policy))):
            raise ValueError(
                "the policy has parameters that are NaN or infinite, since its training diverged: take another seed, "
                "or an earlier policy"
            )
        self.policy = jax.tree.map(jnp.asarray, self.policy)
        self._step = jax.jit(_step)
        self._bounds = jax.tree.map(jnp.asarray, self.bounds)  # on the device, as the policy
        self._size = self.spec.observation_dim
        self._memory: Any = None
        self._begins: np.ndarray | None = None  # [N] bool, where the next step is an episode's first

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles, and copies, the policy without the episodes that it remembers: they belong to who played them."""
        return DeployedPolicy, (jax.device_get(self.policy), self.task, dict(self.made))

    @property
    def spec(self) -> Spec:
        """Sizes of observations and actions."""
        return Spec(self.policy.normalizer.mean.shape[-1], self.policy.actor.action_dim)

    @property
    def bounds(self) -> Bounds:
        """Bounds of actions, in the environment's units."""
        return bounds_of(self.task, self.spec)

    @property
    def on_histories(self) -> bool:
        """True for a policy that acts on an episode's last steps and rewards, and needs `reset`."""
        return isinstance(self.policy, SequencePolicy)

    def __call__(self, observation: ArrayLike, reward: ArrayLike = 0.0) -> np.ndarray:
        """Returns what to do.

        Args:
          observation: [O] or [N, O], raw.
          reward: [] or [N] of the step before, raw; only a policy on histories looks at it, and not in an episode's
            first step.

        Returns:
          Actions [A] or [N, A], float32, in the environment's units and between its bounds.

        Raises:
          ValueError: observations or rewards of another shape, or not finite; or other episodes than those that are
            remembered.
        """
        return self._take(observation, reward)[1]

    def act(self, observation: ArrayLike, reward: ArrayLike = 0.0) -> np.ndarray:
        """Returns actions in [-1, 1], as this package's environments and datasets have them; else as `__call__`."""
        return self._take(observation, reward)[0]

    def _take(self, observation: ArrayLike, reward: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Takes a step of all episodes; actions in [-1, 1] and in the environment's units."""
        batch, single = self._checked(observation)
        if self._begins is None:
            self._memory, self._begins = self.policy.begin(len(batch)), np.ones(len(batch), bool)
        elif self.on_histories and len(self._begins) != len(batch):
            raise ValueError(
                f"the policy remembers {len(self._begins)} episodes, and here are observations of {len(batch)}: call "
                "reset() where others begin"
            )
        rewards = to_float32(read_numbers(reward, "rewards"))
        if rewards.shape not in ((), (1,), (len(batch),)):
            raise ValueError(f"expected a reward for each of {len(batch)} observations, got the shape {rewards.shape}")
        rewards = np.broadcast_to(rewards, (len(batch),))
        if self.on_histories:
            rewards = np.where(self._begins, np.float32(0.0), rewards)
            if not np.isfinite(rewards).all():
                raise ValueError("a reward is NaN or infinite: pass finite ones")
        actions, own, self._memory = self._step(self.policy, self._bounds, self._memory, batch, rewards)
        self._begins = np.zeros(len(batch), bool)
        both = np.asarray(actions), np.asarray(own)
        return (both[0][0], both[1][0]) if single else both

    def reset(self, ended: np.ndarray | None = None) -> None:
        """Begins episodes: the next observations are their first.

        Args:
          ended: [N] bool, of which of the N episodes under way; None for all, which may then be of another number.
        """
        if ended is None or self._begins is None:
            self._memory = self._begins = None
            return
        ended = np.broadcast_to(np.asarray(ended, bool), self._begins.shape)
        fresh = self.policy.begin(len(ended))
        self._memory = jax.tree.map(
            lambda new, kept: jnp.where(ended.reshape(-1, *[1] * (kept.ndim - 1)), new, kept), fresh, self._memory
        )
        self._begins = self._begins | ended

    def _checked(self, observation: ArrayLike) -> tuple[np.ndarray, bool]:
        """Observations [N, O] float32, and whether there was one without a leading axis."""
        array, size = to_float32(read_numbers(observation, "observations")), self._size
        if array.ndim not in (1, 2) or array.shape[-1] != size:
            raise ValueError(f"expected observations [{size}] or [N, {size}], got an array of shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("the observation has NaN or infinite numbers: pass finite ones")
        return np.atleast_2d(array), array.ndim == 1


def _step(policy: Any, bounds: Bounds, memory: Any, observation: Array, reward: Array) -> tuple[Array, Array, Any]:
    """Actions [N, A] in [-1, 1] and in the environment's units, and the memory of N episodes after them."""
    action, memory = policy.act(memory, observation, reward)
    return action, bounds.to_own(action), memory


def bounds_of(task: Task | None, spec: Spec) -> Bounds:
    """Returns the bounds of a task's actions; −1 and 1 where there is none, as data has them."""
    return Bounds.of(spec.action_dim, *(task.action_low, task.action_high) if task else ())
