import contextlib
import dataclasses
import json
import logging

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from o2o_jax.data import sources
from o2o_jax.interfaces import Task
from o2o_jax.types import Spec

TASK = Task("toy/toy-medium", "Toy-v5", Spec(2, 1), 3, "o2o/toy/medium-v0", False, 0.0, 1.0, same_dynamics=("Toy-v4",))
BOUNDED = gymnasium.spaces.Box(-1, 1, (1,))

HUGE = float(np.finfo(np.float32).max)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def episode(length, first=0.0, terminated=False, truncated=True):
    """Observations count up by one from `first`, in both columns; rewards are 1."""
    flags = np.zeros(length, bool)
    ends = np.arange(length) == length - 1
    return EpisodeBuffer(
        observations=np.repeat(first + np.arange(length + 1.0)[:, None], 2, axis=1),
        actions=np.full((length, 1), 0.5, np.float32),
        rewards=np.ones(length),
        terminations=ends if terminated else flags,
        truncations=ends if truncated else flags,
    )


@pytest.fixture
def write(root):
    def write(*episodes, dataset_id="o2o/toy/medium-v0", actions=BOUNDED):
        minari.create_dataset_from_buffers(
            dataset_id,
            list(episodes),
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,)),
            action_space=actions,
        )
        return root / dataset_id / "data" / "main_data.hdf5"

    return write


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # minari asks for an author and more


class TestMinari:
    def test_keeps_every_row_with_its_true_next_observation(self, write):
        write(episode(3, first=0, truncated=True), episode(2, first=10, terminated=True, truncated=False))
        dataset = sources.load("o2o/toy/medium-v0", TASK)
        rows = dataset.transitions
        np.testing.assert_array_equal(rows.observation[:, 0], [0, 1, 2, 10, 11])
        np.testing.assert_array_equal(rows.next_observation[:, 0], [1, 2, 3, 11, 12])  # 3, not the reset's 10
        np.testing.assert_array_equal(rows.terminated, [0, 0, 0, 0, 1])  # the time limit in row 2 bootstraps
        np.testing.assert_array_equal(dataset.episode_ends, [3, 5])
        assert all(column.dtype == np.float32 for column in vars(rows).values())

    def test_agrees_with_minaris_reader(self, write):
        write(*(episode(1 + i % 3, first=10 * i) for i in range(12)))  # episode_10 sorts before episode_2 as text
        dataset = sources.load_minari("o2o/toy/medium-v0")
        theirs = list(minari.load_dataset("o2o/toy/medium-v0").iterate_episodes())
        rows = dataset.transitions
        np.testing.assert_array_equal(rows.observation, np.concatenate([e.observations[:-1] for e in theirs]))
        np.testing.assert_array_equal(rows.next_observation, np.concatenate([e.observations[1:] for e in theirs]))
        np.testing.assert_array_equal(rows.action, np.concatenate([e.actions for e in theirs]))
        np.testing.assert_array_equal(rows.terminated, np.concatenate([e.terminations for e in theirs]))
        np.testing.assert_allclose(dataset.returns(), [e.rewards.sum() for e in theirs])

    def test_by_folder(self, write):
        file = write(episode(3))
        assert sources.load(str(file.parent.parent), TASK).size == 3
        assert sources.load(str(file), TASK).size == 3

    def test_missing_local_id_names_the_command_that_makes_it(self):
        with pytest.raises(FileNotFoundError, match="experiments.dataset --env=toy/toy-medium"):
            sources.load("o2o/toy/medium-v0", TASK)

    def test_remote_id_without_network_names_the_local_alternative(self, monkeypatch, caplog):
        def fail(dataset_id):
            logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
            raise ConnectionError("no route to host\nand a long trace")

        monkeypatch.setattr(minari, "download_dataset", fail)
        with pytest.raises(FileNotFoundError, match="no route to host.*experiments.dataset --env=") as error:
            sources.load("mujoco/hopper/medium-v0", TASK)
        assert "\n" not in str(error.value)
        assert not caplog.messages

    def test_remote_id_is_downloaded(self, monkeypatch, write):
        monkeypatch.setattr(minari, "download_dataset", lambda dataset_id: write(episode(3), dataset_id=dataset_id))
        assert sources.load("mujoco/toy/medium-v0", TASK).size == 3

    @pytest.mark.parametrize(
        ("asked", "here", "expected"),
        [
            ("D4RL/toy-v2", [2, 3], 2),  # that very one is here
            ("D4RL/toy-v2", [1, 10, 9], 10),  # 10 is later than 9, though not as text
            ("D4RL/toy-v2", [1], 5),  # older ones don't count: the newest that is offered
            ("D4RL/toy", [0, 1], 1),
            ("D4RL/toy", [], 5),
            ("D4RL/toy-v7", [], 7),  # nothing fits: the download will say so
        ],
    )
    def test_newest_version(self, asked, here, expected, root, monkeypatch):
        offered = {"D4RL/toy-v4": {}, "D4RL/toy-v5": {}, "D4RL/toy-large-v9": {}}
        monkeypatch.setattr(minari, "list_remote_datasets", lambda prefix, compatible_minari_version: offered)
        for version in here:
            (root / f"D4RL/toy-v{version}").mkdir(parents=True)
        (root / "D4RL/toy-large-v9").mkdir(parents=True)
        assert sources.newest(asked) == f"D4RL/toy-v{expected}"

    def test_what_is_made_here_goes_by_its_version(self, root):
        (root / "o2o/toy/medium-v3").mkdir(parents=True)
        assert sources.newest("o2o/toy/medium-v0") == "o2o/toy/medium-v0"
        assert sources.newest("o2o/toy/medium") == "o2o/toy/medium-v3"

    def test_newest_version_without_network(self, monkeypatch):
        def fail(**_):
            raise ConnectionError("no route to host")

        monkeypatch.setattr(minari, "list_remote_datasets", fail)
        with pytest.raises(FileNotFoundError, match="no version of D4RL/toy is at .*no route to host.*minari download"):
            sources.load("D4RL/toy", TASK)
        with pytest.raises(FileNotFoundError, match="make one here"):  # no remote has these
            sources.load("o2o/toy/medium", TASK)

    def test_id_without_version_is_recorded_with_it(self, write):
        write(episode(3), dataset_id="toy/medium-v1")
        assert sources.load("toy/medium", TASK).name == "toy/medium-v1"

    def test_actions_come_in_the_bounds_that_the_dataset_names(self, write):
        # in [-2, 4], 0.5 lies at 2 · (0.5 + 2) / 6 − 1 = −1/6
        write(episode(3), actions=gymnasium.spaces.Box(-2, 4, (1,)))
        np.testing.assert_allclose(sources.load("o2o/toy/medium-v0", TASK).transitions.action, -1 / 6, rtol=1e-6)

    def test_unbounded_actions_stay(self, write):
        write(episode(3), actions=gymnasium.spaces.Box(-np.inf, np.inf, (1,)))
        assert np.all(sources.load("o2o/toy/medium-v0", TASK).transitions.action == 0.5)

    def test_discrete_actions_are_refused(self, write):
        write(dataclasses.replace(episode(3), actions=np.zeros(3, np.int64)), actions=gymnasium.spaces.Discrete(2))
        with pytest.raises(ValueError, match="has Discrete actions; only continuous ones"):
            sources.load("o2o/toy/medium-v0")

    def test_unknown_source(self):
        with pytest.raises(FileNotFoundError, match="'nonsense' is neither a file"):
            sources.load("nonsense", TASK)

    def test_other_environment_is_refused_even_where_shapes_fit(self, write):
        metadata = write(episode(3)).parent / "metadata.json"
        content = json.loads(metadata.read_text())
        metadata.write_text(json.dumps(content | {"env_spec": json.dumps({"id": "Other-v5"})}))
        with pytest.raises(ValueError, match="recorded in Other-v5, but toy/toy-medium runs Toy-v5, .* gym/Other-v5"):
            sources.load("o2o/toy/medium-v0", TASK)
        assert sources.load("o2o/toy/medium-v0").size == 3  # data alone
        for version, fits in (("Toy-v5", True), ("Toy-v4", True), ("Toy-v3", False)):
            metadata.write_text(json.dumps(content | {"env_spec": json.dumps({"id": version})}))
            assert sources.origin("o2o/toy/medium-v0")[:2] == ("o2o/toy/medium-v0", version)
            with contextlib.nullcontext() if fits else pytest.raises(ValueError, match="has other dynamics"):
                sources.load("o2o/toy/medium-v0", TASK)
        metadata.write_text(json.dumps(content | {"env_spec": json.dumps({"id": "Toy-v5"})}))
        # the recorded id doesn't have the module that registers it
        sources.load("o2o/toy/medium-v0", dataclasses.replace(TASK, env_id="my_package:Toy-v5"))

    def test_a_family_converts_what_others_recorded(self, root):
        # A goal environment's dictionary; the conversion keeps the first two steps and numbers the episodes.
        buffers = [
            EpisodeBuffer(
                observations={"x": first + np.arange(4.0)[:, None], "goal": np.full((4, 1), 9.0)},
                actions=np.zeros((3, 1), np.float32),
                rewards=np.zeros(3),
                terminations=np.zeros(3, bool),
                truncations=np.arange(3) == 2,
            )
            for first in (0.0, 10.0)
        ]
        number = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
        minari.create_dataset_from_buffers(
            "other/toy/dict-v0",
            buffers,
            observation_space=gymnasium.spaces.Dict({"x": number, "goal": number}),
            action_space=gymnasium.spaces.Box(-1, 1, (1,)),
        )
        metadata = root / "other/toy/dict-v0/data/metadata.json"
        metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"env_spec": json.dumps({"id": "Dict-v3"})}))

        def convert(episode, number):
            columns = [column[:2] for column in episode[1:]]
            columns[1] = np.full(2, float(number), np.float32)
            return sources.Episode(np.hstack(list(episode.observations.values()))[:3], *columns)

        with pytest.raises(ValueError, match="observations are a dictionary .goal, x.; only flat arrays"):
            sources.load("other/toy/dict-v0", TASK)
        with pytest.raises(ValueError, match="recorded in Dict-v3"):
            sources.load("other/toy/dict-v0", TASK, convert)
        task = dataclasses.replace(TASK, same_dynamics=("Dict-v3",))
        dataset = sources.load("other/toy/dict-v0", task, convert)
        np.testing.assert_array_equal(dataset.transitions.observation, [[9, 0], [9, 1], [9, 10], [9, 11]])
        np.testing.assert_array_equal(dataset.transitions.next_observation[:, 1], [1, 2, 11, 12])
        np.testing.assert_array_equal(dataset.transitions.reward, [0, 0, 1, 1])
        np.testing.assert_array_equal(dataset.episode_ends, [2, 4])

    def test_other_shapes_are_refused(self, write):
        write(episode(3))
        wide = Task("toy/wide", "Toy-v5", Spec(3, 1), 3, "", False, 0.0, 1.0)
        with pytest.raises(ValueError, match="doesn't fit the environment"):
            sources.load("o2o/toy/medium-v0", wide)

    def test_empty_episode(self, write):
        with h5py.File(write(episode(3), episode(3)), "a") as file:  # Minari itself refuses to write one
            for key in list(file["episode_1"]):
                shape = file[f"episode_1/{key}"].shape
                del file[f"episode_1/{key}"]
                file[f"episode_1/{key}"] = np.zeros((shape[0] - 3, *shape[1:]))
        with pytest.raises(ValueError, match="episode 1 of o2o/toy/medium-v0 is empty: remove it"):
            sources.load("o2o/toy/medium-v0", TASK)

    def test_one_step_episode_has_to_end(self, write):
        write(episode(3), episode(1, truncated=False), dataset_id="o2o/bad-v0")
        with pytest.raises(ValueError, match="episode 1 of o2o/bad-v0 has one step that neither terminates"):
            sources.load("o2o/bad-v0", TASK)
        write(episode(1, terminated=True, truncated=False), episode(1, truncated=True))
        np.testing.assert_array_equal(sources.load("o2o/toy/medium-v0", TASK).transitions.terminated, [1, 0])

    @pytest.mark.parametrize("value", [0.5, np.nan, 2.0])
    @pytest.mark.parametrize("key", ["terminations", "truncations"])
    def test_flags_are_0_or_1(self, write, key, value):
        with h5py.File(write(episode(3)), "a") as file:
            del file[f"episode_0/{key}"]
            file[f"episode_0/{key}"] = np.array([0.0, value, 1.0])
        with pytest.raises(ValueError, match=f"episode 0 of .* has {key} other than 0 and 1, such as {value:g}"):
            sources.load("o2o/toy/medium-v0", TASK)

    @pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (-HUGE, HUGE)])
    def test_bounds_without_a_width(self, write, low, high):
        path = write(episode(3)).parent / "metadata.json"
        metadata = json.loads(path.read_text())
        space = json.loads(metadata["action_space"]) | {"low": [low], "high": [high]}
        path.write_text(json.dumps(metadata | {"action_space": json.dumps(space)}))
        with pytest.raises(ValueError, match="says that its actions lie between .*: write the bounds that are meant"):
            sources.load("o2o/toy/medium-v0", TASK)

    def test_one_bound_for_all_actions(self, write):
        path = write(episode(3)).parent / "metadata.json"
        metadata = json.loads(path.read_text())
        space = json.loads(metadata["action_space"]) | {"low": -2.0, "high": [2.0]}
        path.write_text(json.dumps(metadata | {"action_space": json.dumps(space)}))
        dataset = sources.load("o2o/toy/medium-v0", TASK)
        np.testing.assert_allclose(dataset.transitions.action, episode(3).actions / 2.0)

    def test_no_episodes(self, write):
        with h5py.File(write(), "w"):
            pass
        with pytest.raises(ValueError, match="is empty: it has no episodes"):
            sources.load("o2o/toy/medium-v0", TASK)

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_truncated_file(self, write, share):
        file = write(*(episode(50) for _ in range(5)))
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"main_data.hdf5 is damaged .* make it again"):
            sources.load("o2o/toy/medium-v0", TASK)

    def test_interrupted_writing(self, write):
        file = write(episode(3), episode(3))
        with h5py.File(file, "a") as opened:
            del opened["episode_1"]
        with pytest.raises(ValueError, match="1 episodes where its metadata counts 2"):
            sources.load("o2o/toy/medium-v0", TASK)
        file.unlink()
        with pytest.raises(FileNotFoundError, match=r"no file .*main_data.hdf5"):
            sources.load("o2o/toy/medium-v0", TASK)

    def test_missing_key(self, write):
        with h5py.File(write(episode(3)), "a") as file:
            del file["episode_0/rewards"]
        with pytest.raises(ValueError, match="episode 0 of o2o/toy/medium-v0 lacks 'rewards'; it has actions"):
            sources.load("o2o/toy/medium-v0", TASK)

    @pytest.mark.parametrize(("key", "length"), [("observations", 3), ("actions", 2), ("truncations", 4)])
    def test_lengths_that_do_not_match(self, write, key, length):
        with h5py.File(write(episode(3)), "a") as file:
            del file[f"episode_0/{key}"]
            file[f"episode_0/{key}"] = np.zeros(length if key == "truncations" else (length, 2))
        with pytest.raises(ValueError, match=f"has 3 rewards but .*'{key}': {length}"):
            sources.load("o2o/toy/medium-v0", TASK)

    def test_dictionary_observations(self, write):
        with h5py.File(write(episode(3)), "a") as file:
            del file["episode_0/observations"]
            file["episode_0/observations/desired_goal"] = np.zeros((4, 2))
        with pytest.raises(ValueError, match=r"observations are a dictionary \(desired_goal\)"):
            sources.load("o2o/toy/medium-v0", TASK)

    def test_nan(self, write):
        with h5py.File(write(episode(3)), "a") as file:
            file["episode_0/rewards"][1] = np.nan
        with pytest.raises(ValueError, match="NaN or infinity in 1 of 3 rows of reward, first in row 1"):
            sources.load("o2o/toy/medium-v0", TASK)


# Six rows: an episode that terminates, one that times out, and the beginning of a third.
D4RL_COLUMNS = {
    "observations": np.repeat(np.array([0.0, 1, 10, 11, 20, 21])[:, None], 2, axis=1),
    "next_observations": np.repeat(np.array([1.0, 2, 11, 12, 21, 22])[:, None], 2, axis=1),
    "actions": np.zeros((6, 1)),
    "rewards": np.arange(6.0),
    "terminals": np.array([0, 1, 0, 0, 0, 0], bool),
    "timeouts": np.array([0, 0, 0, 1, 0, 0], bool),
}


class TestD4RL:
    def write(self, root, without=(), **columns):
        with h5py.File(root / "toy.hdf5", "w") as file:
            for key, value in (D4RL_COLUMNS | columns).items():
                if key not in without:
                    file[key] = value
        return str(root / "toy.hdf5")

    def test_keeps_every_row_where_next_observations_are_stored(self, root):
        dataset = sources.load(self.write(root), TASK)
        np.testing.assert_array_equal(dataset.transitions.next_observation[:, 0], [1, 2, 11, 12, 21, 22])
        np.testing.assert_array_equal(dataset.transitions.terminated, [0, 1, 0, 0, 0, 0])
        np.testing.assert_array_equal(dataset.episode_ends, [2, 4, 6])

    def test_actions_are_in_units_of_the_environment(self, root):
        task = dataclasses.replace(TASK, action_low=(-0.4,), action_high=(0.8,))
        actions = np.array([-0.4, 0.2, 0.8, 0.5, 0.2, -0.1])[:, None]
        dataset = sources.load(self.write(root, actions=actions), task)
        np.testing.assert_allclose(dataset.transitions.action[:, 0], [-1, 0, 1, 0.5, 0, -0.5], atol=1e-6)
        with pytest.raises(ValueError, match=r"has actions outside \[-1, 1\], the farthest 2"):
            sources.load(self.write(root, actions=np.full((6, 1), 1.4)), task)

    def test_drops_rows_whose_next_observation_is_not_in_the_file(self, root):
        # Row 3 times out and row 5 is the last: as in `qlearning_dataset`, four rows are left.
        dataset = sources.load(self.write(root, without=["next_observations"]), TASK)
        np.testing.assert_array_equal(dataset.transitions.reward, [0, 1, 2, 4])
        np.testing.assert_array_equal(dataset.transitions.next_observation[:, 0], [1, 1, 11, 21])  # 1: terminated
        np.testing.assert_array_equal(dataset.transitions.terminated, [0, 1, 0, 0])
        np.testing.assert_array_equal(dataset.episode_ends, [2, 3, 4])
        np.testing.assert_allclose(dataset.returns(), [0 + 1, 2, 4])

    def test_last_row_stays_if_it_terminates(self, root):
        terminals = np.array([0, 1, 0, 0, 0, 1], bool)
        dataset = sources.load(self.write(root, without=["next_observations"], terminals=terminals), TASK)
        np.testing.assert_array_equal(dataset.transitions.reward, [0, 1, 2, 4, 5])
        np.testing.assert_array_equal(dataset.episode_ends, [2, 3, 5])

    def test_episode_of_which_nothing_is_left_vanishes(self, root):
        timeouts = np.array([0, 0, 1, 1, 0, 0], bool)
        dataset = sources.load(self.write(root, without=["next_observations"], timeouts=timeouts), TASK)
        np.testing.assert_array_equal(dataset.transitions.reward, [0, 1, 4])
        np.testing.assert_array_equal(dataset.episode_ends, [2, 3])

    def test_missing_key(self, root):
        with pytest.raises(ValueError, match=r"toy.hdf5 lacks 'timeouts'; it has actions"):
            sources.load(self.write(root, without=["timeouts"]), TASK)

    def test_lengths_that_do_not_match(self, root):
        with pytest.raises(ValueError, match="columns differ in length"):
            sources.load(self.write(root, rewards=np.zeros(5)), TASK)

    def test_empty(self, root):
        columns = {key: value[:0] for key, value in D4RL_COLUMNS.items()}
        with pytest.raises(ValueError, match="is empty"):
            sources.load(self.write(root, **columns), TASK)

    def test_truncated_file(self, root):
        path = self.write(root)
        content = (root / "toy.hdf5").read_bytes()
        (root / "toy.hdf5").write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="is damaged"):
            sources.load(path, TASK)

    def test_missing_file(self, root):
        with pytest.raises(FileNotFoundError, match="no file"):
            sources.load(str(root / "none.hdf5"), TASK)

    def test_an_upper_case_ending_is_the_same(self, root):
        path = self.write(root)
        (root / "toy.hdf5").rename(root / "TOY.HDF5")
        assert sources.load(path.replace("toy.hdf5", "TOY.HDF5"), TASK).size == 6

    def test_actions_outside(self, root):
        with pytest.raises(ValueError, match=r"outside \[-1, 1\], the farthest 2 from 0"):
            sources.load(self.write(root, actions=np.full((6, 1), 2.0)), TASK)


class TestNpz:
    COLUMNS = D4RL_COLUMNS | {
        "terminations": D4RL_COLUMNS["terminals"],
        "truncations": D4RL_COLUMNS["timeouts"],
    }

    def write(self, root, without=("terminals", "timeouts"), **columns):
        columns = {key: value for key, value in (self.COLUMNS | columns).items() if key not in without}
        np.savez(root / "mine.npz", **columns)
        return str(root / "mine.npz")

    def test_equals_a_d4rl_file_of_the_same_columns(self, root):
        for without in ([], ["next_observations"]):
            npz = sources.load(self.write(root, [*without, "terminals", "timeouts"]), TASK)
            hdf5 = sources.load(TestD4RL().write(root, without), TASK)
            for ours, theirs in zip(vars(npz.transitions).values(), vars(hdf5.transitions).values(), strict=True):
                np.testing.assert_array_equal(ours, theirs)
            np.testing.assert_array_equal(npz.episode_ends, hdf5.episode_ends)

    def test_needs_no_task(self, root):
        dataset = sources.load(self.write(root))
        assert (dataset.size, dataset.spec) == (6, TASK.spec)
        assert sources.origin(dataset.name) == sources.Origin()

    @pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminations", "truncations"])
    def test_missing_array(self, root, key):
        with pytest.raises(ValueError, match=f"mine.npz lacks '{key}'; it has "):
            sources.load(self.write(root, [key]), TASK)

    def test_other_sizes_than_the_environment(self, root):
        with pytest.raises(ValueError, match=r"observation has shape \(6, 3\), expected \(6, 2\)"):
            sources.load(self.write(root, observations=np.zeros((6, 3)), next_observations=np.zeros((6, 3))), TASK)

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
    def test_truncated_file(self, root, share):
        path = self.write(root)
        content = (root / "mine.npz").read_bytes()
        (root / "mine.npz").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="is damaged or no npz file"):
            sources.load(path, TASK)

    def test_a_folder_of_files(self, root):
        (root / "parts").mkdir()
        (root / "parts" / "one.npz").write_bytes(b"")
        with pytest.raises(FileNotFoundError, match=r"parts is no Minari dataset, but holds one.npz: name one of"):
            sources.load(str(root / "parts"), TASK)

    def test_objects(self, root):
        path = self.write(root, rewards=np.array([1, None], object))
        np.save(root / "one.npy", np.zeros(3))
        (root / "one.npy").rename(root / "one.npz")
        with pytest.raises(ValueError, match="one.npz is damaged or no npz file of numbers"):
            sources.load(str(root / "one.npz"), TASK)
        with pytest.raises(ValueError, match="rewards is an array of Python objects, not of numbers: save it with"):
            sources.load(path, TASK)

    def test_missing_file(self, root):
        with pytest.raises(FileNotFoundError, match="no file"):
            sources.load(str(root / "none.npz"), TASK)


WIDE = np.array([-3.0, -1.0, -0.5, 0.5, 1.0, 1.25])[:, None]


@pytest.mark.parametrize("kind", [TestD4RL, TestNpz])
def test_actions_are_clipped_to_their_bounds_where_that_is_asked_for(kind, root):
    path = kind().write(root, actions=WIDE)
    with pytest.raises(ValueError, match="where these are -1 and 1, pass --clip_actions"):
        sources.load(path, TASK)
    found = sources.load(path, TASK, clip_actions=True).transitions.action[:, 0]
    np.testing.assert_array_equal(found, [-1.0, -1.0, -0.5, 0.5, 1.0, 1.0])
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 6 rows of action"):
        sources.load(kind().write(root, actions=np.where(WIDE < -1.0, np.nan, WIDE)), TASK, clip_actions=True)


def test_minari_s_actions_are_clipped_to_their_own_bounds(write):
    wide = dataclasses.replace(episode(3), actions=np.array([[-0.8], [0.2], [0.6]], np.float32))
    write(wide, actions=gymnasium.spaces.Box(-0.4, 0.4, (1,)))
    found = sources.load("o2o/toy/medium-v0", TASK, clip_actions=True).transitions.action[:, 0]
    np.testing.assert_allclose(found, [-1.0, 0.5, 1.0], rtol=1e-6)
