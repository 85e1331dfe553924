import json

import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import dataset
from o2o_jax.envs import mujoco


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("robot", ["walker2d", "walker2d-v4"])
def test_data_of_other_dynamics_is_refused(robot):
    task = envs.get_task(f"mujoco/{robot}-random")
    other = envs.get_task("mujoco/walker2d-random" if "v4" in robot else "mujoco/walker2d-v4-random")
    dataset.make_dataset(task, 40)
    assert mujoco.load_dataset(task).env_id == task.env_id
    with pytest.raises(
        ValueError, match=f"recorded in {task.env_id}, but {other.name} runs {other.env_id}, which has other"
    ):
        mujoco.load_dataset(other, task.dataset_id)


def test_versions_count_as_alike_before_the_change(root):
    task = envs.get_task("mujoco/walker2d-v4-random")
    dataset.make_dataset(task, 40)
    path = root / task.dataset_id / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    for version, fits in (("v2", True), ("v3", True), ("v6", False)):
        metadata["env_spec"] = json.dumps({"id": f"Walker2d-{version}"})
        path.write_text(json.dumps(metadata))
        if fits:
            assert mujoco.load_dataset(task).size == 40
        else:
            with pytest.raises(ValueError, match="has other dynamics: choose the --env .* gym/Walker2d-v6"):
                mujoco.load_dataset(task)


def test_equal_dynamics_are_shared_between_versions():
    dataset.make_dataset(envs.get_task("mujoco/hopper-v4-random"), 40)
    assert mujoco.load_dataset(envs.get_task("mujoco/hopper-random"), "o2o/hopper-v4/random-v0").size == 40


def test_dynamics_of_walker_differ_and_those_of_the_others_do_not():
    for robot, differ in (("hopper", False), ("halfcheetah", False), ("walker2d", True)):
        rows = []
        for version in ("", "-v4"):
            env = mujoco.make_env(envs.get_task(f"mujoco/{robot}{version}"))
            env.reset(seed=0)
            action = np.zeros(env.action_space.shape, np.float32)
            rows.append([env.step(action)[0] for _ in range(40)])
        assert bool(np.abs(np.subtract(*rows)).max() > 1e-3) == differ
