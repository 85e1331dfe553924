"""experiments.verify: what it accepts, and what it finds when a dataset is tampered with."""

import h5py
import pytest

from o2o_jax import envs
from o2o_jax.cli import dataset, verify
from o2o_jax.data.sources import minari_folder
from tests import tiny

NAME = "mujoco/hopper-random"
TASK = envs.get_task(NAME)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The HDF5 file of a small dataset."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset.make_dataset(TASK, 90)
    return minari_folder(TASK.dataset_id) / "data" / "main_data.hdf5"


def test_a_dataset_as_it_was_made(made, capsys):
    tiny.call(verify, f"--env={NAME}", "--samples=100")
    assert "o2o/hopper/random-v0: 90 rows in " in capsys.readouterr().out
    assert verify.verify(TASK, samples=2).endswith("2 episodes played again, all the same")


def change_reward(episode):
    episode["rewards"][1] += 1e-9


def change_observation(episode):
    episode["observations"][1, 3] += 1e-9


def end_twice(episode):
    episode["terminations"][-1] = episode["truncations"][-1] = True


def never_end(episode):
    episode["terminations"][-1] = episode["truncations"][-1] = False


def end_early(episode):
    episode["truncations"][0] = True


def leave_bounds(episode):
    episode["actions"][0, 0] = 1.0000005  # as rounding might: loaded, but not as it was made


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (change_reward, "played again, differs from step 1 on"),
        (change_observation, "played again, differs from step 0 on"),
        (end_twice, "ends in both ways before the limit"),
        (never_end, "has no end"),
        (end_early, "continues after its end"),
        (leave_bounds, "actions outside"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(made, change, problem, capsys):
    with h5py.File(made, "r+") as file:
        change(file["episode_0"])
    tiny.call(verify, f"--env={NAME}", "--samples=100", status=1)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert problem in error
    assert "--overwrite makes it again" in error
    assert error.count("\n") == 1


def test_a_missing_dataset_is_said_to_be_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    tiny.call(verify, "--all", status=1)
    assert "o2o/hopper/random-v0" in capsys.readouterr().err


def test_it_asks_for_a_task(capsys):
    tiny.call(verify, status=1)
    assert "--env=… is missing" in capsys.readouterr().err


def test_a_task_without_a_dataset(capsys):
    tiny.call(verify, "--env=mujoco/hopper", status=1)
    assert "mujoco/hopper" in capsys.readouterr().err


def test_recordings_without_seeds_are_checked_but_not_played(made):
    with h5py.File(made, "r+") as file:
        for episode in file.values():
            episode.attrs.pop("seed")
    with pytest.raises(ValueError, match="doesn't say what its episodes were reset with: pass --samples=0"):
        verify.verify(TASK)
    assert verify.verify(TASK, samples=0).endswith("0 episodes played again, all the same")
