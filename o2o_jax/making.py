"""Entrances of methods: what `make` and `init` are handed is looked at before anything is computed of it."""

import functools
import typing
from collections.abc import Callable
from typing import Any

from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm
from o2o_jax.policy import Handoff
from o2o_jax.settings import class_name
from o2o_jax.types import Array, Spec, expect, expect_32_bits, expect_key

Make = Callable[[Any, Spec], Algorithm]


def checked(make: Make) -> Make:
    """Decorates a method's `make(config, spec)`, which then refuses arguments of other types than it is annotated with.

    So does the `init` that it returns, of a key and a start.

    Args:
      make: of a method.

    Raises:
      TypeError: of what it returns, where an argument is of another type.
      ValueError: likewise, where JAX computes in 64 bits.
    """

    @functools.wraps(make)
    def make_checked(config: Any, spec: Spec) -> Algorithm:
        kind = typing.get_type_hints(make)["config"]
        expect(config, kind, "config", f"pass {class_name(kind)}()")
        expect(spec, Spec, "spec", "pass o2o_jax.Spec(observation_dim=…, action_dim=…), or the spec of a Dataset")
        expect_32_bits()
        algorithm = make(config, spec)
        return algorithm._replace(init=functools.partial(_init, algorithm.init, algorithm.requires is None))

    return make_checked


def _init(init: Callable, offline: bool, key: Array, start: Any = None) -> Any:
    """The state of one seed, by a method's own `init`, once key and start have been looked at."""
    expect_key(key)
    if offline:
        expect(start, Normalizer, "start", "pass that of the data, dataset.normalizer()")
    elif start is not None:
        expect(start, Handoff, "start", "pass what o2o_jax.hand_over or o2o_jax.clone returns, or None")
    return init(key, start)
