"""Many seeds as one program: the same numbers as each alone, counters in common, no device that waits for another."""

import functools
import re

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from o2o_jax.online import o2td3
from o2o_jax.runtime import seeds
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.types import Extras, Spec, Transition, counter
from tests import tiny

SPEC = Spec(observation_dim=3, action_dim=2)
CONFIG = tiny.config(o2td3.Config, hidden=(8,), critic_hidden=(8,), batch_size=4, policy_delay=2)
COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"


@flax.struct.dataclass
class State:
    value: jax.Array
    step: jax.Array = counter()


@flax.struct.dataclass
class Undeclared:
    step: int
    states: tuple


def advance(state, shared, key):
    value = state.value * shared.sum() + jax.random.uniform(key)
    state = State(value, state.step + 1)
    return state, {"value": value.mean(), "step": state.step.astype(jnp.float32)}


def states(count):
    return State(jnp.arange(1.0, 1.0 + 3 * count).reshape(count, 3), jnp.asarray(5, jnp.int32))


def test_counters_have_no_seed_axis():
    assert seeds.seed_axes(State(1.0, 2)) == State(0, None)
    # only what is declared counts: no field of that name, no key of a dictionary nor a leaf by itself
    assert seeds.seed_axes(Undeclared(2, (State(1.0, 3),))) == Undeclared(0, (State(0, None),))
    assert seeds.seed_axes({"step": 1, "state": State(1.0, 2)}) == {"step": 0, "state": State(0, None)}
    assert seeds.seed_axes(3.0) == 0


def test_what_is_shared_has_no_seed_axis():
    extras = Extras(shared={"returns": 1.0, "more": (2.0, 3.0)}, own={"actions": 4.0})
    assert seeds.seed_axes(extras) == Extras(shared={"returns": None, "more": (None, None)}, own={"actions": 0})
    assert seeds.seed_axes({"shared": 1.0}) == {"shared": 0}  # fields count, not keys


@pytest.mark.parametrize("num_devices", [1, 2])
def test_all_seeds_together_equal_each_alone(num_devices):
    mesh = seed_mesh(4, num_devices)
    shared, keys = jnp.array([0.5, 0.25]), seeds.keys(range(4), "test")
    together, metrics = seeds.over_seeds(advance, mesh, shared=(1,))(states(4), shared, keys)
    assert int(together.step) == 6
    assert together.step.shape == ()
    assert metrics["step"].shape == (4,)  # a metric of that name is no counter
    for seed in range(4):
        alone, metric = advance(seeds.take(states(4), seed), shared, keys[seed])
        np.testing.assert_allclose(together.value[seed], alone.value, rtol=1e-6)
        np.testing.assert_allclose(metrics["value"][seed], metric["value"], rtol=1e-6)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_function_is_traced_once(num_devices):
    traces = []

    def function(state):
        traces.append(state)
        return state

    jax.tree.map(
        np.testing.assert_array_equal, seeds.over_seeds(function, seed_mesh(4, num_devices))(states(4)), states(4)
    )
    assert len(traces) == 1


def test_a_counter_that_differs_between_seeds_is_an_error():
    with pytest.raises(ValueError, match=r"step'\], got axis spec None but output was batched"):
        seeds.over_seeds(lambda state: state.replace(step=state.value[0]), seed_mesh(2, 1))(states(2))


def test_shared_arguments_may_be_none():
    program = seeds.over_seeds(lambda state, data: state.value if data is None else data, seed_mesh(2), shared=(1,))
    np.testing.assert_array_equal(program(states(2), None), states(2).value)


def test_donated_memory_is_used_again():
    mesh = seed_mesh(2)
    state = seeds.place(states(2), mesh)
    seeds.over_seeds(lambda state: state.replace(value=state.value + 1.0), mesh, donate=(0,))(state)
    assert state.value.is_deleted()


def test_place_splits_seeds_and_repeats_counters():
    mesh = seed_mesh(4, 2)
    placed = seeds.place(states(4), mesh)
    assert placed.value.sharding.spec == PartitionSpec("seed")
    assert [shard.data.shape for shard in placed.value.addressable_shards] == [(2, 3), (2, 3)]
    assert placed.step.sharding.is_fully_replicated
    assert seeds.replicate(jnp.ones(3), mesh).sharding.is_fully_replicated


def test_take():
    assert seeds.take(states(3), 1).value.tolist() == [4.0, 5.0, 6.0]
    assert seeds.take(states(3), slice(2)).value.shape == (2, 3)
    assert int(seeds.take(states(3), 1).step) == 5


def test_take_where_a_state_leaves_a_part_out():
    # as a clone does that has no teacher: None is no leaf, unlike the axis of a counter
    nothing, value = seeds.take((None, State(jnp.arange(3.0), 5)), 1)
    assert (nothing, float(value.value), value.step) == (None, 1.0, 5)


def test_keys_of_a_seed_depend_on_the_seed_and_the_stream_alone():
    data = jax.random.key_data
    both = seeds.keys([3, 7], "online")
    np.testing.assert_array_equal(data(both[1]), data(seeds.keys([7], "online")[0]))
    np.testing.assert_array_equal(data(both), data(seeds.keys(np.array([3, 7]), "online")))
    others = [both[0], seeds.keys([3], "offline")[0], jax.random.key(3)]
    assert len({tuple(np.asarray(data(key)).tolist()) for key in [*others, both[1]]}) == 4


def batch_of(rng, *axes):
    return Transition(
        observation=rng.normal(size=(*axes, 3)).astype(np.float32),
        action=rng.uniform(-1.0, 1.0, size=(*axes, 2)).astype(np.float32),
        reward=rng.normal(size=axes).astype(np.float32),
        next_observation=rng.normal(size=(*axes, 3)).astype(np.float32),
        terminated=np.zeros(axes, np.float32),
    )


@functools.cache
def finetuned(num_seeds, num_devices, updates=4):
    """States after some updates of O2TD3, seeds 2 … 2 + S, and the compiled text of the update."""
    mesh = seed_mesh(num_seeds, num_devices)
    algorithm = o2td3.make(CONFIG, SPEC)
    keys = seeds.keys(range(2, 2 + num_seeds), "test")
    state = seeds.place(seeds.over_seeds(algorithm.init, seed_mesh(num_seeds, 1), shared=(1,))(keys, None), mesh)
    batch = jax.tree.map(lambda *rows: np.stack(rows), *(batch_of(np.random.default_rng(s), 4) for s in range(4)))
    batch = seeds.place(jax.tree.map(lambda rows: rows[:num_seeds], batch), mesh)
    program = seeds.over_seeds(algorithm.online.update, mesh).lower(state, batch, seeds.place(keys, mesh)).compile()
    for _ in range(updates):
        state, metrics = program(state, batch, seeds.place(keys, mesh))
    return state, metrics, program.as_text()


def test_the_delayed_actor_stays_a_branch():
    # where the counter had a seed axis, both branches would be computed at every update
    _, _, text = finetuned(4, 1)
    assert re.search(r" conditional\(", text)


def test_devices_do_not_change_a_result():
    (one, one_metrics, _), (two, two_metrics, _) = finetuned(4, 1), finetuned(4, 2)
    assert two.log_lagrange.sharding.spec == PartitionSpec("seed")
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(compare, jax.device_get((one, one_metrics)), jax.device_get((two, two_metrics)))


def test_no_device_waits_for_another():
    _, _, text = finetuned(4, 2)
    assert not re.search(COLLECTIVES, text)
    assert re.search(r" conditional\(", text)


def test_a_seed_alone_draws_and_learns_as_among_others():
    (alone, alone_metrics, _), (among, among_metrics, _) = finetuned(1, 1), finetuned(4, 1)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(compare, seeds.take((alone, alone_metrics), 0), seeds.take((among, among_metrics), 0))


def test_programs_are_called_as_their_functions():
    def double(factor, x):
        return factor * x

    program = seeds.over_seeds(functools.partial(double, 2.0), seed_mesh(2, 1))
    assert "jit_double_for_all_seeds" in program.lower(jnp.ones((2, 3))).as_text()
