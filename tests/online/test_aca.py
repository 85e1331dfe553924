"""ACA: bounded densities and aligned critics by hand, recorded updates, its start, what it refuses, settings."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs, networks
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.losses import soft_actor_loss
from o2o_jax.offline import sac_ml
from o2o_jax.offline.sac_ml.losses import baseline
from o2o_jax.online import aca
from o2o_jax.online.aca import algorithm, losses
from o2o_jax.ops.distributions import Gaussian, TanhGaussian
from o2o_jax.policy import hand_over
from o2o_jax.types import Spec
from tests import sharing, tiny
from tests.golden_numbers import Golden, member, replayed_draws
from tests.offline.test_sac_ml import Actor, Critics, check_log, golden_networks

SPEC = Spec(observation_dim=3, action_dim=2)
SIZES = {"hidden": (8, 8), "critic_hidden": (8, 8)}
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def test_bounded_density_by_hand():
    # N(0, 1), β = 2: b = −2 − ½ log 2π.   a = 0: log π − b = 2.   a = 4: −8 + 2 = −6
    distribution = Gaussian(jnp.zeros((2, 1)), jnp.zeros(1))
    found = losses.bounded_log_prob(distribution, jnp.array([[0.0], [4.0]]), 2.0)
    expected = np.log1p(np.exp([2.0, -6.0])) - 2.0 - HALF_LOG_2PI
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bounded_density_stays_above_its_bound_and_near_the_density():
    # a squashed normal off the middle, whose two bounds differ: the lower one is that towards the middle
    distribution = TanhGaussian(jnp.full((50, 1), 1.0), jnp.full((50, 1), -1.0))
    bound = np.minimum(*(distribution.log_prob_at(k) for k in (-3.0, 3.0)))
    np.testing.assert_array_less(distribution.log_prob_at(-3.0), distribution.log_prob_at(3.0))
    action = jnp.linspace(-0.99, 0.99, 50)[:, None]
    found, density = losses.bounded_log_prob(distribution, action, 3.0), distribution.log_prob(action)
    np.testing.assert_array_less(np.maximum(bound, density), found + 1e-6)
    near = np.asarray(density) > bound + 4.0
    assert 5 < near.sum() < 45
    np.testing.assert_allclose(found[near], density[near], atol=0.02)


def test_bounded_density_gradient_in_closed_form():
    # sigmoid(log π − b) · (−(a − μ)), log π − b = 2 − a² / 2: by the action; by the mean nothing comes of b
    function = lambda mean, action: losses.bounded_log_prob(Gaussian(mean, jnp.zeros(1)), action, 2.0)[0]
    share = 1.0 / (1.0 + math.exp(-(2.0 - 4.5)))
    to_mean, to_action = jax.grad(function, argnums=(0, 1))(jnp.zeros((1, 1)), jnp.full((1, 1), 3.0))
    np.testing.assert_allclose(to_action, [[-3.0 * share]], rtol=1e-5)
    np.testing.assert_allclose(to_mean, [[3.0 * share]], rtol=1e-5)


CRITIC = losses.AlignedCritics(Critics(), Actor(), 50.0)  # of so wide a bound that it has no part


def aligned_params(residual=(2.0, 4.0), reference=0.25, weight=0.5):
    return losses.AlignedParams(jnp.array(residual), jnp.array(reference), jnp.array(weight))


def test_aligned_critics_by_hand():
    # R = 2 · 1.5 and 4 · 1.5;  log π_0(½) of N(¼, ½²) = −½ · ¼ + log 2 − ½ log 2π, half of which counts
    arguments = aligned_params(), jnp.zeros((1, 1)), jnp.array([[0.5]])
    density = -0.125 + math.log(2.0) - HALF_LOG_2PI
    # of so wide a bound, −1,250 + …, that float32 has four digits after the point
    np.testing.assert_allclose(CRITIC.apply(*arguments), [[3.0 + 0.5 * density], [6.0 + 0.5 * density]], atol=2e-4)
    lowest = losses.lowest_value(arguments[0], CRITIC, *arguments[1:])
    np.testing.assert_allclose(lowest, [3.0 + 0.5 * density], atol=2e-4)


def test_critics_learn_the_residual_alone():
    function = lambda residual: losses.critic_loss(
        residual, CRITIC, aligned_params(), jnp.zeros((1, 1)), jnp.array([[0.5]]), jnp.zeros(1)
    )[0]
    q = CRITIC.apply(aligned_params(), jnp.zeros((1, 1)), jnp.array([[0.5]]))[:, 0]
    loss, gradient = jax.value_and_grad(function)(jnp.array([2.0, 4.0]))
    np.testing.assert_allclose(loss, np.sum(q**2), rtol=1e-6)
    np.testing.assert_allclose(gradient, 2.0 * q * 1.5, rtol=1e-6)


@pytest.mark.parametrize(("mean", "force"), [(0.25, 0.0), (0.5, 1.0)])
def test_the_offline_policy_is_where_critics_of_states_lead(mean, force):
    # R of the state, w = α = 1: the divergence from π_0, whose gradient by the mean is (μ − μ_0) / σ², 0 at μ_0
    critic = losses.AlignedCritics(OfStates(), Actor(), 50.0)

    def loss(mean):
        with replayed_draws([np.array([[0.5], [-0.5]], np.float32)]):
            return soft_actor_loss(
                mean, Actor(), aligned_params(weight=1.0), critic, jnp.zeros((2, 1)), jax.random.key(0), 1.0,
                losses.lowest_value,
            )[0]  # fmt: skip

    np.testing.assert_allclose(jax.grad(loss)(jnp.array(mean)), force, atol=1e-6)


class OfStates:
    """A stand-in: R_i = p_i everywhere, parameters [E]."""

    def apply(self, params, observation, action):
        del action
        return params[:, None] + 0.0 * observation[None, ..., 0]


def test_weight_by_hand():
    # T = 40,000: 1 at first, ¾ after a quarter, no less than ½;  two updates per environment step take twice as many
    steps = jnp.array([0, 10_000, 20_000, 39_999])
    np.testing.assert_allclose(algorithm.weight(aca.Config(), steps), [1.0, 0.75, 0.5, 0.5], rtol=1e-6)
    twice = tiny.config(aca.Config, updates_per_env_step=2)
    np.testing.assert_allclose(algorithm.weight(twice, steps), [1.0, 0.875, 0.75, 0.5000250], rtol=1e-5)
    constant = tiny.config(aca.Config, weight_end=1.0)
    np.testing.assert_array_equal(algorithm.weight(constant, steps), np.ones(4))


def test_golden_updates():
    golden = Golden("aca")
    density = {"deviations": 1.0, "fall_env_steps": 1_000, "weight_end": 0.9985}
    config = tiny.config(aca.Config, hidden=(32, 32), critic_hidden=(32, 32), **density)
    nets = golden_networks(config.update)
    actor, kept = golden.params("policy"), golden.params("kept")
    critic, log_alpha = golden.ensemble("residual_1", "residual_2"), jnp.zeros(())
    opt = algorithm.OptStates(
        nets.actor_optimizer.init(actor), nets.critic_optimizer.init(critic), nets.alpha_optimizer.init(log_alpha)
    )
    state = algorithm.State(
        actor=actor, reference=kept, critic=critic, target_critic=critic, log_alpha=log_alpha, opt=opt,
        transform=Transform(Normalizer.identity(5)), step=jnp.zeros((), jnp.int32),
    )  # fmt: skip
    update = golden.replay("finetune", lambda *arguments: algorithm.finetune(nets, config, *arguments))
    weight = 1.0
    for step in golden.steps("finetune"):
        state, metrics = update(state, step)
        np.testing.assert_allclose(metrics["weight"], weight, rtol=1e-6)
        weight = check_log(golden, "finetune", step, metrics)["interpolation_weight"]  # of the next update
        golden.check(
            "finetune", step, policy=state.actor, log_alpha=state.log_alpha,
            residual_1=member(state.critic, 0), residual_2=member(state.critic, 1),
            residual_target_1=member(state.target_critic, 0), residual_target_2=member(state.target_critic, 1),
        )  # fmt: skip
    assert step == 2


def test_golden_critics_of_the_functions_of_states():
    golden = Golden("aca")
    critic = networks.append_inputs(golden.ensemble("baseline_1", "baseline_2"), 3)
    golden.check("transfer", 0, critic_1=member(critic, 0), critic_2=member(critic, 1))


@functools.cache
def trained(head="tanh_gaussian"):
    """SAC+ML after one update: the method, its state, and ACA as it starts from it."""
    config = tiny.config(aca.Config, **SIZES, head=head, batch_size=8)
    method = sac_ml.make(config.update, SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer.identity(3))
    state, _ = sharing.jit(method.phase("offline").update)(state, tiny.random_batch(SPEC, 8), jax.random.key(0))
    made = aca.make(config, SPEC)
    return method, state, made, sharing.jit(made.init)(jax.random.key(1), hand_over(method, state))


def test_it_starts_from_the_policy_and_critics_made_of_the_functions_of_states():
    method, state, made, start = trained()
    for name in ("actor", "reference"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), state.actor)
    jax.tree.map(np.testing.assert_array_equal, start.critic, start.target_critic)
    network, batch = networks.Critics((8, 8), False, 2), tiny.random_batch(SPEC, 8)
    values = network.apply(start.critic, batch.observation, batch.action)
    np.testing.assert_allclose(values, baseline(state.baseline, network, batch.observation), rtol=1e-5, atol=1e-6)
    for name in ("actor", "alpha"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start.opt, name), getattr(state.opt, name))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(start.opt.critic))
    assert float(state.log_alpha) != float(start.log_alpha) == 0.0
    begun = made.online.begin(start.replace(step=start.step + 3), jnp.asarray(True))
    assert int(begun.step) == 0
    # its critics show the density of the policy: more of them, and more by far where it is
    q, policy = made.critic(start), made.policy(start)
    mode = policy.distribution(batch.observation).mode()
    assert jnp.all(q(batch.observation, mode) > q(batch.observation, jnp.full_like(mode, 0.99)))
    assert q.discount == method.critic(state).discount


@pytest.mark.parametrize("head", ["tanh_gaussian", "gaussian"])
def test_all_moves_but_the_offline_policy(head):
    _, _, made, start = trained(head)
    end, metrics = sharing.jit(made.online.update)(start, tiny.random_batch(SPEC, 8), jax.random.key(5))
    assert tiny.moved(start, end) == {"actor", "critic", "target_critic", "log_alpha", "opt", "step"}
    assert all(np.isfinite(value) for value in metrics.values())
    assert (made.requires.head, made.policy(end).head) == (head, head)


def test_the_norm_of_the_actors_gradient_is_bounded():
    # Adam's first moments take a tenth of the gradient, whose scale its steps hardly show
    _, _, _, start = trained()
    made = aca.make(tiny.config(aca.Config, **SIZES, batch_size=8, actor_grad_norm=1e-3), SPEC)
    end, _ = sharing.jit(made.online.update)(start, tiny.random_batch(SPEC, 8), jax.random.key(5))
    added = jax.tree.map(lambda new, old: 10.0 * (new - 0.9 * old), end.opt.actor[0].mu, start.opt.actor[0].mu)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(added)))
    np.testing.assert_allclose(norm, 1e-3, rtol=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "cql"}, "^aca continues from sac_ml, .* comes from cql: pass the policy of a run of sac_ml$"),
        ({"state": None}, "^aca continues from its offline state, and this policy comes without one"),
    ],
)
def test_what_is_refused(changes, message):
    method, state, made, _ = trained()
    with pytest.raises(ValueError, match=message):
        made.init(jax.random.key(0), hand_over(method, state).replace(**changes))


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("mujoco/hopper-random", (7.0, 10_000, 0.0, "none", 256)),
        ("mujoco/hopper-medium", (7.0, 40_000, 0.5, "none", 256)),
        ("mujoco/hopper-medium-replay", (7.0, 40_000, 0.5, "part", 0)),
        ("mujoco/hopper-medium-expert", (15.0, 40_000, 1.0, "part", 0)),
        ("mujoco/hopper-expert", (15.0, 40_000, 1.0, "part", 0)),
        ("antmaze/umaze", (3.0, 200_000, 0.5, "none", 256)),
    ],
)
def test_published_settings(task, expected):
    config = aca.Config.for_task(envs.get_task(task))
    found = (*dataclasses.astuple(config.density), config.replay.mode, config.interaction.warmup_env_steps)
    assert found == expected
    assert config.update == sac_ml.Config.for_task(envs.get_task(task))


def test_settings():
    theirs = sac_ml.Config(hidden=(8,), head="gaussian", discount=0.9)
    assert aca.Config().after("sac_ml", dataclasses.asdict(theirs)).update == theirs
    for settings, message in (
        ({"weight_end": 1.5}, "^weight_end must be at most 1, where the weight begins, got 1.5$"),
        ({"fall_env_steps": 0}, "^fall_env_steps must be at least 1"),
        ({"deviations": -1.0}, "^deviations must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            aca.Density(**settings)
    with pytest.raises(ValueError, match="^actor_grad_norm must be greater than 0"):
        aca.Config(actor_grad_norm=0.0)
