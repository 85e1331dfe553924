"""A policy on histories: acting step by step, what it would have done on recorded data, and its clones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks, policy
from o2o_jax.policy import CloneConfig, Handoff
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.seeds import over_seeds
from o2o_jax.training import run_updates
from o2o_jax.types import Annotated, Spec
from tests import tiny

SPEC = Spec(observation_dim=3, action_dim=2)
TEACHER = tiny.make_sequence_policy(3, 2)
RECALL = jax.jit(TEACHER.recall)
PREPARE = jax.jit(policy.clone_prepare)
CONFIG = CloneConfig(hidden=(16, 16), updates=1_200, batch_size=64, lr=3e-3, entropy_lr=3e-2)


def act_along(teacher, rows):
    """Modes [T, A] along the one episode of these rows: its observations and rewards, the policy's own actions."""
    memory, reward, actions = teacher.begin(1), jnp.zeros(1), []
    act = jax.jit(teacher.act)
    for t in range(len(rows.reward)):
        action, memory = act(memory, rows.observation[t][None], reward)
        reward = rows.reward[t][None]
        actions.append(action[0])
    return jnp.stack(actions), memory


@functools.cache
def recorded():
    """Two episodes of five and three steps, in which the policy itself acted."""
    rows = tiny.random_rollout(SPEC, 8)
    rows = rows.replace(truncated=jnp.zeros(8).at[jnp.array([4, 7])].set(1.0))
    parts = [jax.tree.map(lambda column, part=part: column[part], rows) for part in (slice(5), slice(5, 8))]
    return rows.replace(action=jnp.concatenate([act_along(TEACHER, part)[0] for part in parts]))


def test_what_it_recalls_of_its_own_episodes_is_what_it_did():
    rows = recorded()
    distribution = RECALL(rows)
    np.testing.assert_allclose(distribution.mode(), rows.action, atol=1e-4)
    assert distribution.log_std.shape == (8, 2)
    assert len(np.unique(rows.action[:, 0])) == 8


def test_memory_holds_the_last_steps_and_what_is_still_asked_for():
    rows = jax.tree.map(lambda column: column[:5], recorded())
    _, memory = act_along(TEACHER, rows)
    assert memory.valid.shape == (1, 3)
    np.testing.assert_array_equal(memory.observation[0], rows.observation[2:])
    np.testing.assert_allclose(memory.action[0], rows.action[2:], rtol=1e-5)
    # 10 less the rewards before the steps 2, 3 and 4
    np.testing.assert_allclose(memory.return_to_go[0], 10.0 - np.cumsum(rows.reward)[1:4], rtol=1e-5)
    _, memory = act_along(TEACHER, jax.tree.map(lambda column: column[:1], rows))
    np.testing.assert_array_equal(memory.valid[0], [0, 0, 1])


@pytest.mark.parametrize("field", ["observation", "action", "reward"])
def test_recall_looks_back_within_the_episode_and_as_far_as_its_context(field):
    # row 1 counts in rows 2 and 3, context 3; the other episode begins in row 5. A reward counts from the next step on,
    # to the end of the episode.
    rows = recorded()
    column = getattr(rows, field)
    changed = rows.replace(**{field: column.at[1].set(column[1] + 0.5)})
    different = np.any(RECALL(rows).mean != RECALL(changed).mean, axis=1).tolist()
    expected = {
        "observation": [False, True, True, True, False],
        "action": [False, False, True, True, False],
        "reward": [False, False, True, True, True],
    }[field]
    assert different[:5] == expected
    assert different[5:] == [False] * 3


@pytest.mark.parametrize("head", ["deterministic", "gaussian", "tanh_gaussian"])
def test_a_clone_acts_like_its_teacher_on_observations_alone(head):
    # in one-step episodes the history is the observation, so that a student can do as well
    rows = tiny.random_rollout(SPEC, 64)
    rows = rows.replace(truncated=jnp.ones(64))
    expected = np.asarray(RECALL(rows).mode())

    def training(key):
        handoff = policy.with_head(Handoff(TEACHER, source="dt"), head, rows, key, CONFIG)
        return handoff, jnp.mean(jnp.square(handoff.policy.distribution(rows.observation).mode() - expected))

    handoff, error = tiny.over_keys(training)
    assert (handoff.source, handoff.policy.head, handoff.state) == ("dt", head, None)
    constant = np.mean((expected - expected.mean(axis=0)) ** 2)  # the error of the best that ignores observations
    np.testing.assert_array_less(error, 0.3 * constant)
    np.testing.assert_allclose(handoff.closeness["mse"], error, rtol=0.5)
    assert ("log_likelihood" in handoff.closeness) == (head != "deterministic")


def test_the_students_labels_are_drawn_from_the_teacher_s_distributions():
    rows = recorded()
    state = policy.clone_init(CONFIG, "tanh_gaussian", jax.random.key(0), TEACHER)
    _, extras = PREPARE(state, rows)
    batch = Annotated.of(rows, extras)
    mode, sample = jax.jit(policy._teacher_actions)(TEACHER, batch, jax.random.key(1))
    np.testing.assert_allclose(mode, rows.action, atol=1e-4)
    np.testing.assert_array_equal(sample, extras.own.sample(jax.random.key(1)))


def test_other_teachers_need_no_extras():
    state = policy.clone_init(CONFIG, "gaussian", jax.random.key(0), tiny.make_policy("deterministic", 3, 2))
    prepared, extras = policy.clone_prepare(state, tiny.random_batch(SPEC))
    assert prepared is state
    assert jax.tree.leaves(extras) == []


def test_rows_without_ends_are_refused():
    with pytest.raises(ValueError, match="acts on histories: clone it on a Rollout, such as") as error:
        policy.with_head(Handoff(TEACHER), "gaussian", tiny.random_batch(SPEC), jax.random.key(0), CONFIG)
    assert "\n" not in str(error.value)


def test_maps_over_seeds():
    teachers = [tiny.make_sequence_policy(3, 2, seed) for seed in (0, 1)]
    config = CloneConfig(hidden=(8,), updates=3, batch_size=8)
    rows, keys = recorded(), jax.random.split(jax.random.key(5), 2)
    give = lambda teacher, rows, key: policy.with_head(Handoff(teacher), "tanh_gaussian", rows, key, config).policy
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *teachers)
    together = over_seeds(give, seed_mesh(2, 2), (1,))(stacked, rows, keys)
    for s, teacher in enumerate(teachers):
        alone = jax.jit(give)(teacher, rows, keys[s])
        jax.tree.map(lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-4, atol=1e-6), together, alone)


def test_a_clone_in_progress_survives_the_disk_and_goes_on(tmp_path):
    config = CloneConfig(hidden=(8,), updates=4, batch_size=8)
    update = functools.partial(policy.clone_update, config)
    run = jax.jit(functools.partial(run_updates, update, num_updates=2, batch_size=8))
    state = policy.clone_init(config, "gaussian", jax.random.key(0), TEACHER)
    _, extras = PREPARE(state, recorded())
    half, _ = run(state, Annotated.of(recorded(), extras), jax.random.key(3))
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(2, half)
        restored = checkpoints.restore(state)
    jax.tree.map(np.testing.assert_array_equal, restored, half)
    _, again = PREPARE(restored, recorded())
    resumed, whole = (
        run(s, Annotated.of(recorded(), n), jax.random.key(3))[0] for s, n in ((restored, again), (half, extras))
    )
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_it_is_no_head_that_a_student_can_have():
    assert TEACHER.head == "sequence"
    assert TEACHER.head not in networks.HEADS
