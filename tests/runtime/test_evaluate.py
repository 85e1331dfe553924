"""Returns of a policy: counted to the end of every episode, from start states that never change."""

import os
from types import SimpleNamespace

import flax.struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax.interfaces import Task
from o2o_jax.policy import SampledPolicy
from o2o_jax.runtime import evaluate
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.evaluate import (
    CONFIRMATION_STREAM,
    THREADS,
    Evaluator,
    PoolEvaluator,
    evaluation_metrics,
    policy_episodes,
    rounds_of,
    start_seeds,
    threads_for,
)
from o2o_jax.types import Spec
from tests import tiny

TASK = Task("test/walk", "Walk-v0", Spec(1, 1), 6, "", False, random_score=-10.0, expert_score=40.0)


class Walk(gymnasium.Env):
    """Walks along a line by its action; falls off at 1, which costs 100, or is stopped after 6 steps.

    Stepping on after an episode's end is an error.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    closed = False

    def __init__(self):
        self.starts = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps, self.ended = self.np_random.uniform(0.0, 0.3), 0, False
        self.starts.append(self.position)
        return np.array([self.position]), {}

    def step(self, action):
        assert not self.ended
        self.position += action[0]
        self.steps += 1
        terminated, truncated = self.position >= 1.0, self.steps == 6
        self.ended = terminated or truncated
        return np.array([self.position]), 1.0 - 100.0 * terminated, terminated, truncated, {}

    def close(self):
        self.closed = True


@pytest.fixture
def envs():
    return []


@pytest.fixture
def make_env(envs):
    def make():
        envs.append(Walk())
        return envs[-1]

    return make


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_returns_end_with_their_episodes(make_env, threads):
    # speeds 0, 0.25 and 0.5 from a start in [0, 0.3]: stopped after 6 steps with 6; over the edge at step 3 or 4 with
    # 3 or 4 − 100; at step 2 with 2 − 100. Walk refuses a step beyond the end.
    speeds = np.array([[0.0, 0.25, 0.5], [0.5, 0.0, 0.0]])[..., None]
    evaluator = Evaluator(make_env, [0, 1], 3, threads=threads)
    returns, lengths = evaluator(lambda observation: speeds)
    evaluator.close()
    assert returns.shape == lengths.shape == (2, 3)
    np.testing.assert_allclose(returns, lengths - 100.0 * (speeds[..., 0] > 0))
    assert lengths[0, 0] == lengths[1, 1] == lengths[1, 2] == 6
    assert lengths[0, 1] in (3, 4)
    assert lengths[0, 2] == lengths[1, 0] == 2


def test_every_episode_is_asked_with_its_own_observations(make_env):
    seen = []

    def act(observation):
        assert observation.dtype == np.float32
        seen.append(observation.copy())
        return np.zeros((2, 2, 1))

    Evaluator(make_env, [5, 6], 2)(act)
    assert len(seen) == 6
    assert {step.shape for step in seen} == {(2, 2, 1)}
    assert len(np.unique(seen[0])) == 4


def test_every_call_starts_from_the_same_states(make_env, envs):
    evaluator = Evaluator(make_env, [0, 1], 2)
    for _ in range(3):
        evaluator(lambda observation: np.ones((2, 2, 1)))
    for env in envs:
        assert len(env.starts) == 3
        assert len(set(env.starts)) == 1
    assert len({env.starts[0] for env in envs}) == 4  # but those of two episodes or two seeds differ


def test_a_seed_starts_as_it_does_alone(make_env, envs):
    for seeds in ([3], [0, 3]):
        Evaluator(make_env, seeds, 2)(lambda observation: np.ones((*observation.shape[:2], 1)))
    alone, among = envs[:2], envs[4:]
    assert [env.starts for env in alone] == [env.starts for env in among]


class WalkPool:
    """As many walks in one vector, whose interface envpool has."""

    def __init__(self, starts):
        self.starts, self.envs = starts, [Walk() for _ in starts]

    def reset(self):
        return np.stack([env.reset(seed=start)[0] for env, start in zip(self.envs, self.starts, strict=True)]), {}

    def step(self, actions):
        rows = []
        for env, action in zip(self.envs, actions, strict=True):
            rows.append((env.reset()[0], 0.0, False, False, {}) if env.ended else env.step(action))
        *columns, _ = zip(*rows, strict=True)
        return *(np.stack(column) for column in columns), {}

    def close(self):
        pass


@pytest.mark.parametrize("pool", [False, True])
def test_some_seeds_play_from_other_starts(make_env, envs, pool):
    seen = []

    def act(observation):
        seen.append(observation.copy())
        return np.ones((*observation.shape[:2], 1))

    evaluator = PoolEvaluator(WalkPool, [5, 6, 7], 2) if pool else Evaluator(make_env, [5, 6, 7], 2)
    plays = np.array([True, False, True])
    returns, lengths = evaluator(act, stream=9, plays=plays)
    expected = [[-99.0] * 2, [np.nan] * 2, [-99.0] * 2]  # over the edge at the first step
    np.testing.assert_array_equal(returns, expected)
    np.testing.assert_array_equal(lengths, [[1] * 2, [0] * 2, [1] * 2])
    own, _ = evaluator(act)
    assert np.isfinite(own).all()
    again, _ = evaluator(act, stream=9, plays=plays)
    np.testing.assert_array_equal(seen[0], seen[2])
    assert np.all(seen[0][plays] != seen[1][plays])  # of other starts
    np.testing.assert_array_equal(seen[0][1], 0.0)
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize(("seeds", "episodes", "expected"), [(1, 7, [4, 3]), (2, 5, [2, 2, 1]), (9, 2, [1, 1])])
def test_rounds_have_few_simulators_or_one_for_each_seed(seeds, episodes, expected, monkeypatch):
    monkeypatch.setattr(evaluate, "SIMULATORS", 4)
    rounds = rounds_of(seeds, episodes)
    assert [rows.stop - rows.start for rows in rounds] == expected
    assert [e for rows in rounds for e in range(rows.start, rows.stop)] == list(range(episodes))


@pytest.mark.parametrize("kind", ["threads", "pool"])
@pytest.mark.parametrize("plays", [None, np.array([True, False, True])])
def test_few_simulators_play_what_many_do(make_env, envs, kind, plays, monkeypatch):
    def make(seeds):
        return PoolEvaluator(WalkPool, seeds, 7) if kind == "pool" else Evaluator(make_env, seeds, 7, threads=2)

    policy = tiny.make_policy("tanh_gaussian", observation_dim=1, action_dim=1)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), policy)
    counting = Counting(np.array([0.2, 0.0, 0.3], np.float32))
    drawing, remembering = (policy_episodes(of, [4, 5, 6], seed_mesh(3, 1)) for of in (SampledPolicy, lambda p: p))

    def results(evaluator):
        played = [
            run(evaluator, agent, plays=plays, stream=3) for run, agent in ((drawing, stacked), (remembering, counting))
        ]
        evaluator.close()
        return jax.tree.leaves(played)

    many = results(make([4, 5, 6]))
    opened = len(envs)
    monkeypatch.setattr(evaluate, "SIMULATORS", 9)
    few = results(make([4, 5, 6]))
    assert kind == "pool" or (opened, len(envs) - opened) == (21, 9)
    for one, other in zip(many, few, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(many[0][~np.isnan(many[0])])) > 1  # episodes differ


def test_streams_differ():
    streams = [start_seeds(seed, 3, stream) for seed in (0, 1) for stream in (0, 1, 2)]
    assert len({start for stream in streams for start in stream}) == 18
    assert start_seeds(0, 3, 1) == start_seeds(0, 5, 1)[:3]
    confirmations = [start_seeds(0, 3, CONFIRMATION_STREAM + env_steps) for env_steps in (1, 2)]
    assert len({start for stream in (*streams, *confirmations) for start in stream}) == 24


@pytest.mark.parametrize("threads", [1, 2])
def test_rewards_are_received_after_every_step(make_env, threads):
    # two steps at speed 0.5 lead over the edge; the other episode continues to step 6
    received = []
    speeds = np.array([[[0.5], [0.0]]])
    Evaluator(make_env, [0], 2, threads=threads)(lambda observation: speeds, received.append)
    over = [-99.0 if step == 1 else float(step == 0) for step in range(6)]
    assert [rewards[0].tolist() for rewards in received] == [[reward, 1.0] for reward in over]


@flax.struct.dataclass
class Counting:
    """A policy whose speed is its gain times the rewards received so far."""

    gain: jax.Array

    def begin(self, episodes, key):
        return jnp.zeros(episodes)

    def act(self, memory, observation, reward):
        memory = memory + reward
        return self.gain * memory[:, None], memory


@pytest.mark.parametrize("devices", [1, 2])
def test_policies_with_a_memory_begin_every_episode_anew_and_compile_once(make_env, devices):
    # rewards of 1 a step: seed 0 goes 0, 0.2, 0.4, 0.6 and is over the edge at step 4 with 3 − 99; seed 1 stays
    traced = []

    def policy_of(agent):
        traced.append(agent)
        return agent

    run = policy_episodes(policy_of, range(2), seed_mesh(2, devices))
    evaluator = Evaluator(make_env, [0, 1], 3)
    agent = Counting(np.array([0.2, 0.0], np.float32))
    returns, lengths = run(evaluator, agent)
    np.testing.assert_array_equal(lengths, [[4] * 3, [6] * 3])
    np.testing.assert_array_equal(returns, [[-96.0] * 3, [6.0] * 3])
    first = len(traced)
    again, _ = run(evaluator, agent)
    np.testing.assert_array_equal(again, returns)
    assert len(traced) == first


def test_a_policy_that_draws_gets_the_same_key_for_the_same_starts(make_env):
    policy = tiny.make_policy("tanh_gaussian", observation_dim=1, action_dim=1)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), policy)
    run, evaluator = policy_episodes(SampledPolicy, [0, 1], seed_mesh(2, 1)), Evaluator(make_env, [0, 1], 2)
    acted = []
    act = lambda step: lambda *arguments: acted.append(np.asarray(step(*arguments))) or acted[-1]

    def played(**which):
        acted.clear()
        run(lambda step, receive, **which: evaluator(act(step), receive, **which), stacked, **which)
        return np.stack(acted[:2])

    first = played()
    np.testing.assert_array_equal(played(), first)
    assert len(np.unique(first)) == first.size  # steps, seeds and episodes draw apart
    assert np.all(played(stream=7)[0] != first[0])
    alone = policy_episodes(SampledPolicy, [1], seed_mesh(1, 1))
    acted.clear()
    one = Evaluator(make_env, [1], 2)
    alone(lambda step, receive, **which: one(act(step), receive, **which), jax.tree.map(lambda leaf: leaf[1:], stacked))
    np.testing.assert_allclose(acted[0][0], first[0][1], rtol=1e-6)  # a seed draws alone as among others
    with pytest.raises(ValueError, match="^a policy that draws its actions needs a key where episodes begin$"):
        SampledPolicy(policy).begin(1)


def test_policies_without_a_memory(make_env):
    policy = tiny.make_policy("deterministic", observation_dim=1, action_dim=1)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf]), policy)
    returns, _ = policy_episodes(lambda policy: policy, [0], seed_mesh(1, 1))(Evaluator(make_env, [0], 2), stacked)
    act = jax.jit(lambda observation: policy.distribution(observation).mode())
    np.testing.assert_array_equal(returns, Evaluator(make_env, [0], 2)(act)[0])


def test_close(make_env, envs):
    Evaluator(make_env, [0, 1], 2).close()
    assert len(envs) == 4
    assert all(env.closed for env in envs)


def test_metrics_by_hand():
    # means 15 and −10 on a scale from −10 to 40: 100 · 25 / 50 and 0
    metrics = evaluation_metrics(TASK, np.array([[10.0, 20.0], [-10.0, -10.0]]), np.array([[6, 2], [1, 2]]))
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "return": [15.0, -10.0],
        "score": [50.0, 0.0],
        "length": [4.0, 1.5],
    }


def test_an_error_in_a_thread_is_an_error_of_the_evaluation(make_env, envs):
    evaluator = Evaluator(make_env, [0], 2, threads=2)
    envs[1].step = lambda action: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluator(lambda observation: np.zeros((1, 2, 1)))


def test_families_step_in_threads_if_they_say_so():
    assert threads_for(SimpleNamespace()) == 1
    assert threads_for(SimpleNamespace(THREAD_SAFE=True)) == min(THREADS, os.cpu_count())


def test_a_pool_that_cannot_be_made_is_missed_at_once():
    def make_pool(seeds):
        assert len(seeds) == 1
        raise ValueError("envpool is not installed")

    with pytest.raises(ValueError, match="envpool is not installed"):
        PoolEvaluator(make_pool, [0, 1], 3)
