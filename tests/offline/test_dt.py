"""The decision transformer: its losses, its batches, its optimiser, what it hands over."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.offline import dt
from o2o_jax.offline.dt import algorithm as dt_algorithm
from o2o_jax.offline.dt.losses import sequence_loss, temperature_loss
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.policy import hand_over
from o2o_jax.training import run_updates
from o2o_jax.types import Annotated, History, Rollout, Spec
from tests import sharing, tiny

SPEC = Spec(observation_dim=3, action_dim=2)
CONFIG = dt.Config(width=8, layers=1, heads=2, context=4, eval_context=2, batch_size=8)
NORMALIZER = Normalizer(jnp.full(3, 2.0), jnp.full(3, 4.0))


class Constant:
    """In place of the transformer: at every step the normal of one mean and one log σ, whatever the history."""

    def apply(self, params, history, deterministic, rngs):
        assert not deterministic
        assert set(rngs) == {"dropout"}
        shape = (*history.valid.shape, 1)
        return TanhGaussian(jnp.full(shape, params["mean"]), jnp.full(shape, params["log_std"]))


def make_history(action, valid):
    action = jnp.asarray(action)[..., None]
    return History(jnp.zeros_like(action), action, jnp.zeros(action.shape[:-1]), jnp.asarray(valid, jnp.float32))


def test_sequence_loss_by_hand():
    # a standard normal under tanh: log π(0) = −½ log 2π = −0.919, log π(tanh 1) = −0.919 − ½ + 2 log cosh 1 = −0.551
    # valid are one 0 and both tanh 1: the padded action in front doesn't count
    params = {"mean": jnp.asarray(0.0), "log_std": jnp.asarray(0.0)}
    one = math.tanh(1.0)
    history = make_history([[0.7, 0.0], [one, one]], [[0, 1], [1, 1]])
    loss, (entropy, metrics) = sequence_loss(params, Constant(), history, jax.random.key(0), jnp.asarray(0.5))
    at_zero = -0.5 * math.log(2 * math.pi)
    at_one = at_zero - 0.5 + 2 * math.log(math.cosh(1.0))
    np.testing.assert_allclose(metrics["log_likelihood"], (at_zero + 2 * at_one) / 3, rtol=1e-4)
    np.testing.assert_allclose(loss, -metrics["log_likelihood"] - 0.5 * entropy, rtol=1e-6)
    np.testing.assert_allclose(metrics["entropy"], entropy)


def test_entropy_is_the_mean_over_all_steps():
    # of a squashed standard normal: H = ½ log 2πe − 2 E[log cosh x], by quadrature; one step of 20,000 is valid
    params = {"mean": jnp.asarray(0.0), "log_std": jnp.asarray(0.0)}
    valid = np.zeros((1_000, 20))
    valid[0, 0] = 1.0
    history = make_history(np.zeros((1_000, 20), np.float32), valid)
    _, (entropy, _) = sequence_loss(params, Constant(), history, jax.random.key(0), jnp.asarray(0.0))
    x = np.linspace(-8, 8, 4_001)
    density = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
    expected = 0.5 * math.log(2 * math.pi * math.e) - 2 * np.sum(density * np.log(np.cosh(x))) * (x[1] - x[0])
    np.testing.assert_allclose(entropy, expected, atol=0.03)


def test_gradient_moves_towards_the_data_and_spreads_for_entropy():
    params = {"mean": jnp.asarray(0.0), "log_std": jnp.asarray(0.0)}
    history = make_history([[0.5, 0.5]], [[1, 1]])
    gradient = jax.grad(lambda *arguments: sequence_loss(*arguments)[0])
    plain, spread = (
        gradient(params, Constant(), history, jax.random.key(0), jnp.asarray(weight)) for weight in (0.0, 0.1)
    )
    # ∂/∂μ of −log-density is μ − arctanh a; ∂/∂ log σ is 1 − z²
    target = math.atanh(0.5)
    np.testing.assert_allclose(plain["mean"], -target, rtol=1e-4)
    np.testing.assert_allclose(plain["log_std"], 1.0 - target**2, rtol=1e-4)
    assert spread["log_std"] != plain["log_std"]


def test_temperature_loss_by_hand():
    # τ (H − H̄): with τ = e⁰ = 1 and H half a nat below its target the gradient of log τ is −0.5, and descent raises τ
    gradients = jax.grad(temperature_loss, argnums=(0, 1))(jnp.asarray(0.0), jnp.asarray(-2.5), -2.0)
    np.testing.assert_allclose(gradients, [-0.5, 0.0])
    np.testing.assert_allclose(jax.grad(temperature_loss)(jnp.log(3.0), jnp.asarray(-1.0), -2.0), 3.0, rtol=1e-6)


def make_dataset():
    """Episodes of one, two and five steps with rewards 1, 2, …, 8; the second is cut off."""
    random = tiny.random_batch(SPEC, 8)
    terminated, truncated = jnp.zeros(8).at[jnp.array([0, 7])].set(1.0), jnp.zeros(8).at[2].set(1.0)
    columns = vars(random) | {"reward": jnp.arange(1.0, 9.0), "terminated": terminated}
    return Rollout(**columns, truncated=truncated)


@functools.cache
def start(**settings):
    """Algorithm, prepared state and annotated dataset."""
    config = CONFIG if not settings else dt.Config(**{**vars(CONFIG), **settings})
    algorithm = dt.make(config, SPEC)
    state = sharing.jit(algorithm.init)(jax.random.key(0), NORMALIZER)
    state, extras = sharing.jit(algorithm.phase("offline").prepare)(state, make_dataset())
    return algorithm, state, Annotated.of(make_dataset(), extras)


def test_returns_to_go_by_hand():
    _, state, dataset = start()
    np.testing.assert_allclose(dataset.extras.shared["return_to_go"], [1, 5, 3, 30, 26, 21, 15, 8])
    np.testing.assert_array_equal(dataset.extras.shared["remaining"], [1, 2, 1, 5, 4, 3, 2, 1])
    assert state.target_return == 30.0  # of the best episode
    assert start(target_return=7.0)[1].target_return == 7.0


def test_the_best_return_is_an_episode_s_not_a_later_step_s():
    # rewards −8 and 3: the episode's return is −5, though 3 are to go at its second step
    dataset = jax.tree.map(lambda column: column[:2], make_dataset())
    dataset = dataset.replace(reward=jnp.array([-8.0, 3.0]), terminated=jnp.zeros(2), truncated=jnp.array([0.0, 1.0]))
    state, _ = dt_algorithm.prepare(CONFIG, start()[1], dataset)
    assert state.target_return == -5.0


def test_batches_begin_anywhere_alike_and_end_with_their_episodes():
    algorithm, _, dataset = start()
    batch = jax.jit(algorithm.phase("offline").sample, static_argnums=2)(dataset, jax.random.key(0), 8_000)
    lengths = batch.valid.sum(axis=1).astype(int)
    first = jnp.take_along_axis(batch.return_to_go, 4 - lengths[:, None], axis=1)[:, 0]
    # all returns to go differ, so that they name the first step: each of the eight 1,000 times, σ = 30; thus episodes
    # of one, two and five steps 1 : 2 : 5, in proportion to their lengths
    to_go = np.asarray(dataset.extras.shared["return_to_go"])
    counts = np.array([np.sum(first == value) for value in to_go])
    assert counts.sum() == 8_000
    assert np.all(np.abs(counts - 1_000) < 150)
    expected = np.minimum(dataset.extras.shared["remaining"], 4)
    for value, length in zip(to_go, expected, strict=True):
        assert set(np.asarray(lengths[first == value]).tolist()) == {int(length)}
    # padding in front, and no step of another episode: returns to go fall within a history
    valid = np.asarray(batch.valid)
    assert np.all(np.diff(valid, axis=1) >= 0)
    both = valid[:, 1:] * valid[:, :-1] > 0
    assert np.all(np.diff(batch.return_to_go, axis=1)[both] < 0)


def test_padding_counts_neither_in_the_likelihood_nor_in_its_gradient():
    algorithm, state, dataset = start(dropout=0.0, temperature_start=1e-30)
    batch = algorithm.phase("offline").sample(dataset, jax.random.key(3), 8)
    padding = batch.valid == 0
    assert padding.any()
    other = batch.replace(
        observation=jnp.where(padding[..., None], 3.0, batch.observation),
        action=jnp.where(padding[..., None], 0.3, batch.action),
        return_to_go=jnp.where(padding, 3.0, batch.return_to_go),
    )
    update = sharing.jit(algorithm.phase("offline").update)
    (first, found), (second, metrics) = (update(state, rows, jax.random.key(4)) for rows in (batch, other))
    np.testing.assert_allclose(found["log_likelihood"], metrics["log_likelihood"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), first.actor, second.actor)


def test_only_what_learns_moves():
    algorithm, state, dataset = start()
    batch = algorithm.phase("offline").sample(dataset, jax.random.key(1), 8)
    after, metrics = sharing.jit(algorithm.phase("offline").update)(state, batch, jax.random.key(2))
    assert tiny.moved(state, after) == {"actor", "log_temperature", "opt", "step"}
    assert metrics.keys() == {"actor_loss", "log_likelihood", "entropy", "temperature"}
    np.testing.assert_allclose(metrics["temperature"], 0.1, rtol=1e-6)
    # Adam's first step is one learning rate, up where the entropy is below −2 nats
    direction = 1.0 if metrics["entropy"] < -2.0 else -1.0
    change = after.log_temperature - state.log_temperature
    np.testing.assert_allclose(change, direction * CONFIG.temperature_lr, rtol=1e-2)


def test_warmup_by_hand():
    # (n + 1) / 10,000 of the rate after n updates, then all of it
    schedule = dt_algorithm.warmup(2e-3, 10_000)
    np.testing.assert_allclose([schedule(n) for n in (0, 4_999, 9_999, 50_000)], [2e-7, 1e-3, 2e-3, 2e-3], rtol=1e-6)


def test_first_step_of_lamb_by_hand():
    # a gradient (3, 4) is clipped to norm ¼: (0.15, 0.2). Adam makes (1, 1) of it, the decay adds 0.5 · (2, 0).
    # |w| = 2 over |(2, 1)| = √5, times the rate 0.1: w − 0.1 · 2/√5 · (2, 1)
    config = dt.Config(lr=0.1, warmup_updates=1, weight_decay=0.5)
    optimizer = dt_algorithm.make_networks(config, SPEC).actor_optimizer
    params = {"w": jnp.array([2.0, 0.0])}
    updates, _ = optimizer.update({"w": jnp.array([3.0, 4.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * 2 / math.sqrt(5) * np.array([2.0, 1.0]), rtol=1e-5)


def test_a_resumed_run_repeats_the_unbroken_one():
    algorithm, state, dataset = start()
    phase = algorithm.phase("offline")
    run = jax.jit(functools.partial(run_updates, phase.update, num_updates=2, batch_size=8, sample=phase.sample))
    key = jax.random.key(5)
    part, _ = run(state, dataset, key)
    resumed, extras = phase.prepare(part, make_dataset())  # as a resumed phase does
    resumed, _ = run(resumed, Annotated.of(make_dataset(), extras), key)
    whole, _ = run(part, dataset, key)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    assert int(whole.step) == 4


def test_probe_it_does_what_the_return_asks_for():
    # episodes of one step whose reward is the action: asked for a return of r it takes the action r
    action = jnp.linspace(-0.9, 0.9, 64)[:, None]
    nothing, ones = jnp.zeros((64, 1)), jnp.ones(64)
    rows = Rollout(nothing, action, action[:, 0], nothing, ones, truncated=jnp.zeros(64))
    config = dt.Config(width=16, layers=1, heads=1, context=2, eval_context=2, batch_size=64, dropout=0.0, lr=1e-2,
                       warmup_updates=1, return_scale=1.0, target_return=0.5)  # fmt: skip
    algorithm, targets = dt.make(config, Spec(observation_dim=1, action_dim=1)), jnp.array([-0.6, 0.0, 0.6])
    phase = algorithm.phase("offline")

    def training(key):
        state, extras = phase.prepare(algorithm.init(key, Normalizer.identity(1)), rows)
        run = functools.partial(run_updates, num_updates=500, batch_size=64, sample=phase.sample)
        policy = algorithm.policy(run(phase.update, state, Annotated.of(rows, extras), key=key)[0])

        def asked(target):
            memory = policy.replace(target_return=target).begin(1)
            return policy.act(memory, jnp.zeros((1, 1)), jnp.zeros(1))[0][0, 0]

        return jax.vmap(asked)(targets)

    found = tiny.over_keys(training)
    np.testing.assert_allclose(found, np.tile(targets, (tiny.KEYS, 1)), atol=0.3)  # nearest to what was asked for
    np.testing.assert_allclose(found.mean(axis=0), targets, atol=0.1)  # a sixth of what lies between them


def test_handoff_is_a_policy_on_histories():
    algorithm, state, _ = start()
    handoff = hand_over(algorithm, state)
    policy = handoff.policy
    assert (handoff.source, policy.head, policy.context, policy.return_scale) == ("dt", "sequence", 2, 1e-3)
    assert handoff.state is state
    assert policy.target_return == 30.0


def test_settings_of_tasks():
    def settings(name):
        config = dt.Config.for_task(envs.get_task(name))
        return config.lr, config.weight_decay, config.updates, config.target_return, config.return_scale

    assert settings("mujoco/hopper-medium") == (1e-4, 5e-4, 5_000, 3_600.0, 1e-3)
    assert settings("mujoco/hopper-v4-medium-replay") == (2e-3, 1e-4, 5_000, 3_600.0, 1e-3)
    assert settings("mujoco/walker2d-expert") == (1e-3, 1e-3, 10_000, 5_000.0, 1e-3)
    assert settings("mujoco/halfcheetah-medium") == (1e-4, 5e-4, 5_000, 6_000.0, 1e-3)
    assert settings("antmaze/umaze")[3:] == (1.0, 1.0)
    assert dt.Config.for_task(envs.get_task("gym/Pendulum-v1")) == dt.Config()
    assert dt.Config.for_task(envs.get_task("adroit/pen-human")).context == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("heads", 3), ("context", 0), ("eval_context", 21), ("dropout", 1.0), ("lr", 0.0), ("return_scale", -1.0),
     ("weight_decay", -0.1), ("updates", 0), ("temperature_start", 0.0)],
)  # fmt: skip
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"^{field} must .* got ") as error:
        dt.Config(**{field: value})
    assert "\n" not in str(error.value)
