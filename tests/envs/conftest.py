"""Datasets go into a folder of the test's own."""

import warnings

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer


@pytest.fixture
def minari_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def record(minari_root):
    """Writes uniform actions in a simulator as a Minari dataset, in the layout of Minari's own recordings."""

    def record(dataset_id, env_id, steps=5, episodes=2, **settings):
        env = gymnasium.make(env_id, **settings)
        env.action_space.seed(0)
        buffers = [_episode(env, seed, steps) for seed in range(episodes)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # minari asks for an author and more
            minari.create_dataset_from_buffers(dataset_id, buffers, env=env)
        env.close()
        return dataset_id

    return record


def _episode(env, seed, steps):
    observation, _ = env.reset(seed=seed)
    observations, rows = [observation], []
    while len(rows) < steps and not (rows and (rows[-1][2] or rows[-1][3])):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        rows.append((action, reward, terminated, truncated, info))
    actions, rewards, terminations, truncations, infos = zip(*rows, strict=True)
    return EpisodeBuffer(
        seed=seed,
        observations=np.stack(observations),
        actions=np.stack(actions),
        rewards=np.array(rewards),
        terminations=np.array(terminations),
        truncations=np.array(truncations),
        infos={key: np.array([info[key] for info in (infos[0], *infos)]) for key in infos[0]},
    )
