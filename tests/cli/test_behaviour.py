"""experiments.behaviour from scratch to the chosen policies, with tiny networks and a schedule of seconds."""

import json
import shutil

import jax
import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import behaviour, dataset
from o2o_jax.data.sources import load_minari
from o2o_jax.envs.behaviour import load_behaviour, replay, sample_actions, save_behaviour
from o2o_jax.runtime import log, provenance
from o2o_jax.runtime.checkpoint import Checkpoints
from tests import refusals, tiny

ENV = "mujoco/hopper"
TASK = envs.get_task(ENV)
SCHEDULE = [
    "--algorithm=sac",
    "--set=env_steps=6",
    "--set=interaction.random_env_steps=2",
    "--set=interaction.warmup_env_steps=2",
    "--set=evaluation.every_env_steps=2",
    "--set=evaluation.episodes=2",
]
SNAPSHOTS = [f"{env_steps:08d}-seed{seed}.npz" for env_steps in (2, 4, 6) for seed in (0, 1)]


@pytest.fixture(scope="module", autouse=True)
def few_episodes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "CHOICE_EPISODES", 3)
        yield


def run(out, *arguments, status=0):
    tiny.call(behaviour, f"--out={out}", "--seeds=2", *tiny.ONLINE_SETTINGS, *SCHEDULE, *arguments, status=status)
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "behaviour")


def test_every_evaluation_leaves_a_snapshot_per_seed(finished):
    assert sorted(path.name for path in (finished / "snapshots").iterdir()) == SNAPSHOTS
    sampled = log.read(finished, "sampled")
    assert sampled["step"].tolist() == log.read(finished, "evaluation")["step"].tolist() == [2, 2, 4, 4, 6, 6]
    for name, score in zip(SNAPSHOTS, sampled["score"], strict=True):
        _, metadata = load_behaviour(finished / "snapshots" / name)
        np.testing.assert_allclose(metadata["score"], score, rtol=1e-6)
        assert (metadata["env_id"], metadata["algorithm"], metadata["episodes"]) == ("Hopper-v5", "sac", 2)
        assert f"{metadata['env_steps']:08d}-seed{metadata['seed']}.npz" == name


def test_a_seed_does_not_depend_on_the_others(finished, tmp_path):
    out = run(tmp_path / "others", "--first_seed=1")
    for file in sorted(finished.glob("*.csv")):
        assert tiny.rows_of_seed(out / file.name, 1) == tiny.rows_of_seed(file, 1), file.name
        assert tiny.rows_of_seed(out / file.name, 2), file.name
    taken = sorted(path.name for path in (out / "snapshots").iterdir())
    assert taken[::2] == SNAPSHOTS[1::2]
    for name in taken[::2]:
        (ours, metadata), (theirs, _) = (load_behaviour(folder / "snapshots" / name) for folder in (out, finished))
        assert metadata["seed"] == 1
        jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_snapshots_are_of_their_seed_and_step(finished):
    policies = [load_behaviour(finished / "snapshots" / name)[0] for name in SNAPSHOTS]
    observation = np.linspace(-1.0, 1.0, TASK.spec.observation_dim, dtype=np.float32)
    actions = np.stack([policy.distribution(observation).mode() for policy in policies]).reshape(3, 2, -1)
    assert np.all(np.any(actions[:, 0] != actions[:, 1], axis=1))  # seeds
    assert np.all(np.any(actions[1:] != actions[:-1], axis=2))  # steps, from the first update on


def test_the_chosen_ones_are_measured_again(finished):
    chosen = {quality: load_behaviour(finished / f"{quality}.npz") for quality in ("medium", "expert")}
    for policy, metadata in chosen.values():
        assert policy.head == "tanh_gaussian"
        assert metadata["episodes"] == behaviour.CHOICE_EPISODES
        np.testing.assert_allclose(metadata["score"], TASK.score(metadata["return_mean"]))
        assert metadata["command"] == provenance.command()
    # nothing scores near 44 here, so that both are the best of what was measured
    assert chosen["expert"][1]["score"] == chosen["medium"][1]["score"]


def test_ppo_learns_from_scratch_too(tmp_path):
    schedule = ["env_steps=16", "rollout.env_steps=8", "rollout.minibatch_size=4", "rollout.epochs=1"]
    schedule += ["evaluation.every_env_steps=8", "evaluation.episodes=2"]
    settings = [f"--set={setting}" for setting in ("networks.hidden=8", "networks.critic_hidden=8", *schedule)]
    tiny.call(behaviour, f"--env={ENV}", "--algorithm=ppo", f"--out={tmp_path / 'ppo'}", *settings)
    first, last = (load_behaviour(tmp_path / "ppo" / "snapshots" / f"{step:08d}-seed0.npz") for step in (8, 16))
    assert (first[0].head, first[1]["algorithm"]) == ("gaussian", "ppo")
    assert np.all(first[0].normalizer.std != last[0].normalizer.std)  # of 8 observations, and of 16
    assert load_behaviour(tmp_path / "ppo" / "medium-replay.npz")[1]["random_share"] == 0.0


def test_settings(finished):
    settings = json.loads((finished / "config.json").read_text())
    assert (settings["algorithm"], settings["env"], settings["config"]["replay"]["mode"]) == ("sac", ENV, "none")


def test_a_stopped_run_goes_on_and_takes_every_snapshot_once(tmp_path, finished, monkeypatch):
    save = Checkpoints.save

    def stop_once(self, step, state, notes):
        if step == 1 + 4:
            monkeypatch.undo()
            raise KeyboardInterrupt  # after the snapshot of step 4, before its checkpoint
        save(self, step, state, notes)

    out = tmp_path / "stopped"
    monkeypatch.setattr(Checkpoints, "save", stop_once)
    run(out, status=130)
    assert not (out / "expert.npz").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "CHOICE_EPISODES", 3)
        run(out, "--resume")
    for phase in ("evaluation", "sampled", "finetune"):
        whole, parts = log.read(finished, phase), log.read(out, phase)
        assert parts["step"].tolist() == [2, 2, 4, 4, 6, 6]
        for term in whole:  # what was saved stays, and the first two steps of both runs are alike
            np.testing.assert_array_equal(parts[term][:2], whole[term][:2], err_msg=f"{phase} {term}")
    assert sorted(path.name for path in (out / "snapshots").iterdir()) == SNAPSHOTS
    assert (out / "expert.npz").exists()


def test_recipe_by_hand():
    # Random steps up to 10, snapshots at 10, 20, 40, 60: rows 10-15 are nearest to the first, 15-30 to the second,
    # 30-50 to the third, 50-60 to the last, of 60.
    steps, shares = behaviour.replay_recipe([10, 20, 40, 60], 10, count=4)
    assert steps == [10, 20, 40, 60]
    np.testing.assert_allclose(shares, np.array([5, 15, 20, 10]) / 60)
    # Three of them, evenly spread by rank: 10, 40 (of 20 and 40, equally near, the even rank) and 60.
    steps, shares = behaviour.replay_recipe([10, 20, 40, 60], 10, count=3)
    assert steps == [10, 40, 60]
    np.testing.assert_allclose(shares, np.array([15, 25, 10]) / 60)


@pytest.mark.parametrize("snapshots", [1, 2, 5, 16, 17, 200])
@pytest.mark.parametrize("random_env_steps", [0, 5_000])
def test_recipe_covers_the_buffer(snapshots, random_env_steps):
    env_steps = [random_env_steps + 5_000 * i for i in range(1, snapshots + 1)]
    steps, shares = behaviour.replay_recipe(env_steps, random_env_steps, 16)
    assert len(steps) == len(shares) == min(snapshots, 16)
    assert steps == sorted(set(steps))
    assert steps[-1] == env_steps[-1]
    assert min(shares) > 0
    np.testing.assert_allclose(sum(shares) + random_env_steps / steps[-1], 1.0)


def test_replay_buffer_of_the_medium_policy(finished):
    _, medium = load_behaviour(finished / "medium.npz")
    snapshots, metadata = load_behaviour(finished / "medium-replay.npz")
    assert (metadata["seed"], metadata["env_id"]) == (medium["seed"], "Hopper-v5")
    steps = [step for step in (2, 4, 6) if step <= medium["env_steps"]]
    assert metadata["env_steps"] == steps
    # random up to step 2, then halves of the way from snapshot to snapshot
    shares = {4: [1, 1], 6: [1, 2, 1]}[medium["env_steps"]]
    np.testing.assert_allclose(metadata["shares"], np.array(shares) / medium["env_steps"])
    np.testing.assert_allclose(metadata["random_share"], 2 / medium["env_steps"])
    acting = replay(snapshots, metadata, TASK)
    assert [part.name for part in acting[:2]] == ["uniform actions", "sampled snapshots of a training run"]
    np.testing.assert_allclose(sum(part.share for part in acting), 1.0)
    observations, key = np.linspace(-1.0, 1.0, 22).reshape(2, 11), jax.random.key(0)
    for step, part in zip(steps, acting[1:], strict=True):
        policy, _ = load_behaviour(finished / "snapshots" / f"{step:08d}-seed{medium['seed']}.npz")
        expected = sample_actions(policy, observations, key)
        np.testing.assert_allclose(part.act(None, observations, key), expected, atol=2e-3)  # float16


@pytest.mark.parametrize("quality", ["medium", "medium-replay"])
def test_what_a_run_leaves_makes_a_dataset(finished, quality, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    policy = f"--policy={finished / f'{quality}.npz'}"
    tiny.call(dataset, f"--env={ENV}", policy, "--out=o2o/mine-v0", "--transitions=60")
    assert load_minari("o2o/mine-v0").size == 60
    metadata = json.loads((tmp_path / "o2o/mine-v0/data/metadata.json").read_text())
    names = {"medium": "sampled policy", "medium-replay": "uniform actions then sampled snapshots of a training run"}
    assert metadata["algorithm_name"] == names[quality]


def test_choose_takes_what_is_nearest_and_what_is_best(finished, tmp_path, monkeypatch, capsys):
    scores = {"00000002-seed0.npz": 10.0, "00000004-seed0.npz": 40.0, "00000006-seed0.npz": 90.0}
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"config": {"interaction": {"random_env_steps": 0}}}))
    policy, metadata = load_behaviour(finished / "snapshots" / SNAPSHOTS[0])
    for name, score in scores.items():
        path = tmp_path / "snapshots" / name
        save_behaviour(path, policy, metadata | {"score": score, "env_steps": int(name[:8])})

    measured = {2: 30.0, 4: 47.0, 6: 85.0}  # by the second measurement
    monkeypatch.setattr(
        behaviour,
        "_measure",
        lambda task, path: load_behaviour(path)[1] | {"score": measured[int(path.name[:8])]},
    )
    behaviour.choose(TASK, tmp_path, 44.0)
    assert load_behaviour(tmp_path / "medium.npz")[1]["score"] == 47.0
    assert load_behaviour(tmp_path / "expert.npz")[1]["score"] == 85.0
    assert "medium: 00000004-seed0.npz, sampled score 47.0" in capsys.readouterr().out
    assert load_behaviour(tmp_path / "medium-replay.npz")[1]["env_steps"] == [2, 4]
    behaviour.choose(TASK, tmp_path, 29.0)
    assert load_behaviour(tmp_path / "medium.npz")[1]["score"] == 30.0
    assert load_behaviour(tmp_path / "medium-replay.npz")[1]["env_steps"] == [2]


def test_a_policy_that_has_learnt_nothing_is_never_chosen(finished, tmp_path, capsys):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"env": ENV, "config": {"interaction": {"random_env_steps": 2}}}))
    shutil.copy(finished / "snapshots" / SNAPSHOTS[0], tmp_path / "snapshots")
    run(tmp_path, "--choose", status=1)
    assert "holds no sound snapshots later than its random steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--env=mujoco/hoper"], 1, "unknown task 'mujoco/hoper'"),
        (["--set=hiden=8"], 1, "unknown field 'hiden'"),
        (["--seeds=0"], 2, "seeds"),
        (
            ["--set=evaluation.episodes=0"],
            1,
            "snapshots are chosen by their scores: evaluation.episodes must be at least 1",
        ),
        (["--choose"], 1, "holds no run"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, status, message, tmp_path, capsys):
    run(tmp_path / "out", *arguments, status=status)
    refusals.check(capsys.readouterr().err, message)
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_snapshot_yet_has_nothing_to_choose(tmp_path, capsys):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"env": ENV}))
    run(tmp_path, "--choose", status=1)
    assert "holds no snapshots: train first, without --choose" in capsys.readouterr().err


def test_the_folder_of_another_run_is_refused(finished, capsys):
    run(finished, status=1)
    assert "already holds a run" in capsys.readouterr().err


def test_choosing_stays_in_the_run_s_environment(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    tiny.call(behaviour, f"--out={tmp_path / 'run'}", "--choose", "--env=mujoco/walker2d", status=1)
    assert f"the run in {tmp_path / 'run'} learnt in mujoco/hopper: leave --env out" in capsys.readouterr().err


def test_snapshots_of_a_seed_that_diverged_are_not_chosen(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    broken = tmp_path / "run" / "snapshots" / SNAPSHOTS[-1]
    policy, metadata = load_behaviour(broken)
    save_behaviour(broken, policy, metadata | {"score": float("nan")})
    behaviour.choose(TASK, tmp_path / "run", 44.0)
    assert broken.name not in capsys.readouterr().out
