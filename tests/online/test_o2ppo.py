"""O2PPO: recorded updates, returns, losses by hand, gradients, schedules, settings."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs, networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.envs.mujoco.tasks import tasks
from o2o_jax.interfaces import Schedule
from o2o_jax.online import o2ppo, ppo
from o2o_jax.online.o2ppo import losses
from o2o_jax.online.o2ppo.algorithm import auxiliary_weight, estimate, improve, make_networks
from o2o_jax.ops.advantage import auxiliary_advantage, reference_advantage
from o2o_jax.ops.distributions import Gaussian
from o2o_jax.policy import Handoff, Policy
from o2o_jax.settings import paths
from o2o_jax.training import run_updates
from o2o_jax.types import Annotated, Rollout
from tests import tiny
from tests.golden_numbers import SCALAR_RTOL, SPEC, Golden
from tests.tiny import KEYS, compiled, far, make_policy, moved, over_keys, random_batch

GOLDEN = tiny.config(o2ppo.Config, epochs=2, minibatch_size=16)


def golden_state(golden):
    algorithm = o2ppo.make(GOLDEN, SPEC)
    actor = golden.params("actor", log_std=[-0.5, -1.0, -1.5])
    reference = jax.tree.map(lambda leaf: 0.9 * leaf, actor)
    reference["params"]["log_std"] = actor["params"]["log_std"]

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        state = algorithm.init(key).replace(actor=actor, critic=golden.params("value"))
        return algorithm.online.begin(state, False).replace(reference=reference)

    return start(jax.random.key(0))


def test_golden_updates():
    """Three rollouts in a row, each from the state that the one before left, optimiser moments included."""
    golden = Golden("o2ppo")
    state, nets = golden_state(golden), make_networks(GOLDEN, SPEC)

    def batch(step):  # the record's actions were not drawn from its actor: it brings their densities with it
        return golden.batch("update", step), golden.recorded("update", step, "rollout/log_prob").sum(axis=1)

    def finetune(state, batch, key):
        rollout, log_prob = batch
        state, samples, metrics = estimate(nets, GOLDEN, state, rollout)
        state, terms = improve(nets, GOLDEN, state, samples._replace(log_prob=log_prob), key)
        return state, metrics | terms

    update = golden.replay("update", finetune, batch)
    for step in golden.steps("update"):
        auxiliary = golden.recorded("update", step, "auxiliary_advantage")
        state, metrics = update(state, step)
        np.testing.assert_allclose(metrics["auxiliary"], auxiliary.mean(), rtol=SCALAR_RTOL)
        for name, value in golden.log("update", step).items():
            np.testing.assert_allclose(metrics[name], value, rtol=SCALAR_RTOL, err_msg=name)
        golden.check("update", step, actor=state.actor, value=state.critic)
    assert step == 2


TINY = {"hidden": (8,), "critic_hidden": (8,), "rollout_env_steps": 32, "minibatch_size": 8, "epochs": 2}


@functools.cache
def small(module=o2ppo, **settings):
    """A small algorithm with compiled phases, and its state at the start of fine-tuning."""
    algorithm = compiled(module.make(tiny.config(module.Config, **TINY | settings), SPEC))
    return algorithm, jax.jit(lambda key: algorithm.online.begin(algorithm.init(key), False))(jax.random.key(0))


def rollout(algorithm, state, size=32):
    """Steps [size] that the state's actor takes at random observations; every fifth ends an episode."""
    batch = random_batch(SPEC, size)
    action = algorithm.policy(state).distribution(batch.observation).sample(jax.random.key(5))
    return Rollout(**vars(batch) | {"action": action}, truncated=(jnp.arange(size) % 5 == 4).astype(jnp.float32))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, {"actor", "critic"}),
        ({"reward_scaling": "running_std"}, {"actor", "critic", "reward_scale"}),
        ({"auxiliary_weight": "target_divergence"}, {"actor", "critic", "leash"}),
    ],
)
def test_what_fine_tuning_moves(settings, parts):
    # actor, critic and where asked for the rewards' scale or the leash; never the reference, nor the transform
    algorithm, state = small(**settings)
    after, _ = algorithm.online.update(state, rollout(algorithm, state), jax.random.key(1))
    assert moved(state, after) == parts | {"opt", "step"}
    assert moved(state.opt, after.opt) == {"actor", "critic"}
    assert int(after.opt.actor[1][0].count) == 2 * 32 // 8  # epochs · minibatches


def test_a_running_normaliser_is_that_of_all_observations_and_waits_for_the_next_rollout():
    algorithm, state = small(observation_scaling="running")
    steps = rollout(algorithm, state)
    plain, _ = small()[0].online.update(state, steps, jax.random.key(1))
    after, _ = algorithm.online.update(state, steps, jax.random.key(1))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8)  # two programs, which round differently
    jax.tree.map(close, (after.actor, after.critic), (plain.actor, plain.critic))  # the update itself saw the old one
    assert moved(state, after) - moved(state, plain) == {"observations", "transform"}
    again, _ = algorithm.online.update(after, steps.replace(observation=2.0 * steps.observation), jax.random.key(2))
    seen = np.concatenate([steps.observation, 2.0 * steps.observation])
    np.testing.assert_allclose(again.transform.normalizer.mean, seen.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again.transform.normalizer.std, seen.std(axis=0) + 1e-3, rtol=1e-4)


def test_an_agent_from_scratch_begins_with_small_actions():
    algorithm, state = small()
    mode = algorithm.policy(state).distribution(random_batch(SPEC).observation).mode()
    assert 0.0 < float(jnp.abs(mode).max()) < 0.05


def test_what_value_regression_moves():
    algorithm, state = small()
    state, dataset = annotated(algorithm, state, random_rollout())
    after, metrics = algorithm.phase("reevaluate").update(state, dataset, jax.random.key(1))
    assert moved(state, after) == {"critic", "opt", "step"}
    assert moved(state.opt, after.opt) == {"critic"}
    assert metrics.keys() == {"critic_loss", "target"}


def test_alignment_is_no_phase():
    assert [phase.name for phase in small()[0].phases] == ["reevaluate"]
    assert o2ppo.make(tiny.config(o2ppo.Config, reevaluate_updates=0), SPEC).phases == ()
    with pytest.raises(TypeError, match="align"):
        o2ppo.Config(align=1)


def test_a_policy_in_its_own_reach_is_where_the_ratio_is_one():
    # before the first minibatch π is the policy that acted: no divergence, nothing clipped, and the loss is the mean
    # of normalised advantages, 0, less the entropy bonus
    algorithm, state = small(epochs=1, minibatch_size=32)
    _, metrics = algorithm.online.update(state, rollout(algorithm, state), jax.random.key(1))
    entropy = 3 * 0.5 * np.log(2 * np.pi * np.e)  # σ = 1
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose([metrics["divergence"], metrics["clipped"]], 0.0, atol=1e-6)
    np.testing.assert_allclose(metrics["actor_loss"], -0.01 * entropy, atol=1e-5)


def test_old_densities_are_of_the_actor_that_acted_at_the_executed_actions():
    # σ = 1 and bounds of ±1: a good part of the actions was clipped (D-43)
    algorithm, state = small()
    steps = rollout(algorithm, state)
    assert float(jnp.mean(jnp.abs(steps.action) == 1.0)) > 0.2
    nets = make_networks(tiny.config(o2ppo.Config, **TINY), SPEC)
    _, samples, _ = estimate(nets, tiny.config(o2ppo.Config, **TINY), state, steps)
    mean = algorithm.policy(state).distribution(steps.observation).mean
    expected = -0.5 * np.sum((steps.action - mean) ** 2, axis=1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(samples.log_prob, expected, rtol=1e-5)


class Actor:
    """A stand-in: a normal of mean p₀ s and log σ = p₁, of one dimension."""

    def apply(self, params, observation):
        return Gaussian(observation * params[0], params[1][None])


def test_actor_loss_by_hand():
    # μ = 0, 0 and σ = 1: log π = −½ log 2π − ½ a² and with old densities log 1.1 and log 2 below: ρ = 1.1, 2.
    # A' = 3: 1.1 · 3 = 3.3;   A' = 1: clipped, 1.2;   −(3.3 + 1.2) / 2 − 0.5 · 1.418939
    action = jnp.array([[0.5], [-1.0]])
    log_prob = -0.5 * np.log(2 * np.pi) - 0.5 * action[:, 0] ** 2
    old = log_prob - jnp.log(jnp.array([1.1, 2.0]))
    arguments = (jnp.ones((2, 1)), action, old, jnp.array([3.0, 1.0]), jnp.zeros(2), 0.2, 0.5)
    (loss, metrics), gradient = jax.value_and_grad(
        lambda params: losses.actor_loss(params, Actor(), *arguments), has_aux=True
    )((jnp.asarray(0.0), jnp.asarray(0.0)))
    np.testing.assert_allclose(loss, -2.25 - 0.5 * 1.418939, rtol=1e-5)
    np.testing.assert_allclose(metrics["clipped"], 0.5)
    # KL(π_old, π) by one sample each: ρ − 1 − log ρ
    np.testing.assert_allclose(metrics["divergence"], (0.1 - np.log(1.1) + 1 - np.log(2)) / 2, rtol=1e-4)
    # d/dμ of −½ · 3 ρ₁ is −½ · 3.3 · a₁ (σ = 1); d/d log σ: −½ · 3.3 (a₁² − 1) − 0.5; the clipped one has none
    np.testing.assert_allclose(gradient, [-1.65 * 0.5, -1.65 * (0.25 - 1) - 0.5], rtol=1e-5)


class Critic:
    """A stand-in: V(s) = p s."""

    def apply(self, params, observation):
        return params * observation[..., 0]


def test_value_loss_by_hand():
    # V = 2, 4 of s = 1, 2 against 1 and 6: (1 + 4) / 2;   d/dp = mean 2 (V − y) s = (2 · 1 · 1 + 2 · (−2) · 2) / 2
    loss, gradient = jax.value_and_grad(losses.value_loss)(
        jnp.asarray(2.0), Critic(), jnp.array([[1.0], [2.0]]), jnp.array([1.0, 6.0])
    )
    np.testing.assert_allclose([loss, gradient], [2.5, -3.0])


def random_rollout(size=12):
    """Episodes of four steps of which every second one terminates and the others reach a time limit."""
    ended, rows = np.arange(size) % 4 == 3, np.arange(size)
    batch = random_batch(SPEC, size).replace(terminated=jnp.asarray(ended & (rows % 8 == 7), jnp.float32))
    return Rollout(**vars(batch), truncated=jnp.asarray(ended & (rows % 8 != 7), jnp.float32))


def annotated(algorithm, state, dataset):
    state, extras = algorithm.phase("reevaluate").prepare(state, dataset)
    return state, Annotated.of(dataset, extras)


def returns_of(dataset, **settings):
    algorithm = o2ppo.make(tiny.config(o2ppo.Config, **TINY, discount=0.5, **settings), SPEC)
    state, batch = annotated(algorithm, algorithm.init(jax.random.key(0)), dataset)
    return state, batch.extras.shared


@pytest.mark.parametrize(("boundary", "ends"), [("terminals_only", [7]), ("terminals_and_timeouts", [3, 7, 11])])
def test_returns_end_where_the_setting_says(boundary, ends):
    # γ = 0.5, rewards 1, 2, …, 12; the episodes are rows 0–3, 4–7, which terminates, and 8–11
    dataset = random_rollout().replace(reward=jnp.arange(1.0, 13.0))
    _, found = returns_of(dataset, return_boundary=boundary)
    expected, following = np.zeros(12), 0.0
    for row in reversed(range(12)):
        following = row + 1.0 + (0.0 if row in ends else 0.5 * following)
        expected[row] = following
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    assert found.tail is None


def test_returns_go_on_with_the_value_beyond_a_time_limit():
    dataset = random_rollout()
    _, found = returns_of(dataset, return_boundary="bootstrap")
    _, cut = returns_of(dataset)
    np.testing.assert_array_equal(found.value, cut.value)
    # γ^k where the episode was truncated k steps on; the one in the middle terminated
    np.testing.assert_allclose(
        found.tail.weight, [1 / 16, 1 / 8, 1 / 4, 1 / 2] + [0] * 4 + [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    )
    np.testing.assert_array_equal(found.tail.observation[:4], dataset.next_observation[jnp.full(4, 3)])
    np.testing.assert_array_equal(found.tail.observation[8:], dataset.next_observation[jnp.full(4, 11)])


def test_bootstrapped_targets_by_hand():
    # γ = 0.5, V(s') = 8 beyond row t written 8 + t. Rows 0–2 end at a time limit: 3 + V₂/2 = 3 + 10/2 = 8, 2 + 8/2 = 6,
    # 1 + 6/2 = 4.   3–4 terminate: 5, 4 + 5/2 = 6.5.   of 5–6 the recording stopped: 7 + 14/2 = 14, 6 + 14/2 = 13
    rows = jnp.arange(7.0)
    dataset = Rollout(
        observation=jnp.zeros((7, 5)),
        action=jnp.zeros((7, 3)),
        reward=rows + 1.0,
        next_observation=jnp.full((7, 5), 8.0) + rows[:, None],
        terminated=jnp.zeros(7).at[4].set(1.0),
        truncated=jnp.zeros(7).at[2].set(1.0),
    )
    _, found = returns_of(dataset, return_boundary="bootstrap")
    target = found.bootstrapped(lambda observation: observation[:, 0])
    np.testing.assert_allclose(target, [4.0, 6.0, 8.0, 6.5, 5.0, 13.0, 14.0])


def test_targets_of_value_regression():
    # return and tail, at the networks before the update; observations are normalised
    config = tiny.config(o2ppo.Config, **TINY, return_boundary="bootstrap")
    algorithm, nets = o2ppo.make(config, SPEC), make_networks(config, SPEC)
    actor = networks.GaussianActor(3, (8,))
    normalizer = Normalizer(jnp.full(5, 2.0), jnp.full(5, 3.0))
    policy = Policy(actor.init(jax.random.key(2), jnp.zeros((1, 5))), normalizer, actor)
    state, batch = annotated(algorithm, algorithm.init(jax.random.key(0), Handoff(policy)), random_rollout())
    _, metrics = algorithm.phase("reevaluate").update(state, batch, jax.random.key(1))
    returns = batch.extras.shared
    last_value, value = (
        nets.critic.apply(state.critic, (observation - 2.0) / 3.0)
        for observation in (returns.tail.observation, batch.observation)
    )
    target = returns.value + returns.tail.weight * last_value
    np.testing.assert_allclose(metrics["target"], jnp.mean(target), rtol=1e-5)
    np.testing.assert_allclose(metrics["critic_loss"], jnp.mean((value - target) ** 2), rtol=1e-5)


def test_scaled_rewards_make_scaled_returns():
    dataset = random_rollout()
    state, found = returns_of(dataset, reward_scaling="running_std")
    _, plain = returns_of(dataset)
    assert float(state.reward_scale.sums.count) == 12
    assert not np.isclose(state.reward_scale.sums.variance, 1.0)
    np.testing.assert_allclose(found.value, state.reward_scale(plain.value), rtol=1e-5)
    # a resumed phase is prepared anew: the scale must not count the dataset twice
    algorithm = o2ppo.make(tiny.config(o2ppo.Config, **TINY, discount=0.5, reward_scaling="running_std"), SPEC)
    again, _ = annotated(algorithm, state, dataset)
    jax.tree.map(np.testing.assert_array_equal, again.reward_scale, state.reward_scale)


def test_online_rewards_go_on_with_the_dataset_s_scale():
    # the scale of a rollout takes in its rewards first; γ = 0.5, and beyond it nothing of the rollout is scaled
    algorithm, state = small(reward_scaling="running_std", gae_lambda=0.0)
    nets, config = (
        make_networks(tiny.config(o2ppo.Config, **TINY), SPEC),
        tiny.config(o2ppo.Config, **TINY, reward_scaling="running_std"),
    )
    steps = rollout(algorithm, state)
    state, _ = annotated(algorithm, state, steps.replace(reward=100.0 * steps.reward))
    after, samples, _ = estimate(nets, config, state, steps)
    assert float(after.reward_scale.sums.count) == 64
    plain = estimate(
        nets, tiny.config(o2ppo.Config, **TINY), state, steps.replace(reward=after.reward_scale(steps.reward))
    )[1]
    np.testing.assert_allclose(samples.target, plain.target, rtol=1e-5)


def test_unannotated_rows_are_refused():
    algorithm, state = small()
    with pytest.raises(TypeError, match="batch must be of type Annotated, got Transition: annotate the dataset"):
        algorithm.phase("reevaluate").update(state, random_batch(SPEC), jax.random.key(0))


def test_value_regression_finds_a_known_value():
    # rewards of 1 in episodes of ten steps that a time limit cuts: 1 / (1 − γ) = 2 everywhere with bootstrapping,
    # 2 (1 − 0.5^k) with k steps left without; the observation tells k
    size = 200
    left = 10.0 - np.arange(size) % 10
    observation = jnp.asarray(np.tile(left[:, None] / 5 - 1, (1, 5)), jnp.float32)
    batch = random_batch(SPEC, size)
    dataset = Rollout(
        **vars(batch) | {"observation": observation, "reward": jnp.ones(size), "next_observation": observation - 0.2},
        truncated=jnp.asarray(left == 1, jnp.float32),
    )
    for boundary, expected in (("bootstrap", np.full(size, 2.0)), ("terminals_and_timeouts", 2 - 2 * 0.5**left)):
        settings = {"critic_hidden": (32,), "discount": 0.5, "reevaluate_lr": 1e-2, "return_boundary": boundary}
        algorithm = o2ppo.make(tiny.config(o2ppo.Config, **TINY | settings), SPEC)
        critic = make_networks(tiny.config(o2ppo.Config, **TINY | settings), SPEC).critic

        def training(key, algorithm=algorithm, critic=critic):
            state, data = annotated(algorithm, algorithm.init(key), dataset)
            state, _ = run_updates(algorithm.phase("reevaluate").update, state, data, key, 3_000, size)
            return critic.apply(state.critic, observation)

        # a tenth of what lies between both with one step left, 1
        np.testing.assert_allclose(over_keys(training), np.tile(expected, (KEYS, 1)), atol=0.1)


def test_fine_tuning_begins_with_fresh_optimisers():
    algorithm, state = small()
    state, dataset = annotated(algorithm, state, random_rollout())
    trained, _ = algorithm.phase("reevaluate").update(state, dataset, jax.random.key(0))
    ready = algorithm.online.begin(trained, True)
    assert int(ready.step) == 0
    jax.tree.map(np.testing.assert_array_equal, ready.critic, trained.critic)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(ready.opt))
    # one structure for both, so that a run's checkpoints always look alike
    assert jax.tree.structure(ready) == jax.tree.structure(trained)


@pytest.mark.parametrize(
    ("step", "total", "expected"),
    [
        (0, 250_000, 1 - 2_048 / 250_000),  # after the first rollout, as in the authors' code
        (60, 250_000, 1 - 61 * 2_048 / 250_000),
        (122, 250_000, 0.0),  # 251,904 steps: not below 0
        (121, 500_000, 1 - 122 * 2_048 / 500_000),  # expert data: 0.5 at the end
    ],
)
def test_weight_of_the_auxiliary_advantage(step, total, expected):
    weight = auxiliary_weight(tiny.config(o2ppo.Config, auxiliary_env_steps=total), jnp.asarray(step), jnp.ones(()))
    np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("step", "share"), [(0, 1.0), (5, 0.5), (10, 0.0), (11, 0.0)])
def test_learning_rates_fall_linearly(step, share):
    # one step of Adam from fresh moments is proportional to the rate; 320 steps are ten rollouts
    algorithm, state = small(ppo, epochs=1, minibatch_size=32, env_steps=320)
    steps = rollout(algorithm, state)
    first, _ = algorithm.online.update(state, steps, jax.random.key(1))
    later, _ = algorithm.online.update(state.replace(step=jnp.asarray(step, jnp.int32)), steps, jax.random.key(1))
    for part in ("actor", "critic"):
        before, full, found = (jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(getattr(s, part))])
                               for s in (state, first, later))  # fmt: skip
        assert float(jnp.abs(full - before).max()) > 1e-5
        np.testing.assert_allclose(found - before, share * (full - before), atol=1e-7)


def test_gradients_are_clipped_each_by_itself():
    # Adam's first moment is a tenth of the gradient that it gets, whose norm is 0.5 at most
    algorithm, state = small(epochs=1, minibatch_size=32)
    steps = rollout(algorithm, state)
    after, _ = algorithm.online.update(state, steps.replace(reward=100.0 * steps.reward), jax.random.key(1))
    norms = {part: np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(getattr(after.opt, part)[1][0].mu)))
             for part in ("actor", "critic")}  # fmt: skip
    np.testing.assert_allclose(norms["critic"], 0.05, rtol=1e-4)
    assert norms["actor"] < 0.05


def test_every_epoch_sees_every_step_once_in_an_order_of_its_own():
    seen = []

    class Recording(Actor):
        def apply(self, params, observation):
            jax.debug.callback(lambda rows: seen.append(np.asarray(rows)), observation[:, 0], ordered=True)
            return Gaussian(0.0 * observation[:, :1] + params["w"][None], jnp.zeros(1))

    config = tiny.config(o2ppo.Config, **TINY | {"epochs": 3})
    nets = make_networks(config, SPEC)._replace(actor=Recording())
    column = jnp.arange(32.0)
    ones = jnp.ones(32)
    samples = o2ppo.algorithm.Samples(jnp.stack([column] * 5, 1), ones[:, None], 0 * ones, ones, 0 * ones, ones)
    state = small()[1]
    actor = {"w": jnp.zeros(1)}
    optimizer = o2ppo.algorithm.optimizer(config, 1e-3)
    state = state.replace(actor=actor, opt=state.opt.replace(actor=optimizer.init(actor)))
    jax.block_until_ready(improve(nets, config, state, samples, jax.random.key(0)))
    jax.effects_barrier()
    epochs = np.concatenate(seen).reshape(3, 32)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(32), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def samples_of(algorithm_settings, state, steps):
    config = tiny.config(o2ppo.Config, **TINY | algorithm_settings)
    return estimate(make_networks(config, SPEC), config, state, steps)


def auxiliary_of(state, steps):
    """A_α of each step, in deviations of the advantage."""
    nets = make_networks(tiny.config(o2ppo.Config, **TINY), SPEC)
    reference = nets.actor.apply(state.reference, steps.observation)
    log_ratio = reference_advantage(reference.log_prob(steps.action), -reference.entropy())
    return auxiliary_advantage(log_ratio, SPEC.action_dim, 2.0)


def test_each_step_gets_its_own_auxiliary_advantage():
    # A' is, up to mean and scale, A + w σ_A B of the same step: linear in both, with coefficients in the ratio w
    algorithm, state = small()
    steps, state = rollout(algorithm, state), state.replace(reference=far(state.actor))
    auxiliary = auxiliary_of(state, steps)
    _, samples, metrics = samples_of({"auxiliary_env_steps": 64}, state, steps)
    _, plain, _ = samples_of({"auxiliary_scale": 0.0}, state, steps)
    columns = np.stack([plain.positive + plain.negative, auxiliary, np.ones(32)], axis=1)
    coefficients, residual, *_ = np.linalg.lstsq(columns, samples.positive + samples.negative)
    np.testing.assert_allclose(residual, 0.0, atol=1e-6)
    np.testing.assert_allclose(coefficients[1] / coefficients[0], 0.5, rtol=1e-3)
    np.testing.assert_allclose(metrics["auxiliary_weight"], 0.5)  # 32 of 64 steps
    np.testing.assert_allclose(metrics["auxiliary"], jnp.mean(auxiliary), rtol=1e-5)
    assert float(jnp.std(auxiliary)) > 0.1


def test_the_square_broadcast_is_plain_ppo_with_smaller_advantages():
    # D-32: inside the clip range the gradient is that of plain PPO times σ_A / √(σ_A² + w² σ_B²)
    algorithm, state = small()
    steps = rollout(algorithm, state)
    state = state.replace(reference=far(state.actor))
    _, outer, metrics = samples_of({"auxiliary_pairing": "outer"}, state, steps)
    _, plain, _ = samples_of({"auxiliary_scale": 0.0}, state, steps)
    _, paired, _ = samples_of({}, state, steps)
    spread = float(metrics["auxiliary_weight"]) * float(jnp.std(auxiliary_of(state, steps)))  # in deviations of A
    factor = 1.0 / np.sqrt(1.0 + spread**2)
    mean = outer.positive + outer.negative
    np.testing.assert_allclose(mean, factor * (plain.positive + plain.negative), rtol=0.02, atol=1e-4)
    assert not np.allclose(mean, paired.positive + paired.negative, atol=0.1)
    # beyond the clip range its samples have gains and losses at once, which no sample of the paired form has
    assert float(jnp.mean(outer.positive * -outer.negative > 0.0)) > 0.3
    np.testing.assert_array_equal(paired.positive * paired.negative, 0.0)


def test_without_its_auxiliary_advantage_no_reference_holds_it():
    algorithm, state = small(ppo)
    steps = rollout(algorithm, state)
    here, metrics = algorithm.online.update(state, steps, jax.random.key(1))
    elsewhere, _ = algorithm.online.update(state.replace(reference=far(state.actor)), steps, jax.random.key(1))
    assert moved(here, elsewhere) == {"reference"}
    assert not {"auxiliary", "auxiliary_weight"} & metrics.keys()
    # and O2PPO whose β has come to 0 is the same
    config = {"auxiliary_env_steps": 32}
    _, samples, metrics = samples_of(config, state.replace(reference=far(state.actor)), steps)
    _, plain, _ = samples_of({"auxiliary_scale": 0.0}, state, steps)
    assert float(metrics["auxiliary_weight"]) == 0.0
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), samples, plain)


def test_act_samples_the_policy_and_stays_within_bounds():
    algorithm, state = small()
    act = functools.partial(algorithm.online.act, state, (), jnp.zeros(5), jnp.zeros(()))
    actions, _ = jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(0), 300))
    assert float(jnp.abs(actions).max()) == 1.0
    mean = algorithm.policy(state).distribution(jnp.zeros((1, 5))).mean
    inside = jnp.mean(jnp.abs(actions - mean) < 0.67449, axis=0)  # quartiles of σ = 1
    np.testing.assert_allclose(inside, 0.5, atol=0.12)


def test_the_std_is_capped_in_actor_and_reference():
    actor = networks.GaussianActor(3, (8,))
    params = actor.init(jax.random.key(0), jnp.zeros((1, 5)))
    params["params"]["log_std"] = jnp.log(jnp.array([0.01, 0.1, 1.0]))
    handoff = Handoff(Policy(params, Normalizer.identity(5), actor))
    for limit, expected in ((None, [0.01, 0.1, 1.0]), (0.05, [0.01, 0.05, 0.05])):
        algorithm = o2ppo.make(tiny.config(o2ppo.Config, **TINY, max_initial_std=limit), SPEC)
        state = algorithm.init(jax.random.key(1), handoff)
        for policy in (state.actor, state.reference):
            np.testing.assert_allclose(jnp.exp(policy["params"]["log_std"]), expected, rtol=1e-5)
            jax.tree.map(np.testing.assert_array_equal, policy["params"]["MLP_0"], params["params"]["MLP_0"])


def test_defaults_are_the_authors():
    # of H.5 and the released code
    config = o2ppo.Config()
    assert (config.networks.hidden, config.networks.critic_hidden) == ((256, 256), (256, 256, 256))
    assert (config.env_steps, config.evaluation.every_env_steps, config.evaluation.episodes) == (250_000, 2_500, 10)
    assert (config.rollout.env_steps, config.rollout.minibatch_size, config.rollout.epochs) == (2_048, 128, 10)
    assert (
        config.finetune.actor_lr,
        config.finetune.critic_lr,
        config.finetune.adam_eps,
        config.finetune.max_grad_norm,
    ) == (3e-5, 2e-4, 1e-5, 0.5)
    assert (
        config.update.discount,
        config.rollout.gae_lambda,
        config.finetune.clip,
        config.finetune.entropy_weight,
    ) == (0.99, 0.95, 0.2, 0.01)
    assert (config.auxiliary.scale, config.auxiliary.env_steps, config.auxiliary.pairing) == (2.0, 250_000, "paired")
    assert (config.auxiliary.baseline, config.auxiliary.weight) == ("entropy", "linear")
    assert (config.reevaluate.updates, config.reevaluate.lr, config.reevaluate.batch_size) == (1_000_000, 1e-4, 512)
    assert (config.update.reward_scaling, config.networks.max_initial_std, config.update.reward_scale) == (
        "none",
        None,
        1.0,
    )
    assert (config.reference.update, config.reference.every_evaluations) == ("best", 1)
    assert o2ppo.make(config, SPEC).online.schedule == Schedule(env_steps=2_048, updates=1)


EXPERT = {"auxiliary_env_steps": 500_000}
HOPPER_EXPERT = EXPERT | {"epochs": 5, "max_initial_std": 0.05, "reference_every_evaluations": 4}
CHEETAH = {"reward_scaling": "running_std"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hopper-medium", {}),
        ("hopper-medium-replay", {}),
        ("walker2d-medium", {}),
        ("walker2d-expert", EXPERT),
        ("walker2d-medium-expert", EXPERT),
        ("hopper-expert", HOPPER_EXPERT),
        ("hopper-medium-expert", HOPPER_EXPERT),
        ("halfcheetah-medium", CHEETAH),
        ("halfcheetah-medium-replay", CHEETAH),
        ("halfcheetah-medium-expert", CHEETAH | EXPERT),
        ("halfcheetah-expert", CHEETAH | EXPERT),
    ],
)
def test_settings_of_a_task(name, settings):
    task = tasks()[f"mujoco/{name}"]
    assert o2ppo.Config.for_task(task) == tiny.config(o2ppo.Config, **settings)
    assert ppo.Config.for_task(task) == tiny.configure(ppo.Config, **settings)


@pytest.mark.parametrize(
    ("name", "episodes"), [("antmaze/umaze", 100), ("pointmaze/large", 100), ("antmaze/goal-ant", 10)]
)
def test_mazes_are_evaluated_on_as_many_episodes_as_they_ask_for_and_keep_their_rewards(name, episodes):
    assert o2ppo.Config.for_task(envs.get_task(name)) == tiny.config(o2ppo.Config, evaluation_episodes=episodes)


def test_the_pen_is_fine_tuned_as_long_as_by_the_other_algorithms():
    task = envs.get_task("adroit/pen-expert")
    expected = tiny.config(
        o2ppo.Config, auxiliary_env_steps=500_000, env_steps=100_000, evaluation_every_env_steps=1_000
    )
    assert o2ppo.Config.for_task(task) == expected


def test_an_offline_policy_keeps_its_own_scale_of_observations():
    algorithm = o2ppo.make(
        tiny.config(o2ppo.Config, hidden=(8, 8), critic_hidden=(8,), observation_scaling="running"), SPEC
    )
    handoff = Handoff(make_policy("gaussian_free", SPEC.observation_dim, SPEC.action_dim))
    with pytest.raises(ValueError, match="observation_scaling=running is for agents from scratch"):
        algorithm.init(jax.random.key(0), handoff)


def test_the_control_switches_the_idea_off():
    config = ppo.Config()
    updates = [module.make(module.Config(), SPEC).online.update for module in (ppo, o2ppo)]
    assert inspect.unwrap(updates[0]).func is inspect.unwrap(updates[1]).func
    assert config.of_o2ppo() == tiny.config(o2ppo.Config, auxiliary=None, reference=None)
    assert ppo.make(config, SPEC).online.reference is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gae_lambda", 1.1),
        ("gae_lambda", float("nan")),
        ("clip", 0.0),
        ("clip", 1.0),
        ("rollout_env_steps", 0),
        ("epochs", 0),
        ("minibatch_size", 0),
        ("minibatch_size", 100),
        ("reevaluate_lr", 0.0),
        ("adam_eps", 0.0),
        ("max_grad_norm", float("nan")),
        ("auxiliary_env_steps", 0),
        ("auxiliary_weight", "linearly"),
        ("auxiliary_baseline", "none"),
        ("target_divergence_per_dim", 0.0),
        ("max_initial_std", 0.0),
        ("entropy_weight", -0.1),
        ("auxiliary_scale", -1.0),
        ("critic_hidden", ()),
        ("env_steps", -1),
    ],
)
def test_config_refuses(field, value):
    path = tiny.path_of(field, paths(o2ppo.Config()))
    with pytest.raises(ValueError, match=f"^{path} must .*, got ") as error:
        tiny.config(o2ppo.Config, **{field: value})
    assert "\n" not in str(error.value)
