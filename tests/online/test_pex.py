"""PEX: the set's draws, recorded updates, one in closed form and by plain code, its start, its policy elsewhere."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer, Transform
from o2o_jax.offline import iql
from o2o_jax.online import pex
from o2o_jax.online.pex import algorithm
from o2o_jax.ops.distributions import Gaussian
from o2o_jax.policy import CloneConfig, Handoff, PolicySet, hand_over, with_head
from o2o_jax.runtime import saved
from o2o_jax.runtime.deployed import DeployedPolicy
from o2o_jax.types import Spec
from tests import sharing, tiny
from tests.golden_numbers import SPEC as GOLDEN_SPEC
from tests.golden_numbers import Golden, member, replayed_draws

SPEC = Spec(observation_dim=3, action_dim=2)
SIZES = {"hidden": (8, 8), "critic_hidden": (8, 8)}
ONE = Spec(1, 1)


class Actor:
    """A stand-in: a normal of one action with mean p and σ = 0.1 everywhere."""

    head = "gaussian"

    def apply(self, params, observation):
        mean = jnp.broadcast_to(params, (*observation.shape[:-1], 1))
        return Gaussian(mean, jnp.full_like(mean, jnp.log(0.1)))


class Critics:
    """A stand-in: Q_i(s, a) = b_i + p_i a, parameters ([E], [E])."""

    def apply(self, params, observation, action):
        del observation
        return jax.vmap(lambda b, p: b + p * action[..., 0])(*params)


class Value:
    """A stand-in: V(s) = p."""

    def apply(self, params, observation):
        return jnp.broadcast_to(params, observation.shape[:-1])


# min(a, 1 + a / 2): a for all actions
CRITIC = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.5])


def policy_set(eta=2.0, kept=-0.25, learning=0.25):
    params = {"kept": jnp.array(kept), "learning": jnp.array(learning), "critic": CRITIC}
    return PolicySet(params, Normalizer.identity(1), Actor(), Critics(), eta)


def test_choices_follow_a_softmax_of_the_lowest_value():
    # Q of a_0 = −0.25 and a_1 = 0.25 + 0.1 ε:  p(1) = E 1 / (1 + exp(−2 (a_1 + 0.25))), about 1 / (1 + exp(−1))
    actions, choice = policy_set().draw(jnp.zeros((10_000, 1)), jax.random.key(0))
    np.testing.assert_allclose(choice.mean(), 1.0 / (1.0 + np.exp(-1.0)), atol=0.025)  # five standard errors
    kept = np.asarray(choice) == 0
    np.testing.assert_array_equal(actions[kept], -0.25)  # the mode of π_0, samples of π_1
    np.testing.assert_allclose(actions[~kept].std(), 0.1, rtol=0.1)


@pytest.mark.parametrize(("eta", "share"), [(0.0, 0.5), (1e4, 1.0)])
def test_temperature_goes_from_chance_to_the_better_action(eta, share):
    _, choice = policy_set(eta).draw(jnp.zeros((4_000, 1)), jax.random.key(1))
    np.testing.assert_allclose(choice.mean(), share, atol=0.04)


def test_a_tenth_of_an_evaluation_is_drawn():
    # the mode of π_1 in nine of ten, and the better one in 0.9 + 0.1 p(1) of them
    policy = policy_set()
    memory = policy.begin(20_000, jax.random.key(2))
    actions, following = policy.act(memory, jnp.zeros((20_000, 1)), jnp.zeros(20_000))
    of_kept = np.mean(actions == -0.25)
    np.testing.assert_allclose(of_kept, 0.1 / (1.0 + np.exp(1.0)), atol=0.006)
    np.testing.assert_allclose(np.mean(actions == 0.25), 0.9 * (1.0 - of_kept), atol=0.012)
    assert not np.array_equal(policy.act(following, jnp.zeros((20_000, 1)), None)[0], actions)
    np.testing.assert_array_equal(policy.act(memory, jnp.zeros((20_000, 1)), None)[0], actions)


@pytest.mark.parametrize(("learning", "better"), [(0.25, 0.25), (-0.75, -0.25)])
def test_without_a_key_it_takes_the_better_mode(learning, better):
    policy = policy_set(learning=learning)
    actions, memory = policy.act(policy.begin(2), jnp.zeros((2, 1)), jnp.zeros(2))
    np.testing.assert_array_equal(actions, np.full((2, 1), better, np.float32))
    np.testing.assert_array_equal(policy.distribution(jnp.zeros((2, 1))).mode(), actions)
    assert memory == ()


def stand_ins():
    """Networks, settings and state of linear values, with plain gradient descent."""
    config = tiny.config(
        pex.Config, polyak=0.1, discount=0.9, expectile=0.8, expansion_inverse_temperature=2.0,
        update_inverse_temperature=3.0,
    )  # fmt: skip
    nets = iql.algorithm.Networks(Actor(), Critics(), Value(), optax.sgd(0.01), optax.sgd(0.2), optax.sgd(0.3), ONE)
    rules = nets.actor_optimizer, nets.critic_optimizer, nets.value_optimizer
    opt = algorithm.OptStates(*(rule.init(()) for rule in rules))
    target = jax.tree.map(lambda leaf: leaf + 0.25, CRITIC)
    state = algorithm.State(
        actor=jnp.array(0.25), kept=jnp.array(-0.25), critic=CRITIC, target_critic=target, value=jnp.array(0.1),
        opt=opt, transform=Transform(Normalizer.identity(1)), step=jnp.zeros((), jnp.int32),
    )  # fmt: skip
    return nets, config, state


def test_two_updates_in_closed_form():
    """First derivation: linear values, one action, gradient descent, gradients written out in NumPy."""
    nets, config, state = stand_ins()
    batch = tiny.random_batch(ONE, 6).replace(terminated=jnp.array([0.0, 0, 0, 0, 0, 1]))
    r, a, d = (np.asarray(x, np.float64) for x in (batch.reward, batch.action[:, 0], batch.terminated))
    (b, p), (b_bar, p_bar) = np.array(CRITIC, np.float64), np.array(CRITIC, np.float64) + 0.25
    v, mean = 0.1, 0.25
    for step in range(2):
        # V and Q at the old parameters
        u = np.minimum(*(b_bar[:, None] + p_bar[:, None] * a)) - v
        y = r + 0.9 * (1 - d) * v
        error = b[:, None] + p[:, None] * a - y
        v += 0.3 * 2 * np.mean(np.where(u < 0, 0.2, 0.8) * u)
        b, p = b - 0.2 * 2 * error.mean(axis=1), p - 0.2 * 2 * (error * a).mean(axis=1)
        b_bar, p_bar = 0.9 * b_bar + 0.1 * b, 0.9 * p_bar + 0.1 * p
        # the set's actions by the new Q, their weights by the new Q̄ and V
        key = jax.random.key(step)
        action_key, _, choice_key, _ = jax.random.split(key, 4)
        learning = np.clip(mean + 0.1 * np.asarray(jax.random.normal(action_key, (6, 1)), np.float64)[:, 0], -1, 1)
        actions = np.stack([np.full(6, -0.25), learning])
        q = np.min(b[:, None, None] + p[:, None, None] * actions, axis=0)
        choice = np.argmax(2.0 * q + np.asarray(jax.random.gumbel(choice_key, (2, 6)), np.float64), axis=0)
        chosen = np.where(choice == 0, actions[0], actions[1])
        weight = np.minimum(np.exp(3.0 * (np.min(b_bar[:, None] + p_bar[:, None] * chosen, axis=0) - v)), 100.0)
        mean += 0.01 * np.mean(weight * (chosen - mean) / 0.01)  # σ² = 0.01
        state, metrics = algorithm.finetune(nets, config, state, batch, key)
        for found, expected in (
            (state.critic, (b, p)), (state.target_critic, (b_bar, p_bar)), (state.value, v), (state.actor, mean),
            (metrics["learning_share"], choice.mean()), (metrics["weight"], weight.mean()),
        ):  # fmt: skip
            np.testing.assert_allclose(found, expected, rtol=2e-5)
        assert 0 < choice.sum() < 6  # both are chosen
    assert float(state.kept) == -0.25
    assert int(state.step) == 2


def plain(layers, x):
    for i in range(2):
        x = jax.nn.relu(x @ layers["MLP_0"][f"Dense_{i}"]["kernel"] + layers["MLP_0"][f"Dense_{i}"]["bias"][None])
    return x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"][None]


def adam(params, gradient):
    return jax.tree.map(lambda leaf, g: leaf - 3e-4 * g / (jnp.abs(g) + 1e-8), params, gradient)


def test_golden_updates():
    golden = Golden("pex")
    made = pex.make(tiny.config(pex.Config, hidden=(32, 32), critic_hidden=(32, 32)), GOLDEN_SPEC)
    log_std = np.full(GOLDEN_SPEC.action_dim, -2.0)
    actor, kept = (golden.params(name, log_std=log_std) for name in ("actor", "kept"))
    critic, value = golden.ensemble("critic_1", "critic_2"), golden.params("value")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        state = made.init(key)
        return state.replace(actor=actor, kept=kept, critic=critic, target_critic=critic, value=value)

    @jax.jit
    def update(state, batch, noise, gumbel):
        def categorical(key, logits, axis):
            del key
            return jnp.argmax(logits + gumbel, axis=axis)

        with replayed_draws([noise]), mock.patch.object(jax.random, "categorical", categorical):
            return made.online.update(state, batch, jax.random.key(0))

    state = start(jax.random.key(0))
    for step in golden.steps("update"):
        state, metrics = update(state, golden.batch("update", step), *golden.recorded_draws("update", step))
        assert 0.0 < metrics["learning_share"] < 1.0
        golden.check(
            "update", step, actor=state.actor, value=state.value, critic_1=member(state.critic, 0),
            critic_2=member(state.critic, 1), target_1=member(state.target_critic, 0),
            target_2=member(state.target_critic, 1),
        )  # fmt: skip
    assert step == 2


@functools.cache
def trained():
    """IQL after one update: the method, its state, and PEX as it starts from it."""
    config = tiny.config(pex.Config, **SIZES, batch_size=8)
    method = iql.make(iql.Config(**SIZES), SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer(jnp.ones(3), jnp.full(3, 2.0)))
    state, _ = sharing.jit(method.phase("offline").update)(state, tiny.random_batch(SPEC, 8), jax.random.key(0))
    made = pex.make(config, SPEC)
    return method, state, made, sharing.jit(made.init)(jax.random.key(1), hand_over(method, state))


def test_an_update_of_real_networks_by_plain_code():
    """Second derivation: without this package's networks, losses, optimisers or policies."""
    *_, made, start = trained()
    batch, key = tiny.random_batch(SPEC, 8), jax.random.key(5)
    end, _ = sharing.jit(made.online.update)(start, batch, key)
    s, following = (batch.observation - 1.0) / 2.0, (batch.next_observation - 1.0) / 2.0
    of = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree["params"])
    q = lambda layers, action: plain(layers, jnp.concatenate([s, action], axis=1))[:, 0]

    u_target = jnp.minimum(*(q(of(start.target_critic, i), batch.action) for i in range(2)))
    y = batch.reward + 0.99 * plain(start.value["params"], following)[:, 0]

    def value_loss(layers):
        u = u_target - plain(layers, s)[:, 0]
        return jnp.mean(jnp.where(u < 0, 0.3, 0.7) * u**2)

    value = adam(start.value["params"], jax.grad(value_loss)(start.value["params"]))
    critics = [
        adam(of(start.critic, i), jax.grad(lambda w: jnp.mean((q(w, batch.action) - y) ** 2))(of(start.critic, i)))
        for i in range(2)
    ]
    targets = [
        jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, of(start.target_critic, i), critics[i])
        for i in range(2)
    ]
    action_key, _, choice_key, _ = jax.random.split(key, 4)
    mean = lambda tree: jnp.tanh(plain(tree, s))
    learning = start.actor["params"]
    noise = jnp.exp(learning["log_std"])[None] * jax.random.normal(action_key, (8, 2))
    proposed = [mean(start.kept["params"]), jnp.clip(mean(learning) + noise, -1.0, 1.0)]
    values = jnp.stack([jnp.minimum(*(q(critic, action) for critic in critics)) for action in proposed])
    choice = jnp.argmax(10.0 * values + jax.random.gumbel(choice_key, (2, 8)), axis=0)
    action = jnp.where((choice == 0)[:, None], *proposed)
    weight = jnp.exp(10.0 * (jnp.minimum(*(q(target, action) for target in targets)) - plain(value, s)[:, 0]))

    def actor_loss(layers):
        deviation = (action - mean(layers)) / jnp.exp(layers["log_std"])[None]
        density = -0.5 * deviation**2 - layers["log_std"][None] - 0.5 * jnp.log(2 * jnp.pi)
        return -jnp.mean(jnp.minimum(weight, 100.0) * density.sum(axis=1))

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6)
    jax.tree.map(close, end.actor["params"], adam(learning, jax.grad(actor_loss)(learning)))
    jax.tree.map(close, end.value["params"], value)
    for i in range(2):
        jax.tree.map(close, of(end.critic, i), critics[i])
        jax.tree.map(close, of(end.target_critic, i), targets[i])


def test_all_moves_but_the_policy_that_is_kept():
    *_, made, start = trained()
    end, _ = sharing.jit(made.online.update)(start, tiny.random_batch(SPEC, 8), jax.random.key(5))
    assert tiny.moved(start, end) == {"actor", "critic", "target_critic", "value", "opt", "step"}


def test_it_starts_from_iqls_values_and_policy_with_a_new_one_beside_it():
    method, state, made, start = trained()
    for name in ("critic", "target_critic", "value", "transform"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), getattr(state, name))
    jax.tree.map(np.testing.assert_array_equal, start.kept, state.actor)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(start.opt))  # moments and counts
    weights = start.actor["params"]["MLP_0"]["Dense_1"]["kernel"]
    assert np.abs(weights).max() <= np.sqrt(6 / 16) + 1e-6  # Xavier's bound
    assert not np.array_equal(weights, start.kept["params"]["MLP_0"]["Dense_1"]["kernel"])
    begun = made.online.begin(start.replace(step=start.step + 3), jnp.asarray(True))
    assert int(begun.step) == 0
    assert (made.online.schedule.updates, made.online.schedule.warmup_env_steps) == (1, 5_000)
    assert made.critic(start).discount == method.critic(state).discount


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "td3_bc"}, "^pex continues from iql, .* comes from td3_bc: pass the policy of a run of iql$"),
        ({"state": None}, "^pex continues from its offline state, and this policy comes without one"),
    ],
)
def test_what_is_refused(changes, message):
    method, state, made, _ = trained()
    with pytest.raises(ValueError, match=message):
        made.init(jax.random.key(0), hand_over(method, state).replace(**changes))


def test_settings():
    medium, maze = envs.get_task("mujoco/hopper-medium"), envs.get_task("antmaze/umaze")
    config = pex.Config.for_task(medium)
    assert (config.update.inverse_temperature, config.update.expectile, config.replay.mode) == (10.0, 0.7, "half")
    assert (config.env_steps, config.evaluation.every_env_steps) == (100_000, 1_000)
    maze_config = pex.Config.for_task(maze)
    assert (maze_config.update.expectile, maze_config.update.reward_shift, maze_config.env_steps) == (0.9, -1, 200_000)
    after = config.after("iql", dataclasses.asdict(iql.Config(hidden=(8,), discount=0.9)))
    assert (after.update.hidden, after.update.discount, after.update.inverse_temperature) == ((8,), 0.9, 10.0)
    assert config.after("td3_bc", {"alpha": 2.5}) == config
    with pytest.raises(ValueError, match="inverse_temperature must be at least 0, got -1.0$"):
        pex.Expansion(inverse_temperature=-1.0)
    with pytest.raises(ValueError, match=r"replay.mode=half needs an even update.batch_size, got 5$"):
        tiny.config(pex.Config, batch_size=5)


def test_its_policy_is_deployed_saved_and_cloned(tmp_path):
    *_, made, start = trained()
    policy, observations = made.policy(start), np.asarray(tiny.random_batch(SPEC, 8).observation)
    deployed = DeployedPolicy(policy)
    expected = policy.distribution(jnp.asarray(observations)).mode()
    np.testing.assert_allclose(deployed(observations), expected, rtol=1e-5)
    found = saved.read(saved.save(deployed, tmp_path / "policy"))
    np.testing.assert_array_equal(found(observations), deployed(observations))
    assert (found.policy.head, found.policy.inverse_temperature) == ("set", 10.0)
    cloned = with_head(
        Handoff(found.policy), "deterministic", tiny.random_batch(SPEC, 8), jax.random.key(0),
        CloneConfig(hidden=(8,), updates=2, batch_size=4),
    )  # fmt: skip
    assert cloned.policy.head == "deterministic"
    assert np.isfinite(cloned.closeness["mse"])


def learning(key):
    """Goes on from a policy that does −0.5 where r = 1 − |a − 0.5|; actions of the set, and share of the new one."""
    spec = Spec(1, 1)
    update = pex.Update(hidden=(16,), critic_hidden=(32,), actor_lr=3e-3, critic_lr=3e-3, value_lr=3e-3, polyak=0.05)
    made = pex.make(pex.Config(update=update), spec)
    start_key, run_key = jax.random.split(key)
    state = made.init(start_key)
    output = state.kept["params"]["Dense_0"] | {"bias": jnp.full(1, jnp.arctanh(-0.5))}
    state = state.replace(kept={"params": state.kept["params"] | {"Dense_0": output}})

    def step(state, key):
        action_key, update_key = jax.random.split(key)
        action = jax.random.uniform(action_key, (64, 1), minval=-1.0, maxval=1.0)
        rows = tiny.random_batch(spec, 64, terminated=1.0)
        rows = rows.replace(observation=jnp.zeros((64, 1)), action=action, reward=1.0 - jnp.abs(action[:, 0] - 0.5))
        return made.online.update(state, rows, update_key)

    state, metrics = jax.lax.scan(step, state, jax.random.split(run_key, 1_000))
    zero = jnp.zeros((1, 1))
    policy = made.policy(state)
    return (
        policy.distribution(zero).mode()[0, 0],
        policy.kept.distribution(zero).mode()[0, 0],
        metrics["learning_share"][-100:].mean(),
    )


def test_probe_the_new_policy_takes_over_where_it_is_better():
    mode, kept, share = tiny.over_keys(learning)
    np.testing.assert_allclose(kept, -0.5, atol=1e-5)  # observations are 0: the output's bias alone
    np.testing.assert_allclose(mode, 0.5, atol=0.15)
    np.testing.assert_array_less(0.9, share)
