"""Methods to come fit the interface: the runtime trains their sketches from start to end."""

import jax
import numpy as np
import pytest

from o2o_jax.interfaces import Task
from o2o_jax.online.common import OnlineConfig
from o2o_jax.online.parts import Evaluation
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.events import finish
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.runtime.train import train
from o2o_jax.types import Spec
from tests import sketches, tiny

SPEC = Spec(observation_dim=3, action_dim=2)
CONFIG = OnlineConfig(env_steps=24, evaluation=Evaluation(every_env_steps=12, episodes=0))


class Still:
    """A vector environment in which nothing happens and no episode ends."""

    def reset(self, seed):
        return np.zeros((len(seed), 3), np.float32), {}

    def step(self, action):
        size = len(action)
        return np.zeros((size, 3), np.float32), np.ones(size), np.zeros(size, bool), np.zeros(size, bool), {}


def dataset():
    rows = tiny.random_rollout(SPEC, 20)
    columns = jax.device_get(rows)
    return tiny.Dataset.from_arrays(
        columns.observation, columns.action, columns.reward, columns.terminated, columns.truncated,
        columns.next_observation,
    )  # fmt: skip


@pytest.mark.parametrize("name", sketches.ONLINE)
def test_an_online_sketch_trains(name):
    algorithm = sketches.ONLINE[name](SPEC)
    setup = Setup(algorithm, CONFIG, Task("test/still", "", SPEC, 1_000), range(2), seed_mesh(2, 1))
    run = finish(train(Plan(setup, dataset(), envs=Still())))
    schedule = algorithm.online.schedule
    assert int(run.env_steps) == 24
    assert int(run.agent.step) == 24 // schedule.env_steps * schedule.updates
