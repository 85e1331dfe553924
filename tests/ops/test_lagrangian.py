import hypothesis.strategies as some
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from o2o_jax.ops.lagrangian import lagrange_loss, linear_threshold, temperature_loss


@pytest.mark.parametrize(("env_steps", "expected"), [(0, 0.125), (50_000, 1.0625), (100_000, 2.0), (200_000, 2.0)])
def test_threshold_is_linear_then_constant(env_steps, expected):
    np.testing.assert_allclose(linear_threshold(jnp.asarray(env_steps), 0.125, 2.0, 100_000), expected, rtol=1e-6)


def test_violated_constraint_raises_lagrange():
    gradient = jax.grad(lagrange_loss)(0.0, divergence=1.5, threshold=0.5, asymmetry=0.7)
    np.testing.assert_allclose(gradient, -0.7, rtol=1e-6)  # λ · 0.7 · (τ − f): descent makes λ grow


def test_satisfied_constraint_lowers_lagrange_more_slowly():
    gradient = jax.grad(lagrange_loss)(0.0, divergence=0.5, threshold=1.5, asymmetry=0.7)
    np.testing.assert_allclose(gradient, 0.3, rtol=1e-6)


def test_lagrange_loss_by_hand():
    # λ = 2, u = (1, −2): 2 · (0.3 · 1 + 0.7 · (−2)) / 2 = −1.1; the weight is chosen per sample
    loss = lagrange_loss(jnp.log(2.0), jnp.array([0.0, 3.0]), threshold=1.0, asymmetry=0.7)
    np.testing.assert_allclose(loss, -1.1, rtol=1e-6)


def test_lagrange_loss_moves_lagrange_alone():
    gradients = jax.grad(lagrange_loss, argnums=(0, 1, 2))(0.0, jnp.array([1.5, 0.0]), 0.5, 0.7)
    assert gradients[0] != 0.0
    assert not jnp.any(gradients[1])
    assert gradients[2] == 0.0


def test_temperature_loss_by_hand():
    # −log 2 · ( (−1 − 2) / 2 + (−3) ) = 4.5 log 2
    loss = temperature_loss(jnp.log(2.0), jnp.array([-1.0, -2.0]), target_entropy=-3.0)
    np.testing.assert_allclose(loss, 4.5 * np.log(2.0), rtol=1e-6)


def test_temperature_rises_while_the_entropy_is_below_its_target():
    # entropy −log π = −5 below H̄ = −3: gradient −(5 − 3) makes log α grow; entropy 1 above it: 4 makes it fall
    np.testing.assert_allclose(jax.grad(temperature_loss)(0.0, jnp.array([5.0]), -3.0), -2.0)
    np.testing.assert_allclose(jax.grad(temperature_loss)(0.0, jnp.array([-1.0]), -3.0), 4.0)


def test_temperature_loss_moves_the_temperature_alone():
    assert not jnp.any(jax.grad(temperature_loss, argnums=1)(1.0, jnp.array([5.0, 1.0]), -3.0))


THRESHOLDS = some.floats(0.0, 10.0, width=32)


@given(
    start=THRESHOLDS,
    end=THRESHOLDS,
    ramp=some.integers(1, 10**6),
    steps=some.lists(some.integers(0, 10**7), min_size=2),
)
def test_threshold_goes_one_way_and_stays_between_its_ends(start, end, ramp, steps):
    found = np.array([linear_threshold(jnp.asarray(step), start, end, ramp) for step in [0, *sorted(steps), 10**7]])
    np.testing.assert_allclose(found[[0, -1]], [start, end], rtol=1e-5, atol=1e-6)
    assert np.all(np.diff(found) * np.sign(end - start) >= -1e-5)
    assert np.all((found >= min(start, end) - 1e-5) & (found <= max(start, end) + 1e-5))


@given(
    divergence=some.lists(some.floats(0.0, 100.0, width=32), min_size=3, max_size=3),
    threshold=THRESHOLDS,
    asymmetry=some.floats(0.5, 0.95),
)
def test_lagrange_rises_where_all_violate_and_falls_where_none_does(divergence, threshold, asymmetry):
    gradient = float(jax.grad(lagrange_loss)(0.0, jnp.array(divergence), threshold, asymmetry))
    if min(divergence) > threshold:
        assert gradient < 0.0
    elif max(divergence) < threshold:
        assert gradient > 0.0
    assert abs(gradient) <= 100.0
