"""PROTO+TD3: recorded updates, targets by hand, what it starts from, exploration, settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.offline import td3_bc
from o2o_jax.online import proto_td3
from o2o_jax.online.proto_td3 import algorithm
from o2o_jax.policy import hand_over
from o2o_jax.types import Spec
from tests import sharing, tiny
from tests.golden_numbers import SPEC as GOLDEN_SPEC
from tests.golden_numbers import Golden, member

SPEC = Spec(observation_dim=3, action_dim=2)
SIZES = {"hidden": (8, 8), "critic_hidden": (8, 8)}
BATCH = tiny.random_rollout(SPEC, 8)


def test_golden_updates():
    golden = Golden("proto_td3")
    sizes = {"hidden": (32, 32), "critic_hidden": (32, 32)}
    config = tiny.config(proto_td3.Config, **sizes, batch_size=32, critic_source="random", target="official")
    made = proto_td3.make(config, GOLDEN_SPEC)
    # the code's actor asks its second critic, which is the first here
    actor, followed = golden.params("actor"), golden.params("followed")
    critic = golden.ensemble("critic_2", "critic_1")

    @jax.jit  # which leaves out the initialisation of weights that are replaced
    def start(key):
        return made.init(key).replace(actor=actor, target_actor=followed, critic=critic, target_critic=critic)

    state, update = start(jax.random.key(0)), golden.replay("update", made.online.update)
    for step in golden.steps("update"):
        state, metrics = update(state, step)
        log = golden.log("update", step)
        expected = {"critic_loss": 2 * log["critic_loss"], "q": (log["q1"] + log["q2"]) / 2}
        expected["actor_loss"] = log.get("actor_loss", np.nan)  # every second time
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, atol=2e-5, err_msg=name)
        critics = {f"critic_{2 - i}": member(state.critic, i) for i in range(2)}
        targets = {f"target_{2 - i}": member(state.target_critic, i) for i in range(2)}
        golden.check("update", step, actor=state.actor, followed=state.target_actor, **critics, **targets)
    assert step == 3


@functools.cache
def trained():
    """TD3+BC and its state after an update."""
    method = td3_bc.make(tiny.config(td3_bc.Config, **SIZES), SPEC)
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer.fit(BATCH.observation))
    state, _ = sharing.jit(method.phase("offline").update)(state, BATCH, jax.random.key(1))
    return method, state.replace(target_actor=tiny.far(state.target_actor))  # which isn't what π_k begins as


@functools.cache
def made():
    return tiny.compiled(proto_td3.make(tiny.config(proto_td3.Config, **SIZES), SPEC))


@functools.cache
def begun():
    return sharing.jit(made().init)(jax.random.key(1), hand_over(*trained()))


def test_it_starts_from_policy_and_critics_of_offline_training():
    _, offline = trained()
    state = begun()
    for name in ("actor", "critic", "target_critic"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(offline, name))
    jax.tree.map(np.testing.assert_array_equal, state.target_actor, offline.actor)
    jax.tree.map(np.testing.assert_array_equal, state.opt.critic, offline.opt.critic)  # the critics go on
    assert int(state.opt.actor[0].count) == 0
    assert made().online.schedule.due(1)


def test_every_second_update_moves_the_policy_and_what_follows_it():
    start = made().online.begin(begun(), jnp.asarray(True))
    middle, metrics = made().online.update(start, BATCH, jax.random.key(2))
    assert tiny.moved(start, middle) == {"critic", "opt", "step"}
    assert np.isnan(metrics["actor_loss"])
    end, metrics = made().online.update(middle, BATCH, jax.random.key(3))
    assert tiny.moved(middle, end) == {"actor", "target_actor", "critic", "target_critic", "opt", "step"}
    expected = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, middle.target_actor, end.actor)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), end.target_actor, expected)
    assert metrics["divergence"] == 0.0  # of the policy before its step, at π_k


@pytest.mark.parametrize(
    ("kind", "number", "backup"),
    [("intended", 2, True), ("official", 2, True), ("intended", 1, False), ("official", 1, False)],
)
def test_targets_by_hand(kind, number, backup):
    settings = {"target": kind, "num_target_critics": number, "backup_divergence": backup}
    # noise that is often beyond its bound
    config = tiny.config(proto_td3.Config, **SIZES, **settings, smoothing_std=0.5)
    nets, key = algorithm.make_networks(config.of_o2td3(), SPEC), jax.random.key(6)
    state = begun().replace(target_actor=jax.tree.map(lambda leaf: leaf + 0.1, begun().actor))  # another π_k
    rows = state.transform(BATCH)
    found = jax.jit(functools.partial(algorithm.critic_target, nets, config))(state, rows, key)

    own, followed = (
        np.asarray(nets.actor.apply(params, rows.next_observation).mode())
        for params in (state.actor, state.target_actor)
    )
    subset_key, noise_key = jax.random.split(key)
    noise = np.clip(0.5 * np.asarray(jax.random.normal(noise_key, (8, 2))), -0.5, 0.5)
    action = {
        ("intended", 2): np.clip(followed + noise, -1.0, 1.0),
        ("intended", 1): np.clip(followed + noise, -1.0, 1.0),
        ("official", 2): followed,
        ("official", 1): own + noise,  # beyond ±1 too
    }[kind, number]
    q = np.asarray(nets.critic.apply(state.target_critic, rows.next_observation, action))
    q = q.min(axis=0) if number == 2 else q[int(jax.random.permutation(subset_key, 2)[0])]
    price = 2.0 * np.mean((own + noise - followed) ** 2) if backup else 0.0
    expected = np.asarray(BATCH.reward) + 0.99 * (1 - np.asarray(BATCH.terminated)) * (q - price)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_exploration_is_clipped():
    state, observation = begun(), BATCH.observation[0]
    keys = jax.random.split(jax.random.key(0), 500)
    act = jax.jit(jax.vmap(lambda key: made().online.act(state, (), observation, jnp.zeros(()), key)[0]))
    draws = np.asarray(act(keys))
    mode = np.asarray(made().policy(state).distribution(observation).mode())
    bounds = np.clip(mode - 0.5, -1, 1), np.clip(mode + 0.5, -1, 1)
    assert (draws >= bounds[0] - 1e-6).all()
    assert (draws <= bounds[1] + 1e-6).all()
    np.testing.assert_allclose(np.std(draws, axis=0), 0.2, atol=0.03)


def test_settings():
    config = proto_td3.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    assert config == proto_td3.Config()
    assert (config.update.actor_lr, config.update.q_weight, config.update.policy_delay) == (3e-4, 2.5, 2)
    assert (config.replay.mode, config.replay.prefill, config.update.target) == ("prefilled", 25_000, "intended")
    maze = proto_td3.Config.for_task(envs.get_task("antmaze/umaze"))
    pen = proto_td3.Config.for_task(envs.get_task("adroit/pen-human"))
    for other, weight in ((maze, 0.5), (pen, 2.0)):
        assert (other.proximity.weight, other.proximity.polyak) == (weight, 5e-5)
        assert (other.update.backup_divergence, other.networks.num_target_critics) == (False, 1)
    after = config.after("td3_bc", {"hidden": [8], "critic_hidden": [8], "discount": 0.9})
    assert (after.networks.hidden, after.update.discount, after.networks.num_critics) == ((8,), 0.9, 2)
    # batches that can't be halved are no matter here
    assert tiny.changed(config, batch_size=5).update.batch_size == 5
