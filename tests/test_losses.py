"""Losses that algorithms share, by hand and their gradients, on critics that are linear."""

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.losses import align_and_retain_loss, lowest_value, td_loss


class Twins:
    """A stand-in for an ensemble: Q_i(s, a) = p_i (s + a), parameters [E], values [E, ...]."""

    def apply(self, params, observation, action):
        return jax.vmap(lambda p: p * (observation + action)[..., 0])(params)


OBSERVATION = jnp.array([[1.0], [3.0]])
ACTION = jnp.array([[0.5], [-0.5]])


def test_lowest_value_is_the_lower_twin_by_hand():
    # sums s + a are 1.5 and 2.5.   params 2: 3, 5.   params −1: −1.5, −2.5, the lower.
    value = lowest_value(jnp.array([2.0, -1.0]), Twins(), OBSERVATION, ACTION)
    np.testing.assert_allclose(value, [-1.5, -2.5])


def test_td_loss_by_hand():
    # Q₁ = 1.5, 2.5 and Q₂ = 3, 5 against y = 1, 2:   (0.25 + 0.25) / 2  +  (4 + 9) / 2 = 6.75
    loss, metrics = td_loss(jnp.array([1.0, 2.0]), Twins(), OBSERVATION, ACTION, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(loss, 6.75)
    np.testing.assert_allclose([metrics["q"], metrics["target_q"]], [3.0, 1.5])


def test_td_gradient_in_closed_form():
    # Q₁ = p (1.5, 2.5), y = (1, 2), p = 1: mean of 2 (0.5) 1.5 and 2 (0.5) 2.5; p = 2: of 2 (2) 1.5 and 2 (3) 2.5
    gradient, _ = jax.grad(td_loss, has_aux=True)(
        jnp.array([1.0, 2.0]), Twins(), OBSERVATION, ACTION, jnp.array([1.0, 2.0])
    )
    np.testing.assert_allclose(gradient, [2.0, 10.5])


STATES = jnp.stack([OBSERVATION, OBSERVATION])
ACTIONS = jnp.stack([ACTION, jnp.zeros((2, 1))])  # probes, then the policy's own


def test_align_and_retain_loss_by_hand():
    # Probes: Q₁ = 1.5, 2.5 and Q₂ = 3, 5 against 1, 2: 0.25 + 6.5.   Own: Q₁ = 1, 3 and Q₂ = 2, 6 against 1, 3: 0 + 5.
    # The lower critic says 1.5 > 1, overestimated, and 2.5 < 3.
    loss, metrics = align_and_retain_loss(
        jnp.array([1.0, 2.0]), Twins(), STATES, ACTIONS, jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0])
    )
    np.testing.assert_allclose(loss, 11.75)
    found = [metrics[name] for name in ("align_loss", "retain_loss", "critic_loss", "overestimated")]
    np.testing.assert_allclose(found, [6.75, 5.0, 11.75, 0.5])


def test_each_critic_may_have_a_target_of_its_own():
    # each probe's own value: the first term vanishes
    target = jnp.array([[1.5, 2.5], [3.0, 5.0]])
    _, metrics = align_and_retain_loss(jnp.array([1.0, 2.0]), Twins(), STATES, ACTIONS, target, jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(metrics["align_loss"], 0.0)


def test_targets_of_alignment_are_constants():
    def loss(target, target_mode):
        return align_and_retain_loss(jnp.array([1.0, 2.0]), Twins(), STATES, ACTIONS, target, target_mode)[0]

    gradients = jax.grad(loss, argnums=(0, 1))(jnp.array([1.0, 2.0]), jnp.array([1.0, 3.0]))
    assert not any(bool(jnp.any(gradient)) for gradient in gradients)
