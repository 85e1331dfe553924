"""The values that every module passes around."""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Params = Any  # a pytree of arrays, as flax's `init` returns it
Metrics = dict[str, jax.Array]  # scalars, one per term of an update


def expect(value: Any, kind: type | tuple[type, ...], name: str, way_out: str) -> None:
    """Refuses an argument of another type, before it fails deep inside.

    Args:
      value: the argument.
      kind: its type, or several.
      name: what messages call it.
      way_out: what to pass instead, in a phrase.

    Raises:
      TypeError: it is of another type.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(one.__name__ for one in kinds)
        raise TypeError(f"{name} must be of type {wanted}, got {type(value).__name__}: {way_out}")


def expect_state(state: Any) -> None:
    """Refuses what is no state of a method, before it fails deep inside.

    Raises:
      TypeError: it has no counter of its updates.
    """
    if not hasattr(state, "step"):
        raise TypeError(
            f"state must be what init or an update returned, got {type(state).__name__}: states come before batches "
            "and keys"
        )


def expect_32_bits() -> None:
    """Refuses to compute where JAX makes numbers of 64 bits.

    Raises:
      ValueError: it does.
    """
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        raise ValueError(
            "JAX computes in 64 bits, for which this package isn't made: set JAX_ENABLE_X64=0, and take "
            "jax_enable_x64 out of the program or the environment that switches it on"
        )


def expect_key(key: Any) -> None:
    """Refuses what is no PRNG key, of the new kind or the old one, before it fails deep inside.

    Raises:
      TypeError: it is none.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise TypeError(f"key must be a PRNG key, got {type(key).__name__}: pass jax.random.key(0)")


SHARED = "shared"  # in a field's metadata: it has no seed axis


def counter() -> Any:
    """Declares a field of a `flax.struct.dataclass` as a counter that advances alike for all seeds.

    It keeps no seed axis, so that a condition on it, of a delayed actor, stays a branch under `vmap`, and a write to
    the ring buffer stays a slice.
    """
    return flax.struct.field(metadata={SHARED: True})


def per_seed() -> Any:
    """Declares a field below which all has a seed axis, counters too: what was kept of a seed at moments of its own."""
    return flax.struct.field(metadata={SHARED: False})


@flax.struct.dataclass
class Transition:
    """One step of an environment, or a batch of them with leading axes [...].

    Attributes:
      observation: [..., O] raw observation s, in the environment's units.
      action: [..., A] executed action a in [-1, 1].
      reward: [...] raw reward r of the step.
      next_observation: [..., O] s', the true last observation where an episode ended.
      terminated: [...] float32, 1 where s' is absorbing. A time limit is not a termination: it leaves 0, so that
        targets bootstrap through it.
    """

    observation: Array
    action: Array
    reward: Array
    next_observation: Array
    terminated: Array


def expect_rows(dataset: Any) -> None:
    """Refuses what is no `Transition` [N] with as many rows in every column, before it fails deep inside.

    Raises:
      TypeError: it is of another type.
      ValueError: columns differ in length or have other axes, or there are no rows.
    """
    expect(dataset, Transition, "dataset", "pass o2o_jax.Transition(…) of arrays, or on_device() of a Dataset")
    if not jnp.size(dataset.reward):
        raise ValueError("dataset is empty: it has no transitions")
    names = [field.name for field in dataclasses.fields(Transition)]
    lengths = {name: jnp.shape(getattr(dataset, name))[:1] for name in names}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length[0] if length else 'none'}" for name, length in lengths.items())
        raise ValueError(f"columns differ in length: {said}; each has one row per step")
    for name in ("reward", "terminated"):
        shape = jnp.shape(getattr(dataset, name))
        if len(shape) != 1:
            raise ValueError(f"{name} must have the shape [N], got {list(shape)}: pass {name}[:, 0], or what is meant")


def expect_batch(batch: Transition) -> None:
    """Refuses columns that are not of one batch, whose difference would broadcast or fail deep inside.

    Raises:
      ValueError: columns differ in their leading axes.
    """
    shapes = {field.name: jnp.shape(getattr(batch, field.name)) for field in dataclasses.fields(Transition)}
    vectors = ("observation", "action", "next_observation")
    if len({shape[:-1] if name in vectors else shape for name, shape in shapes.items()}) > 1:
        said = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f"columns are not of one batch: {said}; observations and actions have one axis more than rewards and "
            "terminations"
        )


@flax.struct.dataclass
class Rollout(Transition):
    """Steps in the order in which they were taken, with one leading axis [T]: a fresh rollout, or a whole dataset.

    The other attributes are those of `Transition`.

    Attributes:
      truncated: [T] float32, 1 where the episode was cut off after the step without terminating, by a time limit or
        because nobody continued it: targets bootstrap, and the next row begins another episode.
    """

    truncated: Array

    @property
    def ended(self) -> Array:
        """[T] 1 where the next row belongs to another episode."""
        return jnp.maximum(self.terminated, self.truncated)


@flax.struct.dataclass
class Extras:
    """Values that an algorithm computed for every row of a dataset before a phase of updates on it.

    Attributes:
      shared: pytree of [N, ...], of the data alone: one copy serves all seeds.
      own: pytree of [N, ...], of a seed's own networks.
    """

    shared: Any = flax.struct.field(default=None, metadata={SHARED: True})
    own: Any = None


@flax.struct.dataclass
class Annotated(Transition):
    """A dataset [N], or a batch of it [B], with an algorithm's extras of every row.

    The other attributes are those of `Transition`.

    Attributes:
      extras: on the same rows, [N, ...] or [B, ...].
    """

    extras: Extras

    @classmethod
    def of(cls, dataset: Transition, extras: Extras) -> "Annotated":
        """Returns the transitions [N] of a dataset with extras of its rows [N, ...]."""
        columns = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(Transition)}
        return cls(**columns, extras=extras)


@flax.struct.dataclass
class History:
    """The last steps of an episode, or a batch of such histories with leading axes [...]; padding comes first.

    Attributes:
      observation: [..., K, O] s.
      action: [..., K, A] a in [-1, 1] that followed; nothing that is asked of a step may depend on its own.
      return_to_go: [..., K] what is still to be received from the step on, undiscounted, in reward units.
      valid: [..., K] float32, 0 where there was no step yet: padding, whose numbers mean nothing.
    """

    observation: Array
    action: Array
    return_to_go: Array
    valid: Array


def extras_of(batch: Transition, compute: Callable[[], Any]) -> Any:
    """Returns a seed's own extras of a batch's rows [B, ...]; computed, () -> extras, where the batch brings none."""
    return batch.extras.own if isinstance(batch, Annotated) else compute()


BatchT = TypeVar("BatchT", bound=Transition)  # what keeps the kind of rows that it is given


@dataclasses.dataclass(frozen=True)
class Spec:
    """Sizes of an environment's flat observations and actions.

    Attributes:
      observation_dim: O.
      action_dim: A.

    Raises:
      ValueError: either is below 1.
      TypeError: either is no whole number.
    """

    observation_dim: int
    action_dim: int

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            expect(size, numbers.Integral, name, "pass a whole number")
        if self.observation_dim < 1 or self.action_dim < 1:
            raise ValueError(f"observation_dim and action_dim must be at least 1, got {self!r}")

    def __str__(self) -> str:
        """For messages: what a policy or an environment has."""
        return f"{self.observation_dim} observations and {self.action_dim} actions"
