"""Losses that several algorithms share, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.losses import align_and_retain_loss, lowest_value, td_loss


class Critic:
    """A stand-in for an ensemble: Q_i(s, a) = p_i + s a, parameters [E], values [E, ...]."""

    def apply(self, params, observation, action):
        return jax.vmap(lambda p: p + (observation * action)[..., 0])(params)


OBSERVATION = jnp.array([[1.0], [2.0]])
ACTION = jnp.array([[0.5], [-0.5]])  # s a = 0.5, −1


def test_lowest_value():
    np.testing.assert_allclose(lowest_value(jnp.array([1.0, -1.0]), Critic(), OBSERVATION, ACTION), [-0.5, -2.0])


def test_td_loss_by_hand():
    # Q₁ = 0.5, −1 and Q₂ = 2.5, 1 against y = 1, 1:   (0.25 + 4) / 2  +  (2.25 + 0) / 2 = 3.25
    loss, metrics = td_loss(jnp.array([0.0, 2.0]), Critic(), OBSERVATION, ACTION, jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(loss, 3.25)
    np.testing.assert_allclose(metrics["q"], (0.5 - 1.0 + 2.5 + 1.0) / 4)
    np.testing.assert_allclose(metrics["target_q"], 1.0)


def test_td_gradient_in_closed_form():
    # of each critic alone: 2 mean (Q_i − y) = (−0.5 − 2, 1.5 + 0)
    gradient, _ = jax.grad(td_loss, has_aux=True)(
        jnp.array([0.0, 2.0]), Critic(), OBSERVATION, ACTION, jnp.array([1.0, 1.0])
    )
    np.testing.assert_allclose(gradient, [-2.5, 1.5])


STATES = jnp.stack([OBSERVATION, OBSERVATION])
ACTIONS = jnp.stack([ACTION, jnp.zeros_like(ACTION)])  # probes and the policy's own
PARAMS = jnp.array([0.0, 2.0])


def test_align_and_retain_loss_by_hand():
    # probes: Q₁ = 0.5, −1 and Q₂ = 2.5, 1 against targets of their own (1, 0) and (2, 1):
    #   (0.25 + 1) / 2 + (0.25 + 0) / 2 = 0.75.   The policy's own: Q₁ = 0 and Q₂ = 2 against 1, 2:
    #   (1 + 4) / 2 + (1 + 0) / 2 = 3.   The lower Q of the probes is 0.5, −1, that of the policy's own 0: one is over
    target, mode_target = jnp.array([[1.0, 0.0], [2.0, 1.0]]), jnp.array([1.0, 2.0])
    loss, metrics = align_and_retain_loss(PARAMS, Critic(), STATES, ACTIONS, target, mode_target)
    expected = {"align_loss": 0.75, "retain_loss": 3.0, "critic_loss": 3.75, "overestimated": 0.5}
    expected |= {"q": 0.75, "q_mode": 1.0, "target_q": 1.0}
    np.testing.assert_allclose(loss, 3.75)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, err_msg=name)


def test_one_target_serves_all_critics():
    target, mode_target = jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0])
    one, _ = align_and_retain_loss(PARAMS, Critic(), STATES, ACTIONS, target, mode_target)
    both, _ = align_and_retain_loss(PARAMS, Critic(), STATES, ACTIONS, jnp.stack([target, target]), mode_target)
    np.testing.assert_allclose(one, both)


def test_targets_of_alignment_get_no_gradient():
    arguments = (PARAMS, Critic(), STATES, ACTIONS, jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0]))
    gradients, _ = jax.grad(align_and_retain_loss, argnums=(4, 5), has_aux=True)(*arguments)
    jax.tree.map(lambda gradient: np.testing.assert_array_equal(gradient, 0.0), gradients)
