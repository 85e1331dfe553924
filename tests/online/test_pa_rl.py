"""PA-RL: improved actions and losses by hand, an update in closed form, its start, its policy elsewhere, settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax import envs, networks
from o2o_jax.data.returns import ReturnsToGo
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.online import pa_rl
from o2o_jax.online.pa_rl import algorithm, losses
from o2o_jax.ops.distributions import Gaussian
from o2o_jax.policy import ActionOptimization, CloneConfig, Handoff, OptimizedPolicy, Policy, with_head
from o2o_jax.runtime import saved
from o2o_jax.runtime.deployed import DeployedPolicy
from o2o_jax.types import Annotated, Extras, Spec
from tests import sharing, tiny
from tests.golden_numbers import ENTRY_ATOL, SCALAR_RTOL, Golden, member, replayed_draws
from tests.golden_numbers import SPEC as GOLDEN_SPEC

SPEC = Spec(observation_dim=3, action_dim=2)
ONE = Spec(1, 1)
SIZES = {"hidden": (8, 8), "critic_hidden": (8, 8), "samples": 4, "kept": 2, "steps": 2}
LOG_STD = np.log(0.1)


class Actor:
    """A stand-in: a normal of one action with mean p and σ = 0.1 everywhere."""

    head = "gaussian"
    action_dim = 1

    def apply(self, params, observation):
        mean = jnp.broadcast_to(params, (*observation.shape[:-1], 1))
        return Gaussian(mean, jnp.full_like(mean, LOG_STD))


class Critics:
    """A stand-in: Q_i(s, a) = b_i + p_i a, parameters ([E], [E])."""

    def apply(self, params, observation, action):
        del observation
        b, p = (leaf.reshape(-1, *(1,) * (action.ndim - 1)) for leaf in params)
        return b + p * action[None, ..., 0]


CRITIC = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.5])  # of mean ½ + ¾ a


def optimized(samples=8, kept=3, steps=0, step_size=0.02, mean=0.25, critic=CRITIC):
    base = Policy(jnp.array(mean), Normalizer.identity(1), Actor())
    return OptimizedPolicy(base, critic, Critics(), ActionOptimization(samples, kept, steps, step_size))


def samples_of(key, rows, number, mean=0.25):
    """Samples [B, N] of the stand-in."""
    return np.clip(mean + 0.1 * np.asarray(jax.random.normal(key, (rows, number, 1)), np.float64)[..., 0], -1, 1)


def test_without_steps_it_is_the_best_of_the_samples():
    key = jax.random.key(0)
    proposed = samples_of(key, 5, 8)
    np.testing.assert_allclose(optimized().best(jnp.zeros((5, 1)), key)[:, 0], proposed.max(axis=1), rtol=1e-5)
    worse = optimized(critic=(CRITIC[0], -CRITIC[1]))  # where less is more
    np.testing.assert_allclose(worse.best(jnp.zeros((5, 1)), key)[:, 0], proposed.min(axis=1), rtol=1e-5)


def test_candidates_move_up_the_mean_value():
    # the best three, each 4 · 0.02 · ¾ further on; ½ + ¾ a
    key = jax.random.key(1)
    action, value = optimized(steps=4).candidates(jnp.zeros((5, 1)), key)
    expected = -np.sort(-samples_of(key, 5, 8))[:, :3] + 0.06
    np.testing.assert_allclose(action[..., 0], expected, rtol=1e-5)
    np.testing.assert_allclose(value, 0.5 + 0.75 * expected, rtol=1e-5)


def test_a_given_action_takes_the_place_of_the_least_valuable_one():
    key, given = jax.random.key(1), jnp.full((5, 1), -0.5)
    action, _ = optimized(steps=4).candidates(jnp.zeros((5, 1)), key, given)
    alone, _ = optimized(steps=4).candidates(jnp.zeros((5, 1)), key)
    np.testing.assert_array_equal(action[:, :2], alone[:, :2])
    np.testing.assert_allclose(action[:, 2], np.full((5, 1), -0.44), rtol=1e-5)


def test_it_draws_with_a_key_and_repeats_itself_without_one():
    policy, states, rewards = optimized(), jnp.zeros((4, 1)), jnp.zeros(4)
    memory = policy.begin(4, jax.random.key(2))
    actions, following = policy.act(memory, states, rewards)
    assert len(np.unique(actions)) == 4
    np.testing.assert_array_equal(policy.act(memory, states, rewards)[0], actions)
    assert not np.array_equal(policy.act(following, states, rewards)[0], actions)
    mode, memory = policy.act(policy.begin(4), states, rewards)
    assert memory == ()
    assert len(np.unique(mode)) == 1  # by the same noise everywhere, however many there are
    np.testing.assert_array_equal(policy.distribution(jnp.zeros(1)).mode(), mode[0])


class Logits:
    """A stand-in: logits (p, 0) of two bins, [1, B, 2]."""

    outputs = 2

    def apply(self, params, observation, action):
        del action
        return jnp.broadcast_to(jnp.array([params, 0.0]), (1, *observation.shape[:-1], 2))


def test_cross_entropy_by_hand():
    # bins [−1, 0] and [0, 1], y = 0: p = (½, ½).   −½ log s(p) − ½ log (1 − s(p)), whose gradient is s(p) − ½
    critic, states = networks.HistogramCritics(Logits(), -1.0, 1.0), jnp.zeros((3, 1))
    share = 1.0 / (1.0 + np.exp(-0.7))
    function = lambda p: losses.td_loss(p, critic, states, states, jnp.zeros(3))
    (loss, q), gradient = jax.value_and_grad(function, has_aux=True)(0.7)
    np.testing.assert_allclose(loss, -0.5 * (np.log(share) + np.log(1.0 - share)), rtol=1e-6)
    np.testing.assert_allclose(gradient, share - 0.5, rtol=1e-5)
    np.testing.assert_allclose(q, np.full((1, 3), 0.5 * (1.0 - share) - 0.5 * share), rtol=1e-5)


def test_squares_are_averaged_over_critics():
    # Q = ½ and 1¼ at a = ½, y = 1: (¼ + 1/16) / 2
    loss, q = losses.td_loss(CRITIC, Critics(), jnp.zeros((1, 1)), jnp.full((1, 1), 0.5), jnp.ones(1))
    np.testing.assert_allclose(q, [[0.5], [1.25]])
    np.testing.assert_allclose(loss, 0.15625)


def probes():
    # one uniform action, 0.4, and improved ones 0.6 and 0.2, each of which counts twice; R = ½
    action = jnp.array([0.4, 0.6, 0.2]).reshape(1, 3, 1)
    return losses.Probes(action, jnp.array([[1.0, 2.0, 2.0]]), jnp.array([[-jnp.inf, 0.5, 0.5]]))


def test_penalty_and_its_gradient_by_hand():
    # Q_1 = a: 0.4, 0.6, 0.2 of which 0.5 is made, and the data's 0.3;  Q_2 = 1 + a / 2, of which nothing lies below ½
    def function(critic):
        q = Critics().apply(critic, jnp.zeros((1, 1)), jnp.full((1, 1), 0.3))
        return losses.penalty(critic, Critics(), jnp.zeros((1, 1)), q, probes())

    value, (to_b, to_p) = jax.value_and_grad(function)(CRITIC)
    copies, actions = np.array([1, 2, 2, 1]), np.array([0.4, 0.6, 0.2, 0.3])
    values = np.array([[0.4, 0.6, 0.5, 0.3], 1.0 + actions / 2])
    weights = copies * np.exp(values)
    expected = np.log(weights.sum(axis=1) / 6.0) - values[:, 3]
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
    share = weights / weights.sum(axis=1, keepdims=True)
    share[0, 2] = 0.0  # at its floor
    np.testing.assert_allclose(to_b, (share.sum(axis=1) - 1.0) / 2, atol=1e-6)
    np.testing.assert_allclose(to_p, ((share * actions).sum(axis=1) - 0.3) / 2, atol=1e-6)


def test_probes_are_uniform_actions_and_the_improved_ones_with_their_floor():
    batch = tiny.random_batch(ONE, 4)
    returns = jnp.arange(4.0)
    annotated = Annotated.of(batch, Extras(shared=ReturnsToGo(returns)))
    found = algorithm.make_probes(optimized(), annotated, jnp.full((4, 1), 0.125), 3, jax.random.key(3))
    assert np.all(np.abs(found.action[:, :3]) <= 1.0)
    np.testing.assert_array_equal(found.action[:, 3, 0], np.full(4, 0.125))
    sample_key = jax.random.split(jax.random.key(3))[1]
    np.testing.assert_array_equal(found.action[:, 4], optimized().best(batch.observation, sample_key))
    np.testing.assert_array_equal(found.copies, np.tile([1, 1, 1, 3, 3], (4, 1)))
    np.testing.assert_array_equal(found.floor[:, 3:], np.tile(returns[:, None], (1, 2)))
    without = algorithm.make_probes(optimized(), batch, jnp.full((4, 1), 0.125), 3, jax.random.key(3))
    assert np.all(np.isneginf(without.floor))
    assert np.all(np.isneginf(found.floor[:, :3]))


def stand_ins(**settings):
    """Networks, settings and state of linear values, with plain gradient descent."""
    sizes = {"samples": 4, "kept": 2, "steps": 2, "step_size": 0.02, "num_actions": 2, "num_critics": 2}
    config = tiny.config(pa_rl.Config, **sizes, polyak=0.1, discount=0.9, conservative_weight=0.5, **settings)
    rules = optax.sgd(0.001), optax.sgd(0.2)
    nets = algorithm.Networks(Actor(), Critics(), Critics(), *rules, ONE)
    actor = jnp.array(0.25)
    target = jax.tree.map(lambda leaf: leaf + 0.25, CRITIC)
    state = algorithm.State(
        actor=actor, critic=CRITIC, target_critic=target, opt=algorithm.fresh_moments(nets, actor, CRITIC),
        transform=Transform(Normalizer.identity(1)), step=jnp.zeros((), jnp.int32),
    )  # fmt: skip
    return nets, config, state


def test_two_updates_in_closed_form():
    """Linear values, one action, gradient descent, every gradient written out in NumPy."""
    nets, config, state = stand_ins()
    batch = tiny.random_batch(ONE, 6).replace(terminated=jnp.array([0.0, 0, 0, 0, 0, 1]))
    returns = np.linspace(-1.0, 1.0, 6)
    annotated = Annotated.of(batch, Extras(shared=ReturnsToGo(jnp.asarray(returns, jnp.float32))))
    r, a, d = (np.asarray(x, np.float64) for x in (batch.reward, batch.action[:, 0], batch.terminated))
    (b, p), (b_bar, p_bar) = np.array(CRITIC, np.float64), np.array(CRITIC, np.float64) + 0.25
    mean, update = 0.25, jax.jit(functools.partial(algorithm.finetune, nets, config))

    def improved(start):  # two steps of 0.02 up the mean value, which rises as a does
        return np.clip(start + 2 * 0.02 * p.mean(), -1.0, 1.0)

    for step in range(2):
        key = jax.random.key(step)
        actor_key, critic_key = jax.random.split(key)
        # the policy imitates one of its best action and the data's
        sample_key, draw_key, _ = jax.random.split(actor_key, 3)
        candidates = improved(np.stack([samples_of(sample_key, 6, 4, mean).max(axis=1), a], axis=1))
        logits = b.mean() + p.mean() * candidates
        choice = np.argmax(logits + np.asarray(jax.random.gumbel(draw_key, (6, 2)), np.float64), axis=1)
        imitated = np.clip(candidates[np.arange(6), choice], -0.9999, 0.9999)
        mean += 0.001 * np.mean((imitated - mean) / 0.01)
        # the critics' target at the best action of s', by the policy just stepped
        next_key, _, probe_key = jax.random.split(critic_key, 3)
        next_action = improved(samples_of(next_key, 6, 4, mean).max(axis=1))
        y = r + 0.9 * (1 - d) * np.min(b_bar[:, None] + p_bar[:, None] * next_action, axis=0)
        # their penalty: two uniform actions, then the best ones of s' and s twice each, then the data's
        uniform_key, own_key = jax.random.split(probe_key)
        uniform = np.asarray(jax.random.uniform(uniform_key, (6, 2, 1), minval=-1.0, maxval=1.0), np.float64)[..., 0]
        own = improved(samples_of(own_key, 6, 4, mean).max(axis=1))
        actions = np.concatenate([uniform, next_action[:, None], own[:, None], a[:, None]], axis=1)  # [6, 5]
        q = b[:, None, None] + p[:, None, None] * actions
        floor = np.full((6, 5), -np.inf)
        floor[:, 2:4] = returns[:, None]
        weights = np.array([1, 1, 2, 2, 1]) * np.exp(np.maximum(q, floor))
        gap = np.log(weights.sum(axis=-1) / 7.0) - q[..., 4]
        share = np.where(q > floor, weights / weights.sum(axis=-1, keepdims=True), 0.0)
        error = q[..., 4] - y
        # squares are averaged over both critics too, and so is the penalty, half of which counts
        b = b - 0.2 * ((2 * error).mean(axis=1) + 0.5 * (share.sum(axis=-1) - 1.0).mean(axis=1)) / 2
        p = p - 0.2 * ((2 * error * a).mean(axis=1) + 0.5 * ((share * actions).sum(axis=-1) - a).mean(axis=1)) / 2
        b_bar, p_bar = 0.9 * b_bar + 0.1 * b, 0.9 * p_bar + 0.1 * p
        state, metrics = update(state, annotated, key)
        for found, expected in (
            (state.actor, mean), (state.critic, (b, p)), (state.target_critic, (b_bar, p_bar)),
            (metrics["gap"], gap.mean()), (metrics["candidate_q"], logits.mean()), (metrics["target_q"], y.mean()),
        ):  # fmt: skip
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
        assert 0 < choice.sum() < 6  # both are imitated
    assert int(state.step) == 2


def test_a_policy_imitates_the_data_where_these_are_worth_more():
    # Q = −100 a: of 0.25 and the data's −0.9 the latter, which steps of 0.02 · (−100) take to −1; (â − μ) / σ²
    nets, config, state = stand_ins()
    state = state.replace(critic=(jnp.zeros(2), jnp.full(2, -100.0)))
    batch = tiny.random_batch(ONE, 6).replace(action=jnp.full((6, 1), -0.9))
    nets = nets._replace(actor_optimizer=optax.sgd(1e-5))
    config = tiny.changed(config, steps=0)
    end, _ = algorithm.imitation_step(nets, config, state, batch, jax.random.key(0))
    np.testing.assert_allclose(end.actor, 0.25 + 1e-5 * (-0.9 - 0.25) / 0.01, rtol=1e-6)


def handoff(head="tanh_gaussian"):
    actor = networks.HEADS[head](2, (8, 8))
    params = actor.init(jax.random.key(1), jnp.zeros((1, 3)))
    return Handoff(Policy(params, Normalizer(jnp.ones(3), jnp.full(3, 2.0)), actor), source="bc")


@functools.cache
def made(**settings):
    return pa_rl.make(tiny.config(pa_rl.Config, **SIZES, batch_size=8, num_critics=3, **settings), SPEC)


@functools.cache
def started():
    return sharing.jit(made().init)(jax.random.key(0), handoff())


def test_the_critics_learn_first_while_the_policy_stays():
    start, (phase,) = started(), made().phases
    assert (phase.name, phase.updates) == ("critics", 1_000_000)
    jax.tree.map(np.testing.assert_array_equal, start.actor, handoff().policy.params)
    state, extras = phase.prepare(start, tiny.random_rollout(SPEC, 8))
    batch = Annotated.of(tiny.random_batch(SPEC, 8), extras)
    end, metrics = sharing.jit(phase.update)(state, batch, jax.random.key(5))
    assert tiny.moved(start, end) == {"critic", "target_critic", "opt", "step"}
    assert {"gap", "td_loss", "critic_loss"} < metrics.keys()
    # fine-tuning begins with fresh moments
    begun = made().online.begin(end, jnp.asarray(True))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves((begun.opt, begun.step)))
    jax.tree.map(np.testing.assert_array_equal, begun.critic, end.critic)
    online, _ = sharing.jit(made().online.update)(begun, batch, jax.random.key(5))
    assert tiny.moved(begun, online) == {"actor", "critic", "target_critic", "opt", "step"}


def test_without_its_penalty_and_phase_neither_is_computed():
    light = made(conservative_weight=0.0, critics_updates=0)
    assert (light.phases, light.online.prepare) == ((), None)
    _, metrics = jax.eval_shape(light.online.update, started(), tiny.random_batch(SPEC, 8), jax.random.key(0))
    assert "gap" not in metrics


def test_histograms_begin_near_their_middle():
    with_bins = made(num_bins=16, value_low=-4.0, value_high=2.0)
    state, batch = with_bins.init(jax.random.key(0), handoff()), tiny.random_batch(SPEC, 8)
    np.testing.assert_allclose(with_bins.critic(state)(batch.observation, batch.action), np.full(8, -1.0), atol=0.1)
    assert state.critic["params"]["Dense_0"]["bias"].shape == (3, 16)


def test_its_policy_is_deployed_saved_and_cloned(tmp_path):
    policy, observations = tiny.make_optimized_policy(3, 2), np.asarray(tiny.random_batch(SPEC, 8).observation)
    deployed = DeployedPolicy(policy)
    np.testing.assert_allclose(deployed(observations)[2], deployed(observations[2]), rtol=1e-5, atol=1e-6)
    for number, kept in enumerate((policy, made().policy(started()))):  # with histograms and without
        found = saved.read(saved.save(DeployedPolicy(kept), tmp_path / str(number)))  # which compares the numbers
        assert (found.policy.head, found.policy.rule, found.policy.critic) == ("optimized", kept.rule, kept.critic)
        assert found.policy.actor == kept.actor
    cloned = with_head(
        Handoff(found.policy), "deterministic", tiny.random_batch(SPEC, 8), jax.random.key(0),
        CloneConfig(hidden=(8,), updates=2, batch_size=4),
    )  # fmt: skip
    assert np.isfinite(cloned.closeness["mse"])


def test_a_policy_of_another_head_is_refused():
    with pytest.raises(ValueError, match="^expected a tanh_gaussian policy, got a deterministic one; clone it first"):
        made().init(jax.random.key(0), handoff("deterministic"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kept": 1}, "kept must be at least 2, since the data's action takes the place of one, got 1$"),
        ({"samples": 4}, "kept must be at most samples"),
        ({"num_critics": 1}, "num_target_critics must be at most num_critics"),
        ({"value_low": 0.0}, "value_low must lie below value_high, 0.0, got 0.0$"),
        ({"mode": "auto"}, "replay.mode=auto compares critics of the policy alone"),
        ({"batch_size": 5}, "replay.mode=half needs an even update.batch_size, got 5$"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(pa_rl.Config, **settings)


def test_published_settings():
    medium = pa_rl.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    assert (medium.networks.num_bins, medium.update.reward_shift, medium.critics.updates) == (1, 0.0, 1_000_000)
    assert medium.optimization.rule == (32, 10, 10, 3e-4)
    maze = pa_rl.Config.for_task(envs.get_task("antmaze/umaze"))
    assert (maze.networks.num_bins, maze.networks.critic_hidden, maze.update.reward_shift) == (128, (256,) * 4, -1.0)
    # the worst return there is, and the best
    assert maze.networks.value_low == pytest.approx(maze.update.reward_shift / (1.0 - maze.update.discount))
    assert (maze.networks.value_high, maze.update.failure_reward) == (0.0, 0.0)
    fast = pa_rl.Config.for_task(envs.get_task("mujoco/hopper-medium"), "fast")
    assert (fast.optimization.rule, fast.networks.num_critics) == ((8, 2, 3, 3e-4), 2)


def learning(key):
    """Goes on from a policy that does −0.5 where r = 1 − |a − 0.5|; what its actor does after that, and it itself."""
    settings = {"samples": 8, "kept": 2, "steps": 3, "step_size": 0.01, "num_critics": 2, "conservative_weight": 0.0}
    rates = {"actor_lr": 3e-3, "critic_lr": 3e-3, "polyak": 0.05, "hidden": (16,), "critic_hidden": (32,)}
    algorithm_ = pa_rl.make(tiny.config(pa_rl.Config, **settings, **rates), ONE)
    start_key, run_key = jax.random.split(key)
    state = algorithm_.init(start_key)
    output = state.actor["params"]["Dense_0"]
    output = output | {"bias": output["bias"].at[0].set(jnp.arctanh(-0.5))}
    state = state.replace(actor={"params": state.actor["params"] | {"Dense_0": output}})

    def step(state, key):
        action_key, update_key = jax.random.split(key)
        action = jax.random.uniform(action_key, (32, 1), minval=-1.0, maxval=1.0)
        rows = tiny.random_batch(ONE, 32, terminated=1.0)
        rows = rows.replace(observation=jnp.zeros((32, 1)), action=action, reward=1.0 - jnp.abs(action[:, 0] - 0.5))
        return algorithm_.online.update(state, rows, update_key)

    before = algorithm_.policy(state).base.distribution(jnp.zeros((1, 1))).mode()[0, 0]
    state, _ = jax.lax.scan(step, state, jax.random.split(run_key, 600))
    policy = algorithm_.policy(state)
    return before, policy.base.distribution(jnp.zeros((1, 1))).mode()[0, 0], policy.best(jnp.zeros((1, 1)), key)[0, 0]


def test_probe_a_policy_comes_to_do_what_the_critics_lead_to():
    before, actor, action = tiny.over_keys(learning)
    np.testing.assert_allclose(before, -0.5, atol=0.02)
    np.testing.assert_array_less(0.0, actor)
    np.testing.assert_allclose(action, 0.5, atol=0.15)


class Proposing:
    """A stand-in: a standard normal, whose samples are the recorded proposals."""

    head = "gaussian"

    def apply(self, params, observation):
        del params
        return Gaussian(jnp.zeros((*observation.shape[:-1], 3)), jnp.zeros((*observation.shape[:-1], 3)))


def test_golden_updates():
    golden = Golden("pa_rl")
    sizes = {"critic_hidden": (32, 32), "num_critics": 2, "num_bins": 11, "value_low": -3.0, "value_high": 3.0}
    rule = {"samples": 6, "kept": 3, "steps": 3, "step_size": 0.05}
    config = tiny.config(pa_rl.Config, **sizes, **rule, conservative_weight=0.5, num_actions=4)
    nets = algorithm.make_networks(config, GOLDEN_SPEC)._replace(actor=Proposing())
    critic, actor = golden.ensemble("critic_1", "critic_2"), jnp.zeros(())
    state = algorithm.State(
        actor=actor, critic=critic, target_critic=critic, opt=algorithm.fresh_moments(nets, actor, critic),
        transform=Transform(Normalizer.identity(5)), step=jnp.zeros((), jnp.int32),
    )  # fmt: skip

    @jax.jit
    def update(state, batch, proposed, next_proposed, uniform):
        policy = algorithm.policy(nets, config, state)
        with replayed_draws([proposed]):
            imitated = policy.candidates(batch.observation, jax.random.key(0), batch.action)
        with replayed_draws([next_proposed, uniform, proposed]):
            return algorithm.evaluate(nets, config, state, batch, jax.random.key(0)), imitated

    for step in golden.steps("update"):
        returns = jnp.asarray(golden.recorded("update", step, "batch/returns")[:, 0])
        batch = Annotated.of(golden.batch("update", step), Extras(shared=ReturnsToGo(returns)))
        (state, metrics), (action, value) = update(state, batch, *golden.recorded_draws("update", step))
        # theirs begin with the least valuable one
        for name, found in (("action", action), ("value", jax.nn.log_softmax(value))):
            expected = golden.recorded("update", step, f"imitated/{name}")[:, jnp.array([1, 0, 2])]
            np.testing.assert_allclose(found, expected, atol=ENTRY_ATOL)
        log = golden.log("update", step)
        assert 0.1 < log["calql_bound_rate"] < 0.9
        for name, theirs in (
            ("critic_loss", "critic_loss"), ("td_loss", "td_loss"), ("q", "predicted_qs"), ("target_q", "target_qs"),
            ("gap", "cql_diff"),
        ):  # fmt: skip
            np.testing.assert_allclose(metrics[name], log[theirs], rtol=SCALAR_RTOL, atol=ENTRY_ATOL, err_msg=name)
        golden.check(
            "update", step, critic_1=member(state.critic, 0), critic_2=member(state.critic, 1),
            target_1=member(state.target_critic, 0), target_2=member(state.target_critic, 1),
        )  # fmt: skip
    assert step == 2
