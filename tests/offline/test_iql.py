"""IQL: recorded updates, losses by hand, gradients, the schedule, a probe, settings."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.offline import iql
from o2o_jax.offline.iql import losses
from o2o_jax.policy import hand_over
from o2o_jax.training import gradient_step, run_updates
from o2o_jax.types import Spec, Transition
from tests import sharing, tiny
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden, member

TINY = iql.Config(hidden=(8,), critic_hidden=(8,))


class Value:
    """A stand-in: V(s) = p s."""

    def apply(self, params, observation):
        return params * observation[:, 0]


def golden_state(golden):
    algorithm = iql.make(iql.Config(), SPEC)
    actor, value = golden.params("actor", log_std=np.zeros(SPEC.action_dim)), golden.params("value")
    critic = golden.ensemble("q1", "q2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        state = algorithm.init(key, Normalizer.identity(SPEC.observation_dim))
        return state.replace(actor=actor, value=value, critic=critic, target_critic=critic)

    return algorithm, start(jax.random.key(0))


def test_golden_updates():
    golden = Golden("iql")
    algorithm, state = golden_state(golden)
    update = golden.replay("update", algorithm.phase("offline").update)
    for step in golden.steps("update"):
        state, metrics = update(state, step)
        found = {name: metrics[name] for name in ("value_loss", "actor_loss")} | {"q_loss": metrics["critic_loss"] / 2}
        log = golden.log("update", step)
        assert found.keys() == log.keys()
        for name, number in log.items():
            np.testing.assert_allclose(found[name], number, rtol=SCALAR_RTOL, err_msg=name)
        golden.check(
            "update",
            step,
            actor=state.actor,
            value=state.value,
            q1=member(state.critic, 0),
            q2=member(state.critic, 1),
        )
    assert step == 2


def test_value_loss_by_hand():
    # V = 2 s = 2, 4, Q = 3, 1: u = 1, −3.   (0.8 · 1 + 0.2 · 9) / 2 = 1.3
    observation, q = jnp.array([[1.0], [2.0]]), jnp.array([3.0, 1.0])
    loss, v = losses.value_loss(jnp.array(2.0), Value(), observation, q, expectile=0.8)
    np.testing.assert_allclose(loss, 1.3, rtol=1e-6)
    np.testing.assert_allclose(v, [2.0, 4.0])


def test_value_gradient_in_closed_form():
    # −2 mean( weight · u · s ) = −(0.8 · 1 · 1 − 0.2 · 3 · 2) = 0.4
    observation, q = jnp.array([[1.0], [2.0]]), jnp.array([3.0, 1.0])
    gradient, _ = jax.grad(losses.value_loss, has_aux=True)(jnp.array(2.0), Value(), observation, q, 0.8)
    np.testing.assert_allclose(gradient, 0.4, rtol=1e-6)


@functools.cache
def updated(config=TINY, updates=1):
    """The states before and after, and the metrics of the last update."""
    algorithm = iql.make(config, SPEC)
    normalizer = Normalizer(jnp.full(SPEC.observation_dim, 2.0), jnp.full(SPEC.observation_dim, 4.0))
    before = after = sharing.jit(algorithm.init)(jax.random.key(0), normalizer)
    update = sharing.jit(algorithm.phase("offline").update)
    for _ in range(updates):
        after, metrics = update(after, tiny.random_batch(SPEC), jax.random.key(1))
    return before, after, metrics


def test_everything_moves_but_the_transform():
    before, after, _ = updated()
    assert tiny.moved(before, after) == {"actor", "critic", "target_critic", "value", "opt", "step"}


def test_no_network_sees_another_one_that_moved():
    # all gradients at the old parameters: rates of the others don't change where a network goes
    settings = {"actor": "actor_lr", "critic": "critic_lr", "value": "value_lr"}
    _, after, _ = updated()
    for part, rate in settings.items():
        others = {name: 0.1 for name in settings.values() if name != rate}
        _, other, _ = updated(dataclasses.replace(TINY, **others))
        jax.tree.map(np.testing.assert_array_equal, getattr(after, part), getattr(other, part))


def test_the_target_critic_follows_by_the_polyak_rate():
    before, after, _ = updated()
    expected = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, before.target_critic, after.critic)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), after.target_critic, expected)


def test_without_advantage_weights_the_actor_clones():
    # b = 0: every weight is 1 and the loss the plain negative log-likelihood
    _, _, metrics = updated(dataclasses.replace(TINY, inverse_temperature=0.0))
    assert metrics["weight"] == 1.0
    np.testing.assert_allclose(metrics["actor_loss"], -metrics["log_prob"], rtol=1e-6)


def test_actor_rate_falls_by_a_cosine_over_the_offline_updates():
    # with one gradient throughout, Adam's steps have the size of the rate: (1 + cos(π t / 4)) / 2 of it at update t
    config = dataclasses.replace(TINY, updates=4)
    optimizer = iql.algorithm.make_networks(config, SPEC).actor_optimizer
    params = jnp.zeros(())
    state, steps = optimizer.init(params), []
    for _ in range(6):
        moved, state = gradient_step(optimizer, jnp.ones(()), state, params)
        steps.append(float(params - moved))
        params = moved
    falling = [0.5 * (1.0 + math.cos(math.pi * t / 4)) for t in range(4)]
    np.testing.assert_allclose(steps, config.actor_lr * np.array([*falling, 0.0, 0.0]), rtol=1e-4, atol=1e-9)


def test_the_actor_stands_still_after_the_schedule_and_the_rest_goes_on():
    config = dataclasses.replace(TINY, updates=2)
    _, end, _ = updated(config, 2)
    _, beyond, _ = updated(config, 3)
    assert tiny.moved(end, beyond) == {"critic", "target_critic", "value", "opt", "step"}


def test_online_schedules_fit_the_optimiser_state_that_is_handed_on():
    # whoever continues online at a constant rate takes the moments, not the schedule
    _, after, _ = updated(dataclasses.replace(TINY, updates=1))
    constant = optax.adam(optax.constant_schedule(3e-4))
    gradient = jax.tree.map(jnp.ones_like, after.actor)
    moved, _ = gradient_step(constant, gradient, after.opt.actor, after.actor)
    pairs = zip(*map(jax.tree.leaves, jax.device_get((moved, after.actor))), strict=True)
    assert all((a != b).all() for a, b in pairs)


def test_handoff_takes_raw_observations_and_brings_critics_and_value():
    _, state, _ = updated()
    handoff = hand_over(iql.make(TINY, SPEC), state)
    raw = jnp.arange(5.0)
    expected = handoff.policy.actor.apply(state.actor, (raw - 2.0) / 4.0).mode()
    np.testing.assert_allclose(handoff.policy.distribution(raw).mode(), expected, rtol=1e-6)
    assert (handoff.source, handoff.policy.head) == ("iql", "gaussian")
    assert handoff.state is state


def test_probe_values_are_expectiles_and_the_policy_leans_to_better_actions():
    # One state, Q(s, a) = a, actions uniform in [−1, 1]. The κ-expectile v has κ (1 − v)² = (1 − κ) (1 + v)²: for
    # κ = 0.9, (1 − v) / (1 + v) = 1/3 and v = 0.5. Weights exp(b (a − v)) draw the mean to coth b − 1 / b = 0.672.
    config = iql.Config(
        hidden=(16,), critic_hidden=(32, 32), batch_size=128, updates=1_000, polyak=0.05, expectile=0.9,
        inverse_temperature=3.0, actor_lr=3e-3, critic_lr=3e-3, value_lr=3e-3,
    )  # fmt: skip
    action = jnp.linspace(-1.0, 1.0, 512)[:, None]
    nothing = jnp.zeros((512, 1))
    dataset = Transition(nothing, action, action[:, 0], nothing, jnp.ones(512))
    algorithm = iql.make(config, Spec(observation_dim=1, action_dim=1))
    nets = iql.algorithm.make_networks(config, Spec(1, 1))

    def training(key):
        init_key, run_key = jax.random.split(key)
        state = algorithm.init(init_key, Normalizer.identity(1))
        state, _ = run_updates(
            algorithm.phase("offline").update, state, dataset, run_key, config.updates, config.batch_size
        )
        mode = hand_over(algorithm, state).policy.distribution(nothing[:1]).mode()
        q = nets.critic.apply(state.critic, nothing, action)
        return q, nets.value.apply(state.value, nothing[:1])[0], mode[0, 0]

    q, value, mode = tiny.over_keys(training)
    np.testing.assert_allclose(q, np.broadcast_to(action[:, 0], q.shape), atol=0.1)  # 5 % of the range
    # a tenth of the way to the mean and less: 0, for values and actions
    np.testing.assert_allclose(value, 0.5, atol=0.05)
    np.testing.assert_allclose(mode, 1.0 / math.tanh(3.0) - 1.0 / 3.0, atol=0.05)


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_targets_bootstrap_from_the_value_except_at_terminations(terminated):
    algorithm = iql.make(TINY, SPEC)
    state = sharing.jit(algorithm.init)(jax.random.key(0), Normalizer.identity(SPEC.observation_dim))
    batch = tiny.random_batch(SPEC, terminated=terminated)
    _, metrics = sharing.jit(algorithm.phase("offline").update)(state, batch, jax.random.key(1))
    nets = iql.algorithm.make_networks(TINY, SPEC)
    next_value = nets.value.apply(state.value, batch.next_observation)
    expected = jnp.mean(batch.reward + 0.99 * (1.0 - terminated) * next_value)
    np.testing.assert_allclose(metrics["target_q"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("updates", 0),
        ("actor_lr", 0.0),
        ("value_lr", 0.0),
        ("expectile", 0.0),
        ("expectile", 1.0),
        ("expectile", float("nan")),
        ("inverse_temperature", -1.0),
    ],
)
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got "):
        iql.Config(**{field: value})


def test_config_of_a_task():
    task = Task("mujoco/hopper-medium", "Hopper-v5", Spec(11, 3), 1_000, "o2o/hopper/medium-v0", False, -20.0, 3234.0)
    assert iql.Config.for_task(task) == iql.Config()
    task = dataclasses.replace(task, sparse_reward=True)
    assert iql.Config.for_task(task) == iql.Config(expectile=0.9, inverse_temperature=10.0, reward_shift=-1.0)
    task = dataclasses.replace(task, name="adroit/pen-cloned", sparse_reward=False)
    assert iql.Config.for_task(task) == iql.Config(expectile=0.8)
