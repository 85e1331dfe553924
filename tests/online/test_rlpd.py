"""RLPD: losses and gradients by hand, a round of updates in closed form and by plain code, settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.losses import draw_critics, mean_value, soft_actor_loss
from o2o_jax.online import rlpd
from o2o_jax.online.rlpd import algorithm, losses
from o2o_jax.ops.distributions import TanhGaussian
from o2o_jax.policy import Handoff
from o2o_jax.types import Spec
from tests import tiny

SPEC = Spec(observation_dim=3, action_dim=2)


class Actor:
    """A stand-in: a squashed normal of one action with mean p and σ = 0.5 everywhere."""

    def apply(self, params, observation):
        mean = jnp.broadcast_to(params, (*observation.shape[:-1], 1))
        return TanhGaussian(mean, jnp.full_like(mean, jnp.log(0.5)))


class Critics:
    """A stand-in for an ensemble: Q_i(s, a) = b_i + p_i a, parameters ([E], [E]), values [E, ...]."""

    def __init__(self, num_critics):
        self.num_critics = num_critics

    def apply(self, params, observation, action):
        del observation
        return jax.vmap(lambda b, p: b + p * action[..., 0])(*params)


OBSERVATION, ACTION = jnp.zeros((2, 1)), jnp.array([[0.5], [-0.5]])
# Q₁ = 2a, Q₂ = 1, Q₃ = 3 + a
CRITIC = jnp.array([0.0, 1.0, 3.0]), jnp.array([2.0, 0.0, 1.0])


def test_critic_loss_by_hand():
    # of y = 1, −1: Q₁ = 1, −1 errs by 0;   Q₂ = 1, 1 by 0 and 2, mean square 2;   Q₃ = 3.5, 2.5 by 2.5 and 3.5: 9.25
    target = jnp.array([1.0, -1.0])
    loss, metrics = losses.critic_loss(CRITIC, Critics(3), OBSERVATION, ACTION, target)
    np.testing.assert_allclose(loss, (0.0 + 2.0 + 9.25) / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["q"], (0.0 + 1.0 + 3.0) / 3, rtol=1e-6)
    # a third of each critic's own: 2/3 mean(Q_i − y) by b_i, 2/3 mean((Q_i − y) a) by p_i
    gradient, _ = jax.grad(losses.critic_loss, has_aux=True)(CRITIC, Critics(3), OBSERVATION, ACTION, target)
    np.testing.assert_allclose(gradient[0], np.array([0.0, 2.0, 6.0]) / 3, rtol=1e-6)
    np.testing.assert_allclose(gradient[1], np.array([0.0, -1.0, -0.5]) / 3, rtol=1e-6)


def test_actor_maximises_the_mean_of_all_critics():
    # α log π − (2a + 1 + 3 + a)/3 = α log π − 4/3 − a;   by the mean: α 2a − (1 − a²), as d log π / dm = 2a
    key, alpha = jax.random.key(3), 0.2
    function = jax.value_and_grad(
        lambda mean: soft_actor_loss(mean, Actor(), CRITIC, Critics(3), OBSERVATION, key, alpha, mean_value),
        has_aux=True,
    )
    (loss, (action, log_prob, _)), gradient = function(jnp.full(1, 0.3))
    np.testing.assert_allclose(loss, jnp.mean(alpha * log_prob - 4 / 3 - action[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(gradient, [jnp.mean(alpha * 2 * action - (1 - action**2))], rtol=1e-5)


def test_temperature_loss_by_hand():
    # α = 0.5, log π = 2 and 0, H̄ = −3/2: −0.5 (1 − 1.5) = 0.25, and the same by log α: entropy −1 is above its target
    # −1.5, so that descent lowers α
    loss, gradient = jax.value_and_grad(losses.temperature_loss)(jnp.log(0.5), jnp.array([2.0, 0.0]), -1.5)
    np.testing.assert_allclose([loss, gradient], [0.25, 0.25], rtol=1e-6)


def test_nothing_but_the_differentiated_argument_gets_a_gradient():
    def of_target(target):
        return losses.temperature_loss(jnp.zeros(()), target, -1.0)

    np.testing.assert_array_equal(jax.grad(of_target)(jnp.ones(2)), np.zeros(2))
    nets, config, state = stand_ins(num_target_critics=2)
    batch = tiny.random_batch(Spec(1, 1), 2)

    def of_networks(actor, target_critic, log_alpha):
        there = state.replace(actor=actor, target_critic=target_critic, log_alpha=log_alpha)
        return jnp.sum(algorithm.critic_target(nets, config, there, batch, jax.random.key(0)))

    gradients = jax.grad(of_networks, argnums=(0, 1, 2))(state.actor, state.target_critic, state.log_alpha)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def stand_ins(**settings):
    """Networks, settings and state of three linear critics and one actor, with plain gradient descent."""
    settings = {"num_critics": 3, "num_target_critics": 1, "updates_per_env_step": 2, "alpha": 0.5} | settings
    config = tiny.config(rlpd.Config, **settings, polyak=0.1, discount=0.9)
    nets = algorithm.Networks(
        Actor(), Critics(3), Critics(config.networks.num_target_critics), optax.sgd(0.1), optax.sgd(0.2),
        optax.sgd(0.3), Spec(1, 1),
    )  # fmt: skip
    actor, log_alpha = jnp.full(1, 0.3), jnp.log(config.update.alpha)
    opt = algorithm.OptStates(*(rule.init(()) for rule in nets[3:6]))
    target = jax.tree.map(lambda leaf: leaf + 0.25, CRITIC)
    transform = Transform(Normalizer.identity(1))
    return nets, config, algorithm.State(actor, CRITIC, target, log_alpha, opt, transform, jnp.zeros((), jnp.int32))


@pytest.mark.parametrize("backup_entropy", [True, False])
def test_target_by_hand(backup_entropy):
    # Z is one of the three pairs; a' = tanh(0.3 + ε/2), rewards r, the second row terminal; without noise:
    # Q̄ = (0.25 + 2.25a', 1.25 + 0.25a', 3.25 + 1.25a'): of any pair with the third, the other one is lower
    nets, config, state = stand_ins(num_target_critics=2, backup_entropy=backup_entropy)
    batch = tiny.random_batch(Spec(1, 1), 2).replace(terminated=jnp.array([0.0, 1.0]))
    seen = set()
    for seed in range(20):
        target = algorithm.critic_target(nets, config, state, batch, jax.random.key(seed))
        np.testing.assert_allclose(target[1], batch.reward[1], rtol=1e-6)
        action, log_prob = (
            Actor()
            .apply(state.actor, batch.next_observation)
            .sample_and_log_prob(jax.random.split(jax.random.key(seed))[1])
        )
        action, entropy = float(action[0, 0]), 0.5 * float(log_prob[0]) * backup_entropy
        q = 0.25 + 2.25 * action, 1.25 + 0.25 * action, 3.25 + 1.25 * action
        pairs = {pair: min(q[i] for i in pair) for pair in ((0, 1), (0, 2), (1, 2))}
        lowest = {float(batch.reward[0]) + 0.9 * (value - entropy): pair for pair, value in pairs.items()}
        nearest = min(lowest, key=lambda value: abs(value - float(target[0])))
        np.testing.assert_allclose(target[0], nearest, rtol=1e-5)
        seen.add(lowest[nearest])
    assert len(seen) >= 2  # (0, 1) has the value of one of the others


def test_subsets_are_drawn_without_replacement_and_alike():
    keys = jax.random.split(jax.random.key(0), 3_000)
    drawn = jax.vmap(lambda key: draw_critics(jnp.arange(4), key, 2))(keys)
    assert bool(jnp.all(drawn[:, 0] != drawn[:, 1]))
    counts = np.bincount(np.asarray(drawn).ravel(), minlength=4)
    np.testing.assert_allclose(counts / 3_000, 0.5, atol=0.05)  # five standard errors of √(¼ / 3000)
    np.testing.assert_array_equal(np.sort(draw_critics(jnp.arange(4), keys[0], 4)), np.arange(4))


def test_a_round_of_two_updates_in_closed_form():
    """First derivation: linear critics, one action, gradient descent, gradients written out in NumPy."""
    nets, config, state = stand_ins()
    batch = tiny.random_batch(Spec(1, 1), 4)
    reward, action = (np.asarray(column, np.float64) for column in (batch.reward, batch.action[:, 0]))
    (b, p), (b_bar, p_bar) = np.array(CRITIC, np.float64), np.array(CRITIC, np.float64) + 0.25
    mean, log_alpha = 0.3, np.log(0.5)

    def draw(key):
        unsquashed = mean + 0.5 * np.asarray(jax.random.normal(key, (4, 1)), np.float64)[:, 0]
        noise = (unsquashed - mean) / 0.5
        density = -0.5 * noise**2 - np.log(0.5) - 0.5 * np.log(2 * np.pi) - np.log1p(-(np.tanh(unsquashed) ** 2))
        return np.tanh(unsquashed), density

    for step in range(2):
        key = jax.random.key(step)
        target_key, actor_key = jax.random.split(key)
        subset_key, action_key = jax.random.split(target_key)
        j = int(jax.random.permutation(subset_key, 3)[0])
        next_action, density = draw(action_key)
        y = reward + 0.9 * (b_bar[j] + p_bar[j] * next_action - np.exp(log_alpha) * density)
        error = b[:, None] + p[:, None] * action - y
        b, p = b - 0.2 * 2 / 3 * error.mean(axis=1), p - 0.2 * 2 / 3 * (error * action).mean(axis=1)
        b_bar, p_bar = 0.9 * b_bar + 0.1 * b, 0.9 * p_bar + 0.1 * p
        state, metrics = algorithm.finetune(nets, config, state, batch, key)
        np.testing.assert_allclose(state.critic, (b, p), rtol=1e-5)
        np.testing.assert_allclose(state.target_critic, (b_bar, p_bar), rtol=1e-5)
        if step == 0:  # actor and temperature wait for the last of the two
            assert float(state.actor[0]) == np.float32(0.3)
            assert all(np.isnan(metrics[name]) for name in algorithm.ACTOR_METRICS)
    a, density = draw(actor_key)
    alpha = np.exp(log_alpha)
    mean -= 0.1 * np.mean(alpha * 2 * a - p.mean() * (1 - a**2))
    log_alpha -= 0.3 * -alpha * (density.mean() - 0.5)  # H̄ = −1/2
    np.testing.assert_allclose(state.actor, [mean], rtol=1e-5)
    np.testing.assert_allclose(state.log_alpha, log_alpha, rtol=1e-5)
    assert all(np.isfinite(value) for value in metrics.values())
    assert int(state.step) == 2


def plain_value(layers, observation, action):
    """Q of one critic, as the page has it: Dense → LayerNorm → ReLU, twice, then Dense."""
    x = jnp.concatenate([observation, action], axis=1)
    for i in range(2):
        dense, norm = layers["MLP_0"][f"Dense_{i}"], layers["MLP_0"][f"LayerNorm_{i}"]
        x = x @ dense["kernel"] + dense["bias"][None]
        x = (x - x.mean(axis=1, keepdims=True)) / jnp.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        x = jax.nn.relu(x * norm["scale"][None] + norm["bias"][None])
    return (x @ layers["Dense_0"]["kernel"])[:, 0] + layers["Dense_0"]["bias"]


def plain_policy(params, observation, noise):
    """Actions and log-densities of the actor, which has no LayerNorm."""
    x = observation
    for i in range(2):
        layer = params["MLP_0"][f"Dense_{i}"]
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
    mean, raw = jnp.split(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None], 2, axis=1)
    log_std = jnp.clip(params["log_std_multiplier"] * raw + params["log_std_offset"], -20.0, 2.0)
    action = jnp.tanh(mean + jnp.exp(log_std) * noise)
    density = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi) - jnp.log1p(-jnp.square(action))
    return action, density.sum(axis=1)


def first_adam_step(params, gradient, rate=3e-4):
    return jax.tree.map(lambda leaf, g: leaf - rate * g / (jnp.abs(g) + 1e-8), params, gradient)


def test_an_update_of_real_networks_by_plain_code():
    """Second derivation: critic by critic in a Python loop, without this package's networks, losses or optimisers."""
    config = tiny.config(
        rlpd.Config, hidden=(8, 8), critic_hidden=(8, 8), num_critics=4, num_target_critics=2, updates_per_env_step=1,
        alpha=0.7,
    )  # fmt: skip
    made, batch, key = rlpd.make(config, SPEC), tiny.random_batch(SPEC, 8, terminated=0.0), jax.random.key(5)
    start = made.init(jax.random.key(1))
    start = start.replace(target_critic=jax.tree.map(lambda leaf: leaf + 0.05, start.critic))
    end, _ = jax.jit(made.online.update)(start, batch, key)

    target_key, actor_key = jax.random.split(key)
    subset_key, action_key = jax.random.split(target_key)
    each = [[jax.tree.map(lambda leaf, i=i: leaf[i], of["params"]) for i in range(4)] for of in
            (start.critic, start.target_critic)]  # fmt: skip
    critics, targets = each
    next_action, density = plain_policy(
        start.actor["params"], batch.next_observation, jax.random.normal(action_key, (8, 2))
    )
    drawn = [int(i) for i in jax.random.permutation(subset_key, 4)[:2]]
    lowest = functools.reduce(
        jnp.minimum, [plain_value(targets[i], batch.next_observation, next_action) for i in drawn]
    )
    y = batch.reward + 0.99 * (lowest - 0.7 * density)
    for i, layers in enumerate(critics):
        gradient = jax.grad(
            lambda layers: jnp.mean((plain_value(layers, batch.observation, batch.action) - y) ** 2) / 4
        )(layers)
        critics[i] = first_adam_step(layers, gradient)
        targets[i] = jax.tree.map(lambda new, old: 0.005 * new + 0.995 * old, critics[i], targets[i])
        for found, expected in ((end.critic, critics[i]), (end.target_critic, targets[i])):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                jax.tree.map(lambda leaf, i=i: leaf[i], found["params"]), expected,
            )  # fmt: skip

    def actor_loss(params):
        action, density = plain_policy(params, batch.observation, jax.random.normal(actor_key, (8, 2)))
        mean = sum(plain_value(layers, batch.observation, action) for layers in critics) / 4
        return jnp.mean(0.7 * density - mean), density

    gradient, density = jax.grad(actor_loss, has_aux=True)(start.actor["params"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        end.actor["params"], first_adam_step(start.actor["params"], gradient),
    )  # fmt: skip
    # entropy against −|A|/2 = −1: Adam's first step is of the gradient's sign
    rises = -float(density.mean()) < -1.0
    np.testing.assert_allclose(end.log_alpha, np.log(0.7) + (3e-4 if rises else -3e-4), rtol=1e-4)


def test_it_starts_afresh_with_the_normaliser_of_any_policy():
    config = tiny.config(rlpd.Config, hidden=(8, 8), critic_hidden=(8,))
    made = rlpd.make(config, Spec(11, 3))
    for policy in (tiny.make_policy("tanh_gaussian"), tiny.make_policy("deterministic"), tiny.make_sequence_policy()):
        state = made.init(jax.random.key(0), Handoff(policy, source="test"))
        assert made.requires.takes("sequence")
        jax.tree.map(np.testing.assert_array_equal, state.actor, made.init(jax.random.key(0)).actor)
        jax.tree.map(np.testing.assert_array_equal, made.policy(state).normalizer, policy.normalizer)
        jax.tree.map(np.testing.assert_array_equal, state.critic, state.target_critic)
    assert made.init(jax.random.key(0)).critic["params"]["MLP_0"]["LayerNorm_0"]["scale"].shape == (10, 8)


def test_begin_counts_from_zero_and_changes_nothing_else():
    made = rlpd.make(tiny.config(rlpd.Config, hidden=(8,), critic_hidden=(8,)), SPEC)
    state = made.init(jax.random.key(0))
    moved = state.replace(step=state.step + 7)
    assert tiny.moved(moved, made.online.begin(moved, jnp.asarray(True))) == {"step"}
    schedule = made.online.schedule
    assert (schedule.updates, schedule.warmup_env_steps, schedule.random_env_steps) == (20, 5_000, 5_000)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mujoco/hopper-medium", {}),
        (
            "antmaze/umaze",
            {"hidden": (256,) * 3, "critic_hidden": (256,) * 3, "num_target_critics": 1, "backup_entropy": False,
             "reward_shift": -1.0, "env_steps": 300_000},
        ),
        (
            "adroit/pen-human",
            {"hidden": (256,) * 3, "critic_hidden": (256,) * 3, "backup_entropy": False, "env_steps": 1_000_000},
        ),
    ],
)  # fmt: skip
def test_published_settings(name, changes):
    task = envs.get_task(name)
    expected = tiny.config(rlpd.Config, **changes, evaluation_episodes=task.eval_episodes)
    assert rlpd.Config.for_task(task) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_target_critics": 11}, "num_target_critics must be at most num_critics, 10, got 11"),
        ({"num_critics": 0}, "num_critics must be at least 1"),
        ({"alpha": 0.0}, "alpha must be greater than 0"),
        ({"batch_size": 5}, "replay.mode=half needs an even update.batch_size"),
        ({"mode": "auto"}, "replay.mode=auto goes by the worth of the offline policy"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(rlpd.Config, **settings)


def learning(key):
    """Trains on rows of a single state whose reward is 1 − 2 |a − 0.5|, terminal; returns the policy's own action."""
    config = tiny.config(
        rlpd.Config, hidden=(32,), critic_hidden=(32,), num_critics=4, updates_per_env_step=4, actor_lr=3e-3,
        critic_lr=3e-3, alpha=0.1, alpha_lr=3e-3,
    )  # fmt: skip
    made = rlpd.make(config, Spec(1, 1))
    state = made.init(key)

    def step(state, key):
        batch_key, update_key = jax.random.split(key)
        action = jax.random.uniform(batch_key, (32, 1), minval=-1.0, maxval=1.0)
        rows = tiny.random_batch(Spec(1, 1), 32, terminated=1.0)
        rows = rows.replace(
            observation=jnp.zeros((32, 1)), action=action, reward=1.0 - 2.0 * jnp.abs(action[:, 0] - 0.5)
        )
        return made.online.update(state, rows, update_key)[0], None

    state, _ = jax.lax.scan(step, state, jax.random.split(key, 1_600))
    return made.policy(state).distribution(jnp.zeros((1, 1))).mode()[0, 0]


def test_it_finds_the_best_action():
    np.testing.assert_allclose(tiny.over_keys(learning), 0.5, atol=0.05)
