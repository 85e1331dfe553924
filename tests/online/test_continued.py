"""AWAC, IQL and Cal-QL online: the state that they continue from, updates, what they refuse, and that they learn."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs, offline, online
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Schedule
from o2o_jax.online import iql
from o2o_jax.policy import hand_over
from o2o_jax.types import Spec
from tests import sharing, tiny

SPEC = Spec(observation_dim=4, action_dim=2)
SIZES = {"hidden": (8,), "critic_hidden": (8,), "batch_size": 8}
LEARNING = ("awac", "iql")
NAMES = (*LEARNING, "cal_ql")


def settings(name, updates=100, **changes):
    module = online.load(name)
    update = offline.load(name).Config(**SIZES, updates=updates)
    return tiny.config(module.Config, update=update, **changes)


@functools.cache
def trained(name):
    """An offline method after one update, and what it hands over."""
    method = offline.load(name).make(settings(name).update, SPEC)

    @jax.jit
    def train(key):
        state = method.init(key, Normalizer(jnp.ones(4), jnp.full(4, 2.0)))
        return method.phase("offline").update(state, tiny.random_batch(SPEC), key)[0]

    return method, train(jax.random.key(0))


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_state_goes_on_and_counts_anew(name):
    method, state = trained(name)
    algorithm = online.load(name).make(settings(name), SPEC)
    start = algorithm.init(jax.random.key(1), hand_over(method, state))
    begun = algorithm.online.begin(start, jnp.asarray(True))
    assert tiny.moved(state, begun) == {"step"}  # networks, targets, moments and normaliser are the offline ones
    assert (int(state.step), int(begun.step)) == (1, 0)
    assert algorithm.phases == ()
    assert algorithm.online.reference is None


@pytest.mark.parametrize("name", LEARNING)
def test_the_online_update_is_the_offline_one(name):
    # of IQL too, whose cosine hasn't begun to fall at its first updates
    method, state = trained(name)
    algorithm = online.load(name).make(settings(name, updates=10**9), SPEC)
    batch, key = tiny.random_batch(SPEC), jax.random.key(3)
    found, _ = jax.jit(algorithm.online.update)(state, batch, key)
    expected, _ = jax.jit(method.phase("offline").update)(state, batch, key)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    if name == "awac":
        updates = (algorithm.online.update, method.phase("offline").update)
        assert inspect.unwrap(updates[0]).func is inspect.unwrap(updates[1]).func
        jax.tree.map(close, found, expected)
    else:  # all but the state of the actor's other schedule
        parts = ("actor", "critic", "target_critic", "value")
        jax.tree.map(close, *([getattr(state, part) for part in parts] for state in (found, expected)))
    assert tiny.moved(state, found) == tiny.moved(state, expected)


def test_learning_rate_of_iqls_actor_by_hand():
    # η = 0.1, N = 100: constant; or 0.1, 0.05, 0 and up again, 0.05 (1 − cos(π / 10)) after ten more
    config = settings("iql")
    config = dataclasses.replace(config, update=dataclasses.replace(config.update, actor_lr=0.1))
    counts = jnp.array([0, 50, 100, 110, 200])
    np.testing.assert_allclose(iql.actor_schedule(config)(counts), 0.1)
    periodic = iql.actor_schedule(dataclasses.replace(config, actor_schedule="cosine_periodic"))
    expected = [0.1, 0.05, 0.0, 0.05 * (1 - np.cos(np.pi / 10)), 0.1]
    np.testing.assert_allclose(periodic(counts), expected, atol=1e-7)


@pytest.mark.parametrize(("schedule", "moves"), [("constant", True), ("cosine_periodic", False)])
def test_the_periodic_schedule_freezes_iqls_actor_where_offline_training_ended(schedule, moves):
    _, state = trained("iql")
    adam, by_schedule = state.opt.actor
    ended = (adam, by_schedule._replace(count=jnp.asarray(100, jnp.int32)))  # of N = 100
    state = state.replace(opt=state.opt.replace(actor=ended))
    algorithm = iql.make(settings("iql", actor_schedule=schedule), SPEC)
    after, _ = sharing.jit(algorithm.online.update)(state, tiny.random_batch(SPEC), jax.random.key(0))
    assert ("actor" in tiny.moved(state, after)) == moves
    assert "critic" in tiny.moved(state, after)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused(name):
    method, state = trained(name)
    handoff = hand_over(method, state)
    algorithm = online.load(name).make(settings(name), SPEC)
    with pytest.raises(
        ValueError, match=f"^{name} continues from {name}, .* comes from cql: pass the policy of a run of"
    ):
        algorithm.init(jax.random.key(0), handoff.replace(source="cql"))
    config = settings(name)
    wider = dataclasses.replace(config, update=dataclasses.replace(config.update, critic_hidden=(9,)))
    with pytest.raises(ValueError, match=r"set update.hidden and update.critic_hidden as that run has them$"):
        online.load(name).make(wider, SPEC).init(jax.random.key(0), handoff)
    scaled = dataclasses.replace(config, update=dataclasses.replace(config.update, reward_scale=2.0))
    with pytest.raises(ValueError, match=r"other rewards: set update.reward_scale=1.0 and update.reward_shift=0.0$"):
        online.load(name).make(scaled, SPEC).init(jax.random.key(0), handoff)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_those_of_the_offline_run(name):
    theirs = dataclasses.replace(settings(name).update, discount=0.9)
    found = online.load(name).Config().after(name, dataclasses.asdict(theirs))
    assert found.update == theirs
    assert (found.networks.hidden, found.update.discount) == ((8,), 0.9)
    other = online.load(name).Config()
    assert other.after("dt", {"width": 8}) == other


def test_defaults():
    medium, maze = envs.get_task("mujoco/hopper-medium"), envs.get_task("antmaze/umaze")
    for name in NAMES:
        module = online.load(name)
        paper, fast = (module.Config.for_task(medium, schedule) for schedule in ("paper", "fast"))
        assert (paper.env_steps, paper.evaluation.every_env_steps, paper.evaluation.episodes) == (100_000, 1_000, 10)
        replay = ("half", 1_000) if name == "cal_ql" else ("all", 0)
        assert (paper.replay.mode, paper.interaction.warmup_env_steps, fast.env_steps) == (*replay, 20_000)
        assert module.Config.for_task(maze).env_steps == 200_000
        assert paper.update == offline.load(name).Config.for_task(medium)
        assert module.make(paper, SPEC).online.schedule == Schedule(updates=1, warmup_env_steps=replay[1])


@pytest.mark.parametrize("name", LEARNING)
def test_probe_the_policy_leans_to_better_actions(name):
    # one state, reward = action, every step an episode; from a policy at 0 the actions drawn are its own
    spec = Spec(observation_dim=1, action_dim=1)
    sizes = {"hidden": (16,), "critic_hidden": (16,), "actor_lr": 1e-2, "critic_lr": 1e-2}
    update = offline.load(name).Config(**sizes, discount=0.5)
    algorithm = online.load(name).make(online.load(name).Config(update=update), spec)
    action = jnp.linspace(-0.9, 0.9, 64)[:, None]
    batch = tiny.random_batch(spec, 64, terminated=1.0)
    batch = batch.replace(observation=jnp.zeros((64, 1)), next_observation=jnp.zeros((64, 1)), action=action)
    batch = batch.replace(reward=4.0 * action[:, 0])

    def training(key):
        init_key, run_key = jax.random.split(key)
        state = algorithm.online.begin(algorithm.init(init_key, None), jnp.asarray(True))
        start = algorithm.policy(state).distribution(jnp.zeros((1, 1))).mode()[0, 0]
        step = lambda state, key: algorithm.online.update(state, batch, key)
        state, _ = jax.lax.scan(step, state, jax.random.split(run_key, 400))
        return start, algorithm.policy(state).distribution(jnp.zeros((1, 1))).mode()[0, 0]

    start, end = tiny.over_keys(training)
    np.testing.assert_array_less(np.abs(start), 0.6)
    np.testing.assert_array_less(0.25, end)  # the data's mean action is 0


def test_an_agent_explores_within_bounds():
    for name in NAMES:
        method, state = trained(name)
        algorithm = online.load(name).make(settings(name), SPEC)
        act = functools.partial(algorithm.online.act, state, (), jnp.ones(4), jnp.zeros(()))
        actions, memory = jax.jit(jax.vmap(act))(jax.random.split(jax.random.key(0), 200))
        assert memory == ()
        largest = float(jnp.abs(actions).max())
        assert largest < 1.0 if name == "cal_ql" else largest == 1.0  # squashed rather than clipped
        assert len(np.unique(actions)) > 100
        assert method.policy(state).head == algorithm.requires.head
