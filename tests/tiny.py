"""Small things that several test modules need: data, batches, command lines that take seconds, a count of programs."""

import contextlib
import dataclasses
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from o2o_jax.cli import program
from o2o_jax.data.dataset import Dataset
from o2o_jax.data.transform import Normalizer
from o2o_jax.networks import HEADS, Critics, DecisionTransformer, HistogramCritics
from o2o_jax.policy import ActionOptimization, OptimizedPolicy, Policy, PolicySet, SequencePolicy
from o2o_jax.runtime.seeds import SUFFIX
from o2o_jax.settings import paths, replaced
from o2o_jax.types import History, Rollout, Transition
from tests import sharing

ENV = "mujoco/hopper-random"  # whose dataset needs no behaviour policy
SETTINGS = ["--set=hidden=8", "--set=critic_hidden=8", "--set=batch_size=8"]
ONLINE_SIZES = ["--set=networks.hidden=8", "--set=networks.critic_hidden=8"]
ONLINE_SETTINGS = [*ONLINE_SIZES, "--set=update.batch_size=8"]
ROLLOUT_SETTINGS = [*ONLINE_SIZES, "--set=reevaluate.batch_size=8"]  # of those that learn from rollouts
KEYS = 5  # of a training whose outcome a test bounds: it holds for keys, not for one machine's rounding
TRANSFORMER = ["--set=width=8", "--set=layers=1", "--set=heads=2", "--set=context=4", "--set=eval_context=2"]


def call(script, *arguments, status=0):
    """Runs a command in this process, as its command line would."""
    with pytest.raises(SystemExit) as result:
        program.run(script.main, script.define, argv=[os.fspath(argument) for argument in arguments])
    assert result.value.code == status


def rows_of_seed(path, seed):
    """Lines of a metrics file that are of one seed."""
    return [line for line in path.read_text().splitlines() if line.split(",")[1] == str(seed)]


def saved(folder):
    """Every number of the checkpoints in a folder, by step and path; maybe none."""
    found = {}
    for step in sorted(path for path in folder.glob("*") if path.name.isdigit()):
        with ocp.PyTreeCheckpointer() as checkpointer:
            layout = checkpointer.metadata((step / "state").absolute()).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), layout)  # on whatever devices
            state = checkpointer.restore((step / "state").absolute(), restore_args=kinds)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            numbers = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
            found[f"{step.name} {path[-1].key}"] = numbers  # leaves are stored by their paths
        if np.all(found.get(f"{step.name} episodes.simulators.seed", -1) >= 0):
            # still the first episodes: the generators then are as their seeds make them, whatever they were before
            found.pop(f"{step.name} episodes.simulators.generators", None)
    return found


def over_keys(training, *arguments):
    """Runs a training with each of five keys, as one program: pytree of [5, ...], as its further arguments."""
    # it runs for longer than most programs of the tests, which makes up for a little more compilation
    together = jax.jit(jax.vmap(training), compiler_options={"xla_backend_optimization_level": 1})
    return jax.device_get(together(jax.random.split(jax.random.key(0), KEYS), *arguments))


def make_policy(head="tanh_gaussian", observation_dim=11, action_dim=3, seed=0):
    """A random policy with a normalizer that does something; of Hopper's sizes by default."""
    actor = HEADS[head](action_dim, (8, 8))
    params = actor.init(jax.random.key(seed), jnp.zeros(observation_dim))
    return Policy(params, Normalizer(jnp.linspace(-0.5, 0.5, observation_dim), jnp.full(observation_dim, 2.0)), actor)


def make_policy_set(observation_dim=11, action_dim=3):
    """Two random policies of one normalizer, and critics that choose between them."""
    kept, learning = (make_policy("gaussian", observation_dim, action_dim, seed) for seed in (0, 1))
    critics = Critics((8,), layer_norm=False, num_critics=2)
    critic = critics.init(jax.random.key(2), jnp.zeros((1, observation_dim)), jnp.zeros((1, action_dim)))
    params = {"kept": kept.params, "learning": learning.params, "critic": critic}
    return PolicySet(params, kept.normalizer, kept.actor, critics, 10.0)


def make_optimized_policy(observation_dim=11, action_dim=3):
    """A random policy whose actions critics improve, whose values are means of histograms."""
    critics = HistogramCritics(Critics((8,), layer_norm=False, num_critics=2, outputs=5), -1.0, 2.0)
    params = critics.init(jax.random.key(2), jnp.zeros((1, observation_dim)), jnp.zeros((1, action_dim)))
    base = make_policy("tanh_gaussian", observation_dim, action_dim)
    return OptimizedPolicy(base, params, critics, ActionOptimization(samples=4, kept=2, steps=2, step_size=0.1))


def make_sequence_policy(observation_dim=11, action_dim=3, seed=0, context=3):
    """A random policy on histories, whose actions depend on all of them."""
    actor = DecisionTransformer(action_dim, width=8, layers=1, heads=2)
    history = History(
        jnp.zeros((context, observation_dim)), jnp.zeros((context, action_dim)), jnp.zeros(context), jnp.zeros(context)
    )
    params = jax.jit(actor.init)(jax.random.key(seed), history)
    # larger weights than a transformer begins with, at which it would hardly look back
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.sin(7.0 * jnp.arange(leaf.size)).reshape(leaf.shape), params)
    normalizer = Normalizer(jnp.linspace(-0.5, 0.5, observation_dim), jnp.full(observation_dim, 2.0))
    return SequencePolicy(params, normalizer, jnp.asarray(10.0), actor, 0.1, context)


def random_batch(spec, size=16, terminated=0.0):
    """A batch [size] of independent numbers."""
    keys = jax.random.split(jax.random.key(3), 4)
    return Transition(
        observation=jax.random.normal(keys[0], (size, spec.observation_dim)),
        action=jax.random.uniform(keys[1], (size, spec.action_dim), minval=-1.0, maxval=1.0),
        reward=jax.random.normal(keys[2], (size,)),
        next_observation=jax.random.normal(keys[3], (size, spec.observation_dim)),
        terminated=jnp.full(size, terminated),
    )


def random_rollout(spec, size=16):
    """The same [size] as rows that follow one another until the last, where time is up."""
    columns = {field.name: getattr(random_batch(spec, size), field.name) for field in dataclasses.fields(Transition)}
    return Rollout(**columns, truncated=jnp.zeros(size).at[-1].set(1.0))


def path_of(name, known):
    """The path that a short name means, None for none: the path itself, "align_updates", or a field's own name.

    Of several fields of that name it is the one of `update`. A part goes by its name.
    """
    if name in {path.partition(".")[0] for path in known}:
        return name
    joined = [path for path in known if path.replace(".", "_") == name]
    alone = [path for path in known if path.rpartition(".")[2] == name]
    found = joined or [path for path in alone if path == f"update.{name}"] or alone
    assert len(found) <= 1, f"{name} may be any of {found}"
    return found[0] if found else None


def changed(config, **values):
    """Settings with other values, by names as `path_of` takes them."""
    known = paths(config)
    found = {name: path_of(name, known) for name in values}
    assert None not in found.values(), f"{type(config)} lacks one of {found}"
    return replaced(config, {found[name]: value for name, value in values.items()})


def config(kind, **values):
    """Settings of a class with values, by names as `path_of` takes them."""
    return changed(kind(), **values)


def configure(kind, **values):
    """Settings of a class with those of the given values that it has."""
    known = paths(kind())
    return config(kind, **{name: value for name, value in values.items() if path_of(name, known)})


def make_dataset(returns):
    """Episodes of two steps each, the return in the first."""
    reward = np.stack([returns, np.zeros(len(returns))], axis=1).ravel().astype(np.float32)
    rows = np.arange(len(reward), dtype=np.float32)[:, None]
    ends = np.arange(2, len(reward) + 1, 2)
    return Dataset(Transition(rows, np.zeros_like(rows), reward, rows, np.zeros_like(reward)), ends, "test")


def update_of(algorithm, phase):
    """The update of an algorithm's phase, or with the name "finetune" that of its online part."""
    return algorithm.online.update if phase == "finetune" else algorithm.phase(phase).update


def compiled(algorithm):
    """The algorithm with updates and extras compiled: as they are, each of their operations would be a program."""
    phases = tuple(
        phase._replace(update=sharing.jit(phase.update), prepare=phase.prepare and sharing.jit(phase.prepare))
        for phase in algorithm.phases
    )
    online = algorithm.online and algorithm.online._replace(update=sharing.jit(algorithm.online.update))
    return algorithm._replace(phases=phases, online=online)


def moved(before, after):
    """Names of the fields of a dataclass, such as a train state, whose numbers differ."""
    fields = [field.name for field in dataclasses.fields(before)]
    return {
        name
        for name in fields
        if any(
            bool(np.any(np.asarray(a) != np.asarray(b)))
            for a, b in zip(jax.tree.leaves(getattr(before, name)), jax.tree.leaves(getattr(after, name)), strict=True)
        )
    }


def far(params):
    """Parameters of quite another network."""
    return jax.tree.map(lambda leaf: leaf + 0.5, params)


@contextlib.contextmanager
def compilations():
    """Gives a list that gets an entry for every program over seeds that is compiled within."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            text = record.getMessage()
            if text.startswith("Finished XLA compilation of jit(") and f"{SUFFIX})" in text:
                found.append(record)

    handler, logger = Handler(), logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with sharing.apart(), jax.log_compiles():
            yield found
    finally:
        logger.removeHandler(handler)
