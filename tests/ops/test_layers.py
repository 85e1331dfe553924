"""Layers with backward passes of their own, beside plain formulas, whose gradients come from JAX."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.networks.mlp import MLP
from o2o_jax.ops.layers import add_bias, layer_norm, product

SHAPES = [(5,), (3, 5), (2, 3, 5)]


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@jax.jit
def plain_layer_norm(x, offset, scale, bias):
    y = x + jnp.broadcast_to(offset, x.shape)
    normal = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)
    return normal * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)


def weighted(function, weights, *arguments):
    """A scalar whose gradient differs from element to element."""
    return jnp.sum(function(*arguments) * weights)


def test_layer_norm_by_hand():
    # of 1 + 0, 5 − 2 the mean is 2 and σ is 1: −1 and 1, times 2 and 4, plus 10
    vectors = jnp.array([[1.0, 5.0], [0.0, -2.0], [2.0, 4.0], [10.0, 10.0]])
    y = layer_norm(*vectors, 1e-12)
    np.testing.assert_allclose(y, [8.0, 14.0], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_and_its_gradient(shape):
    arguments = draw(*shape), *(draw(5, seed=seed) for seed in (1, 2, 4))
    weights = draw(*shape, seed=3)
    np.testing.assert_allclose(layer_norm(*arguments, 1e-5), plain_layer_norm(*arguments), rtol=1e-5, atol=1e-6)
    found, wanted = (
        jax.jit(jax.grad(functools.partial(weighted, function, weights), argnums=(0, 1, 2, 3)))(*arguments)
        for function in (lambda *a: layer_norm(*a, 1e-5), plain_layer_norm)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def test_layer_norm_of_large_means_keeps_its_digits():
    # E[x²] − E[x]² would have lost them: the squares are 10⁸, the variance 1
    x, offset = draw(4, 64) + 1e4, draw(64, seed=1) + 1e4
    np.testing.assert_allclose(
        layer_norm(x, offset, jnp.ones(64), jnp.zeros(64), 1e-5),
        plain_layer_norm(x - 1e4, offset - 1e4, 1.0, 0.0),
        rtol=1e-2,
        atol=5e-3,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_product_and_its_gradient(shape):
    x, kernel, weights = draw(*shape), draw(5, 7, seed=1), draw(*shape[:-1], 7, seed=3)
    np.testing.assert_allclose(product(x, kernel), np.asarray(x) @ np.asarray(kernel), rtol=1e-5, atol=1e-6)
    found, wanted = (
        jax.jit(jax.grad(functools.partial(weighted, function, weights), argnums=(0, 1)))(x, kernel)
        for function in (product, jnp.matmul)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_products_of_many_are_those_of_each(axes):
    @jax.jit
    def gradient(x, kernel):
        return jax.grad(functools.partial(weighted, product, weights), argnums=(0, 1))(x, kernel)

    weights = draw(3, 7, seed=3)
    x, kernel = (
        draw(*(() if axis is None else (4,)), *shape) for axis, shape in zip(axes, [(3, 5), (5, 7)], strict=True)
    )
    together = jax.vmap(gradient, axes)(x, kernel)
    for i in range(4):
        alone = gradient(*(a if axis is None else a[i] for a, axis in zip((x, kernel), axes, strict=True)))
        for found, wanted in zip(together, alone, strict=True):
            np.testing.assert_allclose(found[i], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_add_bias_and_its_gradient(shape):
    x, bias, weights = draw(*shape), draw(5, seed=1), draw(*shape, seed=3)
    np.testing.assert_array_equal(add_bias(x, bias), np.asarray(x) + np.asarray(bias))
    found, wanted = (
        jax.jit(jax.grad(functools.partial(weighted, function, weights), argnums=(0, 1)))(x, bias)
        for function in (add_bias, lambda x, bias: x + jnp.broadcast_to(bias, x.shape))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


@pytest.mark.parametrize("axes", [(0, 0, 0, 0), (0, None, None, None), (None, 0, 0, 0)])
def test_under_vmap_each_row_of_arguments_is_as_alone(axes):
    @jax.jit
    def gradient(*arguments):
        return jax.grad(functools.partial(weighted, lambda *a: layer_norm(*a, 1e-5), weights), (0, 1, 2, 3))(*arguments)

    weights = draw(3, 5, seed=3)
    arguments = [
        draw(*(() if axis is None else (4,)), *shape, seed=i)
        for i, (axis, shape) in enumerate(zip(axes, ((3, 5), (5,), (5,), (5,)), strict=True))
    ]
    together = jax.vmap(gradient, axes)(*arguments)
    for row in range(4):
        alone = gradient(*(a if axis is None else a[row] for a, axis in zip(arguments, axes, strict=True)))
        jax.tree.map(lambda a, b, r=row: np.testing.assert_allclose(a[r], b, rtol=1e-4, atol=1e-5), together, alone)


def test_a_network_is_flax_s_own():
    class Flax(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (8, 6):
                x = nn.relu(nn.LayerNorm(epsilon=1e-5)(nn.Dense(width)(x)))
            return x

    x, weights = draw(7, 4), draw(7, 6, seed=1)
    network = MLP((8, 6), layer_norm=True)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1, jax.jit(Flax().init)(jax.random.key(0), x)
    )  # biases of 0 would show less
    ours, theirs = (
        jax.jit(jax.value_and_grad(lambda params, module=module: jnp.sum(module.apply(params, x) * weights)))(params)
        for module in (network, Flax())
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
