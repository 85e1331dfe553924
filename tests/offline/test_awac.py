"""AWAC: the advantage by hand, order of an update, what moves, a probe, settings."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.losses import weighted_likelihood_loss
from o2o_jax.offline import awac
from o2o_jax.offline.awac import losses
from o2o_jax.ops.distributions import Gaussian
from o2o_jax.policy import hand_over
from o2o_jax.training import run_updates
from o2o_jax.types import Spec, Transition
from tests import sharing, tiny
from tests.golden_numbers import replayed_draws

SPEC = Spec(observation_dim=5, action_dim=3)
TINY = awac.Config(hidden=(8,), critic_hidden=(8,))


class Actor:
    """A stand-in: a normal with mean p and σ = 1."""

    def apply(self, params, observation):
        return Gaussian(jnp.broadcast_to(params, observation.shape), jnp.zeros(1))


class Critic:
    """A stand-in for an ensemble: Q_i(s, a) = p_i a, parameters [E], values [E, B]."""

    def apply(self, params, observation, action):
        del observation
        return jax.vmap(lambda p: p * action[:, 0])(params)


def test_advantage_by_hand():
    # twins p = 2, 3.   a = 1 against a_π = 0.5: min(2, 3) − min(1, 1.5) = 1.   a = −1: min(−2, −3) − 1 = −4
    own = jnp.full((2, 1), 0.5)
    found = losses.advantage(jnp.array([2.0, 3.0]), Critic(), jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]), own)
    np.testing.assert_allclose(found, [1.0, -4.0])


def test_the_policy_s_own_action_has_no_advantage():
    action = jnp.linspace(-1.0, 1.0, 5)[:, None]
    found = losses.advantage(jnp.array([2.0, 3.0]), Critic(), jnp.zeros((5, 1)), action, action)
    np.testing.assert_array_equal(found, np.zeros(5))


ARGUMENTS = (Actor(), jnp.zeros((2, 1)), jnp.array([[0.5], [-1.0]]))


def test_weighted_likelihood_by_hand():
    # N(0, 1): −½ · 0.25 and −½ · 1, less ½ log 2π each.   −(4 (−0.125) + 1 (−0.5)) / 2 + 2.5 · ½ log 2π
    loss, metrics = weighted_likelihood_loss(jnp.zeros(1), *ARGUMENTS, jnp.array([4.0, 1.0]))
    constant = 0.5 * math.log(2.0 * math.pi)
    np.testing.assert_allclose(loss, 0.5 + 2.5 * constant, rtol=1e-6)
    np.testing.assert_allclose([metrics["log_prob"], metrics["weight"]], [-0.3125 - constant, 2.5], rtol=1e-6)


def test_weighted_likelihood_gradient_in_closed_form():
    # −mean w (a − m) = −(4 · 0.5 − 1 · 1) / 2: towards the heavier action; the weights get none
    gradient = jax.grad(lambda *args: weighted_likelihood_loss(args[0], *ARGUMENTS, args[1])[0], argnums=(0, 1))
    to_actor, to_weight = gradient(jnp.zeros(1), jnp.array([4.0, 1.0]))
    np.testing.assert_allclose(to_actor, [-0.5], rtol=1e-6)
    np.testing.assert_array_equal(to_weight, [0.0, 0.0])


def start(config=TINY):
    algorithm = awac.make(config, SPEC)
    normalizer = Normalizer(jnp.full(SPEC.observation_dim, 2.0), jnp.full(SPEC.observation_dim, 4.0))
    return algorithm, sharing.jit(algorithm.init)(jax.random.key(0), normalizer)


def test_everything_moves_but_the_transform():
    algorithm, before = start()
    after, _ = sharing.jit(algorithm.phase("offline").update)(before, tiny.random_batch(SPEC), jax.random.key(1))
    assert tiny.moved(before, after) == {"actor", "critic", "target_critic", "opt", "step"}
    expected = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, before.target_critic, after.critic)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), after.target_critic, expected)


def test_an_update_by_its_parts():
    # the target asks Q̄ at a sample of the policy, and the actor's weights ask the critics that have already moved
    algorithm, state = start()
    nets = awac.algorithm.make_networks(TINY, SPEC)
    raw = tiny.random_batch(SPEC, size=4)
    noise = [np.asarray(jax.random.normal(jax.random.key(n), (4, 3))) for n in (5, 6)]
    with replayed_draws(noise):
        after, metrics = sharing.jit(algorithm.phase("offline").update)(state, raw, jax.random.key(1))

    batch = state.transform(raw)
    next_action = jnp.clip(nets.actor.apply(state.actor, batch.next_observation).mean + noise[0], -1.0, 1.0)
    next_q = nets.critic.apply(state.target_critic, batch.next_observation, next_action)
    np.testing.assert_allclose(metrics["target_q"], jnp.mean(batch.reward + 0.99 * jnp.min(next_q, axis=0)), rtol=1e-5)

    own_action = jnp.clip(nets.actor.apply(state.actor, batch.observation).mean + noise[1], -1.0, 1.0)
    q, v = (jnp.min(nets.critic.apply(after.critic, batch.observation, a), axis=0) for a in (batch.action, own_action))
    np.testing.assert_allclose(metrics["advantage"], jnp.mean(q - v), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["weight"], jnp.mean(jnp.exp((q - v) / 0.3333)), rtol=1e-4)


def test_handoff_takes_raw_observations_and_brings_the_critics():
    algorithm, state = start()
    handoff = hand_over(algorithm, state)
    raw = jnp.arange(5.0)
    expected = jnp.clip(handoff.policy.actor.apply(state.actor, (raw - 2.0) / 4.0).mean, -1.0, 1.0)
    np.testing.assert_allclose(handoff.policy.distribution(raw).mode(), expected, rtol=1e-6)
    assert (handoff.source, handoff.policy.head) == ("awac", "gaussian_free")
    assert handoff.state is state


def test_probe_the_policy_leans_to_better_actions():
    # One state, Q(s, a) = a, actions uniform in [−1, 1]. Weights exp(a − v), whatever v is, draw the mean to
    # coth 1 − 1 = 0.313.
    config = awac.Config(
        hidden=(16,),
        critic_hidden=(32, 32),
        batch_size=512,
        polyak=0.05,
        temperature=1.0,
        actor_lr=3e-3,
        critic_lr=3e-3,
    )
    action = jnp.linspace(-1.0, 1.0, 512)[:, None]
    nothing = jnp.zeros((512, 1))
    dataset = Transition(nothing, action, action[:, 0], nothing, jnp.ones(512))
    algorithm = awac.make(config, Spec(observation_dim=1, action_dim=1))
    critic = awac.algorithm.make_networks(config, Spec(1, 1)).critic

    def training(key):
        init_key, run_key = jax.random.split(key)
        state = algorithm.init(init_key, Normalizer.identity(1))
        state, _ = run_updates(algorithm.phase("offline").update, state, dataset, run_key, 1_000, config.batch_size)
        mode = hand_over(algorithm, state).policy.distribution(nothing[:1]).mode()
        return critic.apply(state.critic, nothing, action), mode[0, 0]

    q, mode = tiny.over_keys(training)
    np.testing.assert_allclose(q, np.broadcast_to(action[:, 0], q.shape), atol=0.1)  # 5 % of the range
    np.testing.assert_allclose(mode, 1.0 / math.tanh(1.0) - 1.0, atol=0.05)  # unweighted, it would be 0


@pytest.mark.parametrize(("field", "value"), [("updates", 0), ("temperature", 0.0), ("temperature", float("nan"))])
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got "):
        awac.Config(**{field: value})


def test_config_of_a_task():
    task = Task("mujoco/hopper-medium", "Hopper-v5", Spec(11, 3), 1_000, "o2o/hopper/medium-v0", False, -20.0, 3234.0)
    assert awac.Config.for_task(task) == awac.Config()
    task = dataclasses.replace(task, sparse_reward=True)
    assert awac.Config.for_task(task) == awac.Config(temperature=0.1, reward_shift=-1.0)
    task = dataclasses.replace(task, name="adroit/pen-cloned", sparse_reward=False)
    assert awac.Config.for_task(task) == awac.Config(temperature=0.1)
