"""Cal-QL online: what its updates learn from, returns of episodes that end at different times, the switch."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from o2o_jax.data import replay
from o2o_jax.interfaces import Task
from o2o_jax.offline import cql
from o2o_jax.online import cal_ql
from o2o_jax.online.parts import Evaluation
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.events import finish
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.train import train
from o2o_jax.types import Annotated, Spec
from tests import tiny

SPEC = Spec(observation_dim=3, action_dim=2)
ENV_STEPS = 12
UPDATE = {"hidden": (4,), "critic_hidden": (4,), "batch_size": 4, "num_actions": 2, "discount": 0.5}


def settings(**changes):
    config = tiny.config(cal_ql.Config, env_steps=ENV_STEPS, warmup_env_steps=2, **changes)
    evaluation = Evaluation(every_env_steps=ENV_STEPS // 2, episodes=0)
    return dataclasses.replace(config, update=dataclasses.replace(config.update, **UPDATE), evaluation=evaluation)


class Counting:
    """A vector environment of rewards 1, 2, 3, …; episodes of the first seed take 3 steps, of the second 5."""

    lengths = np.array([3, 5])

    def reset(self, seed):
        self.steps, self.taken = 0, np.zeros(2, int)
        return np.zeros((len(seed), 3), np.float32), {}

    def step(self, action):
        self.steps += 1
        self.taken += 1
        truncated = self.taken == self.lengths
        self.taken[truncated] = 0
        observation = np.zeros((2, 3), np.float32)
        return observation, np.full(2, self.steps, np.float32), np.zeros(2, bool), truncated, {}


def test_every_seed_learns_from_the_returns_of_its_own_episodes():
    config = settings(reward_scale=2.0)
    algorithm = cal_ql.make(config, SPEC)
    data = jax.device_get(tiny.random_rollout(SPEC, 20))
    dataset = tiny.Dataset.from_arrays(
        data.observation, data.action, data.reward, data.terminated, data.truncated, data.next_observation
    )
    setup = Setup(algorithm, config, Task("test/counting", "", SPEC, 5), range(2), seed_mesh(2, 1))
    events = []
    run = finish(train(Plan(setup, dataset, envs=Counting())), events.append)
    assert int(run.agent.step) == ENV_STEPS - 2
    # γ = 0.5, r = 2 t: three episodes and the first steps of another; of five steps each two, and two steps of another
    reward = 2.0 * np.arange(1, ENV_STEPS + 1)
    for seed, length in enumerate(Counting.lengths):
        ends = (np.arange(ENV_STEPS) // length + 1) * length
        expected = [sum(reward[t:end] * 0.5 ** np.arange(len(reward[t:end]))) for t, end in enumerate(ends)]
        np.testing.assert_allclose(run.buffer.returns[seed], expected, rtol=1e-6)
        assert int(run.buffer.steps[seed]) == ENV_STEPS % length
    bounded = np.array([event.rows["finetune"]["bounded"] for event in events if "finetune" in event.rows])
    assert np.all((bounded > 0.1) & (bounded < 2 / 3))  # of the fresh critics' values most lie below these returns


def test_the_update_is_cql_s_with_a_floor_or_without():
    for calibrated in (True, False):
        algorithm = cal_ql.make(settings(calibrate_online=calibrated), SPEC)
        assert inspect.unwrap(algorithm.online.update).func is cql.algorithm.update
        assert (algorithm.online.prepare is not None) is calibrated
        buffer = algorithm.online.replay.init(SPEC)
        assert isinstance(buffer, replay.ReturnsBuffer if calibrated else replay.RingBuffer)


@pytest.mark.parametrize("mode", ["half", "all", "part", "none"])
def test_batches_of_every_mode_have_returns(mode):
    algorithm = cal_ql.make(settings(mode=mode), SPEC)
    rollout = tiny.random_rollout(SPEC, 6)
    buffer = algorithm.online.replay.init(SPEC)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    _, extras = algorithm.online.prepare(state, rollout)
    dataset = None if mode == "none" else Annotated.of(rollout, extras)
    batch = jax.eval_shape(algorithm.online.replay.sample, buffer, dataset, jax.random.key(0))
    assert batch.extras.shared.value.shape == batch.reward.shape == (4,)


def test_an_update_costs_what_the_offline_one_does():
    config = cal_ql.Config()
    assert cal_ql.operations(config, SPEC)["finetune"] == cql.operations(config.update, SPEC)["update"]
