"""Handing a policy on: the same head unchanged, another one cloned."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks, policy
from o2o_jax.data.transform import Normalizer
from o2o_jax.policy import CloneConfig, Handoff, Policy, wrap
from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.seeds import over_seeds
from o2o_jax.types import Transition
from tests.tiny import KEYS, over_keys

OBSERVATION_DIM, ACTION_DIM = 3, 2
NORMALIZER = Normalizer(jnp.array([1.0, -2.0, 0.0]), jnp.array([2.0, 0.5, 1.0]))
CONFIG = CloneConfig(hidden=(16, 16), updates=400, batch_size=32, lr=3e-3, entropy_lr=3e-3)
HEADS = tuple(networks.HEADS)


@pytest.fixture(scope="module")
def dataset():
    observation = NORMALIZER.mean[None] + NORMALIZER.std[None] * jax.random.normal(jax.random.key(7), (200, 3))
    zeros = jnp.zeros(200)
    return Transition(observation, jnp.zeros((200, ACTION_DIM)), zeros, observation, zeros)


def make_policy(head, seed=0):
    actor = networks.HEADS[head](ACTION_DIM, (8, 8))
    return Policy(actor.init(jax.random.key(seed), jnp.zeros((1, OBSERVATION_DIM))), NORMALIZER, actor)


def teacher_function(observation):
    normalized = (np.asarray(observation) - np.asarray(NORMALIZER.mean)) / np.asarray(NORMALIZER.std)
    return np.tanh(normalized[:, :ACTION_DIM]) * 0.8


def start(head, teacher=None, config=CONFIG):
    return policy.clone_init(config, head, jax.random.key(1), teacher, NORMALIZER, ACTION_DIM)


def batch_of(dataset, action):
    rows = jax.tree.map(lambda column: column[: len(action)], dataset)
    return rows.replace(action=action)


@pytest.mark.parametrize("head", HEADS)
def test_same_head_stays_as_it_is(head, dataset):
    handoff = Handoff(make_policy(head), state={"critic": jnp.ones(2)}, source="x")
    assert policy.with_head(handoff, head, dataset, jax.random.key(0)) is handoff


@pytest.mark.parametrize("head", HEADS)
def test_a_clone_keeps_source_normalizer_and_critics(head, dataset):
    teacher = make_policy("gaussian" if head == "deterministic" else "deterministic")
    config = CloneConfig(hidden=(16, 16), updates=2, batch_size=4)
    handoff = policy.with_head(Handoff(teacher, {"critic": 1}, "td3_bc"), head, dataset, jax.random.key(0), config)
    assert (handoff.source, handoff.state) == ("td3_bc", {"critic": 1})
    assert (handoff.policy.head, handoff.policy.actor.hidden) == (head, (16, 16))
    jax.tree.map(np.testing.assert_array_equal, handoff.policy.normalizer, NORMALIZER)


@pytest.mark.parametrize(("source", "head"), [("gaussian", "deterministic"), ("deterministic", "tanh_gaussian")])
def test_a_clone_acts_like_its_teacher(source, head, dataset):
    teacher = make_policy(source)

    def training(key):
        handoff = policy.with_head(Handoff(teacher), head, dataset, key, CONFIG)
        return handoff.policy.distribution(dataset.observation).mode()

    mode = np.asarray(teacher.distribution(dataset.observation).mode())
    constant = np.mean((mode - mode.mean(axis=0)) ** 2)  # the error of the best action that ignores observations
    np.testing.assert_array_less(np.mean((over_keys(training) - mode) ** 2, axis=(1, 2)), 0.1 * constant)


def test_a_stochastic_teacher_is_sampled(dataset):
    teacher = make_policy("gaussian")
    teacher.params["params"]["log_std"] = jnp.full(ACTION_DIM, -2.0)
    batch = batch_of(dataset, jnp.ones((100, ACTION_DIM)))  # the dataset's own actions don't count
    mode, sample = policy._teacher_actions(teacher, batch, jax.random.key(0))
    np.testing.assert_array_equal(mode, teacher.distribution(batch.observation).mode())
    assert 0.08 < np.std(sample - mode) < 0.18  # e⁻² = 0.135


def test_a_python_function_is_cloned(dataset):
    taught = teacher_function(dataset.observation)

    def training(key):
        handoff = policy.clone(teacher_function, "tanh_gaussian", dataset, key, CONFIG, source="mine")
        assert handoff.source == "mine"
        distribution = handoff.policy.distribution(dataset.observation)
        error = jnp.mean(jnp.square(distribution.mode() - taught))
        return handoff, error, jnp.mean(distribution.log_prob(taught))

    handoff, error, likelihood = over_keys(training)
    constant = np.mean((taught - taught.mean(axis=0)) ** 2)  # the error of the best action that ignores observations
    np.testing.assert_array_less(error, 0.1 * constant)
    # what the clone says of itself: over samples of the dataset, what holds over all of it
    np.testing.assert_allclose(handoff.closeness["mse"], error, rtol=0.2)
    np.testing.assert_allclose(handoff.closeness["log_likelihood"], likelihood, atol=0.2)  # nats
    mean = np.broadcast_to(dataset.observation.mean(axis=0), (KEYS, OBSERVATION_DIM))
    np.testing.assert_allclose(handoff.policy.normalizer.mean, mean, rtol=1e-4)


def test_the_floor_holds_the_entropy_of_a_clone(dataset):
    # Without it (weight 0), the density of a squashed normal that imitates exact actions grows without bound. With it
    # the entropy swings about the floor of −2 nats, no matter how long: what it holds is the mean over updates.
    config = dataclasses.replace(CONFIG, entropy_lr=3e-2)
    labelled = jax.tree.map(jnp.asarray, policy.label(teacher_function, dataset))
    update = functools.partial(policy.clone_update, config)

    def training(key):
        state = policy.clone_init(config, "tanh_gaussian", key, None, NORMALIZER, ACTION_DIM)

        def entropy(log_weight):
            begun = state.replace(log_entropy_weight=log_weight)
            return policy.run_updates(update, begun, labelled, key, 1_600, config.batch_size)[1]["entropy"]

        return jax.vmap(entropy)(jnp.array([math.log(policy.ENTROPY_WEIGHT_START), -1e3]))

    held, free = over_keys(training).T
    np.testing.assert_array_less(-ACTION_DIM - 0.5, held)
    np.testing.assert_array_less(free, -ACTION_DIM - 1.0)


def test_labels_come_in_portions_and_in_order(dataset):
    sizes = []

    def act(observation):
        assert isinstance(observation, np.ndarray)
        sizes.append(len(observation))
        return teacher_function(observation)

    labelled = policy.label(act, dataset, rows=90)
    assert sizes == [90, 90, 20]
    np.testing.assert_allclose(labelled.action, teacher_function(dataset.observation), rtol=1e-5)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda o: np.zeros(len(o)), r"maps observations \(200, 3\) to actions \(200,\), not to \(200, 2\)"),
        (lambda o: np.full((len(o), 2), np.nan), "not all finite"),
        (lambda o: np.full((len(o), 2), 1.5), r"reach 1.5: clip or rescale them to \[-1, 1\]"),
    ],
)
def test_unusable_actions(act, message, dataset):
    with pytest.raises(ValueError, match=message):
        policy.label(act, dataset)


def test_unknown_head(dataset):
    with pytest.raises(
        ValueError, match="unknown head 'mixture'. Valid names: deterministic, gaussian, gaussian_free, tanh_gaussian"
    ):
        policy.with_head(Handoff(make_policy("gaussian")), "mixture", dataset, jax.random.key(0))


@pytest.mark.parametrize(("field", "value"), [("updates", 0), ("batch_size", 0), ("lr", 0.0), ("entropy_lr", -1.0)])
def test_config_is_checked(field, value):
    with pytest.raises(ValueError, match=field):
        CloneConfig(**{field: value})


class Line(networks.Actor):
    """a = w: one parameter per dimension, whatever the observation."""

    head = "deterministic"

    def __call__(self, observation):
        raise AssertionError("only `apply` is used")

    def apply(self, params, observation):
        shape = (len(observation), 1)
        return networks.actors.Deterministic(jnp.broadcast_to(params["w"][None], shape))


def test_imitation_loss_by_hand():
    # w = 0.5, a = 0.1 and −0.3:   (0.4² + 0.8²) / 2 = 0.4;   gradient 2 (0.4 + 0.8) / 2 = 1.2
    student = Policy({"w": jnp.array([0.5])}, Normalizer.identity(1), Line(1))
    action = jnp.array([[0.1], [-0.3]])
    (loss, metrics), gradient = jax.value_and_grad(policy.imitation_loss, has_aux=True)(
        student.params, student, jnp.zeros((2, 1)), action
    )
    np.testing.assert_allclose([loss, metrics["mse"], gradient["w"][0]], [0.4, 0.4, 1.2], rtol=1e-6)


def gaussian_student(mean, log_std):
    """A normal whose parameters give exactly this mean and log σ."""
    actor = networks.GaussianActor(1, (4,))
    params = jax.tree.map(jnp.zeros_like, actor.init(jax.random.key(0), jnp.zeros((1, 1))))
    params["params"]["Dense_0"]["bias"] = jnp.arctanh(jnp.array([mean]))
    params["params"]["log_std"] = jnp.array([log_std])
    return Policy(params, Normalizer.identity(1), actor)


def test_likelihood_loss_by_hand():
    # N(0.5, 1) at a = 0.1 and −0.3: log-density −0.08 and −0.32, mean −0.2, less ½ log 2π
    # the gradient of log σ is 1 − mean z² = 1 − 0.4 from the likelihood and −0.25 · 1 from the entropy
    student = gaussian_student(0.5, 0.0)
    action = jnp.array([[0.1], [-0.3]])
    (loss, (log_prob, metrics)), gradient = jax.value_and_grad(policy.likelihood_loss, has_aux=True)(
        student.params, student, jnp.zeros((2, 1)), action, action, jax.random.key(0), 0.25
    )
    likelihood = -0.2 - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(metrics["log_likelihood"], likelihood, rtol=1e-6)
    np.testing.assert_allclose(metrics["mse"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(metrics["entropy"], -log_prob.mean(), rtol=1e-6)
    np.testing.assert_allclose(loss, -likelihood + 0.25 * log_prob.mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient["params"]["log_std"], [0.6 - 0.25], rtol=1e-5)
    # ∂/∂mean of −log-density is mean(mean − a) = 0.6, and ∂mean/∂bias is 1 − 0.5²
    np.testing.assert_allclose(gradient["params"]["Dense_0"]["bias"], [0.6 * 0.75], rtol=1e-5)


def test_entropy_is_that_of_unclipped_samples():
    # of N(0.5, e⁴), ½ log 2πe + 2; the clipped samples that act would look far less spread
    student = gaussian_student(0.5, 2.0)
    action = jnp.zeros((20_000, 1))
    _, (_, metrics) = policy.likelihood_loss(
        student.params, student, action, action, action, jax.random.key(0), jnp.asarray(0.1)
    )
    np.testing.assert_allclose(metrics["entropy"], 0.5 * math.log(2 * math.pi * math.e) + 2.0, atol=0.02)


@pytest.mark.parametrize(("log_std", "direction"), [(-3.0, 1), (1.0, -1)])
def test_entropy_below_the_floor_raises_its_weight(log_std, direction, dataset):
    # the floor is −|A| = −1 nat: a normal of log σ = −3 has −1.6, one of log σ = 1 has 2.4
    student = gaussian_student(0.5, log_std)
    config = dataclasses.replace(CONFIG, hidden=student.actor.hidden)
    state = policy.clone_init(config, "gaussian", jax.random.key(0), None, student.normalizer, 1)
    state = state.replace(student=student)
    action = jnp.full((64, 1), 0.5)
    batch = Transition(jnp.zeros((64, 1)), action, jnp.zeros(64), jnp.zeros((64, 1)), jnp.zeros(64))
    after, metrics = policy.clone_update(config, state, batch, jax.random.key(1))
    change = after.log_entropy_weight - state.log_entropy_weight
    np.testing.assert_allclose(change, direction * CONFIG.entropy_lr, rtol=1e-3)  # Adam's first step
    np.testing.assert_allclose(metrics["entropy_weight"], policy.ENTROPY_WEIGHT_START, rtol=1e-6)


def test_actions_on_the_edge_have_a_finite_density(dataset):
    state = start("tanh_gaussian")
    batch = batch_of(dataset, jnp.ones((16, ACTION_DIM)))
    state, metrics = policy.clone_update(CONFIG, state, batch, jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, metrics)))


def test_only_the_student_moves(dataset):
    state = start("tanh_gaussian", make_policy("deterministic"))
    after, metrics = policy.clone_update(CONFIG, state, batch_of(dataset, jnp.zeros((16, 2))), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, after.teacher, state.teacher)
    jax.tree.map(np.testing.assert_array_equal, after.student.normalizer, state.student.normalizer)
    assert int(after.step) == 1
    assert metrics.keys() == {"mse", "log_likelihood", "entropy", "entropy_weight"}
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), after.student.params, state.student.params)
    assert all(jax.tree.leaves(moved))


def test_a_deterministic_student_has_no_entropy(dataset):
    state = start("deterministic", make_policy("tanh_gaussian"))
    after, metrics = policy.clone_update(CONFIG, state, batch_of(dataset, jnp.zeros((16, 2))), jax.random.key(0))
    assert metrics.keys() == {"mse"}
    np.testing.assert_array_equal(after.log_entropy_weight, state.log_entropy_weight)


@pytest.mark.parametrize("head", ["deterministic", "tanh_gaussian"])
def test_maps_over_seeds(head, dataset):
    config = CloneConfig(hidden=(8, 8), updates=3, batch_size=8)
    handoffs = [Handoff(make_policy("deterministic", seed), source="td3_bc") for seed in (0, 1)]
    keys = jax.random.split(jax.random.key(5), 2)
    give = functools.partial(policy.with_head, config=config)
    together = over_seeds(lambda handoff, dataset, key: give(handoff, head, dataset, key), seed_mesh(2, 1), (1,))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *handoffs), dataset, keys
    )
    for s in (0, 1):
        alone = give(handoffs[s], head, dataset, keys[s])
        jax.tree.map(
            lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-4, atol=1e-6), together.policy, alone.policy
        )


def test_a_clone_that_was_interrupted_repeats_the_unbroken_one(dataset):
    state = start("tanh_gaussian", make_policy("deterministic"))
    update = functools.partial(policy.clone_update, CONFIG)
    arguments = {"dataset": dataset, "key": jax.random.key(3), "batch_size": 8}
    whole, _ = policy.run_updates(update, state, num_updates=6, **arguments)
    part, _ = policy.run_updates(update, state, num_updates=4, **arguments)
    part, _ = policy.run_updates(update, part, num_updates=2, **arguments)
    jax.tree.map(np.testing.assert_array_equal, whole, part)


@pytest.mark.parametrize("teacher", [None, "deterministic"])
def test_a_clone_in_progress_survives_the_disk(teacher, tmp_path):
    state = start("tanh_gaussian", teacher and make_policy(teacher))
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(1, state)
        restored = checkpoints.restore(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_actions_beyond_bounds_that_nothing_says_are_said_once(capsys):
    wrapped = wrap(lambda rows: 2.0 * rows)
    np.testing.assert_array_equal(wrapped(np.array([[0.5], [-0.25]])), [[1.0], [-0.5]])
    assert capsys.readouterr().out == ""
    for _ in range(2):
        np.testing.assert_array_equal(wrapped(np.array([[1.5], [np.nan]])), [[1.0], [np.nan]])
    assert capsys.readouterr().out == (
        "note: the policy's actions reach 3 and are clipped to [-1, 1]: pass low and high to o2o_jax.wrap, if they are "
        "in the environment's units\n"
    )
    wrap(lambda rows: 2.0 * rows, [-1], [1])(np.array([[1.5]]))
    assert capsys.readouterr().out == ""
