"""Probe problems with known answers, run through whole phases of the online algorithms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax import networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.online import o2sac, o2td3
from o2o_jax.policy import Handoff, Policy
from o2o_jax.training import run_updates
from o2o_jax.types import Spec, Transition

SPEC = Spec(observation_dim=1, action_dim=1)
SIZE = 512
MODULES = [o2td3, o2sac]
FAST = {
    "hidden": (32,),
    "critic_hidden": (64, 64),
    "batch_size": 64,
    "critic_lr": 3e-3,
    "actor_lr": 1e-3,
    "discount": 0.5,
    "polyak": 0.1,
}


def make(module, **settings):
    if module is o2sac:
        settings = {"alpha": 1e-4, **settings}  # so that entropy doesn't blur the known values
    return module.make(module.Config(**FAST, **settings), SPEC)


def dataset(reward, terminated):
    observation = jnp.zeros((SIZE, 1))
    action = jnp.linspace(-1.0, 1.0, SIZE)[:, None]
    return Transition(observation, action, jnp.full(SIZE, reward), observation, jnp.full(SIZE, terminated))


def handoff(head, action=0.0, log_std=-1.5):
    """A policy that takes the same action everywhere."""
    actor = networks.HEADS[head](1, FAST["hidden"])
    params = jax.tree.map(jnp.zeros_like, actor.init(jax.random.key(0), jnp.zeros((1, 1))))
    bias = jnp.full(1, np.arctanh(action), jnp.float32)
    if head == "tanh_gaussian":
        bias = jnp.concatenate([bias, jnp.zeros(1)])
        params["params"] |= {"log_std_multiplier": jnp.ones(()), "log_std_offset": jnp.asarray(log_std)}
    params["params"]["Dense_0"]["bias"] = bias
    return Handoff(Policy(params, Normalizer.identity(1), actor))


def run(update, state, data, updates):
    return jax.jit(functools.partial(run_updates, update, num_updates=updates, batch_size=FAST["batch_size"]))(
        state, data, jax.random.key(1)
    )


def values(algorithm_critic, params, actions):
    """Lower twin at the one state, for actions [N]."""
    return jnp.min(algorithm_critic.apply(params, jnp.zeros((len(actions), 1)), actions[:, None]), axis=0)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("terminated", "expected"),
    [(1.0, 2.0), (0.0, 4.0)],  # an absorbing step: Q = r.   a time limit bootstraps: Q = r / (1 − γ) = 2 / 0.5
)
def test_reevaluation_finds_the_known_value(module, terminated, expected):
    algorithm = make(module)
    state = algorithm.init(jax.random.key(0), handoff(algorithm.head))
    state, _ = run(algorithm.reevaluate, state, dataset(2.0, terminated), 600)
    critic = networks.make_critic(FAST["critic_hidden"], True, 2)
    np.testing.assert_allclose(values(critic, state.critic, jnp.linspace(-0.9, 0.9, 5)), expected, atol=0.15)


@pytest.mark.parametrize("module", MODULES)
def test_alignment_brings_the_greedy_action_home(module):
    # The policy acts at −0.5, where Q = 1; the critics believe that everything to its right is better, up to 1.75.
    algorithm = make(module, **({"alpha": 0.05} if module is o2sac else {}))
    state = algorithm.init(jax.random.key(0), handoff(algorithm.head, action=-0.5))
    critic, grid = networks.make_critic(FAST["critic_hidden"], True, 2), jnp.linspace(-1.0, 1.0, 101)
    state = state.replace(critic=overrating(critic, state.critic, grid))
    state = state.replace(target_critic=state.critic)
    before = values(critic, state.critic, grid)
    assert grid[jnp.argmax(before)] > 0.9

    state, _ = run(algorithm.align, state, dataset(0.0, 1.0), 3_000)
    after = values(critic, state.critic, grid)
    home = values(critic, state.critic, jnp.asarray([-0.5]))
    np.testing.assert_allclose(home, 1.0, atol=0.05)  # its own value is retained
    assert jnp.max(after) < home[0] + 0.05  # and nothing is worth more
    greedy = grid[jnp.argmax(after)]
    assert abs(greedy + 0.5) < 0.3
    mode = algorithm.policy(state).distribution(jnp.zeros((1, 1))).mode()
    assert abs(mode[0, 0] + 0.5) < 0.4


def overrating(critic, params, grid):
    """Critics fitted to Q(a) = 1 + 0.5 (a + 0.5)."""
    optimizer = optax.adam(3e-3)

    def step(carry, _):
        params, opt_state = carry

        def loss(params):
            q = critic.apply(params, jnp.zeros((len(grid), 1)), grid[:, None])
            return jnp.mean(jnp.square(q - (1.0 + 0.5 * (grid + 0.5))[None]))

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), length=1_000))(params)
    return params
