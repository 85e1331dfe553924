"""PROTO: recorded updates, prices and targets by hand, gradients, what it starts from, settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.networks import Critics, TanhGaussianActor
from o2o_jax.offline import cql
from o2o_jax.online import proto
from o2o_jax.online.proto import algorithm, losses
from o2o_jax.policy import hand_over
from o2o_jax.types import Spec
from tests import sharing, tiny
from tests.golden_numbers import SPEC as GOLDEN_SPEC
from tests.golden_numbers import Golden, member

SPEC = Spec(observation_dim=3, action_dim=2)
SIZES = {"hidden": (8, 8), "critic_hidden": (8, 8)}
BATCH = tiny.random_rollout(SPEC, 8)


def test_golden_updates():
    golden = Golden("proto")
    sizes = {"hidden": (32, 32), "critic_hidden": (32, 32)}
    config = tiny.config(proto.Config, **sizes, batch_size=32, critic_source="random")
    made = proto.make(config, GOLDEN_SPEC)
    log_std = {"log_std_multiplier": jnp.ones(()), "log_std_offset": jnp.zeros(())}  # which the authors' code lacks
    actor, followed = (golden.params(module, **log_std) for module in ("actor", "followed"))
    critic = golden.ensemble("critic_1", "critic_2")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        return made.init(key).replace(actor=actor, reference=followed, critic=critic, target_critic=critic)

    state, update = start(jax.random.key(0)), golden.replay("update", made.online.update)
    for step in golden.steps("update"):
        state, metrics = update(state, step)
        log = golden.log("update", step)
        for name, expected in {
            "critic_loss": 2 * log["critic_loss"], "q": (log["q1"] + log["q2"]) / 2, "actor_loss": log["actor_loss"],
            "log_prob": -log["entropy"], "alpha": log["alpha"],
            "alpha_loss": log["alpha_loss"],
        }.items():  # fmt: skip
            np.testing.assert_allclose(metrics[name], expected, rtol=1e-5, atol=2e-5, err_msg=name)
        policies = {
            module: {"params": {name: leaf for name, leaf in params["params"].items() if name not in log_std}}
            for module, params in {"actor": state.actor, "followed": state.reference}.items()
        }
        critics = {f"critic_{i + 1}": member(state.critic, i) for i in range(2)}
        targets = {f"target_{i + 1}": member(state.target_critic, i) for i in range(2)}
        golden.check("update", step, **policies, **critics, **targets, log_alpha=state.log_alpha)
        followed = {"params": state.reference["params"] | log_std}
        state = state.replace(actor={"params": state.actor["params"] | log_std}, reference=followed)
    assert step == 2


def test_prices_by_hand():
    # 0.5 · (−1) + 2 · (−1 − (−3)) = 3.5;   0.5 · 2 + 2 · (2 − 2) = 1: no price where both say the same
    prices = losses.regularization(jnp.array([-1.0, 2.0]), jnp.array([-3.0, 2.0]), jnp.asarray(0.5), jnp.asarray(2.0))
    np.testing.assert_allclose(prices, [3.5, 1.0], rtol=1e-6)


def test_the_weight_falls_linearly_by_environment_steps():
    config = tiny.config(proto.Config, weight=2.0, fall_env_steps=10, updates_per_env_step=2)
    # two updates per step: c₀, c₀, then a tenth of c₀ less each, 0 from step 10 on
    found = [float(algorithm.weight(config, jnp.asarray(step))) for step in (0, 1, 2, 19, 20, 99)]
    np.testing.assert_allclose(found, [2.0, 2.0, 1.8, 0.2, 0.0, 0.0], atol=1e-6)
    # the authors' decay speed of 0.9: 0.91 c₀ after 100,000 steps
    np.testing.assert_allclose(algorithm.weight(proto.Config(), jnp.asarray(100_000)), 0.91 * 2.0, rtol=1e-5)


@functools.cache
def networks():
    actor, critic = TanhGaussianActor(2, (8,)), Critics((8,), layer_norm=False, num_critics=2)
    observation, action = jnp.zeros((1, 3)), jnp.zeros((1, 2))
    return (
        actor,
        actor.init(jax.random.key(0), observation),
        critic,
        critic.init(jax.random.key(1), observation, action),
    )


def test_a_gradient_that_leads_back_to_the_policy_that_follows():
    actor, params, critic, critic_params = networks()
    nothing = jax.tree.map(jnp.zeros_like, critic_params)  # Q = 0 everywhere

    @jax.jit
    def loss_and_gradient(params, followed, key):
        arguments = (actor, nothing, critic, actor.apply(followed, BATCH.observation), BATCH.observation, key)
        return jax.value_and_grad(losses.actor_loss, has_aux=True)(params, *arguments, jnp.zeros(()), jnp.asarray(2.0))

    (loss, (_, log_ratio)), _ = loss_and_gradient(params, params, jax.random.key(2))
    np.testing.assert_allclose(log_ratio, np.zeros(8), atol=1e-4)
    np.testing.assert_allclose(loss, 0.0, atol=1e-4)
    followed = jax.tree.map(lambda leaf: leaf + 0.05, params)
    # many draws: their mean is the divergence, which a step against the gradient lowers
    keys = jax.random.split(jax.random.key(3), 200)
    (before, _), gradient = jax.vmap(loss_and_gradient, (None, None, 0))(params, followed, keys)
    nearer = jax.tree.map(lambda leaf, slope: leaf - 0.01 * slope.mean(axis=0), params, gradient)
    (after, _), _ = jax.vmap(loss_and_gradient, (None, None, 0))(nearer, followed, keys)
    assert 0.0 < after.mean() < before.mean()


@functools.cache
def trained():
    """CQL and its state after an update."""
    method = cql.make(tiny.config(cql.Config, **SIZES, num_actions=2), SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer.fit(BATCH.observation))
    state, _ = sharing.jit(method.phase("offline").update)(state, BATCH, jax.random.key(1))
    return method, state


@functools.cache
def made(**settings):
    return tiny.compiled(proto.make(tiny.config(proto.Config, **SIZES, **settings), SPEC))


@functools.cache
def begun():
    return sharing.jit(made().init)(jax.random.key(1), hand_over(*trained()))


def test_it_starts_from_policy_and_critics_of_offline_training():
    _, offline = trained()
    state = begun()
    for name in ("actor", "critic", "target_critic"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(offline, name))
    jax.tree.map(np.testing.assert_array_equal, state.reference, offline.actor)
    np.testing.assert_allclose(state.log_alpha, np.log(0.01), rtol=1e-6)  # whatever the offline run's was
    jax.tree.map(np.testing.assert_array_equal, state.opt.critic, offline.opt.critic)  # the critics go on
    assert int(state.opt.actor[0].count) == int(state.opt.alpha[0].count) == 0  # the others begin afresh
    assert made().online.schedule.due(1)


def test_an_update_moves_the_policy_and_by_a_share_the_one_that_follows():
    start = made().online.begin(begun(), jnp.asarray(True))
    end, metrics = made().online.update(start, BATCH, jax.random.key(2))
    assert tiny.moved(start, end) == {"actor", "reference", "critic", "target_critic", "log_alpha", "opt", "step"}
    expected = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, start.reference, end.actor)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), end.reference, expected)
    assert metrics["weight"] == 2.0


def test_targets_have_both_prices_or_none():
    state = begun().replace(reference=jax.tree.map(lambda leaf: leaf + 0.1, begun().reference))
    config = tiny.config(proto.Config, **SIZES)
    nets, key = algorithm.make_networks(config, SPEC), jax.random.key(5)

    @functools.partial(jax.jit, static_argnums=0)
    def target(config, state):
        return algorithm.critic_target(nets, config, state, state.transform(BATCH), key)

    plain = target(tiny.changed(config, backup_entropy=False), state)
    _, action_key = jax.random.split(key)
    rows = state.transform(BATCH)
    pi, followed = (nets.actor.apply(params, rows.next_observation) for params in (state.actor, state.reference))
    action, log_prob = pi.sample_and_log_prob(action_key)
    cost = 0.01 * log_prob + 2.0 * (log_prob - followed.log_prob(action))
    assert np.abs(cost).max() > 0.01
    discounted = 0.99 * (1 - BATCH.terminated) * cost
    np.testing.assert_allclose(target(config, state), plain - discounted, rtol=1e-4, atol=1e-5)


def test_settings():
    config = proto.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    assert config == proto.Config()
    assert (config.update.actor_lr, config.update.critic_lr, config.finetune.alpha_lr) == (3e-4, 3e-4, 3e-4)
    assert (config.proximity.weight, config.proximity.polyak, config.update.backup_entropy) == (2.0, 0.005, True)
    maze = proto.Config.for_task(envs.get_task("antmaze/umaze"))
    assert (maze.proximity.weight, maze.proximity.polyak, maze.update.backup_entropy) == (0.5, 5e-5, False)
    assert maze.networks.num_target_critics == 1
    pen = proto.Config.for_task(envs.get_task("adroit/pen-human"))
    assert (pen.proximity.weight, pen.proximity.polyak, pen.update.backup_entropy) == (2.0, 5e-5, False)
    assert pen.networks.num_target_critics == 2
    after = config.after("cql", dataclasses.asdict(cql.Config(**SIZES, discount=0.9, reward_shift=-1.0)))
    assert (after.networks.hidden, after.update.discount, after.update.reward_shift) == ((8, 8), 0.9, -1.0)
    assert after.update.actor_lr == 3e-4
    assert config.after("bc", {"hidden": [8]}) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_target_critics": 3}, "^networks.num_target_critics must be at most num_critics, 2, got 3$"),
        ({"batch_size": 5}, "^replay.mode=half needs an even update.batch_size, got 5$"),
        ({"prefill": 0}, "^replay.prefill must be"),
        ({"fall_env_steps": 0}, "^proximity.fall_env_steps must be"),
        ({"weight": -1.0}, "^proximity.weight must"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(proto.Config, **settings)


def test_a_policy_without_critics_is_refused():
    handoff = hand_over(*trained()).replace(state=None)
    with pytest.raises(ValueError, match=r"comes without any: start from a method that trains critics, or set netw"):
        jax.eval_shape(lambda key: made().init(key, handoff), jax.random.key(0))
