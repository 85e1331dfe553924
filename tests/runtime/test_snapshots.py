"""Snapshots of policies: the lowest and the highest evaluation, seed by seed."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.seeds import over_seeds, seed_axes, take
from o2o_jax.runtime.snapshots import Snapshots, evaluated
from o2o_jax.types import Array, counter


@flax.struct.dataclass
class Acting:
    """A policy with a counter, which all seeds share while they train and none in a snapshot."""

    weight: Array
    step: Array = counter()


@flax.struct.dataclass
class Agent:
    policy: Acting


def agent(*weights, step=0):
    return Agent(Acting(jnp.array(weights), jnp.asarray(step)))


def test_each_seed_keeps_its_lowest_and_its_highest():
    mesh = seed_mesh(2, 1)
    start = over_seeds(lambda agent: Snapshots.start(agent.policy, True), mesh)
    look = over_seeds(lambda *arguments: evaluated(lambda agent: agent.policy, *arguments), mesh, shared=(3,))
    found = start(agent(7.0, 8.0))
    # seed 0: the second is the lowest, the third the highest; seed 1: NaN is neither, and of equals the first stays
    for step, scores in ((10, [3.0, 5.0]), (20, [1.0, np.nan]), (30, [4.0, 5.0])):
        found = look(found, agent(step + 0.0, step + 0.5, step=step), np.array(scores), np.int32(step))
    np.testing.assert_array_equal(found.offline.weight, [7.0, 8.0])
    np.testing.assert_array_equal(found.aligned.weight, [0.0, 0.0])
    np.testing.assert_array_equal(found.lowest.score, [1.0, 5.0])
    np.testing.assert_array_equal(found.highest.score, [4.0, 5.0])
    np.testing.assert_array_equal(found.lowest.env_steps, [20, 10])
    np.testing.assert_array_equal(found.highest.env_steps, [30, 10])
    np.testing.assert_array_equal(found.lowest.policy.weight, [20.0, 10.5])
    np.testing.assert_array_equal(found.lowest.policy.step, [20, 10])  # moments of their own
    assert take(found, 1).highest.policy == Acting(jnp.array(10.5), jnp.array(10))
    assert set(jax.tree.leaves(seed_axes(found))) == {0}


def test_without_evaluations_there_are_no_extremes():
    found = Snapshots.start(agent(1.0).policy, False)
    assert (found.lowest, found.highest) == (None, None)
    np.testing.assert_array_equal(found.begin(agent(2.0).policy).aligned.weight, [2.0])
