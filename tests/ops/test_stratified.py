"""Draws by priorities: one per part of the sum, nothing without a priority, small ones beside large ones."""

import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.ops.stratified import stratified_draw


def test_stratified_draw_by_hand():
    # of eight parts of the sum 4, two belong to the row of 1 and six to that of 3; the others have none
    rows = stratified_draw(jax.random.key(0), jnp.array([0.0, 1.0, 0.0, 3.0, 0.0]), 8)
    np.testing.assert_array_equal(rows, [1, 1, 3, 3, 3, 3, 3, 3])


def test_stratified_draw_crosses_blocks():
    priority = jnp.zeros(3_000).at[jnp.array([5, 1_500, 2_999])].set(jnp.array([1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(stratified_draw(jax.random.key(1), priority, 4), [5, 1_500, 1_500, 2_999])
