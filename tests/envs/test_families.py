import dataclasses
import functools
import json
import subprocess
import sys

import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.envs.vector import last_observations
from o2o_jax.interfaces import Task
from o2o_jax.runtime.evaluate import Evaluator


def test_families_are_found():
    assert "mujoco" in envs.families()
    assert envs.family("mujoco") is envs.family("mujoco/hopper-medium")


@pytest.mark.parametrize("family", envs.families())
def test_every_family_exports_what_it_owes(family):
    module = envs.family(family)
    for name in ("tasks", "make_env", "make_vector_env", "load_dataset", "behaviours"):
        assert callable(getattr(module, name))
    for name, task in module.tasks().items():
        assert name == task.name == envs.get_task(name).name
        assert name.startswith(f"{family}/")


def test_every_dataset_id_belongs_to_one_task():
    tasks = [task for family in envs.families() for task in envs.family(family).tasks().values()]
    for task in tasks:
        for dataset_id in filter(None, (task.dataset_id, *task.remote_ids)):
            assert envs.task_of_dataset(dataset_id) is task


@pytest.mark.parametrize("name", ["mujoco/hopper", "antmaze/umaze", "pointmaze/umaze", "adroit/pen"])
def test_threads_change_nothing_where_a_family_lets_them_step(name):
    task = next(task for full, task in envs.family(name).tasks().items() if full.startswith(name))
    family = envs.family(name)
    assert family.THREAD_SAFE
    make_env = functools.partial(family.make_env, dataclasses.replace(task, max_episode_steps=20))
    actions, found = np.random.default_rng(0).uniform(-1.0, 1.0, (2, 2, task.spec.action_dim)), []
    for threads in (1, 2):
        rewards: list[np.ndarray] = []
        evaluator = Evaluator(make_env, [0, 1], 2, threads=threads)
        returns, lengths = evaluator(lambda observation: actions, rewards.append)
        evaluator.close()
        found.append((returns, lengths, np.stack(rewards)))
    for alone, together in zip(*found, strict=True):
        np.testing.assert_array_equal(alone, together)


def test_tasks_are_made_on_demand_where_a_family_does_that():
    assert envs.family("gym").tasks() == {}
    assert envs.get_task("gym/Pendulum-v1").env_id == "Pendulum-v1"


def test_unknown_names_are_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"unknown environment family 'mujco'\. Did you mean 'mujoco'\?"):
        envs.get_task("mujco/hopper-medium")
    with pytest.raises(
        ValueError, match=r"Did you mean 'mujoco/hopper-medium'\? The nearest of 36 valid names: mujoco/ho"
    ):
        envs.get_task("mujoco/hoper-medium")


def test_facts_of_a_task_need_no_simulator():
    script = (
        "import sys, o2o_jax.envs, o2o_jax.data.sources; o2o_jax.envs.get_task('mujoco/hopper-medium');"
        "o2o_jax.envs.task_of_dataset('D4RL/pen/human-v2');"
        "assert not {'gymnasium', 'mujoco', 'minari', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_last_observations_by_hand():
    # Environment 1 ended: its row already is the next episode's first observation, and the true one is in `info`.
    observations = np.array([[1.0, 2.0], [0.0, 0.0]])
    info = {"final_obs": np.array([None, np.array([3.0, 4.0])], dtype=object), "_final_obs": np.array([False, True])}
    np.testing.assert_array_equal(last_observations(observations, info), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(observations, [[1, 2], [0, 0]])
    assert last_observations(observations, {}) is observations


@pytest.mark.parametrize(
    "name",
    ["mujoco/hopper", "antmaze/umaze", "antmaze/goal-ant", "pointmaze/umaze", "adroit/pen", "ogbench/cube-single-play"],
)
def test_environments_take_settings_of_gymnasium(name):
    task = next(task for full, task in envs.family(name).tasks().items() if full.startswith(name))
    env = envs.family(name).make_env(task, render_mode="rgb_array")
    assert env.unwrapped.render_mode == env.render_mode == "rgb_array"
    env.close()


def test_a_policy_s_facts_of_its_task_go_through_json():
    task = envs.get_task("mujoco/hopper-medium")
    found = Task.from_json(json.loads(json.dumps(task.to_json())))
    assert (found.name, found.spec, found.score(3234.3)) == (task.name, task.spec, 100.0)
    with pytest.raises(ValueError, match="the facts of a task must have name, env_id, spec"):
        Task.from_json({"name": "x"})


def test_bounds_of_actions_are_those_of_the_environment_itself():
    task = envs.get_task("gym/Pendulum-v1")
    assert (task.action_low, task.action_high) == ((-2.0,), (2.0,))
    assert envs.get_task("mujoco/hopper").action_low == envs.get_task("gym/Hopper-v5").action_low == ()
    assert Task.from_json(task.to_json()) == dataclasses.replace(task, published_settings=True)
    with pytest.raises(ValueError, match="action_low and action_high must have one number per action"):
        dataclasses.replace(task, action_high=(2.0, 2.0))
