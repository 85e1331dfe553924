"""Behaviour cloning: what it minimises, on which part of the data, with which head."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Task
from o2o_jax.offline import bc, td3_bc
from o2o_jax.policy import hand_over
from o2o_jax.training import run_updates
from o2o_jax.types import Spec, Transition
from tests import sharing, tiny

SPEC = Spec(observation_dim=5, action_dim=3)
NORMALIZER = Normalizer(jnp.full(SPEC.observation_dim, 2.0), jnp.full(SPEC.observation_dim, 4.0))


def start(**settings):
    algorithm = bc.make(bc.Config(hidden=(8,), **settings), SPEC)
    return algorithm, sharing.jit(algorithm.init)(jax.random.key(0), NORMALIZER)


def test_loss_is_the_squared_error_to_the_data_s_actions():
    algorithm, state = start()
    batch = tiny.random_batch(SPEC)
    _, metrics = algorithm.phase("offline").update(state, batch, jax.random.key(1))
    mode = state.student.actor.apply(state.student.params, (batch.observation - 2.0) / 4.0).mode()
    np.testing.assert_allclose(metrics["mse"], jnp.mean(jnp.square(mode - batch.action)), rtol=1e-6)


def test_rewards_and_successors_do_not_count():
    algorithm, state = start()
    batch = tiny.random_batch(SPEC)
    other = batch.replace(reward=-batch.reward, next_observation=-batch.next_observation, terminated=jnp.ones(16))
    states = [
        sharing.jit(algorithm.phase("offline").update)(state, rows, jax.random.key(1))[0] for rows in (batch, other)
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


def one_state(config, action, updates):
    """Mode [5] and σ's logarithm, where there is one, at the one state of a dataset with these actions [N, 1]."""
    nothing = jnp.zeros((len(action), 1))
    dataset = Transition(nothing, action, nothing[:, 0], nothing, nothing[:, 0])
    algorithm = bc.make(config, Spec(observation_dim=1, action_dim=1))

    def training(key):
        init_key, run_key = jax.random.split(key)
        state = algorithm.init(init_key, Normalizer.identity(1))
        state, _ = run_updates(algorithm.phase("offline").update, state, dataset, run_key, updates, config.batch_size)
        distribution = hand_over(algorithm, state).policy.distribution(nothing[:1])
        return distribution.mode()[0, 0], getattr(distribution, "log_std", None)

    return tiny.over_keys(training)


def test_probe_a_deterministic_clone_takes_the_mean_action():
    action = jnp.where(jnp.arange(100) < 75, 0.8, 0.0)[:, None]
    mode, _ = one_state(bc.Config(hidden=(16,), batch_size=512, lr=3e-3), action, 400)
    np.testing.assert_allclose(mode, 0.6, atol=0.05)  # a quarter of the way to the commonest action


def test_probe_a_stochastic_clone_has_the_data_s_spread():
    # actions of N(0.2, 0.4²), of entropy ½ log(2πe) + log 0.4 = 0.5 nats, above the floor of −1: nothing but likelihood
    action = jnp.clip(0.2 + 0.4 * jax.random.normal(jax.random.key(3), (2_000, 1)), -1.0, 1.0)
    config = bc.Config(head="gaussian", hidden=(16,), batch_size=2_000, lr=5e-3, entropy_lr=5e-2)
    mode, log_std = one_state(config, action, 800)
    # the likeliest normal has the mean and the spread of these very actions
    np.testing.assert_allclose(mode, np.mean(action), atol=0.05)  # an eighth of the spread
    np.testing.assert_allclose(log_std, math.log(np.std(action)), atol=0.15)


@pytest.mark.parametrize("head", networks.HEADS)
def test_handoff_has_the_head_that_was_asked_for(head):
    algorithm, state = start(head=head)
    handoff = hand_over(algorithm, state)
    assert (handoff.source, handoff.policy.head, handoff.policy.actor.hidden) == ("bc", head, (8,))
    assert handoff.state is state
    assert jnp.all(state.student.params["params"]["MLP_0"]["Dense_0"]["bias"] != 0.0)  # PyTorch's initial weights
    raw = jnp.arange(5.0)
    expected = handoff.policy.actor.apply(state.student.params, (raw - 2.0) / 4.0).mode()
    np.testing.assert_allclose(handoff.policy.distribution(raw).mode(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("fraction", "episodes"),
    [
        (1.0, [0, 1, 2, 3, 4]),
        (0.5, [1, 3]),  # 2.5 of five, rounded down
        (0.1, [3]),  # never less than one
    ],
)
def test_best_fraction_by_hand(fraction, episodes):
    algorithm = bc.make(bc.Config(best_fraction=fraction), SPEC)
    part = algorithm.select(tiny.make_dataset([1.0, 5.0, -2.0, 7.0, 3.0]))
    assert part.transitions.observation[::2, 0].tolist() == [2.0 * episode for episode in episodes]


def test_other_algorithms_train_on_all_of_the_data():
    dataset = tiny.make_dataset([1.0, 2.0])
    assert td3_bc.make(td3_bc.Config(), SPEC).select(dataset) is dataset


@pytest.mark.parametrize(
    ("field", "value"),
    [("updates", 0), ("lr", 0.0), ("best_fraction", 0.0), ("best_fraction", 1.1), ("best_fraction", float("nan"))],
)
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got "):
        bc.Config(**{field: value})


def test_config_of_a_task_is_the_default():
    task = Task("mujoco/hopper-medium", "Hopper-v5", Spec(11, 3), 1_000, "o2o/hopper/medium-v0", False, -20.0, 3234.0)
    assert bc.Config.for_task(task) == bc.Config()
