"""CQL: recorded updates, losses by hand, gradients, the Lagrange version, settings."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.losses import next_value, repeated
from o2o_jax.offline import cql
from o2o_jax.offline.cql import losses
from o2o_jax.ops.bellman import td_target
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.policy import hand_over
from o2o_jax.types import Spec, Transition
from tests import sharing
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden, member, replayed_draws

TINY = cql.Config(hidden=(8,), critic_hidden=(8,), num_actions=3)


class Critic:
    """A stand-in for an ensemble: Q_i(s, a) = p_i a, parameters [E], values [E, ...]."""

    def apply(self, params, observation, action):
        del observation
        return jax.vmap(lambda p: p * action[..., 0])(params)


def golden_state(golden):
    algorithm = cql.make(cql.Config(), SPEC)
    actor = golden.params("actor", log_std_multiplier=1.0, log_std_offset=-1.0)
    critic = golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        state = algorithm.init(key, Normalizer.identity(SPEC.observation_dim))
        return state.replace(actor=actor, critic=critic, target_critic=critic)

    return algorithm, start(jax.random.key(0))


@jax.jit
def first_critic_terms(state, batch, draw):
    """Squared error and mean value of the first critic alone, which the record has and our metrics sum over critics."""
    nets = cql.algorithm.make_networks(cql.Config(), SPEC)
    next_distribution = nets.actor.apply(state.actor, batch.next_observation)
    with replayed_draws([draw]):
        arguments = (next_distribution, batch.next_observation, jax.random.key(0), 1)
        value = next_value(state.target_critic, nets.critic, *arguments)
    target = td_target(batch.reward, batch.terminated, value, 0.99)
    q = nets.critic.apply(state.critic, batch.observation, batch.action)[0]
    return {"qf1_loss": jnp.mean(jnp.square(q - target)), "average_qf1": jnp.mean(q)}


def test_golden_updates():
    golden = Golden("cql")
    algorithm, state = golden_state(golden)
    update = golden.replay("update", algorithm.phase("offline").update)
    for step in golden.steps("update"):
        found = first_critic_terms(state, golden.batch("update", step), golden.recorded_draws("update", step)[1])
        state, metrics = update(state, step)
        found |= {name: metrics[name] for name in ("alpha", "alpha_loss")} | {"policy_loss": metrics["actor_loss"]}
        log = golden.log("update", step)
        assert found.keys() == log.keys()
        for name, value in log.items():
            np.testing.assert_allclose(found[name], value, rtol=SCALAR_RTOL, atol=1e-8, err_msg=name)
        golden.check(
            "update",
            step,
            actor=state.actor,
            critic_1=member(state.critic, 0),
            critic_2=member(state.critic, 1),
            log_alpha=state.log_alpha,
        )
    assert step == 2
    assert state.log_alpha_prime == 1.0  # moves in the Lagrange version only


def test_next_value_by_hand():
    # One state, three samples a = tanh(−1), tanh(0), tanh(1) = −0.76159, 0, 0.76159, twins p = 1, 2.
    # Minima: −1.52319, 0, 0.76159; the best is 0.76159.   One sample alone: its own minimum.
    distribution = TanhGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    arguments = (jnp.array([1.0, 2.0]), Critic(), distribution, jnp.zeros((1, 1)), jax.random.key(0))
    with replayed_draws([np.array([[[-1.0], [0.0], [1.0]]], np.float32)]):
        np.testing.assert_allclose(next_value(*arguments, num_actions=3), [0.76159], rtol=1e-5)
    with replayed_draws([np.array([[[-1.0]]], np.float32)]):
        np.testing.assert_allclose(next_value(*arguments, num_actions=1), [-1.52319], rtol=1e-5)


def test_sampled_actions_stand_in_order_with_their_own_densities():
    batch_size, count, action_dim = 4, 3, 2
    distribution = TanhGaussian(jnp.full((batch_size, action_dim), 1.0), jnp.full((batch_size, action_dim), -5.0))
    following = TanhGaussian(jnp.full((batch_size, action_dim), -1.0), jnp.full((batch_size, action_dim), -5.0))
    actions, log_density, floor = losses.sampled_actions(distribution, following, jax.random.key(0), count)
    assert floor is None
    assert actions.shape == (batch_size, 3 * count, action_dim)
    assert log_density.shape == (batch_size, 3 * count)
    uniform, current, after = jnp.split(actions, 3, axis=1)
    assert jnp.all(jnp.abs(uniform) <= 1.0)
    assert jnp.std(uniform) > 0.3
    np.testing.assert_allclose(current, np.full_like(current, math.tanh(1.0)), atol=0.02)
    np.testing.assert_allclose(after, np.full_like(after, math.tanh(-1.0)), atol=0.02)
    np.testing.assert_allclose(log_density[:, :count], -action_dim * math.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(log_density[:, 2 * count :], repeated(following, count).log_prob(after), rtol=1e-3)
    assert len(np.unique(np.asarray(current))) == current.size  # independent samples


def test_sampled_actions_are_constants():
    def total(mean):
        distribution = TanhGaussian(mean, jnp.zeros((2, 1)))
        actions, log_density, _ = losses.sampled_actions(distribution, distribution, jax.random.key(0), 3)
        return jnp.sum(actions) + jnp.sum(log_density)

    np.testing.assert_array_equal(jax.grad(total)(jnp.ones((2, 1))), np.zeros((2, 1)))


CRITIC_ARGUMENTS = {
    "critic": Critic(),
    "observation": jnp.zeros((1, 1)),
    "action": jnp.array([[0.5]]),
    "target": jnp.array([2.0]),
    "sampled": losses.SampledActions(jnp.array([[[0.0], [1.0]]]), jnp.array([[-math.log(2.0), 0.0]])),
    "weight": 10.0,
    "target_gap": 0.0,
    "temperature": 1.0,
    "gap_min": None,
}


def test_critic_loss_by_hand():
    # p = 0: Q = 0, error (0 − 2)² = 4, gap = log(2 e⁰ + e⁰) − 0 = log 3.
    # p = log 2: Q = 0.34657, error 2.73384, gap = log(2 + 2) − 0.34657 = 1.03972.
    # 4 + 2.73384 + 10 (1.09861 + 1.03972) = 28.11716
    params = jnp.array([0.0, math.log(2.0)])
    loss, (gap, metrics) = losses.critic_loss(params, **CRITIC_ARGUMENTS)
    np.testing.assert_allclose(gap, [math.log(3.0), 1.03972], rtol=1e-5)
    np.testing.assert_allclose(loss, 28.11716, rtol=1e-6)
    np.testing.assert_allclose(metrics["td_loss"], 6.73384, rtol=1e-5)
    np.testing.assert_allclose(metrics["q"], 0.173287, rtol=1e-5)
    # a target gap of 1 takes 10 · (1 + 1) off
    loss, _ = losses.critic_loss(params, **(CRITIC_ARGUMENTS | {"target_gap": 1.0}))
    np.testing.assert_allclose(loss, 8.11716, rtol=1e-5)


def test_critic_gradient_in_closed_form():
    # d/dp at p = 0: 2 (0 − 2) 0.5 + 10 ( (0 · 2 + 1 · 1) / 3 − 0.5 ) = −2 − 10 / 6
    gradient, _ = jax.grad(losses.critic_loss, has_aux=True)(jnp.array([0.0, 0.0]), **CRITIC_ARGUMENTS)
    np.testing.assert_allclose(gradient, [-2.0 - 10.0 / 6.0] * 2, rtol=1e-5)


def test_penalty_lowers_sampled_actions_and_raises_the_data_s():
    def total(action, sampled):
        samples = CRITIC_ARGUMENTS["sampled"]._replace(action=sampled)
        arguments = CRITIC_ARGUMENTS | {"action": action, "sampled": samples, "target": action[:, 0]}
        return losses.critic_loss(jnp.array([1.0]), **arguments)[0]

    # Q = a, so the gradient in an action is the gradient in its value
    data, samples = jax.grad(total, argnums=(0, 1))(CRITIC_ARGUMENTS["action"], CRITIC_ARGUMENTS["sampled"].action)
    np.testing.assert_allclose(data, [[-10.0]], rtol=1e-6)
    assert jnp.all(samples > 0.0)
    np.testing.assert_allclose(jnp.sum(samples), 10.0, rtol=1e-6)


def random_batch(key, size=8):
    keys = jax.random.split(key, 4)
    return Transition(
        observation=jax.random.normal(keys[0], (size, SPEC.observation_dim)),
        action=jax.random.uniform(keys[1], (size, SPEC.action_dim), minval=-1.0, maxval=1.0),
        reward=jax.random.normal(keys[2], (size,)),
        next_observation=jax.random.normal(keys[3], (size, SPEC.observation_dim)),
        terminated=jnp.zeros(size),
    )


def test_lagrange_version_with_every_setting_of_mazes():
    config = dataclasses.replace(
        TINY, target_actions=10, gap_min=-200.0, target_gap=0.8, reward_scale=10.0, reward_shift=-5.0
    )
    algorithm = cql.make(config, SPEC)
    before = sharing.jit(algorithm.init)(jax.random.key(0), Normalizer.identity(SPEC.observation_dim))
    after, metrics = sharing.jit(algorithm.phase("offline").update)(
        before, random_batch(jax.random.key(1)), jax.random.key(2)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, metrics)))
    # the multiplier, e at first, weighs both critics' gaps, w = 10
    excess = metrics["gap"] - 0.8
    np.testing.assert_allclose(metrics["alpha_prime"], math.e, rtol=1e-6)
    np.testing.assert_allclose(metrics["critic_loss"], metrics["td_loss"] + 2 * 10 * math.e * excess, rtol=1e-5)
    np.testing.assert_allclose(metrics["alpha_prime_loss"], -10 * math.e * excess, rtol=1e-5)
    # the fresh critics' gap is about log 9, above the target: α' grows, by Adam's first step of the size of its rate
    assert excess > 0.0
    np.testing.assert_allclose(after.log_alpha_prime - before.log_alpha_prime, config.alpha_prime_lr, rtol=1e-3)


@pytest.mark.parametrize("normalize", [True, False])
def test_handoff_takes_raw_observations(normalize):
    normalizer = Normalizer(jnp.full(SPEC.observation_dim, 2.0), jnp.full(SPEC.observation_dim, 4.0))
    algorithm = cql.make(dataclasses.replace(TINY, normalize_observations=normalize), SPEC)
    state = sharing.jit(algorithm.init)(jax.random.key(0), normalizer)
    handoff = hand_over(algorithm, state)
    raw = jnp.arange(5.0)
    seen = (raw - 2.0) / 4.0 if normalize else raw
    expected = handoff.policy.actor.apply(state.actor, seen).mode()
    np.testing.assert_allclose(handoff.policy.distribution(raw).mode(), expected, rtol=1e-5)
    assert (handoff.source, handoff.policy.head) == ("cql", "tanh_gaussian")
    assert handoff.state is state


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("updates", -1),
        ("discount", 1.5),
        ("alpha", 0.0),
        ("alpha_lr", -1e-3),
        ("target_actions", 0),
        ("num_actions", 0),
        ("gap_temperature", 0.0),
        ("conservative_weight", -1.0),
        ("alpha_prime_lr", -1.0),
    ],
)
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got "):
        cql.Config(**{field: value})


def test_config_of_a_task_is_the_default():
    task = Task("mujoco/hopper-medium", "Hopper-v5", Spec(11, 3), 1_000, "o2o/hopper/medium-v0", False, -20.0, 3234.0)
    assert cql.Config.for_task(task) == cql.Config()


@pytest.mark.parametrize("name", ["antmaze/umaze", "antmaze/large-play", "pointmaze/medium"])
def test_config_of_a_sparse_task(name):
    expected = dataclasses.replace(
        cql.Config(),
        conservative_weight=5.0,
        target_gap=0.8,
        target_actions=10,
        gap_min=-200.0,
        actor_lr=1e-4,
        alpha_lr=1e-4,
        critic_lr=3e-4,
        alpha_prime_lr=3e-4,
        hidden=(256, 256, 256),
        critic_hidden=(256, 256, 256, 256, 256),
        normalize_observations=False,
        reward_scale=10.0,
        reward_shift=-5.0,
    )
    assert cql.Config.for_task(envs.get_task(name)) == expected


def test_blocks_of_states_are_the_whole_batch(monkeypatch):
    algorithm = cql.make(TINY, SPEC)
    random = np.random.default_rng(0)
    observation = random.standard_normal((8, SPEC.observation_dim), np.float32)
    action = np.tanh(random.standard_normal((8, SPEC.action_dim), np.float32))
    batch = Transition(observation, action, observation[:, 0], observation + 0.1, np.zeros(8, np.float32))
    state = algorithm.init(jax.random.key(0), Normalizer.identity(SPEC.observation_dim))
    whole, metrics = jax.jit(algorithm.phase("offline").update)(state, batch, jax.random.key(1))
    monkeypatch.setattr(cql.algorithm, "ACTIONS_AT_ONCE", 20)  # two states of ten actions each
    blocks, metrics_of_blocks = jax.jit(lambda *arguments: algorithm.phase("offline").update(*arguments))(
        state, batch, jax.random.key(1)
    )
    chex.assert_trees_all_close(metrics_of_blocks, metrics, rtol=1e-5)
    # Adam's moments: the gradient
    chex.assert_trees_all_close(blocks.opt.critic, whole.opt.critic, rtol=1e-4, atol=1e-7)
