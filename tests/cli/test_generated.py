"""Small generated datasets, with the shipped policies, read as others would read them."""

import subprocess
import sys
import warnings

import minari
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import dataset, verify
from o2o_jax.envs.mujoco.behaviour import shipped_behaviours

SIZES = {
    "mujoco/hopper-random": 600,
    "mujoco/halfcheetah-random": 1_200,
    "mujoco/walker2d-v4-random": 300,
    "mujoco/hopper-medium-expert": 2_600,
} | {f"mujoco/{name}": 1_100 for name in shipped_behaviours()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        for name, rows in SIZES.items():
            dataset.make_dataset(envs.get_task(name), rows)
        yield folder


@pytest.fixture(params=SIZES)
def task(request, folder):
    return envs.get_task(request.param)


def test_both_readers_find_it_whole(task):
    assert f"{task.dataset_id}: {SIZES[task.name]:,} rows in " in verify.verify(task, samples=0)
    theirs = minari.load_dataset(task.dataset_id)
    assert theirs.env_spec.id == task.env_id
    if "halfcheetah" in task.name:
        assert not any(episode.terminations.any() for episode in theirs.iterate_episodes())


def test_played_again_from_their_seeds_all_episodes_are_the_same(task):
    """No row can be a reset's: every s' is where the simulator went from s in that episode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an old version of the environment, no episode limit of its own
        theirs = minari.load_dataset(task.dataset_id)
        env = theirs.recover_environment()
    seeds = [metadata["seed"] for metadata in theirs.storage.get_episode_metadata(theirs.episode_indices)]
    assert len(set(seeds)) == len(seeds)
    for seed, episode in zip(seeds, theirs.iterate_episodes(), strict=True):
        start, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(episode.observations[0], start)
        steps = [env.step(action) for action in episode.actions]
        observations, rewards, terminations, truncations, _ = zip(*steps, strict=True)
        np.testing.assert_array_equal(episode.observations[1:], observations)
        np.testing.assert_array_equal(episode.rewards, rewards)
        np.testing.assert_array_equal(episode.terminations, terminations)
        assert not any(truncations[:-1])


@pytest.mark.parametrize("name", ["mujoco/hopper-medium", "mujoco/walker2d-v4-random"])
def test_minari_shows_it(folder, name):
    task = envs.get_task(name)
    command = [sys.executable, "-m", "minari.cli", "show", task.dataset_id]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert task.env_id in result.stdout
    assert str(SIZES[name]) in result.stdout
