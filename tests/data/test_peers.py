"""Rows that our readers keep and D4RL's `qlearning_dataset`, which most libraries load with, drops."""

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from o2o_jax.data import sources

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # minari asks for an author and more

# Episodes by length and end. They end in rows 2, 6, 8 and 12.
EPISODES = [(3, "terminates"), (4, "limit"), (2, "terminates"), (4, "limit")]


def flat_file(episodes):
    """Columns of a D4RL file: observation and reward are the row's number n, s' is n + 1, or n + 0.5 at an end."""
    rows = sum(length for length, _ in episodes)
    ends = np.cumsum([length for length, _ in episodes]) - 1
    numbers = np.arange(rows, dtype=np.float32)
    following = numbers + 1
    following[ends] = ends + 0.5
    flags = {"terminals": np.zeros(rows, bool), "timeouts": np.zeros(rows, bool)}
    for end, (_, kind) in zip(ends, episodes, strict=True):
        if kind != "stops":
            flags["terminals" if kind == "terminates" else "timeouts"][end] = True
    columns = {"observations": numbers, "next_observations": following, "actions": np.zeros(rows)}
    return {"rewards": numbers} | flags | {name: column[:, None] for name, column in columns.items()}


def peer(columns):
    """D4RL's rule: s' is the next row's observation, so the last row has none, and one that times out a wrong one.

    Returns:
      Numbers of the rows kept, and s' of each.
    """
    last = np.arange(len(columns["rewards"])) == len(columns["rewards"]) - 1
    kept = np.flatnonzero(~(columns["timeouts"] | last))
    return kept, columns["observations"][kept + 1]


def write_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column
    return path


def write_minari(columns):
    buffers, start = [], 0
    ends = np.flatnonzero(columns["terminals"] | columns["timeouts"])
    for end in [*ends, len(columns["rewards"]) - 1]:
        if end < start:
            continue
        rows = slice(start, end + 1)
        observations = np.concatenate([columns["observations"][rows], columns["next_observations"][end : end + 1]])
        buffers.append(
            EpisodeBuffer(
                observations=observations,
                actions=columns["actions"][rows],
                rewards=columns["rewards"][rows],
                terminations=columns["terminals"][rows],
                truncations=columns["timeouts"][rows],
            )
        )
        start = end + 1
    box = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    minari.create_dataset_from_buffers("o2o/peer-v0", buffers, observation_space=box, action_space=box)
    return "o2o/peer-v0"


@pytest.fixture(params=["minari", "d4rl"])
def load(request, tmp_path, monkeypatch):
    """Loads columns through a file of either kind."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    if request.param == "minari":
        return lambda columns: sources.load_minari(write_minari(columns)).transitions
    return lambda columns: sources.load_d4rl_hdf5(write_hdf5(tmp_path / "peer.hdf5", columns)).transitions


def test_rows_at_the_time_limit_stay(load):
    columns = flat_file(EPISODES)
    ours = load(columns)
    kept, following = peer(columns)
    np.testing.assert_array_equal(ours.reward, np.arange(13))  # all of them
    assert set(range(13)) - set(kept) == {6, 12}  # both limits, of which one is the last row
    # The rows that both keep agree but for s' after a termination, which no target reads.
    np.testing.assert_array_equal(ours.terminated[kept], columns["terminals"][kept])
    differs = ours.next_observation[kept] != following
    assert kept[differs[:, 0]].tolist() == [2, 8]
    assert ours.terminated[[2, 8]].all()
    # What the peer lacks bootstraps from the true s'.
    np.testing.assert_array_equal(ours.next_observation[[6, 12], 0], [6.5, 12.5])
    assert not ours.terminated[[6, 12]].any()


@pytest.mark.parametrize("end", ["terminates", "stops"])
def test_the_last_row_stays(load, end):
    columns = flat_file([*EPISODES, (2, end)])
    ours = load(columns)
    kept, _ = peer(columns)
    assert set(ours.reward.astype(int)) - set(kept) == {6, 12, 14}
    assert ours.next_observation[14, 0] == 14.5
    assert ours.terminated[14] == (end == "terminates")


def test_share_of_rows_that_differ(load):
    # Ten episodes of 100 steps, all to the limit, as on pen: one row in a hundred.
    columns = flat_file([(100, "limit")] * 10)
    assert len(load(columns).reward) == 1_000
    assert len(peer(columns)[0]) == 990


def test_without_next_observations_only_rows_without_any_are_dropped(tmp_path):
    columns = flat_file([*EPISODES, (2, "terminates")])
    del columns["next_observations"]
    ours = sources.load_d4rl_hdf5(write_hdf5(tmp_path / "peer.hdf5", columns)).transitions
    kept, following = peer(columns)
    assert set(ours.reward.astype(int)) - set(kept) == {14}  # the last row, which needs no s'
    both = np.isin(ours.reward, kept)
    inside = ours.terminated[both] == 0
    np.testing.assert_array_equal(ours.next_observation[both][inside], following[inside])
