"""Jobs are values: equal, hashable, picklable, JSON both ways; and what they leave says which they were."""

import dataclasses
import json
import pickle
import re
import types

import gymnasium
import numpy as np
import pytest

from o2o_jax import envs, online
from o2o_jax.data.dataset import Dataset
from o2o_jax.jobs.job import OfflineJob, OnlineJob, ScratchJob, cloning, data_warnings, try_environment
from o2o_jax.offline import iql, td3_bc
from o2o_jax.online import awac, o2sac, o2td3, ppo
from o2o_jax.policy import CloneConfig
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.settings import replaced
from o2o_jax.types import Spec

JOBS = [
    OfflineJob(algorithm="td3_bc", config=td3_bc.Config(hidden=(8,)), env="mujoco/hopper-medium", eval_every=5),
    OfflineJob(algorithm="iql", config=iql.Config(), dataset="mine.npz", seeds=3, first_seed=2),
    OnlineJob(algorithm="o2td3", config=o2td3.Config(), policy="runs/a", clone=CloneConfig(updates=3), schedule="fast"),
    OnlineJob(algorithm="awac", config=awac.Config(), policy="a", schedule="paper", reconstruction="b", envpool=True),
    ScratchJob(algorithm="ppo", config=ppo.Config.from_scratch(), env="mujoco/hopper"),
]
IDS = [f"{job.script}-{job.algorithm}" for job in JOBS]


@pytest.mark.parametrize("job", JOBS, ids=IDS)
def test_jobs_are_values(job):
    assert type(job).from_json(json.loads(json.dumps(job.to_json()))) == job
    assert pickle.loads(pickle.dumps(job)) == job
    other = dataclasses.replace(job, seeds=7)
    assert len({job, dataclasses.replace(job), other}) == 2
    assert list(other.seed_list) == list(range(job.first_seed, job.first_seed + 7))


@pytest.mark.parametrize(("arguments", "updates"), [(("fast",), 10_000), (("paper",), 100_000), (("paper", 7), 7)])
def test_cloning_follows_the_schedule(arguments, updates):
    config = replaced(o2td3.Config(), {"networks.hidden": (8,)})
    assert cloning(config, *arguments) == CloneConfig(hidden=(8,), updates=updates)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": o2sac.Config()}, "config must be a Config of o2o_jax.online.o2td3, got Config"),
        ({"config": None}, "config must be a Config of o2o_jax.online.o2td3, got NoneType"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"seeds": "2"}, "seeds must be a whole number, got '2'"),
        ({"schedule": "fas"}, "unknown schedule 'fas'. Did you mean 'fast'?"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
    ],
)
def test_what_could_only_fail_later_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(JOBS[2], **changes)


def test_a_job_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected a job of offline, got one of 'finetune'"):
        OfflineJob.from_json(JOBS[2].to_json())


@pytest.mark.parametrize(
    ("algorithm", "values", "message"),
    [
        ("ppo", {"reevaluate.updates": 5}, "the phase reevaluate learns from data, of which there is none"),
        ("sac", {"replay.mode": "half"}, "set replay.mode=none"),
        ("sac", {"networks.critic_source": "offline"}, "networks.critic_source=offline continues from the critics of"),
    ],
)
def test_training_from_scratch_needs_no_data(algorithm, values, message):
    config = replaced(online.load(algorithm).Config.from_scratch(), values)
    with pytest.raises(ValueError, match=message):
        ScratchJob(algorithm=algorithm, config=config, env="mujoco/hopper").plan(seed_mesh(1, 1))


def test_checkpoints_are_no_part_of_what_a_run_is():
    often = dataclasses.replace(JOBS[2], checkpoint_every=5)
    assert often == JOBS[2]
    assert often.to_json() == JOBS[2].to_json()


def test_an_environment_is_tried_before_anything_is_trained():
    class Broken(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

        def reset(self, **_):
            return np.zeros(3), {}

        def step(self, action):
            return np.zeros(3), np.nan, False, False, {}

    family, task = types.SimpleNamespace(make_env=lambda task: Broken()), envs.get_task("gym/Pendulum-v1")
    with pytest.raises(ValueError, match="the environment Broken failed at step 1 of an episode: the reward is nan"):
        try_environment(family, task)
    wide = dataclasses.replace(task, spec=Spec(observation_dim=4, action_dim=1))
    with pytest.raises(ValueError, match=r"has observations of shape \(3,\) .* says 4 and 1: mend the spec"):
        try_environment(family, wide)


@pytest.mark.parametrize(
    ("widest", "bounds", "words"),
    [
        (0.4, None, "fill 40% of .* for the environment's bounds, -1 and 1: scale them first"),
        (0.4, ((-2.0,), (2.0,)), r"bounds, \(-2.0,\) and \(2.0,\): scale"),
        (0.5, None, ""),
    ],
)
def test_data_that_use_little_of_the_range_say_what_is_assumed(widest, bounds, words):
    data = Dataset.from_arrays(
        np.eye(4, 3), np.array([[0.1], [-widest], [0.0], [0.2]]), np.zeros(4), np.zeros(4), np.arange(4) == 3
    )
    low, high = bounds or ((), ())
    task = dataclasses.replace(envs.get_task("gym/Pendulum-v1"), action_low=low, action_high=high)
    found = data_warnings(data, task)
    assert len(found) == bool(words)
    assert all(re.search(words, line) for line in found)


@pytest.mark.parametrize(("shuffled", "cut"), [(False, False), (True, False), (True, True)])
def test_rows_out_of_order_are_said(shuffled, cut):
    states = np.random.default_rng(0).normal(size=(101, 3))
    order = np.random.default_rng(1).permutation(100) if shuffled else np.arange(100)
    data = Dataset.from_arrays(
        states[:-1][order], np.ones((100, 1)), np.zeros(100), np.zeros(100), np.full(100, cut), states[1:][order]
    )
    found = data_warnings(data, None)
    assert len(found) == (shuffled and not cut)
    assert all("set truncations in all of them" in line for line in found)


def test_observations_that_never_change_are_said():
    states = np.random.default_rng(0).normal(size=(8, 4))
    states[:, [0, 2]] = 7.0
    data = Dataset.from_arrays(states[:-1], np.ones((7, 1)), np.zeros(7), np.zeros(7), np.zeros(7, bool), states[1:])
    (line,) = data_warnings(data, None)
    assert line.startswith("of the observations of arrays the same in every row are numbers 0, 2: ")
    assert "counts 1,000-fold online" in line
