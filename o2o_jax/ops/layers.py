"""Parts of layers, with backward passes whose sums are matrix products.

On a processor XLA hands products to a library; its own sums over rows or columns take several times as long
(`benchmarks/NOTES.md`).
"""

import jax
import jax.numpy as jnp

from o2o_jax.types import Array

_EXACT = jax.lax.Precision.HIGHEST  # sums are sums on accelerators too, where products may round their inputs


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """Multiplies x [..., D] by weights [D, W], to [..., W].

    The weights' gradient is a product whose result is [D, W] as it is. JAX's own rule transposes a result [W, D],
    and on a processor XLA may then transpose one of the factors, which have a row for every sample.
    """
    return jnp.matmul(x, kernel)


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(residuals, gradient):
    x, kernel = residuals
    rows, row_gradients = (y.reshape(-1, y.shape[-1]) for y in (x, gradient))
    by_x = jax.lax.dot_general(gradient, kernel, (((gradient.ndim - 1,), (1,)), ((), ())))
    return by_x, jax.lax.dot_general(rows, row_gradients, (((0,), (0,)), ((), ())))


product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """Adds a bias [W] to x [..., W]."""
    return x + jnp.broadcast_to(bias, x.shape)


def _add_bias_forward(x, bias):
    return add_bias(x, bias), None


def _add_bias_backward(_, gradient):
    return gradient, _column_sum(gradient)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@jax.custom_vjp
def layer_norm(x: Array, offset: Array, scale: Array, bias: Array, epsilon: float) -> Array:
    """Normalises y = x + offset over the last axis, then scales and shifts.

        (y − μ) / √(σ² + ε) · scale + bias,   μ and σ² of y over the last axis

    The layer's own bias is given apart from its product x, so that the sum of both need not be written down before
    its means are known.

    Args:
      x: [..., W].
      offset: [W].
      scale: [W].
      bias: [W].
      epsilon: ε > 0; no gradient.

    Returns:
      [..., W].

    Source: Ba et al. 2016, arXiv:1607.06450, Eq. 3.
    """
    return _layer_norm_forward(x, offset, scale, bias, epsilon)[0]


def _layer_norm_forward(x, offset, scale, bias, epsilon):
    # each by its own mean: of a large one, common to a row, every digit stays
    x_mean, centered_offset = _row_mean(x), offset - _row_mean(offset)
    inverse = jax.lax.rsqrt(_row_mean(jnp.square(_centered(x, x_mean, centered_offset))) + epsilon)
    normal = _centered(x, x_mean, centered_offset) * inverse
    y = normal * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)
    return y, (x, x_mean, centered_offset, inverse, scale)


def _centered(x: Array, x_mean: Array, centered_offset: Array) -> Array:
    return x - x_mean + jnp.broadcast_to(centered_offset, x.shape)


def _layer_norm_backward(residuals, gradient):
    x, x_mean, centered_offset, inverse, scale = residuals
    normal = _centered(x, x_mean, centered_offset) * inverse
    along_normal = gradient * normal
    # means of gradient · scale and of that · normal, as products with the scale: neither array has to be written down
    weights = scale[:, None] / scale.size
    mean_inner, mean_along = (jnp.matmul(y, weights, precision=_EXACT) for y in (gradient, along_normal))
    dx = inverse * (gradient * jnp.broadcast_to(scale, x.shape) - mean_inner - normal * mean_along)
    return dx, _column_sum(dx), _column_sum(along_normal), _column_sum(gradient), None


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _row_mean(x: Array) -> Array:
    """[..., W] -> [..., 1]."""
    width = x.shape[-1]
    return jnp.matmul(x, jnp.full((width, 1), 1.0 / width, x.dtype), precision=_EXACT)


def _column_sum(x: Array) -> Array:
    """[..., W] -> [W]."""
    return _sum_rows(x.reshape(-1, x.shape[-1]))


@jax.custom_batching.custom_vmap
def _sum_rows(x: Array) -> Array:
    """[..., R, W] -> [..., W]."""
    ones = jnp.ones((*x.shape[:-2], 1, x.shape[-2]), x.dtype)
    return jnp.matmul(ones, x, precision=_EXACT)[..., 0, :]


@_sum_rows.def_vmap
def _sum_rows_of_each(axis_size, in_batched, x):
    """As many products: of one factor for all, `vmap` would make a single product of a transposed copy."""
    del axis_size, in_batched
    return _sum_rows(x), True
