import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.types import Transition

BATCH = Transition(
    observation=jnp.array([[1.0, 10.0], [3.0, 30.0]]),
    action=jnp.array([[0.1], [0.2]]),
    reward=jnp.array([1.0, 2.0]),
    next_observation=jnp.array([[3.0, 30.0], [5.0, 50.0]]),
    terminated=jnp.array([0.0, 1.0]),
)


def test_fit_by_hand():
    # means 2 and 20, deviations 1 and 10, each with 1e-3 on top
    normalizer = Normalizer.fit(BATCH.observation)
    np.testing.assert_allclose(normalizer.mean, [2.0, 20.0])
    np.testing.assert_allclose(normalizer.std, [1.001, 10.001], rtol=1e-6)
    np.testing.assert_allclose(normalizer(BATCH.observation), [[-1 / 1.001, -10 / 10.001], [1 / 1.001, 10 / 10.001]])


def test_constant_observations_are_no_division_by_zero():
    normalizer = Normalizer.fit(jnp.full((5, 2), 7.0))
    np.testing.assert_allclose(normalizer(jnp.full((3, 2), 7.0)), np.zeros((3, 2)))


def test_normalizer_takes_any_leading_axes():
    normalizer = Normalizer.fit(BATCH.observation)
    single = normalizer(BATCH.observation[0])
    np.testing.assert_allclose(normalizer(BATCH.observation)[0], single)
    np.testing.assert_allclose(normalizer(BATCH.observation[None, :, None])[0, 0, 0], single)


def test_identity_changes_nothing():
    np.testing.assert_array_equal(Normalizer.identity(2)(BATCH.observation), BATCH.observation)


def test_transform_by_hand():
    transform = Transform(
        Normalizer(jnp.array([1.0, 10.0]), jnp.array([2.0, 20.0])), reward_scale=10.0, reward_shift=-5.0
    )
    found = transform(BATCH)
    np.testing.assert_allclose(found.observation, [[0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(found.next_observation, [[1.0, 1.0], [2.0, 2.0]])
    np.testing.assert_allclose(found.reward, [5.0, 15.0])  # 10 r − 5
    np.testing.assert_array_equal(found.action, BATCH.action)
    np.testing.assert_array_equal(found.terminated, BATCH.terminated)


def test_transform_holds_only_its_normalizer_as_arrays():
    # settings are static, so that a state saves and vmaps as arrays only
    assert len(jax.tree.leaves(Transform(Normalizer.identity(2), 10.0, -5.0))) == 2
