import jax
import jax.numpy as jnp
import numpy as np

from o2o_jax.data.transform import Normalizer, RewardScale, Transform
from o2o_jax.types import Rollout, Transition

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


def test_transform_keeps_the_kind_of_rows():
    transform = Transform(Normalizer.identity(2))
    rollout = transform(Rollout(**vars(BATCH), truncated=jnp.array([1.0, 0.0])))
    np.testing.assert_array_equal(rollout.ended, [1.0, 1.0])


def test_reward_scale_by_hand():
    # sums with γ = 0.5: 1, 2 + 0.5 = 2.5, then anew 3, 4 + 1.5 = 5.5: mean 3, deviations −2, −0.5, 0, 2.5
    scale = RewardScale.start().update(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0.0, 1.0, 0.0, 0.0]), 0.5)
    variance = (4 + 0.25 + 0 + 6.25) / 4
    np.testing.assert_allclose(
        [scale.sums.count, scale.sums.mean, scale.sums.variance, scale.last], [4, 3, variance, 5.5]
    )
    np.testing.assert_allclose(scale(jnp.array([2.0, -1.0])), np.array([2, -1]) / variance**0.5, rtol=1e-6)


def test_reward_scale_starts_with_none():
    np.testing.assert_allclose(RewardScale.start()(jnp.array([2.0, -1.0])), [2.0, -1.0], rtol=1e-6)


def test_reward_scale_goes_on_where_it_stopped():
    keys = jax.random.split(jax.random.key(0), 2)
    reward = 3.0 + jax.random.normal(keys[0], (60,))
    ended = jax.random.bernoulli(keys[1], 0.1, (60,)).astype(jnp.float32).at[19].set(1.0).at[39].set(0.0)
    whole = RewardScale.start().update(reward, ended, 0.9)
    parts = RewardScale.start()
    for rows in (slice(20), slice(20, 40), slice(40, 60)):  # after an episode's end, and amid one
        parts = parts.update(reward[rows], ended[rows], 0.9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, parts)


def test_reward_scale_leaves_no_sum_of_an_episode_that_ended():
    scale = RewardScale.start().update(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]), 0.5)
    assert float(scale.last) == 0.0
