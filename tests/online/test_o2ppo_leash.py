"""O2PPO's leash: what the auxiliary advantage does to σ, β by a target KL, roll-backs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.online import o2ppo, ppo
from o2o_jax.online.o2ppo.algorithm import NO_CAP, auxiliary_weight, estimate, make_networks, roll_back, set_reference
from o2o_jax.policy import Handoff, Policy
from o2o_jax.runtime.seeds import seed_axes, take
from o2o_jax.training import is_finite
from o2o_jax.types import Rollout, Spec
from tests import tiny
from tests.tiny import far, moved, random_batch

SPEC = Spec(observation_dim=5, action_dim=3)
TINY = {"hidden": (8,), "critic_hidden": (8,), "rollout_env_steps": 32, "minibatch_size": 8, "epochs": 2}
TARGET = {"auxiliary_weight": "target_divergence"}


def start(module=o2ppo, **settings):
    """Settings, and a state that has moved away from its reference and learnt with some moments."""
    config = tiny.config(module.Config, **TINY | settings)
    algorithm = module.make(config, SPEC)
    state = algorithm.online.begin(algorithm.init(jax.random.key(0)), False)
    config = config.of_o2ppo() if module is ppo else config
    return config, state.replace(actor=far(state.actor), opt=jax.tree.map(lambda leaf: leaf + 1, state.opt))


def rollout(size=32):
    return Rollout(**vars(random_batch(SPEC, size)), truncated=(jnp.arange(size) % 5 == 4).astype(jnp.float32))


def estimated(config, state):
    return estimate(make_networks(config, SPEC), config, state, rollout())


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_where_the_policy_is_its_reference_the_acting_policy_s_baseline_adds_nothing():
    # z = 0 for every action, so that A_α is one constant, which normalisation takes out again
    config, state = start(auxiliary_baseline="policy")
    state = state.replace(reference=state.actor)
    _, samples, metrics = estimated(config, state)
    _, plain, _ = estimated(start(ppo)[0], state)
    assert float(metrics["reference_divergence"]) == 0.0
    np.testing.assert_allclose(metrics["auxiliary"], 0.0, atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), samples, plain)
    # the page's baseline differs from action to action
    _, entropy, _ = estimated(start()[0], state)
    assert float(jnp.abs(entropy.positive - plain.positive).max()) > 0.1


@pytest.mark.parametrize("module", [o2ppo, ppo])
def test_every_rollout_says_how_far_the_policy_is_from_its_reference(module):
    config, state = start(module)
    steps = rollout()
    nets = make_networks(config, SPEC)
    policy, reference = (nets.actor.apply(params, steps.observation) for params in (state.actor, state.reference))
    # log σ is 0.5 and 0: KL per dimension is −0.5 + (e + (μ − μ_ref)²) / 2 − ½
    expected = jnp.mean(jnp.sum(-1.0 + (np.e + (policy.mean - reference.mean) ** 2) / 2.0, axis=1))
    metrics = estimated(config, state)[2]
    np.testing.assert_allclose(metrics["reference_divergence"], expected, rtol=1e-5)


def test_the_leash_follows_the_divergence():
    config, away = start(**TARGET)
    home = away.replace(reference=away.actor)
    # κ = 3 · 0.05 = 0.15 nats: far above it away from home, far below at home
    for state, leash in ((away, 1.5), (home, 1 / 1.5)):
        after, _, metrics = estimated(config, state)
        assert moved(state, after) == {"leash"}
        np.testing.assert_allclose([after.leash, metrics["auxiliary_weight"]], leash, rtol=1e-6)
        np.testing.assert_allclose(metrics["target_divergence"], 0.15, rtol=1e-6)
    # as it does under a cap
    np.testing.assert_allclose(
        estimated(config, home.replace(divergence_cap=jnp.asarray(0.02)))[2]["target_divergence"], 0.02
    )
    # by default it stays, and its factor is what the linear fall is multiplied by
    config, state = start()
    after, _, metrics = estimated(config, state.replace(leash=jnp.asarray(2.0)))
    np.testing.assert_allclose(after.leash, 2.0)
    np.testing.assert_allclose(metrics["auxiliary_weight"], 2.0 * (1 - 32 / 250_000), rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, TARGET])
def test_a_roll_back_by_hand(settings):
    # three seeds: rejected at 0.08 nats, at an unknown distance, and not at all
    config, state = start(**settings)
    state = state.replace(leash=0.75 * state.leash, divergence_cap=1e-7 * state.divergence_cap)
    back = jax.vmap(functools.partial(roll_back, config, state), out_axes=seed_axes(state))(
        jnp.array([True, True, False]), jnp.array([0.08, jnp.nan, 0.08])
    )
    first, second, third = (take(back, seed) for seed in range(3))
    equal(third, state)
    for seed in (first, second):
        equal(seed.actor, state.reference)
        assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(seed.opt.actor))
        assert moved(state, seed) - {"divergence_cap"} == {"actor", "opt", "leash"}  # not the critic
        assert moved(state.opt, seed.opt) == {"actor"}
        assert float(seed.leash) == 1.5
    np.testing.assert_allclose([first.divergence_cap, second.divergence_cap], [0.04, 0.1])
    assert jax.tree.map(jax.typeof, first) == jax.tree.map(jax.typeof, state)  # so that nothing compiles again


def test_a_roll_back_tightens_within_bounds_and_an_acceptance_takes_it_back():
    config, state = start(**TARGET)
    yes, no = jnp.asarray(True), jnp.asarray(False)
    assert float(state.divergence_cap) == NO_CAP
    assert bool(is_finite(state))
    back = functools.partial(roll_back, config)
    for divergence, cap in ((0.08, 0.04), (0.3, 0.04), (0.02, 0.01), (0.0, 1e-3)):
        state = back(state, yes, jnp.asarray(divergence))
        np.testing.assert_allclose(state.divergence_cap, cap, rtol=1e-6)  # the smallest so far, but not 0
    np.testing.assert_allclose(state.leash, 10.0)  # 2⁴, bounded
    equal(set_reference(config, state, no), state)
    ahead = state.replace(actor=far(state.actor))
    accepted = set_reference(config, ahead, yes)
    equal(accepted.reference, ahead.actor)
    np.testing.assert_allclose([accepted.divergence_cap, accepted.leash], [2e-3, 10.0])
    # where β falls linearly nothing else would loosen the leash: down to where it was
    linear, leashes = start()[0], []
    for _ in range(5):
        ahead = set_reference(linear, ahead, yes)
        leashes.append(float(ahead.leash))
    assert leashes == [5.0, 2.5, 1.25, 1.0, 1.0]
    # without a rejection an acceptance moves π_ref alone
    assert moved(start()[1], set_reference(linear, start()[1], yes)) == {"reference"}


def test_weight_of_the_auxiliary_advantage_by_a_target():
    # nothing falls with time
    weight = auxiliary_weight(tiny.config(o2ppo.Config, **TARGET), jnp.asarray(10_000), jnp.asarray(0.7))
    np.testing.assert_allclose(weight, 0.7)


def play(reward, rollouts, keys=4, **settings):
    """Fine-tunes policies of mean 0 and σ = 0.3 at the one state that there is, from `keys` keys at once."""
    spec, log_std = Spec(observation_dim=1, action_dim=1), float(np.log(0.3))
    size = {"hidden": (8,), "critic_hidden": (8,), "rollout_env_steps": 128, "minibatch_size": 32, "epochs": 10}
    rates = {"actor_lr": 1e-3, "critic_lr": 3e-3, "env_steps": 10**6, "auxiliary_env_steps": 10**6, "discount": 0.5}
    algorithm = o2ppo.make(tiny.config(o2ppo.Config, **size | rates | {"entropy_weight": 0.0} | settings), spec)
    actor = networks.GaussianActor(1, size["hidden"])
    params = jax.tree.map(jnp.zeros_like, actor.init(jax.random.key(0), jnp.zeros((1, 1))))
    params["params"]["log_std"] = jnp.full(1, log_std)
    handoff = Handoff(Policy(params, Normalizer.identity(1), actor))
    observation, ones = jnp.zeros((128, 1)), jnp.ones(128)

    def update(state, key):
        act_key, reward_key, update_key = jax.random.split(key, 3)
        action = algorithm.policy(state).distribution(observation).sample(act_key)
        rewards = reward(action[:, 0], jax.random.normal(reward_key, (128,)))
        steps = Rollout(observation, action, rewards, observation, ones, 0.0 * ones)
        return algorithm.online.update(state, steps, update_key)

    def run(key):
        state = algorithm.online.begin(algorithm.init(key, handoff), False)
        return jax.lax.scan(update, state, jax.random.split(key, rollouts))

    state, metrics = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), keys))
    return state.actor["params"]["log_std"][:, 0] - log_std, metrics


def test_without_a_signal_the_entropy_shrinks_the_policy_and_the_acting_policy_s_density_does_not():
    # rewards are noise. What is shown is the mean change of log σ over keys, beside its standard error
    shrinks, stays = (
        np.asarray(play(lambda action, noise: noise, 20, auxiliary_baseline=baseline)[0])
        for baseline in ("entropy", "policy")
    )
    assert shrinks.mean() < -10 * shrinks.std(ddof=1) / np.sqrt(shrinks.size)
    assert shrinks.mean() < -0.1
    assert abs(stays.mean()) < 0.1 * abs(shrinks.mean())


def test_beta_settles_where_the_divergence_meets_its_target():
    # reward −(a − 1)² pulls for ever. κ = 0.05 nats: at first at rest, then beyond it, then near it for good
    _, metrics = play(
        lambda action, noise: -jnp.square(action - 1.0) + 0.3 * noise, 60, auxiliary_baseline="policy", **TARGET
    )
    divergence = np.asarray(metrics["reference_divergence"])
    assert (divergence[:, 0] == 0.0).all()
    late = divergence[:, 30:].mean(axis=1)
    assert (late > 0.05 / 1.5).all()
    assert (late < 0.05 * 1.5).all()
    weight = np.asarray(metrics["auxiliary_weight"])
    assert (weight[:, 30:] > 0.1).all()
    assert (weight < 10.0).all()
