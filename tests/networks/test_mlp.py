"""Initialisation of the layers."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.networks.mlp import orthogonal


def primitives(jaxpr):
    """Every operation of a program and of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from primitives(inner)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_rows_or_columns_are_orthonormal(shape):
    kernel = orthogonal(jax.random.key(0), shape)
    product = kernel.T @ kernel if shape[0] >= shape[1] else kernel @ kernel.T
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-5)


def test_under_vmap_each_key_draws_what_it_draws_alone():
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(lambda key: orthogonal(key, (4, 2)))(keys)
    np.testing.assert_allclose(together, jnp.stack([orthogonal(key, (4, 2)) for key in keys]), rtol=1e-6)


def test_decompositions_are_not_batched():
    # jaxlib's batched ones wait for threads of the pool that they run in: two at once deadlocked on two threads
    keys = jax.random.split(jax.random.key(0), (2, 3))
    draw = jax.vmap(jax.vmap(lambda key: orthogonal(key, (4, 4))))
    ranks = {
        operation.invars[0].aval.ndim
        for operation in primitives(jax.make_jaxpr(draw)(keys).jaxpr)
        if operation.primitive.name in ("qr", "geqrf", "householder_product")
    }
    assert ranks == {2}
