import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import dataset, program
from o2o_jax.data.sources import load_minari
from o2o_jax.envs import behaviour, mujoco
from o2o_jax.envs.mujoco.tasks import QUALITIES
from tests import refusals, tiny

HOPPER = envs.get_task("mujoco/hopper-random")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def policy():
    return tiny.make_policy()


@pytest.fixture
def acting(policy):
    return [behaviour.sampled(policy, HOPPER)]


class Counter:
    """Two environments whose episodes have given lengths; observations are (environment, episode, step)."""

    num_envs = 2
    LENGTHS = ((2, 2, 2, 2, 2, 2, 2), (5, 3, 3, 3, 3))
    TERMINATES = (True, False)  # environment 0 terminates, environment 1 truncates

    def reset(self, seed, options=None):
        if options is None:
            self.episode, self.step_count = [0, 0], [0, 0]
            self.seeds = [[first] for first in seed]  # of the episodes of each environment
        else:
            for env in np.flatnonzero(options["reset_mask"]):
                assert self.step_count[env] == 0
                self.seeds[env].append(seed[env])
        return self.observations(), {}

    def observations(self):
        return np.array([[env, self.episode[env], self.step_count[env]] for env in range(2)], float)

    def step(self, actions):
        ended, final = np.zeros(2, bool), np.full(2, None, object)
        for env in range(2):
            self.step_count[env] += 1
            if self.step_count[env] == self.LENGTHS[env][self.episode[env]]:
                ended[env], final[env] = True, self.observations()[env]
                self.episode[env] += 1
                self.step_count[env] = 0
        info = {"final_obs": final, "_final_obs": ended} if ended.any() else {}
        terminates = np.array(self.TERMINATES)
        return self.observations(), np.ones(2), ended & terminates, ended & ~terminates, info


def collect(transitions):
    vector, reported = Counter(), []
    act = lambda vector, observations, key: np.zeros((2, 1))
    seeds = np.random.default_rng(0)
    episodes = dataset.collect(vector, act, transitions, jax.random.key(0), seeds, reported.append)
    assert sum(len(episode["rewards"]) for episode in episodes) == transitions == sum(reported)
    for episode in episodes:
        env, number, _ = episode["observations"][0].astype(int)
        assert episode["seed"] == vector.seeds[env][number]
    return episodes


def test_episodes_come_in_the_order_in_which_they_began():
    # Environment 0 starts at 0, 2, 4, 6, …; environment 1 at 0, 5, 8: the long first episode of environment 1 counts
    # before the second and third of environment 0, which end earlier.
    episodes = collect(12)
    first = [tuple(episode["observations"][0][:2].astype(int)) for episode in episodes]
    assert first == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1)]
    assert [len(episode["rewards"]) for episode in episodes] == [2, 5, 2, 2, 1]


@pytest.mark.parametrize("transitions", range(1, 15))
def test_rows_are_exact_and_only_the_last_is_cut(transitions):
    episodes = collect(transitions)
    for episode in episodes:
        env, number, _ = episode["observations"][0].astype(int)
        length = len(episode["rewards"])
        whole = length == Counter.LENGTHS[env][number]
        assert whole or episode is episodes[-1]
        # Steps count up without a gap, the last observation included: no reset row.
        np.testing.assert_array_equal(episode["observations"][:, 2], np.arange(length + 1))
        assert np.all(episode["observations"][:, 1] == number)
        assert episode["terminations"].tolist() == [False] * (length - 1) + [whole and Counter.TERMINATES[env]]
        assert episode["truncations"].tolist() == [False] * (length - 1) + [not episode["terminations"][-1]]


def test_written_dataset(root):
    assert dataset.make_dataset(HOPPER, 203) == "o2o/hopper/random-v0"
    loaded = mujoco.load_dataset(HOPPER)
    rows = loaded.transitions
    assert loaded.size == 203
    assert loaded.env_id == "Hopper-v5"
    assert np.abs(rows.action).max() > 0.9
    inside = np.ones(202, bool)
    inside[loaded.episode_ends[:-1] - 1] = False
    np.testing.assert_array_equal(rows.next_observation[:-1][inside], rows.observation[1:][inside])
    assert np.all(rows.terminated[loaded.episode_ends[:-1] - 1] == 1)  # random actions fall long before the limit
    assert rows.terminated.sum() == len(loaded.episode_ends) - 1 + rows.terminated[-1]
    metadata = json.loads((root / "o2o/hopper/random-v0/data/metadata.json").read_text())
    assert (metadata["ref_min_score"], metadata["ref_max_score"]) == (-20.272305, 3234.3)
    assert metadata["total_steps"] == 203


def test_time_limit_bootstraps_from_the_true_observation(acting):
    task = dataclasses.replace(HOPPER, max_episode_steps=4)
    dataset.make_dataset(task, 40, behaviours=acting)
    loaded = mujoco.load_dataset(task)
    rows = loaded.transitions
    np.testing.assert_array_equal(loaded.episode_ends, np.arange(4, 41, 4))
    assert rows.terminated.sum() == 0
    last, following = rows.next_observation[3:-1:4], rows.observation[4::4]
    assert np.abs(last - following).max(axis=1).min() > 1e-3  # s' is not the next episode's first observation


def test_seeds_repeat_and_differ(acting):
    columns = []
    for i, seed in enumerate((0, 0, 1)):
        dataset.make_dataset(HOPPER, 50, seed, f"o2o/seed{i}-v0", acting)
        columns.append(load_minari(f"o2o/seed{i}-v0").transitions)
    np.testing.assert_array_equal(columns[0].observation, columns[1].observation)
    np.testing.assert_array_equal(columns[0].action, columns[1].action)
    assert not np.array_equal(columns[0].observation[0], columns[2].observation[0])


def test_mixture_is_one_behaviour_after_the_other(root, policy):
    still = policy.replace(params=jax.tree.map(jnp.zeros_like, policy.params))  # log σ = 0: another spread
    parts = [
        behaviour.sampled(still, HOPPER, 0.5),
        behaviour.Behaviour("rest", 0.125, lambda vector, observations, key: np.zeros(vector.action_space.shape)),
        behaviour.uniform(0.375),
    ]
    dataset.make_dataset(HOPPER, 40, behaviours=parts)
    mixed = load_minari("o2o/hopper/random-v0")
    assert mixed.size == 40
    assert {20, 25, 40} <= set(mixed.episode_ends.tolist())  # a share ends an episode
    moving = np.abs(mixed.transitions.action).max(axis=1) > 0
    assert np.flatnonzero(~moving).tolist() == [20, 21, 22, 23, 24]
    metadata = json.loads((root / "o2o/hopper/random-v0/data/metadata.json").read_text())
    assert metadata["algorithm_name"] == "sampled policy then rest then uniform actions"


def test_shares_become_rows():
    parts = [behaviour.Behaviour("", share, lambda *_: None) for share in (0.16, 0.36, 0.36, 0.12)]
    assert dataset._rows(parts, 10) == [2, 3, 4, 1]  # the shares end at 1.6, 5.2, 8.8 and 10
    assert sum(dataset._rows(parts, 1_001)) == 1_001
    with pytest.raises(ValueError, match="at least 9, a row for each who acts, got 2"):
        dataset._rows(parts, 2)
    with pytest.raises(ValueError, match="must sum to 1"):
        dataset._rows(parts[:2], 10)


def test_equal_shapes_compile_once(policy):
    policies = [jax.tree.map(lambda leaf, i=i: leaf + i, policy) for i in range(3)]
    behaviour.sample_actions.clear_cache()
    dataset.make_dataset(HOPPER, 90, behaviours=[behaviour.sampled(p, HOPPER, 1 / 3) for p in policies])
    assert behaviour.sample_actions._cache_size() == 1


def test_existing_dataset_stays_unless_told(root, acting):
    dataset.make_dataset(HOPPER, 10, behaviours=acting)
    with pytest.raises(FileExistsError, match="pass --overwrite to replace it, or another --out"):
        dataset.make_dataset(HOPPER, 20, behaviours=acting)
    assert load_minari("o2o/hopper/random-v0").size == 10
    dataset.make_dataset(HOPPER, 20, behaviours=acting, overwrite=True)
    assert load_minari("o2o/hopper/random-v0").size == 20


def test_interrupted_writing_leaves_nothing(root, acting, monkeypatch):
    monkeypatch.setattr(
        "minari.data_collector.EpisodeBuffer", lambda **episode: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        dataset.make_dataset(HOPPER, 10, behaviours=acting)
    assert not (root / "o2o/hopper/random-v0").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env=mujoco/hoper-random"], "Did you mean 'mujoco/hopper-random'"),
        (["--env=mujoco/hopper"], "names no dataset: choose mujoco/hopper-random, "),
        (["--env=mujoco/hopper-random", "--out=o2o/hopper"], "'o2o/hopper' is no Minari id"),
        (["--env=mujoco/hopper-random", "--policy=none.npz"], "--policy needs --out"),
        (["--env=mujoco/hopper-random", "--policy=none.npz", "--out=o2o/x-v0"], "no behaviour policy 'none.npz'"),
        (["--env=mujoco/hopper-random", "--transitions=0"], "transitions"),
        ([], "--env=… is missing"),
        (["--all", "--out=o2o/x-v0"], "--out and --policy go with one task"),
        (["--all", "--env=mujoco/hopper"], "--all takes a family, such as --env=mujoco, not 'mujoco/hopper'"),
        (["--all", "--env=mujco"], "Did you mean 'mujoco'"),
    ],
)
def test_command_line_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        program.run(dataset.main, dataset.define, argv=arguments)
    assert exit_.value.code != 0
    refusals.check(capsys.readouterr().err, message)


def test_policy_of_another_robot(policy):
    with pytest.raises(ValueError, match="11 observations to 3 actions, which doesn't fit mujoco/walker2d"):
        behaviour.sampled(policy, envs.get_task("mujoco/walker2d"))


def test_command_line(root, policy, capsys):
    behaviour.save_behaviour(root / "mine.npz", policy, {})
    arguments = ["--env=mujoco/hopper", "--transitions=30", f"--policy={root / 'mine.npz'}", "--out=o2o/mine-v0"]
    with pytest.raises(SystemExit, match="0"):
        program.run(dataset.main, dataset.define, argv=arguments)
    assert "o2o/mine-v0: 30 transitions" in capsys.readouterr().out
    assert mujoco.load_dataset(envs.get_task("mujoco/hopper"), "o2o/mine-v0").size == 30


@pytest.fixture
def some_policies(root, policy, monkeypatch):
    """Policies for all tasks of two robots, but for those of the third."""
    shipped = root / "policies"
    shipped.mkdir()
    recipe = {"shares": [0.4, 0.5], "random_share": 0.1}
    for robot, sizes in (("hopper", (11, 3)), ("halfcheetah", (17, 6))):
        policies = [tiny.make_policy("tanh_gaussian", *sizes, seed=seed) for seed in range(2)]
        for i, quality in enumerate(("medium", "expert")):
            behaviour.save_behaviour(shipped / f"{robot}-{quality}.npz", policies[i], {})
        snapshots = jax.tree.map(lambda *leaves: np.stack(leaves), *policies)
        behaviour.save_behaviour(shipped / f"{robot}-medium-replay.npz", snapshots, recipe)
    monkeypatch.setattr("o2o_jax.envs.mujoco.behaviour.SHIPPED", shipped)
    return shipped


def make_all(*arguments, status):
    tiny.call(dataset, "--all", "--transitions=40", *arguments, status=status)


def test_all_makes_what_it_can_and_says_what_is_missing(root, some_policies, capsys):
    make_all(f"--table={root / 'docs' / 'datasets.md'}", status=1)
    output = capsys.readouterr()
    made = [line.split(":")[0] for line in output.out.splitlines() if ": 40 transitions" in line]
    robots = {"hopper": QUALITIES, "halfcheetah": QUALITIES, "walker2d": ("random",)}
    assert made == [f"o2o/{robot}/{quality}-v0" for robot, qualities in robots.items() for quality in qualities]
    missing = [f"mujoco/walker2d-{quality}" for quality in QUALITIES[1:]]
    for name in missing:
        assert f"{name} can't be made: no behaviour policy 'walker2d-" in output.out
    assert "python -m experiments.behaviour --env=mujoco/walker2d trains one" in output.out
    assert output.err.splitlines()[-1].startswith("error: 4 of 15 datasets could not be made, for want of")
    assert output.err.splitlines()[-1].endswith(", ".join(missing))
    rows = [line for line in (root / "docs" / "datasets.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == 11
    assert rows[1].startswith("| `mujoco/hopper-medium` | 40 | ")


def test_all_goes_on_with_the_missing_ones(root, some_policies, monkeypatch, capsys):
    made = []
    make_dataset = dataset.make_dataset

    def interrupted(task, *arguments, **settings):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(task.name)
        return make_dataset(task, *arguments, **settings)

    monkeypatch.setattr(dataset, "make_dataset", interrupted)
    make_all(status=130)
    assert made == ["mujoco/hopper-random", "mujoco/hopper-medium", "mujoco/hopper-medium-replay"]

    # the second time one of the three turns out to have been killed while it was written
    file = root / "o2o/hopper/medium-v0/data/main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    again = []
    monkeypatch.setattr(
        dataset,
        "make_dataset",
        lambda task, *args, **settings: again.append(task.name) or make_dataset(task, *args, **settings),
    )
    make_all(status=1)
    output = capsys.readouterr().out
    assert again[:3] == ["mujoco/hopper-medium", "mujoco/hopper-medium-expert", "mujoco/hopper-expert"]
    assert len(again) == 11 - 2
    assert "exists: o2o/hopper/random-v0: 40 transitions" in output
    assert "to be made again: " in output

    again.clear()
    make_all(status=1)
    assert again == []
    make_all("--overwrite", status=1)
    assert len(again) == 11


def test_default_size_is_the_tasks(monkeypatch):
    task = dataclasses.replace(HOPPER, transitions=23)
    dataset.make_dataset(task)
    assert load_minari(task.dataset_id).size == 23


def episode(rewards, terminates):
    length = len(rewards)
    last = np.arange(length) == length - 1
    return {
        "observations": np.zeros((length + 1, 11)),
        "actions": np.zeros((length, 3), np.float32),
        "rewards": np.array(rewards, float),
        "terminations": last & terminates,
        "truncations": last & (not terminates),
    }


def test_summary_by_hand(root):
    # Limit 5: two rows that terminate, five that reach it, three that were cut.
    task = dataclasses.replace(HOPPER, max_episode_steps=5, published_score=1.5)
    episodes = [episode([1, 1], True), episode([1, 2, 3, 4, 0], False), episode([9, 9, 9], False)]
    dataset._write("o2o/hand-v0", task, mujoco.make_env(task).unwrapped, "", 0, episodes)
    summary = dataset.summarize(task, "o2o/hand-v0")
    assert summary.transitions == 10
    assert (summary.returns.tolist(), summary.lengths.tolist()) == ([2, 10], [2, 5])
    assert summary.terminated.tolist() == [True, False]
    score = 100 * (6 + 20.272305) / (3234.3 + 20.272305)
    row = f"| `mujoco/hopper-random` | 10 | 2 | 6 ± 4 | {score:.1f} | 1.5 | 4 | 50.0 % |"
    assert dataset.table([summary]).splitlines()[-1] == row


def test_what_is_replaced_stays_until_its_successor_is_read_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = tmp_path / "toy" / "medium-v0"

    def write(text, check=lambda folder: None, error=None):
        with dataset._beside("toy/medium-v0", check):
            draft = pathlib.Path(os.environ["MINARI_DATASETS_PATH"]) / "toy" / "medium-v0"
            draft.mkdir(parents=True)
            (draft.parent / "namespace_metadata.json").write_text("{}")
            (draft / "data").write_text(text)
            if error:
                raise error

    def refuse(folder):
        raise ValueError(f"{(folder / 'data').read_text()} is damaged")

    def holds():
        assert [path.name for path in tmp_path.iterdir()] == ["toy"]
        return (folder / "data").read_text()

    write("first")
    assert holds() == "first"
    assert (folder.parent / "namespace_metadata.json").exists()
    for error in (OSError("No space left on device"), RuntimeError("unable to flush")):
        with pytest.raises(ValueError, match=f"toy/medium-v0 could not be written .*{error}; nothing was replaced"):
            write("second", error=error)
        assert holds() == "first"
    with pytest.raises(ValueError, match="second is damaged"):
        write("second", refuse)
    assert holds() == "first"
    with pytest.raises(KeyboardInterrupt):
        write("second", error=KeyboardInterrupt())
    assert holds() == "first"
    write("second")
    assert holds() == "second"
    # a kill between the two renames
    hidden = tmp_path / ".toy-medium-v0.making"
    hidden.mkdir()
    folder.rename(hidden / "replaced")
    with pytest.raises(ValueError, match="third is damaged"):
        write("third", refuse)
    assert holds() == "second"
    assert f"note: {folder} is back as it was" in capsys.readouterr().out


def test_a_dataset_that_is_not_what_was_written_replaces_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task = dataclasses.replace(HOPPER, max_episode_steps=5)
    env = mujoco.make_env(task).unwrapped
    dataset._write("o2o/hand-v0", task, env, "", 0, [episode([1, 2], True)])
    broken = episode([1, 2], True)
    broken["observations"][1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        dataset._write("o2o/hand-v0", task, env, "", 0, [broken])
    assert dataset.summarize(task, "o2o/hand-v0").transitions == 2
