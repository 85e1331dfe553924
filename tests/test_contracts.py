"""Contract of every algorithm with the runtime, written once and run for each that is discovered.

An update keeps the state's tree, shapes and dtypes; a second call doesn't compile again; all seeds as the runtime runs
them, a `scan` under `vmap`, equal a loop over each seed alone; all numbers stay finite.
"""

import dataclasses
import functools
import itertools
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks, offline, online
from o2o_jax.data import replay
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Phase
from o2o_jax.offline import dt
from o2o_jax.policy import Handoff, Policy
from o2o_jax.runtime.seeds import seed_axes
from o2o_jax.settings import get, paths, replaced
from o2o_jax.training import run_updates, sample_batch
from o2o_jax.types import Annotated, Extras, Rollout, Spec
from tests import sharing, tiny

SPEC = Spec(observation_dim=4, action_dim=2)
BATCH_SIZE = 8
UPDATES = 4  # twice the delay of delayed actors
SEEDS = 2
HIDDEN = (8, 8)
# Fields of configurations, where they have them: tiny networks, few samples, a start from a policy alone.
OVERRIDES = {
    "hidden": HIDDEN,
    "critic_hidden": HIDDEN,
    "batch_size": BATCH_SIZE,
    "num_actions": 2,
    "critic_source": "random",
    "rollout_env_steps": BATCH_SIZE,
    "minibatch_size": BATCH_SIZE // 2,
    "epochs": 2,
    "updates_per_env_step": 2,
    "width": 8,
    "layers": 1,
    "heads": 2,
    "context": 4,
    "eval_context": 2,
    "num_agents": 2,
}
MODULES = {"offline": offline, "online": online}
ANY_HEAD = "gaussian"  # of the policy, where an algorithm takes any


def phases_of(algorithm, config):
    """The algorithm's phases, its online part among them under the name "finetune"."""
    part = algorithm.online
    # of a method that continues one, batches of what no rows are come as offline, here from the dataset alone
    sample = None
    if algorithm.name == "odt":
        sample = functools.partial(dt.algorithm.sample, config.update)
    elif part and part.replay.feedback:
        sample = replay.uniform_batch
    finetune = (Phase("finetune", part.update, UPDATES, BATCH_SIZE, part.prepare, sample),) if part else ()
    return {phase.name: phase for phase in (*algorithm.phases, *finetune)}


def make(kind, name):
    """An algorithm with tiny networks, and its settings."""
    module = MODULES[kind].load(name)
    config = tiny.configure(module.Config, **OVERRIDES)
    return module.make(config, SPEC), config


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in MODULES for name in MODULES[kind].names()])
def test_an_algorithm_has_the_name_of_its_folder_and_knows_its_sources(kind, name):
    algorithm, _ = make(kind, name)
    assert algorithm.name == name
    assert (algorithm.online is None) == (algorithm.requires is None) == (kind == "offline")
    if algorithm.requires:
        assert set(algorithm.requires.sources) <= set(offline.names())


CASES = [
    (kind, name, phase) for kind, module in MODULES.items() for name in module.names()
    for phase in phases_of(*make(kind, name))
]  # fmt: skip
PREPARED = [case for case in CASES if phases_of(*make(*case[:2]))[case[2]].prepare]


def make_dataset(size=64):
    """Rows that follow one another; a few of them drawn at random serve as a fresh rollout as well."""
    keys = jax.random.split(jax.random.key(0), 5)
    return Rollout(
        observation=3.0 + jax.random.normal(keys[0], (size, SPEC.observation_dim)),
        action=jax.random.uniform(keys[1], (size, SPEC.action_dim), minval=-1.0, maxval=1.0),
        reward=jax.random.normal(keys[2], (size,)),
        next_observation=3.0 + jax.random.normal(keys[3], (size, SPEC.observation_dim)),
        terminated=jax.random.bernoulli(keys[4], 0.2, (size,)).astype(jnp.float32),
        truncated=jnp.zeros(size).at[::7].set(1.0),
    )


def make_handoff(head, normalizer):
    actor = networks.HEADS[head](SPEC.action_dim, HIDDEN)
    params = actor.init(jax.random.key(1), jnp.zeros((1, SPEC.observation_dim)))
    return Handoff(Policy(params, normalizer, actor))


@functools.cache
def make_starts(kind, name):
    """An algorithm, the keys of all seeds, and the states that its phases start from here, made by one program."""
    algorithm, _ = make(kind, name)
    normalizer, start = Normalizer.fit(make_dataset().observation), None  # nothing where it reads a whole state
    if algorithm.requires is None:
        start = normalizer
    elif not algorithm.requires.state:
        start = make_handoff(algorithm.requires.head or ANY_HEAD, normalizer)
    keys, init = jax.random.split(jax.random.key(2), SEEDS), sharing.jit(algorithm.init)
    return algorithm, keys, [init(key, start) for key in keys]


class Case:
    """One update of one algorithm with its starts: everything that the contracts need, computed once."""

    def __init__(self, kind, name, phase):
        algorithm, self.keys, self.starts = make_starts(kind, name)
        updates, dataset = phases_of(algorithm, make(kind, name)[1])[phase], make_dataset()
        self.update = updates.update
        self.sample = updates.sample or sample_batch
        self.draw = sharing.jit(functools.partial(self.sample, batch_size=BATCH_SIZE))
        self.datasets = [dataset] * SEEDS
        if updates.prepare:
            self.prepare = sharing.jit(updates.prepare)
            prepared = [self.prepare(state, dataset) for state in self.starts]
            self.starts = [state for state, _ in prepared]
            self.datasets = [Annotated.of(dataset, extras) for _, extras in prepared]

    @functools.cached_property
    def alone(self):
        """Every seed alone in a Python loop: lists of all states and metrics, and after each the update's programs."""
        update, programs = sharing.jit(self.update), []
        runs = []
        for state, dataset, key in zip(self.starts, self.datasets, self.keys, strict=True):
            states, metrics = [state], []
            for step in range(UPDATES):
                sample_key, update_key = jax.random.split(jax.random.fold_in(key, step))
                state, metric = update(state, self.draw(dataset, sample_key), update_key)
                states.append(state)
                metrics.append(metric)
                programs.append(update._cache_size())
            runs.append((states, metrics))
        return runs, programs

    @functools.cached_property
    def together(self):
        """All seeds as one program: the last states and the mean metrics, with a leading axis S."""
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.starts)
        if seed_axes(states).step is None:  # not of one whose seeds make their updates at moments of their own
            states = states.replace(step=self.starts[0].step)
        run = functools.partial(
            run_updates, self.update, num_updates=UPDATES, batch_size=BATCH_SIZE, sample=self.sample
        )
        axes, dataset, rows = seed_axes(states), self.datasets[0], None
        if isinstance(dataset, Annotated):  # the extras of a seed's own networks differ, all else is common
            own = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(data.extras.own for data in self.datasets))
            extras = Extras(dataset.extras.shared, own)
            dataset = Annotated.of(dataset, extras)
            rows = jax.tree.map(lambda _: None, dataset).replace(extras=seed_axes(extras))
        return jax.jit(jax.vmap(run, (axes, rows, 0), (axes, 0)))(states, dataset, self.keys)


RECONSTRUCTING = [name for name in online.names() if make("online", name)[0].phases]


def other_value(value, kind):
    """Another value of a field, one that settings allow."""
    if value is None:
        return 0.25
    if typing.get_origin(kind) is typing.Literal:
        return next(choice for choice in typing.get_args(kind) if choice != value)
    if isinstance(value, bool):
        return not value
    return 1.01 * value + 0.001 if isinstance(value, float) else 2 * value


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_online_parts_change_nothing_before_the_first_environment_step(name):
    module, (_, config) = online.load(name), make("online", name)
    assert config.online_parts <= {field.name for field in dataclasses.fields(module.Config)}
    changes = {
        path: other_value(get(config, path), kind)
        for path, kind in paths(config).items()
        if path.partition(".")[0] in config.online_parts and kind is not types.NoneType
    }
    if "reference.update" in changes:
        changes["reference.update"] = "returns"  # "interval" compares nothing, so that it refuses to roll back
    assert len(changes) > 10
    ends = []
    for settings in (config, replaced(config, changes)):
        algorithm, rows = module.make(settings, SPEC), make_dataset()
        normalizer = Normalizer.fit(rows.observation)
        state = algorithm.init(jax.random.key(0), make_handoff(algorithm.requires.head or ANY_HEAD, normalizer))
        for phase in algorithm.phases:
            rows = make_dataset()
            if phase.prepare:
                state, extras = phase.prepare(state, rows)
                rows = Annotated.of(rows, extras)
            batch = sample_batch(rows, jax.random.key(1), BATCH_SIZE)
            state, _ = sharing.jit(phase.update)(state, batch, jax.random.key(2))
        ends.append(state)
    jax.tree.map(np.testing.assert_array_equal, *ends)


@functools.cache
def make_case(kind, name, phase):
    return Case(kind, name, phase)


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return make_case(*request.param)


def of_seed(tree, seed):
    return jax.tree.map(
        lambda axis, leaf: leaf if axis is None else leaf[seed],
        seed_axes(tree),
        tree,
        is_leaf=lambda leaf: leaf is None,
    )


def assert_close(found, expected):
    def compare(path, a, b):
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True, err_msg=where)

    jax.tree_util.tree_map_with_path(compare, found, expected)


def test_an_update_keeps_tree_shapes_and_dtypes(case):
    (states, _), *_ = case.alone[0]
    for before, after in itertools.pairwise(states):
        assert jax.tree.structure(before) == jax.tree.structure(after)
        assert jax.tree.map(jnp.shape, before) == jax.tree.map(jnp.shape, after)
        assert jax.tree.map(lambda leaf: leaf.dtype, before) == jax.tree.map(lambda leaf: leaf.dtype, after)


def test_a_state_is_arrays_only_and_counts_its_updates(case):
    (states, _), *_ = case.alone[0]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(states[0]))
    assert states[0].step.dtype == jnp.int32
    assert [int(state.step) for state in states] == list(range(UPDATES + 1))


def test_the_second_call_does_not_compile_again(case):
    _, (first, *later) = case.alone
    assert set(later) == {first}


def test_scanned_seeds_under_vmap_equal_a_loop_over_each_alone(case):
    states, means = case.together
    for seed, (alone, metrics) in enumerate(case.alone[0]):
        assert_close(of_seed(states, seed), alone[-1])
        expected = jax.tree.map(lambda *values: jnp.nanmean(jnp.stack(values)), *metrics)
        assert_close(of_seed(means, seed), expected)


def test_seeds_differ(case):
    (first, _), (second, _) = case.alone[0]
    different = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), first[-1], second[-1])
    assert any(jax.tree.leaves(different))


def test_all_numbers_are_finite(case):
    states, means = case.together
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))
    assert not [name for name, values in means.items() if not np.isfinite(values).all()]


def test_an_update_asks_for_no_particular_batch_size(case):
    batch = case.sample(case.datasets[0], jax.random.key(0), 2 * BATCH_SIZE)
    state, _ = jax.eval_shape(case.update, case.starts[0], batch, jax.random.key(0))
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, case.starts[0])


@pytest.mark.parametrize("case", PREPARED, ids="-".join, indirect=True)
def test_a_phase_that_goes_on_is_prepared_as_it_was(case):
    # what was written down doesn't depend on what the phase moves, and what the state got stays as it is
    (states, _), *_ = case.alone[0]
    state, extras = case.prepare(states[-1], make_dataset())
    jax.tree.map(np.testing.assert_array_equal, extras, case.datasets[0].extras)
    jax.tree.map(np.testing.assert_array_equal, state, states[-1])
