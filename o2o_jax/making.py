"""Entrances of methods: what `make`, `init` and updates are handed is looked at before anything is computed of it."""

import functools
import typing
from collections.abc import Callable
from typing import Any

from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Algorithm, Phase, Update
from o2o_jax.policy import Handoff
from o2o_jax.settings import class_name
from o2o_jax.types import (
    Array,
    Metrics,
    Spec,
    Transition,
    expect,
    expect_32_bits,
    expect_batch,
    expect_key,
    expect_state,
)

Make = Callable[[Any, Spec], Algorithm]


def checked(make: Make) -> Make:
    """Decorates a method's `make(config, spec)`, which then refuses arguments of other types than it is annotated with.

    So does what it returns: `init`, of a key and a start, whose sizes are those of the spec; updates, of a state of the
    method, a batch and a key; and what else takes the state, on a phase's way or online.

    Args:
      make: of a method.

    Raises:
      TypeError: of what it returns, where an argument is of another type.
      ValueError: likewise, where JAX computes in 64 bits, or a start is of other sizes.
    """

    @functools.wraps(make)
    def make_checked(config: Any, spec: Spec) -> Algorithm:
        kind = typing.get_type_hints(make)["config"]
        expect(config, kind, "config", f"pass {class_name(kind)}()")
        expect(spec, Spec, "spec", "pass o2o_jax.Spec(observation_dim=…, action_dim=…), or the spec of a Dataset")
        expect_32_bits()
        algorithm = make(config, spec)
        online = algorithm.online
        if online is not None:
            kind = _kinds(online.update)[0]
            online = online._replace(
                begin=functools.partial(_of_state, kind, online.begin),
                act=functools.partial(_of_state, kind, online.act),
                update=_checked_update(online.update),
                prepare=online.prepare and functools.partial(_of_state, kind, online.prepare),
            )
        return algorithm._replace(
            init=functools.partial(_init, algorithm.init, algorithm.requires is None, spec),
            phases=tuple(map(_checked_phase, algorithm.phases)),
            online=online,
        )

    return make_checked


def _init(init: Callable, offline: bool, spec: Spec, key: Array, start: Any = None) -> Any:
    """The state of one seed, by a method's own `init`, once key and start have been looked at."""
    expect_key(key)
    if offline:
        expect(start, Normalizer, "start", "pass that of the data, dataset.normalizer()")
        if start.mean.shape[-1] != spec.observation_dim:
            raise ValueError(
                f"the normalizer is of {start.mean.shape[-1]} observations, but the spec has {spec}: pass the spec of "
                "the data"
            )
    elif start is not None:
        expect(start, Handoff, "start", "pass what o2o_jax.hand_over or o2o_jax.clone returns, or None")
        found = Spec(start.policy.normalizer.mean.shape[-1], start.policy.actor.action_dim)
        if found != spec:
            raise ValueError(f"the policy is of {found}, but the spec has {spec}: make the method with the policy's")
    return init(key, start)


def _checked_phase(phase: Phase) -> Phase:
    """A phase whose functions look at what they are handed."""
    prepare = phase.prepare and functools.partial(_of_state, _kinds(phase.update)[0], phase.prepare)
    return phase._replace(update=_checked_update(phase.update), prepare=prepare)


def _checked_update(update: Update) -> Update:
    checked_update = functools.partial(_update, _kinds(update), update)
    checked_update.__wrapped__ = update  # type: ignore[attr-defined]  # which inspect.unwrap returns
    return checked_update


def _update(kinds: tuple[type, type], update: Update, state: Any, batch: Any, key: Array) -> tuple[Any, Metrics]:
    """One update, once all that it takes has been looked at."""
    _expect_state(state, kinds[0])
    made = "pass o2o_jax.Transition(…) of arrays"
    annotated = "annotate the dataset by prepare(state, dataset.rollout()) of the phase, and draw of Annotated.of(…)"
    expect(batch, kinds[1], "batch", made if kinds[1] is Transition else annotated)
    if isinstance(batch, Transition):
        expect_batch(batch)
    expect_key(key)
    return update(state, batch, key)


def _of_state(kind: type, function: Callable, state: Any, *arguments: Any) -> Any:
    """Calls a function of a state, once that has been looked at."""
    _expect_state(state, kind)
    return function(state, *arguments)


def _expect_state(state: Any, kind: type) -> None:
    expect_state(state)
    if not isinstance(state, kind):
        raise TypeError(
            f"state must be one of {kind.__module__}, got one of {type(state).__module__}: pass what this method's "
            "init or its last update returned"
        )


def _kinds(update: Callable) -> tuple[type, type]:
    """The types of state and batch that an update is annotated with."""
    while isinstance(update, functools.partial):
        update = update.func
    hints = typing.get_type_hints(update)
    names = list(hints)
    state, batch = (hints[names[names.index("state") + place]] for place in (0, 1))
    return tuple(kind if isinstance(kind, type) and kind is not Any else object for kind in (state, batch))  # type: ignore[return-value]
