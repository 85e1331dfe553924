"""Probe problems with known answers, run through whole phases of the online algorithms."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax import networks
from o2o_jax.data.transform import Normalizer
from o2o_jax.online import o2ppo, o2sac, o2td3, ppo
from o2o_jax.policy import Handoff, Policy
from o2o_jax.training import Record, Watched, check, run_updates, run_watched
from o2o_jax.types import Annotated, Rollout, Spec, Transition

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
    if head == "gaussian":
        params["params"]["log_std"] = jnp.full(1, log_std)
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
    critic = networks.Critics(FAST["critic_hidden"], True, 2)
    np.testing.assert_allclose(values(critic, state.critic, jnp.linspace(-0.9, 0.9, 5)), expected, atol=0.15)


@pytest.mark.parametrize("module", MODULES)
def test_alignment_brings_the_greedy_action_home(module):
    # The policy acts at −0.5, where Q = 1; the critics believe that everything to its right is better, up to 1.75.
    algorithm = make(module, **({"alpha": 0.05} if module is o2sac else {}))
    state = algorithm.init(jax.random.key(0), handoff(algorithm.head, action=-0.5))
    critic, grid = networks.Critics(FAST["critic_hidden"], True, 2), jnp.linspace(-1.0, 1.0, 101)
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


ON_POLICY = {
    "hidden": FAST["hidden"],
    "critic_hidden": (32,),
    "discount": 0.5,
    "rollout_env_steps": 128,
    "minibatch_size": 32,
    "actor_lr": 1e-3,
    "critic_lr": 3e-3,
}


def play(algorithm, state, reward, terminated, updates, horizon=8):
    """Updates on fresh rollouts at the one state that there is: episodes last `horizon` steps."""
    steps = ON_POLICY["rollout_env_steps"]
    observation = jnp.zeros((steps, 1))
    last = (jnp.arange(steps) % horizon == horizon - 1).astype(jnp.float32)

    def update(state, key):
        act_key, update_key = jax.random.split(key)
        action = algorithm.policy(state).distribution(observation).sample(act_key)
        rollout = Rollout(
            observation, action, reward(action[:, 0]), observation, terminated * last, (1.0 - terminated) * last
        )
        return algorithm.finetune(state, rollout, update_key)

    return jax.jit(lambda state, keys: jax.lax.scan(update, state, keys))(
        state, jax.random.split(jax.random.key(2), updates)
    )


def start_online(module, policy=None, **settings):
    algorithm = module.make(module.Config(**ON_POLICY | settings), SPEC)
    return algorithm, algorithm.begin_finetuning(algorithm.init(jax.random.key(0), policy), False)


def mode_and_value(algorithm, state):
    critic = networks.Value(ON_POLICY["critic_hidden"], activation=jnp.tanh, layer_init="fan_in")
    mode = algorithm.policy(state).distribution(jnp.zeros((1, 1))).mode()
    return float(mode[0, 0]), float(critic.apply(state.critic, jnp.zeros((1, 1)))[0])


@pytest.mark.parametrize("module", [ppo, o2ppo])
def test_ppo_finds_the_best_action(module):
    # reward −(a − 0.5)², the start at −0.5 with σ = 0.3; the auxiliary advantage holds back until its weight is gone
    algorithm, state = start_online(
        module, handoff("gaussian", -0.5, -1.2), env_steps=128 * 160, auxiliary_env_steps=128 * 40
    )
    assert mode_and_value(algorithm, state)[0] == pytest.approx(-0.5, abs=1e-3)
    state, metrics = play(algorithm, state, lambda a: -jnp.square(a - 0.5), 0.0, 160)
    assert mode_and_value(algorithm, state)[0] == pytest.approx(0.5, abs=0.1)
    assert metrics["critic_loss"][-1] < metrics["critic_loss"][0]


@pytest.mark.parametrize(
    ("terminated", "expected"),
    [(0.0, 4.0), (1.0, 4.0 * (1 - (1 - 0.5**8) / 8))],
    # a time limit bootstraps: V = 2 / (1 − 0.5).   a termination doesn't: the mean over k = 1 … 8 steps left of
    # 4 (1 − 0.5^k), since the observation doesn't tell k
)
def test_ppo_finds_the_known_value(terminated, expected):
    algorithm, state = start_online(ppo, env_steps=10**6, gae_lambda=1.0)
    state, _ = play(algorithm, state, lambda a: 0.0 * a + 2.0, terminated, 60)
    assert mode_and_value(algorithm, state)[1] == pytest.approx(expected, abs=0.15)


def test_the_auxiliary_advantage_pulls_the_policy_back_where_rewards_mean_nothing():
    distances = {ppo: [], o2ppo: []}
    for module, noise in itertools.product(distances, (1e4, 2e4, 5e4)):  # PPO drifts at random, on average far
        algorithm, state = start_online(
            module, handoff("gaussian", 0.0, -1.2), env_steps=10**6, auxiliary_env_steps=10**6
        )
        moved = state.replace(actor=handoff("gaussian", 0.3, -1.2).policy.params)  # π_ref is still at 0
        after, _ = play(algorithm, moved, lambda a, noise=noise: jnp.sin(noise * a), 1.0, 40)
        distances[module].append(abs(mode_and_value(algorithm, after)[0]))
    assert max(distances[o2ppo]) < 0.1
    assert sum(distances[ppo]) / 3 > 0.2


def test_value_regression_and_reevaluation_agree_on_data_that_a_time_limit_cut():
    # V = 2 / (1 − 0.5), as fitted Q-evaluation finds of the same rewards
    algorithm = o2ppo.make(o2ppo.Config(**ON_POLICY | {"reevaluate_lr": 1e-2, "return_boundary": "bootstrap"}), SPEC)
    state = algorithm.init(jax.random.key(0), handoff("gaussian"))
    data = dataset(2.0, 0.0)
    rollout = Rollout(**vars(data), truncated=(jnp.arange(SIZE) % 4 == 3).astype(jnp.float32))
    state, notes = algorithm.prepare("reevaluate", state, rollout)
    state, _ = run(algorithm.reevaluate, state, Annotated.of(data, notes), 300)
    assert mode_and_value(algorithm, state)[1] == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("module", MODULES)
def test_measures_stop_alignment_when_the_greedy_action_is_home(module):
    # the same overrated critics, to which the start is no rest although the policy is where it should be
    settings = {"stop": "measures", "stop_check_every_updates": 100, "stop_min_updates": 0}
    algorithm = make(module, **settings, **({"alpha": 0.05} if module is o2sac else {}))
    state = algorithm.init(jax.random.key(0), handoff(algorithm.head, action=-0.5))
    critic, grid = networks.Critics(FAST["critic_hidden"], True, 2), jnp.linspace(-1.0, 1.0, 101)
    state = state.replace(critic=overrating(critic, state.critic, grid))
    state = state.replace(target_critic=state.critic)
    stop, data = algorithm.stops["align"], dataset(0.0, 1.0)
    key, batch_size = jax.random.key(1), FAST["batch_size"]

    @jax.jit
    def advance(watched):
        return run_watched(algorithm.align, stop, watched, data, data, key, stop.check_every_updates, batch_size)

    watched = jax.jit(lambda state: check(algorithm.align, stop, state, data, key, 0, batch_size))(
        Watched(state, Record.start(stop))
    )
    assert int(watched.record.verdict) == 0
    assert watched.record.history["overestimated"][-1] > 0.4
    for _ in range(10):
        watched, _ = advance(watched)
    assert int(watched.record.verdict) == 1
    assert 0 < int(watched.record.updates) <= 500
    mode = algorithm.policy(watched.state).distribution(jnp.zeros((1, 1))).mode()
    assert abs(mode[0, 0] + 0.5) <= 0.1  # √ of the distance at which alignment is complete
    retained = values(critic, watched.state.critic, jnp.asarray([-0.5]))
    np.testing.assert_allclose(retained, 1.0, atol=0.15)
