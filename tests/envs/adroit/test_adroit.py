import sys

import gymnasium
import gymnasium_robotics  # noqa: F401, registers what the stand-in for the network records
import minari
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import dataset
from o2o_jax.envs import adroit
from o2o_jax.envs.adroit.tasks import ROBOTS
from o2o_jax.envs.vector import last_observations
from o2o_jax.offline import cql
from o2o_jax.online import o2sac, o2td3
from tests import tiny

HUMAN = envs.get_task("adroit/pen-human")


@pytest.mark.parametrize("robot", ROBOTS)
def test_environment_fits_its_task_and_ends_as_its_data_do(robot):
    task = envs.get_task(f"adroit/{robot}-human")
    env = adroit.make_env(task)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (task.spec.observation_dim,)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (task.spec.action_dim,))
    assert env.unwrapped.sparse_reward is False
    action = np.zeros(task.spec.action_dim, np.float32)
    ends = [env.step(action)[2:4] for _ in range(task.max_episode_steps)]
    assert ends == [(False, False)] * (len(ends) - 1) + [(False, True)]
    assert len(ends) == (100 if robot == "pen" else 200)


def test_vector():
    vector = adroit.make_vector_env(HUMAN, 2)
    first, _ = vector.reset(seed=[0, 1])
    for _ in range(100):
        observations, _, _, truncated, info = vector.step(np.zeros((2, 24), np.float32))
    assert truncated.all()
    # an episode ends where it was, and the next one starts with a desired orientation of its own
    assert np.abs(last_observations(observations, info) - observations).max(axis=1).min() > 0.01
    assert np.abs(first - observations).max(axis=1).min() > 0.01


def test_scores_and_dataset_ids():
    np.testing.assert_allclose(HUMAN.score(np.array([96.262799, 3076.8331017826877])), [0, 100], atol=1e-9)
    np.testing.assert_allclose(envs.get_task("adroit/door").score(np.array([-56.512833])), [0], atol=1e-9)
    ids = {task.name: task.dataset_id for task in adroit.tasks().values()}
    assert ids == {f"adroit/{robot}": "" for robot in ("pen", "door", "hammer", "relocate")} | {
        f"adroit/{robot}-{quality}": f"D4RL/{robot}/{quality}-v2"
        for robot in ("pen", "door", "hammer", "relocate")
        for quality in ("human", "cloned", "expert")
    }


@pytest.mark.parametrize(
    ("quality", "alpha", "bounds", "noise", "squared_bounds"),
    [
        ("human", 0.2, (0.005, 0.125), 0.1, (2.5e-5, 6.25e-4)),
        ("cloned", 0.2, (0.005, 0.125), 0.1, (2.5e-5, 6.25e-4)),
        ("expert", 0.5, (0.005, 0.125), 0.05, (2.5e-5, 6.25e-4)),
    ],
)
def test_settings_are_marked_as_unpublished(quality, alpha, bounds, noise, squared_bounds):
    # LOCO-E of the paper for expert data, else LOCO-M with the thresholds of LOCO-E
    task = envs.get_task(f"adroit/pen-{quality}")
    assert task.warnings == [
        f"no settings are published for {task.name}: those of this run are this package's choice"
    ]  # fmt: skip
    sac, td3 = o2sac.Config.for_task(task), o2td3.Config.for_task(task)
    assert (sac.update.alpha, sac.constraint.lagrange_init) == (alpha, 1.0)
    assert td3.finetune.exploration_std == noise
    for config, wanted in ((sac, bounds), (td3, squared_bounds)):
        assert (config.constraint.threshold_start, config.constraint.threshold_end) == wanted
    for config in (sac, td3):
        assert (config.env_steps, config.evaluation.every_env_steps, config.evaluation.episodes) == (100_000, 1_000, 10)
    offline = cql.Config.for_task(task)
    assert (offline.conservative_weight, offline.actor_lr, offline.critic_lr) == (1.0, 1e-4, 3e-4)


@pytest.fixture
def remote(monkeypatch, record):
    """A stand-in for Minari's remote, which offers versions 1 to 3; returns what has been downloaded."""
    downloaded = []

    def download(dataset_id):
        downloaded.append(record(dataset_id, "AdroitHandPen-v1", max_episode_steps=100))

    offered = {f"D4RL/pen/{quality}-v{version}": {} for quality in ("human", "cloned") for version in (1, 2, 3)}
    monkeypatch.setattr(minari, "list_remote_datasets", lambda prefix, compatible_minari_version: offered)
    monkeypatch.setattr(minari, "download_dataset", download)
    return downloaded


def test_the_newest_version_is_downloaded_once(remote):
    loaded = adroit.load_dataset(HUMAN)
    assert remote == ["D4RL/pen/human-v3"]
    assert (loaded.name, loaded.env_id, loaded.spec) == ("D4RL/pen/human-v3", "AdroitHandPen-v1", HUMAN.spec)
    assert adroit.load_dataset(HUMAN).name == loaded.name
    assert remote == ["D4RL/pen/human-v3"]


def test_a_version_that_is_here_or_asked_for_is_taken(remote, record):
    record("D4RL/pen/human-v2", "AdroitHandPen-v1", max_episode_steps=100)
    assert adroit.load_dataset(HUMAN).name == "D4RL/pen/human-v2"
    assert remote == []
    assert adroit.load_dataset(HUMAN, "D4RL/pen/cloned-v1").name == "D4RL/pen/cloned-v1"
    assert remote == ["D4RL/pen/cloned-v1"]


def test_episodes_of_a_recording_stay_whole(record):
    record("D4RL/pen/expert-v2", "AdroitHandPen-v1", steps=100, episodes=1, max_episode_steps=100)
    loaded = adroit.load_dataset(envs.get_task("adroit/pen-expert"))
    assert loaded.episode_ends.tolist() == [100]  # the row at the time limit among them, which peers drop
    assert loaded.transitions.terminated.sum() == 0
    theirs = next(iter(minari.load_dataset("D4RL/pen/expert-v2")))
    assert theirs.truncations[-1]
    np.testing.assert_allclose(loaded.transitions.next_observation[-1], theirs.observations[-1], rtol=1e-6)
    np.testing.assert_allclose(loaded.returns(), theirs.rewards.sum(), rtol=1e-5)


def test_without_network_it_is_one_line(minari_root, monkeypatch):
    def fail(**_):
        raise ConnectionError("no route to host\nand a long trace")

    monkeypatch.setattr(minari, "list_remote_datasets", fail)
    message = r"no version of D4RL/pen/human is at .* \(no route to host and .*\); download it where there is a network"
    with pytest.raises(FileNotFoundError, match=message) as error:
        adroit.load_dataset(HUMAN)
    assert "\n" not in str(error.value)


def test_without_gymnasium_robotics_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(ValueError, match=r"gymnasium_robotics is not installed: pip install 'o2o_jax\[robotics\]'"):
        adroit.make_env(HUMAN)


def test_data_cannot_be_made(minari_root, capsys):
    tiny.call(dataset, "--env=adroit/pen-human", status=1)
    error = capsys.readouterr().err
    assert error.startswith("error: adroit/pen-human can't be made here, since people and unpublished policies")
    assert error.count("\n") == 1
    tiny.call(dataset, "--env=adroit/pen", status=1)
    assert "adroit/pen names no dataset: choose adroit/pen-human, adroit/pen-cloned," in capsys.readouterr().err
