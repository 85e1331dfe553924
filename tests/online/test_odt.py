"""Online DT: what it goes on with, how it acts, and its rounds of updates after episodes."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.data.transform import Normalizer
from o2o_jax.interfaces import Schedule
from o2o_jax.offline import dt
from o2o_jax.online import odt
from o2o_jax.online.odt.algorithm import return_to_explore
from o2o_jax.ops.distributions import Deterministic
from o2o_jax.policy import hand_over
from o2o_jax.runtime.seeds import seed_axes
from o2o_jax.types import Annotated, History, Spec
from tests import sharing, tiny

SPEC = Spec(observation_dim=3, action_dim=2)
UPDATE = dt.Config(width=8, layers=1, heads=2, context=4, eval_context=2, batch_size=8, target_return=10.0)
CONFIG = tiny.config(odt.Config, update=UPDATE, env_steps=20, max_episodes=3, updates_per_episode=2)


@functools.cache
def trained():
    """The decision transformer after an update, and what it hands over."""
    method, dataset = dt.make(UPDATE, SPEC), tiny.random_rollout(SPEC)
    phase = method.phase("offline")
    state = sharing.jit(method.init)(jax.random.key(0), Normalizer(jnp.ones(3), jnp.full(3, 2.0)))
    state, extras = phase.prepare(state, dataset)
    batch = phase.sample(Annotated.of(dataset, extras), jax.random.key(1), 8)
    state, _ = sharing.jit(phase.update)(state, batch, jax.random.key(2))
    return method, state, batch, hand_over(method, state)


@functools.cache
def started():
    algorithm = odt.make(CONFIG, SPEC)
    return algorithm, algorithm.online.begin(algorithm.init(jax.random.key(3), trained()[3]), jnp.asarray(True))


def test_the_whole_state_goes_on_and_counts_anew():
    _, state, _, _ = trained()
    algorithm, begun = started()
    assert vars(begun).keys() == vars(state).keys()
    for name in vars(state).keys() - {"step"}:  # moments, the rate's warm-up and the temperature among them
        jax.tree.map(np.testing.assert_array_equal, getattr(begun, name), getattr(state, name))
    assert (int(state.step), int(begun.step)) == (1, 0)
    assert algorithm.phases == ()
    # a seed counts its own updates, since they follow its own episodes
    assert (seed_axes(state).step, seed_axes(begun).step) == (None, 0)


def test_the_online_update_is_the_offline_one():
    method, state, batch, _ = trained()
    algorithm, begun = started()
    found, metrics = sharing.jit(algorithm.online.update)(begun, batch, jax.random.key(4))
    expected, their_metrics = sharing.jit(method.phase("offline").update)(state, batch, jax.random.key(4))
    assert inspect.unwrap(algorithm.online.update).func is odt.algorithm.finetune
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, (found.actor, found.log_temperature), (expected.actor, expected.log_temperature))
    jax.tree.map(close, metrics, their_metrics)
    assert tiny.moved(begun, found) == {"actor", "log_temperature", "opt", "step"}


def test_an_update_learns_from_what_an_episode_received():
    # two histories that differ in their returns to go alone lead to different weights
    algorithm, begun = started()
    update, (_, _, batch, _) = sharing.jit(algorithm.online.update), trained()
    other = batch.replace(return_to_go=batch.return_to_go + 1_000.0)
    first, second = (update(begun, rows, jax.random.key(4))[0] for rows in (batch, other))
    assert tiny.moved(first, second) >= {"actor"}


@pytest.mark.parametrize(("target", "factor", "expected"), [(3_600.0, 2.0, 7_200.0), (-150.0, 2.0, 0.0), (5.0, 1.0, 5.0)])
def test_return_to_explore_by_hand(target, factor, expected):
    assert float(return_to_explore(jnp.asarray(target), factor)) == expected


class Recorded:
    """In place of the transformer: notes the histories that it is shown, and draws nothing but 0."""

    head, action_dim = "sequence", 2

    def __init__(self):
        self.seen = []

    def apply(self, params, history):
        self.seen.append(history)
        return Deterministic(jnp.zeros_like(history.action))


def test_acting_asks_for_twice_the_return_and_for_less_as_it_comes():
    # asked for 10: 20, then 20 − 4, then 16 − 1; the network sees a thousandth, of the last two steps
    _, begun = started()
    algorithm, network = odt.make(CONFIG, SPEC), Recorded()
    nets = dt.algorithm.make_networks(UPDATE, SPEC)._replace(actor=network)
    act = functools.partial(odt.algorithm.act, nets, CONFIG)
    memory = algorithm.online.memory()
    for t, reward in enumerate((0.0, 4.0, 1.0)):
        observation = jnp.full(3, 1.0 + 2.0 * t)  # (s − 1) / 2 = t
        action, memory = act(begun, memory, observation, jnp.asarray(reward), jax.random.key(t))
    np.testing.assert_array_equal(action, [0, 0])
    first, second, third = network.seen
    np.testing.assert_allclose(first.valid, [[0, 1]])
    np.testing.assert_allclose(first.return_to_go[0, 1], 0.020, rtol=1e-6)
    np.testing.assert_allclose(second.return_to_go, [[0.020, 0.016]], rtol=1e-6)
    np.testing.assert_allclose(third.return_to_go, [[0.016, 0.015]], rtol=1e-6)
    np.testing.assert_allclose(third.observation[0, :, 0], [1.0, 2.0])
    assert (CONFIG.interaction.return_factor, float(begun.target_return)) == (2.0, 10.0)


def test_acting_draws_and_remembers_what_it_did():
    algorithm, begun = started()
    act, memory = sharing.jit(algorithm.online.act), algorithm.online.memory()
    assert jax.tree.map(jnp.shape, memory) == History((1, 2, 3), (1, 2, 2), (1, 2), (1, 2))
    observation, reward = jnp.ones(3), jnp.zeros(())
    first, after = act(begun, memory, observation, reward, jax.random.key(0))
    other, _ = act(begun, memory, observation, reward, jax.random.key(1))
    assert not np.array_equal(first, other)
    assert jnp.all(jnp.abs(first) <= 1.0)
    np.testing.assert_array_equal(after.action[0, -1], first)
    # evaluation takes the mode, of what the offline run asks for
    policy = algorithm.policy(begun)
    assert float(policy.target_return) == 10.0
    jax.tree.map(np.testing.assert_array_equal, policy, trained()[3].policy)


def test_rounds_follow_episodes():
    algorithm, _ = started()
    schedule = algorithm.online.schedule
    assert schedule == Schedule(updates=2, per_episode=True)
    assert [schedule.due(step, ended) for step, ended in ((1, False), (2, True), (3, False))] == [False, True, False]
    assert not Schedule(per_episode=True, warmup_env_steps=2).due(2, True)
    # 1,000 steps in episodes of 100 at most: ten rounds at least
    assert (schedule.rounds(1_000, 100), Schedule(env_steps=3, warmup_env_steps=3).rounds(10, 100)) == (10, 2)


def test_the_data_s_rows_know_their_episodes():
    algorithm, begun = started()
    rows = tiny.random_rollout(SPEC, 6).replace(reward=jnp.arange(6.0), truncated=jnp.array([0.0, 1, 1, 0, 0, 1]))
    state, extras = algorithm.online.prepare(begun, rows)
    np.testing.assert_array_equal(extras.shared["episode"], [0, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(extras.shared["remaining"], [2, 1, 1, 3, 2, 1])
    np.testing.assert_allclose(extras.shared["return_to_go"], [1, 1, 2, 12, 9, 5])
    assert extras.own is None
    jax.tree.map(np.testing.assert_array_equal, state, begun)  # 10 were asked for, and are


def test_what_is_refused():
    handoff, algorithm = trained()[3], odt.make(CONFIG, SPEC)
    with pytest.raises(ValueError, match=r"^odt continues from dt, .* comes from td3_bc: pass the policy of a run of dt$"):
        algorithm.init(jax.random.key(0), handoff.replace(source="td3_bc"))
    with pytest.raises(ValueError, match=r"^odt continues from its offline state, .*: pass the state too$"):
        algorithm.init(jax.random.key(0), handoff.replace(state=None))
    wider = odt.make(tiny.changed(CONFIG, width=10), SPEC)
    with pytest.raises(ValueError, match=r"^the networks of the odt run .*: set update.width and update.layers as that"):
        wider.init(jax.random.key(0), handoff)
    for name in ("max_episodes", "updates_per_episode", "return_factor"):
        with pytest.raises(ValueError, match=f"{name} must be .*, got 0"):
            tiny.changed(CONFIG, **{name: 0})


def test_settings_of_tasks():
    medium, pen = (odt.Config.for_task(envs.get_task(name)) for name in ("mujoco/hopper-medium", "adroit/pen-human"))
    assert (medium.interaction.return_factor, pen.interaction.return_factor) == (2.0, 1.0)
    assert medium.update == dt.Config.for_task(envs.get_task("mujoco/hopper-medium"))
    assert (medium.interaction.updates_per_episode, medium.replay.max_episodes, medium.env_steps) == (300, 1_000, 100_000)
    theirs = dt.Config(width=128, heads=1)
    assert odt.Config().after("dt", vars(theirs)).update == theirs
    assert odt.Config().after("td3_bc", {"hidden": (8,)}) == odt.Config()
