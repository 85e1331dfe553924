"""An ensemble of CQL agents."""

import dataclasses
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.offline import cql, cql_ensemble
from o2o_jax.ops.distributions import TanhGaussian, moment_matched
from o2o_jax.types import Spec, Transition
from tests import sharing

SPEC = Spec(3, 2)
SIZES = {"hidden": (8,), "critic_hidden": (8,), "batch_size": 4, "num_actions": 2}
CONFIG = cql_ensemble.Config(**SIZES, num_agents=3)
ROWS = np.random.default_rng(0)


def batch(rows):
    return Transition(
        observation=ROWS.normal(size=(rows, 3)).astype(np.float32),
        action=ROWS.uniform(-1, 1, (rows, 2)).astype(np.float32),
        reward=ROWS.normal(size=rows).astype(np.float32),
        next_observation=ROWS.normal(size=(rows, 3)).astype(np.float32),
        terminated=(ROWS.uniform(size=rows) < 0.3).astype(np.float32),
    )


def each(tree, k):
    """One agent's part."""
    return jax.tree.map(operator.itemgetter(k), tree)


def test_every_agent_learns_as_if_it_were_alone():
    method, alone = cql_ensemble.make(CONFIG, SPEC), cql.make(cql.Config(**SIZES), SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer.identity(3))
    rows, key = batch(12), jax.random.key(1)
    after, metrics = sharing.jit(method.phase("offline").update)(state, rows, key)
    assert int(after.step) == 1
    assert all(np.shape(value) == () for value in metrics.values())
    step = sharing.jit(alone.phase("offline").update)
    losses = []
    for k, agent_key in enumerate(jax.random.split(key, 3)):
        agent = each(state.replace(transform=None, step=None), k)
        agent = agent.replace(transform=state.transform, step=state.step)
        expected, found = step(agent, jax.tree.map(operator.itemgetter(slice(4 * k, 4 * k + 4)), rows), agent_key)
        losses.append(found["critic_loss"])
        for name in ("actor", "critic", "target_critic", "log_alpha"):
            chex.assert_trees_all_close(each(getattr(after, name), k), getattr(expected, name), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(losses), rtol=1e-5)
    kernels = state.actor["params"]["MLP_0"]["Dense_0"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])


def test_the_policy_is_the_mixture_and_the_critic_the_lowest_of_all():
    method = cql_ensemble.make(CONFIG, SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer.identity(3))
    nets = cql.algorithm.make_networks(CONFIG, SPEC)
    observation, action = jnp.asarray(batch(5).observation), jnp.asarray(batch(5).action)
    members = jax.vmap(nets.actor.apply, (0, None))(state.actor, observation)
    expected = moment_matched(TanhGaussian(members.mean, members.log_std), -20.0, 2.0)
    policy = method.policy(state)
    assert policy.head == "mixture"
    found = policy.distribution(observation)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.log_std, expected.log_std, rtol=1e-5, atol=1e-6)
    each = jax.vmap(nets.critic.apply, (0, None, None))(state.critic, observation, action)  # [N, E, B]
    np.testing.assert_allclose(method.critic(state)(observation, action), each.min(axis=(0, 1)), rtol=1e-5, atol=1e-6)


def test_settings():
    maze = cql_ensemble.Config.for_task(envs.get_task("antmaze/umaze"))
    assert maze == cql_ensemble.Config(**dataclasses.asdict(cql.Config.for_task(envs.get_task("antmaze/umaze"))))
    assert (maze.num_agents, maze.target_actions) == (5, 10)
    assert cql_ensemble.make(CONFIG, SPEC).phase("offline").batch_size == 12  # each has rows of its own
