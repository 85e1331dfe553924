"""SAC+ML: losses by hand, recorded updates, what moves, both heads, settings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.offline import sac_ml
from o2o_jax.offline.sac_ml import algorithm, losses
from o2o_jax.ops.distributions import Gaussian
from o2o_jax.types import Spec
from tests import sharing, tiny
from tests.golden_numbers import SPEC as GOLDEN_SPEC
from tests.golden_numbers import Golden, member, replayed_draws

SPEC = Spec(observation_dim=3, action_dim=2)
SIZES = {"hidden": (8,), "critic_hidden": (8,)}
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class Actor:
    """A stand-in: a normal of one action with mean p and σ = ½."""

    def apply(self, params, observation):
        mean = jnp.broadcast_to(params, (*observation.shape[:-1], 1))
        return Gaussian(mean, jnp.full_like(mean, math.log(0.5)))


class Critics:
    """A stand-in: Q_i = p_i (1 + a) with an action, p_i without one, parameters [E]."""

    def apply(self, params, observation, action):
        values = 1.0 + jnp.sum(action, axis=-1) + 0.0 * observation[..., 0]
        return params[:, None] * values[None]


ACTIONS = jnp.array([[0.5], [0.0]])
NOISE = np.array([[1.0], [-1.0]], np.float32)


def actor_loss(p, weight=3.0):
    with replayed_draws([NOISE]):
        return losses.actor_loss(
            p, Actor(), jnp.array([2.0, 4.0]), Critics(), jnp.zeros((2, 1)), ACTIONS, jax.random.key(0), 0.1, weight
        )


def test_actor_loss_by_hand():
    # p = 0: ã = ±½, log π(ã) = −½ + log 2 − ½ log 2π;  q = 2 · 1.5 and 2 · 0.5, mean |q| = 2, c = 3 / 2
    # log π of the data: −½ · 1 and 0, each + log 2 − ½ log 2π
    log_prob = -0.5 + math.log(2.0) - HALF_LOG_2PI
    likelihood = -0.25 + math.log(2.0) - HALF_LOG_2PI
    loss, metrics = actor_loss(jnp.array(0.0))
    np.testing.assert_allclose(loss, 1.5 * (0.1 * log_prob - 2.0) - likelihood, rtol=1e-6)
    np.testing.assert_allclose([metrics["log_prob"], metrics["likelihood"]], [log_prob, likelihood], rtol=1e-6)


def test_actor_gradient_in_closed_form():
    # log π(ã) doesn't depend on the mean; dq/dp = 2, by c = 3 / 2 a constant: −3.   −d log π(a)/dp = −mean(a) / σ² = −1
    gradient = jax.grad(lambda p: actor_loss(p)[0])(jnp.array(0.0))
    np.testing.assert_allclose(gradient, -3.0 - 1.0, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda p: actor_loss(p, 0.0)[0])(jnp.array(0.0)), -1.0, rtol=1e-6)


def test_baseline_loss_by_hand():
    # Z = 2 and 4 at every s; log π + Z − y = 2 + 1 − 4, 2 − 1 − 1 and 4 + 1 − 4, 4 − 1 − 1: (1 + 0) / 2 + (1 + 4) / 2
    log_prob, target = jnp.array([1.0, -1.0]), jnp.array([4.0, 1.0])
    function = lambda params: losses.baseline_loss(params, Critics(), jnp.zeros((2, 1)), log_prob, target)
    (loss, metrics), gradient = jax.value_and_grad(function, has_aux=True)(jnp.array([2.0, 4.0]))
    np.testing.assert_allclose([loss, metrics["baseline"]], [3.0, 3.0])
    np.testing.assert_allclose(gradient, [-1.0, 3.0])  # 2 mean of the errors


def test_baseline_value_by_hand():
    # min Z = 2, log π(a') = −½ + log 2 − ½ log 2π, of which a tenth is taken off
    distribution = Actor().apply(jnp.array(0.0), jnp.zeros((2, 1)))
    with replayed_draws([NOISE]):
        found = losses.baseline_value(
            jnp.array([2.0, 4.0]), Critics(), distribution, jnp.zeros((2, 1)), jax.random.key(0), 0.1
        )
    np.testing.assert_allclose(found, np.full(2, 2.0 + 0.9 * (-0.5 + math.log(2.0) - HALF_LOG_2PI)), rtol=1e-6)


class FixedScale:
    """A squashed normal whose log σ is the network's output, as in the authors' code."""

    def __init__(self, actor):
        self._actor = actor

    def apply(self, params, observation):
        scale = {"log_std_multiplier": jnp.ones(()), "log_std_offset": jnp.zeros(())}
        return self._actor.apply({"params": params["params"] | scale}, observation)


def golden_networks(config):
    nets = algorithm.make_networks(config, GOLDEN_SPEC)
    return nets._replace(actor=FixedScale(nets.actor))


def check_log(golden, phase, step, metrics):
    """Compares metrics of an update with what the authors' code logs; returns that."""
    log = golden.log(phase, step)
    names = {"alpha_loss": "temp_loss", "alpha": "temp"}
    for name in {"alpha_loss", "alpha", "critic_loss", "baseline_loss", "actor_loss"} & metrics.keys():
        np.testing.assert_allclose(metrics[name], log[names.get(name, name)], rtol=2e-5, atol=2e-5, err_msg=name)
    return log


def test_golden_updates():
    golden = Golden("aca")
    config = sac_ml.Config(hidden=(32, 32), critic_hidden=(32, 32))
    nets = golden_networks(config)
    actor, critic, baseline = (
        golden.params("actor"),
        *(golden.ensemble(f"{name}_1", f"{name}_2") for name in ("critic", "baseline")),
    )
    log_alpha = jnp.zeros(())
    rules = nets.actor_optimizer, nets.critic_optimizer, nets.baseline_optimizer, nets.alpha_optimizer
    opt = [rule.init(params) for rule, params in zip(rules, (actor, critic, baseline, log_alpha), strict=True)]
    state = algorithm.State(
        actor=actor, critic=critic, target_critic=critic, baseline=baseline, log_alpha=log_alpha,
        opt=algorithm.OptStates(*opt), transform=Transform(Normalizer.identity(5)), step=jnp.zeros((), jnp.int32),
    )  # fmt: skip
    update = golden.replay("offline", lambda *arguments: algorithm.update(nets, config, *arguments))
    for step in golden.steps("offline"):
        state, metrics = update(state, step)
        check_log(golden, "offline", step, metrics)
        golden.check(
            "offline", step, actor=state.actor, log_alpha=state.log_alpha,
            critic_1=member(state.critic, 0), critic_2=member(state.critic, 1),
            target_1=member(state.target_critic, 0), target_2=member(state.target_critic, 1),
            baseline_1=member(state.baseline, 0), baseline_2=member(state.baseline, 1),
        )  # fmt: skip
    assert step == 2


@pytest.mark.parametrize("head", ["tanh_gaussian", "gaussian"])
def test_an_update_of_either_head_moves_everything(head):
    method = sac_ml.make(sac_ml.Config(**SIZES, head=head), SPEC)
    start = sharing.jit(method.init)(jax.random.key(0), Normalizer(jnp.ones(3), jnp.full(3, 2.0)))
    end, metrics = sharing.jit(method.phase("offline").update)(start, tiny.random_batch(SPEC), jax.random.key(1))
    assert tiny.moved(start, end) == {"actor", "critic", "target_critic", "baseline", "log_alpha", "opt", "step"}
    assert all(np.isfinite(value) for value in metrics.values())
    policy = method.policy(end)
    assert policy.head == head
    np.testing.assert_array_equal(policy.normalizer.mean, np.zeros(3))  # observations stay as they are
    np.testing.assert_allclose(method.critic(end).alpha, np.exp(end.log_alpha), rtol=1e-6)


def test_settings():
    medium, maze = envs.get_task("mujoco/hopper-medium"), envs.get_task("antmaze/umaze")
    assert sac_ml.Config.for_task(medium) == sac_ml.Config()
    config = sac_ml.Config.for_task(maze)
    assert (config.head, config.target_entropy, config.reward_shift) == ("gaussian", -0.5, -1.0)
    for settings, message in (
        ({"baseline_lr": 0.0}, "^baseline_lr must be greater than 0"),
        ({"value_weight": -1.0}, "^value_weight must be at least 0"),
        ({"head": "deterministic"}, "^head must be tanh_gaussian or gaussian, got 'deterministic'$"),
    ):
        with pytest.raises(ValueError, match=message):
            sac_ml.Config(**settings)
