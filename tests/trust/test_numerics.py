"""Updates of every algorithm at the edges of what they meet: nothing that they leave behind is NaN or infinite.

Gradients are in what is checked: the moments of the optimisers are made of them. Actions have one dimension here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.data.transform import Normalizer
from o2o_jax.networks.actors import LOG_STD_MAX, LOG_STD_MIN
from o2o_jax.training import sample_batch
from o2o_jax.types import Annotated, Spec
from tests import sharing, test_contracts, tiny
from tests.test_contracts import ANY_HEAD, BATCH_SIZE, MODULES, OVERRIDES, UPDATES, phases_of

SPEC = Spec(observation_dim=4, action_dim=1)


@functools.cache
def make(kind, name):
    """An algorithm for these sizes, and its settings."""
    module = MODULES[kind].load(name)
    config = tiny.configure(module.Config, **OVERRIDES)
    return module.make(config, SPEC), config


ROWS = test_contracts.make_dataset().replace(action=test_contracts.make_dataset().action[:, :1])


def constant(values):
    return jnp.full_like(values, 0.5)


def rows(**changes):
    """A change of the data, fields by their names, each a function of its values."""
    return lambda data: data.replace(**{field: change(getattr(data, field)) for field, change in changes.items()})


def leaves(number, *names):
    """A change of a state: all numbers of the leaves of these names."""

    def apply(path, leaf):
        parts = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        return jnp.full_like(leaf, number) if parts[-1] in names and parts[0] != "opt" else leaf

    return lambda state: jax.tree_util.tree_map_with_path(apply, state)


def values(number):
    """A change of a state: critics and value functions that say about one number of everything."""

    def apply(path, leaf):
        parts = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
        last = parts[-1] == "bias" and not any(part.startswith("MLP") for part in parts)
        mine = last and parts[0] in ("critic", "target_critic", "value", "target_value")
        return jnp.full_like(leaf, number) if mine else leaf

    return lambda state: jax.tree_util.tree_map_with_path(apply, state)


def same(anything):
    return anything


LOG_STD, LOG_ALPHA = ("log_std", "log_std_offset"), ("log_alpha", "log_alpha_prime", "log_temperature")


def multipliers(number):
    """A change of a state: λ and temperatures."""
    return leaves(np.log(number), "log_lagrange", *LOG_ALPHA)


# name -> a change of the data, and one of the state that the updates begin from
EDGES = {
    "as they come": (same, same),
    "large λ and α": (same, multipliers(1e6)),
    "small λ and α": (same, multipliers(1e-6)),
    "the least σ": (same, leaves(LOG_STD_MIN, *LOG_STD)),
    "actions of 1 and the least σ": (rows(action=jnp.ones_like), leaves(LOG_STD_MIN, *LOG_STD)),
    "actions of −1 and the largest σ": (
        rows(action=lambda action: -jnp.ones_like(action)), leaves(LOG_STD_MAX, *LOG_STD),
    ),
    "values of 10,000": (rows(reward=lambda reward: 100.0 * reward), values(1e4)),
    "values of −10,000 and no end": (rows(terminated=jnp.zeros_like, truncated=jnp.zeros_like), values(-1e4)),
    "nothing but ends": (rows(terminated=jnp.ones_like, truncated=jnp.zeros_like), same),
    "constant observations and rewards": (
        rows(observation=constant, next_observation=constant, reward=jnp.ones_like), same,
    ),
    "one row again and again": (
        lambda data: jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), data), same,
    ),
}  # fmt: skip


@functools.cache
def start_of(kind, name, edge):
    """The data, and the state that phases begin from there."""
    (algorithm, _), (change_data, change_state) = make(kind, name), EDGES[edge]
    data = change_data(ROWS)
    normalizer, start = Normalizer.fit(data.observation), None
    if algorithm.requires is None:
        start = normalizer
    elif not algorithm.requires.state:
        start = handoff_of(algorithm.requires.head or ANY_HEAD, normalizer)
    return data, change_state(sharing.jit(algorithm.init)(jax.random.key(2), start))


def handoff_of(head, normalizer):
    """The contracts' handoff, of this file's sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_contracts, "SPEC", SPEC)
        return test_contracts.make_handoff(head, normalizer)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("case", test_contracts.CASES, ids="-".join)
def test_updates_stay_finite(case, edge):
    kind, name, phase_name = case
    phase = phases_of(*make(kind, name))[phase_name]
    data, state = start_of(kind, name, edge)
    if phase.prepare:
        state, extras = sharing.jit(phase.prepare)(state, data)
        data = Annotated.of(data, extras)
    draw = sharing.jit(functools.partial(phase.sample or sample_batch, batch_size=BATCH_SIZE))
    update, seen = sharing.jit(phase.update), []
    for step in range(UPDATES):
        key = jax.random.key(step)
        state, metrics = update(state, draw(data, key), key)
        seen.append(jax.device_get(metrics))
    found = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    broken = [jax.tree_util.keystr(path) for path, leaf in found if not np.all(np.isfinite(leaf))]
    assert broken == []
    # NaN is what an update leaves out, such as the delayed actor's
    means = {term: np.nanmean([metrics[term] for metrics in seen]) for term in seen[0]}
    assert [term for term, mean in means.items() if not np.isfinite(mean)] == []
