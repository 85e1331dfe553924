"""Ids of Minari's remote find the environment, version, limit and score that they need; the data is small and local."""

import json

import gymnasium_robotics  # noqa: F401, registers what is recorded here
import minari
import numpy as np
import pytest

from o2o_jax import envs

ROBOTS = {"hopper": "Hopper", "halfcheetah": "HalfCheetah", "walker2d": "Walker2d"}


@pytest.mark.parametrize("quality", ["simple", "medium", "expert"])
@pytest.mark.parametrize("robot", ROBOTS)
def test_minaris_own_locomotion(robot, quality, record):
    dataset_id = record(f"mujoco/{robot}/{quality}-v0", f"{ROBOTS[robot]}-v5")
    task = envs.task_of_dataset(dataset_id)
    assert task is envs.get_task(f"mujoco/{robot}" if quality == "simple" else f"mujoco/{robot}-{quality}")
    assert (task.env_id, task.max_episode_steps) == (f"{ROBOTS[robot]}-v5", 1_000)
    for named in (task, envs.get_task(f"mujoco/{robot}-medium")):  # with --env it is that task
        loaded = envs.family(named.name).load_dataset(named, dataset_id)
        theirs = list(minari.load_dataset(dataset_id))
        assert loaded.env_id == task.env_id
        np.testing.assert_allclose(loaded.returns(), [episode.rewards.sum() for episode in theirs], rtol=1e-5)


@pytest.mark.parametrize("quality", ["human", "cloned", "expert"])
def test_pen(quality, record):
    dataset_id = record(f"D4RL/pen/{quality}-v2", "AdroitHandPen-v1", max_episode_steps=100)
    task = envs.task_of_dataset(dataset_id)
    assert (task.name, task.env_id, task.max_episode_steps) == (f"adroit/pen-{quality}", "AdroitHandPen-v1", 100)
    assert envs.family(task.name).load_dataset(task).size == 10


@pytest.mark.parametrize(
    ("dataset_id", "name", "env_id", "steps"),
    [
        ("D4RL/pointmaze/umaze-v2", "pointmaze/umaze", "PointMaze_UMaze-v3", 700),
        ("D4RL/pointmaze/large-dense-v2", "pointmaze/large", "PointMaze_Large-v3", 1_000),
        ("D4RL/antmaze/umaze-v1", "antmaze/umaze", "AntMaze_UMaze-v4", 700),
        ("D4RL/antmaze/medium-diverse-v1", "antmaze/medium-diverse", "AntMaze_Medium-v4", 1_000),
    ],
)
def test_mazes(dataset_id, name, env_id, steps):
    task = envs.task_of_dataset(dataset_id)
    assert (task.name, task.env_id, task.max_episode_steps, task.score(1.0)) == (name, env_id, steps, 100.0)


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
@pytest.mark.parametrize(
    ("task", "dataset_id", "recorded_in", "fits"),
    [
        ("mujoco/hopper-medium", "mujoco/hopper/medium-v0", "Hopper-v4", True),
        ("mujoco/halfcheetah-medium", "mujoco/halfcheetah/medium-v0", "HalfCheetah-v4", True),
        ("mujoco/walker2d-medium", "mujoco/walker2d/medium-v0", "Walker2d-v4", False),
        ("mujoco/walker2d-v4-medium", "mujoco/walker2d/medium-v0", "Walker2d-v4", True),
        ("mujoco/walker2d-v4-medium", "mujoco/walker2d/medium-v0", "Walker2d-v5", False),
        ("mujoco/walker2d-medium", "mujoco/halfcheetah/medium-v0", "HalfCheetah-v5", False),  # of the same sizes
    ],
)
def test_data_of_other_dynamics_is_refused(task, dataset_id, recorded_in, fits, record):
    record(dataset_id, recorded_in)
    task = envs.get_task(task)
    if fits:
        assert envs.family(task.name).load_dataset(task, dataset_id).env_id == recorded_in
        return
    with pytest.raises(
        ValueError, match=f"recorded in {recorded_in}, but {task.name} runs {task.env_id}, which"
    ) as error:
        envs.family(task.name).load_dataset(task, dataset_id)
    assert "\n" not in str(error.value)


def test_any_version_of_an_id_names_its_task(minari_root):
    for dataset_id in (
        "o2o/hopper/medium-v0",
        "o2o/hopper/medium-v7",
        "mujoco/hopper/medium",
        "mujoco/hopper/medium-v1",
    ):
        assert envs.task_of_dataset(dataset_id).name == "mujoco/hopper-medium"


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
def test_what_a_dataset_says_of_itself_counts_where_its_id_says_nothing(record, minari_root):
    record("mujoco/hopper/expert-v0", "Hopper-v5")
    assert envs.task_of_dataset(str(minari_root / "mujoco/hopper/expert-v0")).name == "mujoco/hopper-expert"
    assert envs.task_of_dataset(record("mine/hopper-v0", "Hopper-v5")).name == "mujoco/hopper"
    assert envs.task_of_dataset(record("mine/walker-v0", "Walker2d-v4")).name == "mujoco/walker2d-v4"
    assert envs.task_of_dataset(record("mine/pen-v0", "AdroitHandPen-v1")).name == "adroit/pen"
    task = envs.task_of_dataset(record("mine/pendulum-v0", "Pendulum-v1"))
    assert (task.name, task.max_episode_steps, task.has_references) == ("gym/Pendulum-v1", 200, False)


def test_a_dataset_that_says_nothing_has_no_task(record, minari_root):
    np.savez(minari_root / "arrays.npz", rewards=np.zeros(3))
    metadata = minari_root / record("mine/pendulum-v0", "Pendulum-v1") / "data" / "metadata.json"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({key: value for key, value in content.items() if key != "env_spec"}))
    for source in (str(minari_root / "arrays.npz"), "mine/pendulum-v0"):
        with pytest.raises(ValueError, match="doesn't say which environment it was recorded in; --env would"):
            envs.task_of_dataset(source)
    metadata.write_text(json.dumps(content | {"env_spec": json.dumps({"id": "Nobody-v0"})}))
    with pytest.raises(ValueError, match="gymnasium can't make 'Nobody-v0'"):
        envs.task_of_dataset("mine/pendulum-v0")
