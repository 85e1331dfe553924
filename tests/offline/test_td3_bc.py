"""TD3+BC: recorded updates, losses by hand, gradients, probes, settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.offline import td3_bc
from o2o_jax.offline.td3_bc import losses
from o2o_jax.ops.distributions import Deterministic
from o2o_jax.policy import hand_over
from o2o_jax.training import run_updates
from o2o_jax.types import Spec, Transition
from tests import sharing
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden, member
from tests.tiny import over_keys


class Linear:
    """A stand-in for networks: Q(s, a) = p (s + a), and π(s) = p."""

    def apply(self, params, observation, action=None):
        if action is None:
            return Deterministic(jnp.broadcast_to(params, observation.shape))
        return params * (observation + action)[..., 0]


def value(critic):
    return functools.partial(Linear().apply, critic)


OBSERVATION = jnp.array([[1.0], [3.0]])
ACTION = jnp.array([[0.5], [-0.5]])


def golden_state(golden):
    algorithm = td3_bc.make(td3_bc.Config(), SPEC)
    actor, critic = golden.params("actor"), golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        state = algorithm.init(key, Normalizer.identity(SPEC.observation_dim))
        return state.replace(actor=actor, target_actor=actor, critic=critic, target_critic=critic)

    return algorithm, start(jax.random.key(0))


def test_golden_updates():
    golden = Golden("td3_bc")
    algorithm, state = golden_state(golden)
    update = golden.replay("update", algorithm.phase("offline").update)
    for step in golden.steps("update"):
        state, metrics = update(state, step)
        for name, value in golden.log("update", step).items():
            np.testing.assert_allclose(metrics[name], value, rtol=SCALAR_RTOL, err_msg=name)
        golden.check(
            "update",
            step,
            actor=state.actor,
            critic_1=member(state.critic, 0),
            critic_2=member(state.critic, 1),
        )
    assert step == 2


def test_actor_loss_by_hand():
    # π = 0.2 at s = 1, 3: Q = 2 (1.2, 3.2), mean 4.4 and mean |Q| 4.4, so the first term is −2.5.
    # (0.2 − 0.5)² = 0.09 and (0.2 + 0.5)² = 0.49, mean 0.29
    loss, metrics = losses.actor_loss(jnp.array([0.2]), Linear(), value(2.0), OBSERVATION, ACTION, 2.5)
    np.testing.assert_allclose(loss, -2.5 + 0.29, rtol=1e-6)
    np.testing.assert_allclose(metrics["cloning_loss"], 0.29, rtol=1e-6)


def test_actor_gradient_in_closed_form():
    # −2.5 · dQ/dπ / sg(mean |Q|) + d/dπ mean (π − a)² = −2.5 · 2 / 4.4 + 2 (0.2 − 0); the scale is not differentiated
    gradient, _ = jax.grad(losses.actor_loss, has_aux=True)(
        jnp.array([0.2]), Linear(), value(2.0), OBSERVATION, ACTION, 2.5
    )
    np.testing.assert_allclose(gradient, [-5.0 / 4.4 + 0.4], rtol=1e-6)


def test_actor_gradient_does_not_depend_on_the_scale_of_q():
    def gradient(critic):
        return jax.grad(losses.actor_loss, has_aux=True)(
            jnp.array([0.2]), Linear(), value(critic), OBSERVATION, ACTION, 2.5
        )[0]

    np.testing.assert_allclose(gradient(2.0), gradient(2000.0), rtol=1e-5)


def random_batch(key, size=8):
    keys = jax.random.split(key, 4)
    return Transition(
        observation=jax.random.normal(keys[0], (size, SPEC.observation_dim)),
        action=jax.random.uniform(keys[1], (size, SPEC.action_dim), minval=-1.0, maxval=1.0),
        reward=jax.random.normal(keys[2], (size,)),
        next_observation=jax.random.normal(keys[3], (size, SPEC.observation_dim)),
        terminated=jnp.zeros(size),
    )


def changed(before, after):
    pairs = zip(*map(jax.tree.leaves, jax.device_get((before, after))), strict=True)
    return any(bool((a != b).any()) for a, b in pairs)


@pytest.mark.parametrize("policy_delay", [1, 2])
def test_actor_and_targets_move_every_policy_delay_updates_only(policy_delay):
    config = td3_bc.Config(hidden=(8,), critic_hidden=(8,), policy_delay=policy_delay)
    algorithm = td3_bc.make(config, SPEC)
    state = sharing.jit(algorithm.init)(jax.random.key(0), Normalizer.identity(SPEC.observation_dim))
    update = sharing.jit(algorithm.phase("offline").update)
    for count in range(1, 5):
        previous = state
        state, metrics = update(state, random_batch(jax.random.key(count)), jax.random.key(count))
        moves = count % policy_delay == 0
        assert changed(previous.critic, state.critic)
        for part in ("actor", "target_actor", "target_critic"):
            assert changed(getattr(previous, part), getattr(state, part)) == moves, part
        assert changed(previous.opt.actor, state.opt.actor) == moves
        assert bool(jnp.isnan(metrics["actor_loss"])) == (not moves)
        assert not changed(previous.transform, state.transform)
        assert state.step == count


def test_handoff_takes_raw_observations():
    normalizer = Normalizer(jnp.full(SPEC.observation_dim, 2.0), jnp.full(SPEC.observation_dim, 4.0))
    algorithm = td3_bc.make(td3_bc.Config(hidden=(8,), critic_hidden=(8,)), SPEC)
    state = sharing.jit(algorithm.init)(jax.random.key(0), normalizer)
    handoff = hand_over(algorithm, state)
    raw = jnp.arange(5.0)
    expected = handoff.policy.actor.apply(state.actor, (raw - 2.0) / 4.0).mode()
    np.testing.assert_allclose(handoff.policy.distribution(raw).mode(), expected, rtol=1e-6)
    assert (handoff.source, handoff.policy.head) == ("td3_bc", "deterministic")
    assert handoff.state is state


def test_update_transforms_observations_and_rewards():
    # raw batches with a transform equal transformed batches without one
    batch = random_batch(jax.random.key(1))
    settings = {"hidden": (8,), "critic_hidden": (8,), "policy_delay": 1}
    plain = td3_bc.make(td3_bc.Config(**settings), SPEC)
    scaled = td3_bc.make(td3_bc.Config(**settings, reward_scale=10.0, reward_shift=-5.0), SPEC)
    normalizer = Normalizer(jnp.arange(5.0), 1.0 + jnp.arange(5.0))
    state = sharing.jit(scaled.init)(jax.random.key(0), normalizer)
    transformed = state.transform(batch)
    np.testing.assert_allclose(transformed.reward, 10.0 * batch.reward - 5.0)
    bare = sharing.jit(plain.init)(jax.random.key(0), Normalizer.identity(SPEC.observation_dim))
    found, _ = sharing.jit(scaled.phase("offline").update)(state, batch, jax.random.key(2))
    expected, _ = sharing.jit(plain.phase("offline").update)(bare, transformed, jax.random.key(2))
    for part in ("actor", "critic"):
        leaves = zip(*(jax.tree.leaves(getattr(after, part)) for after in (found, expected)), strict=True)
        assert all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in leaves), part


PROBE_CONFIG = td3_bc.Config(
    hidden=(16,), critic_hidden=(32, 32), batch_size=64, discount=0.9, polyak=0.05, actor_lr=1e-3, critic_lr=3e-3
)


def probe(reward, terminated, updates):
    """Trains on an MDP with random states and actions, over keys: values of the critics [5, E, N], and rewards [N]."""
    keys = jax.random.split(jax.random.key(0), 3)
    action = jax.random.uniform(keys[0], (512, 1), minval=-1.0, maxval=1.0)
    observation = jax.random.normal(keys[1], (512, 2))
    dataset = Transition(
        observation=observation,
        action=action,
        reward=reward(observation, action),
        next_observation=jax.random.normal(keys[2], (512, 2)),
        terminated=jnp.full(512, terminated),
    )
    spec = Spec(observation_dim=2, action_dim=1)
    algorithm = td3_bc.make(PROBE_CONFIG, spec)
    critic = td3_bc.algorithm.make_networks(PROBE_CONFIG, spec).critic

    def training(key):
        init_key, run_key = jax.random.split(key)
        state = algorithm.init(init_key, Normalizer.identity(2))
        state, _ = run_updates(
            algorithm.phase("offline").update, state, dataset, run_key, updates, PROBE_CONFIG.batch_size
        )
        return critic.apply(state.critic, observation, action)

    return over_keys(training), np.asarray(dataset.reward)


def test_probe_one_step_episodes_are_worth_their_reward():
    q, reward = probe(lambda s, a: s[:, 0] + 2.0 * a[:, 0], terminated=1.0, updates=1_000)
    np.testing.assert_array_less(np.mean(np.abs(q - reward), axis=(1, 2)), 0.1)  # of rewards between −5 and 5


def test_probe_time_limits_do_not_stop_bootstrapping():
    q, _ = probe(lambda s, a: jnp.ones(len(s)), terminated=0.0, updates=2_000)
    np.testing.assert_allclose(q, 1.0 / (1.0 - PROBE_CONFIG.discount), rtol=0.05)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("updates", 0),
        ("batch_size", 0),
        ("hidden", ()),
        ("critic_hidden", (256, 0)),
        ("discount", 1.0),
        ("discount", 0.0),
        ("polyak", 0.0),
        ("actor_lr", 0.0),
        ("critic_lr", -1e-3),
        ("reward_scale", 0.0),
        ("alpha", -1.0),
        ("policy_noise", -0.1),
        ("noise_clip", -0.5),
        ("policy_delay", 0),
        ("alpha", float("nan")),
    ],
)
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got "):
        td3_bc.Config(**{field: value})


def test_config_of_a_task_is_the_default():
    task = Task("mujoco/hopper-medium", "Hopper-v5", Spec(11, 3), 1_000, "o2o/hopper/medium-v0", False, -20.0, 3234.0)
    assert td3_bc.Config.for_task(task) == td3_bc.Config()


@pytest.mark.parametrize("name", ["antmaze/umaze", "antmaze/large-play", "pointmaze/medium"])
def test_config_of_a_sparse_task(name):
    config = td3_bc.Config.for_task(envs.get_task(name))
    assert config == dataclasses.replace(td3_bc.Config(), reward_shift=-1.0)
