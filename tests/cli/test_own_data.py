"""From arrays and registered environments to an offline run and its fine-tuning, on the command line."""

import json
import sys

import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import finetune, offline
from o2o_jax.jobs import handoffs
from o2o_jax.runtime import log
from tests import refusals, tiny

OFFLINE = ["--algorithm=td3_bc", "--set=updates=4", *tiny.SETTINGS]
ONLINE = [
    "--algorithm=o2td3",
    "--schedule=paper",
    "--set=reevaluate.updates=2",
    "--set=align.updates=2",
    "--set=env_steps=4",
    "--set=interaction.warmup_env_steps=2",
    "--set=evaluation.every_env_steps=4",
    "--set=evaluation.episodes=1",
    *tiny.ONLINE_SETTINGS,
]


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """An npz file of two episodes of uniform actions."""
    task = envs.get_task("gym/Pendulum-v1")
    env = envs.family(task.name).make_env(task)
    random, rows = np.random.default_rng(0), []
    for seed in range(2):
        (observation, _), ended = env.reset(seed=seed), False
        while not ended:
            action = random.uniform(-1.0, 1.0, 1)
            next_observation, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action, reward, terminated, truncated, next_observation))
            observation, ended = next_observation, terminated or truncated
    names = ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    path = tmp_path_factory.mktemp("own") / "arrays.npz"
    np.savez(path, **dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True)))
    return path


def settings_of(out):
    return json.loads((out / "config.json").read_text())


def test_arrays_of_a_registered_environment(pendulum, tmp_path, capsys):
    out = tmp_path / "td3_bc"
    tiny.call(offline, *OFFLINE, "--env=gym/Pendulum-v1", f"--dataset={pendulum}", f"--out={out}", "--eval_episodes=1")
    printed = capsys.readouterr().out
    assert "note: gym/Pendulum-v1 has no reference scores: every score is the raw return" in printed
    assert "note: no settings are published for gym/Pendulum-v1" in printed
    evaluation = log.read(out, "evaluation")
    np.testing.assert_array_equal(evaluation["score"], evaluation["return"])
    assert evaluation["length"].tolist() == [200]
    settings = settings_of(out)
    assert (settings["env"], settings["dataset"], settings["transitions"]) == ("gym/Pendulum-v1", str(pendulum), 400)


def test_arrays_alone_and_an_environment_later(pendulum, tmp_path, capsys):
    out = tmp_path / "td3_bc"
    tiny.call(offline, *OFFLINE, f"--dataset={pendulum}", f"--out={out}", "--eval_every=0")
    printed = capsys.readouterr().out
    assert f"this run has no environment and no evaluation, since {pendulum} doesn't say which" in printed
    assert not (out / "evaluation.csv").exists()
    assert log.read(out, "offline")["step"].max() == 4
    assert settings_of(out)["env"] == ""

    tiny.call(finetune, *ONLINE, f"--policy={out}", f"--out={tmp_path / 'o2td3'}", status=1)
    assert "was trained without an environment: pass --env, the task to go online in" in capsys.readouterr().err
    tiny.call(finetune, *ONLINE, "--env=mujoco/hopper", f"--policy={out}", f"--out={tmp_path / 'o2td3'}", status=1)
    error = capsys.readouterr().err
    assert "is of 3 observations and 1 actions, but mujoco/hopper has 11 observations and 3 actions" in error
    assert error.count("\n") == 1
    tiny.call(finetune, *ONLINE, "--env=gym/Pendulum-v1", f"--policy={out}", f"--out={tmp_path / 'o2td3'}")
    assert "every score is the raw return" in capsys.readouterr().out
    assert settings_of(tmp_path / "o2td3")["env"] == "gym/Pendulum-v1"
    assert log.read(tmp_path / "o2td3", "evaluation")["step"].tolist() == [4]


def test_clipped_actions_stay_clipped_in_what_goes_on(pendulum, tmp_path, capsys):
    with np.load(pendulum) as file:
        np.savez(tmp_path / "wide.npz", **dict(file) | {"actions": 1.25 * file["actions"]})
    out = tmp_path / "td3_bc"
    arguments = [*OFFLINE, "--env=gym/Pendulum-v1", f"--dataset={tmp_path / 'wide.npz'}", f"--out={out}"]
    tiny.call(offline, *arguments, "--eval_episodes=0", status=1)
    refusals.check(capsys.readouterr().err, "the farthest 1.2", "pass --clip_actions")
    tiny.call(offline, *arguments, "--eval_episodes=0", "--clip_actions")
    assert settings_of(out)["clip_actions"]
    tiny.call(finetune, *ONLINE, f"--policy={out}", f"--out={tmp_path / 'o2td3'}", "--dry_run")


def test_a_run_without_an_environment_resumes(pendulum, tmp_path):
    out = tmp_path / "td3_bc"
    for resume in ([], ["--resume"]):
        tiny.call(offline, *OFFLINE, f"--dataset={pendulum}", f"--out={out}", *resume)
    handoff, task, _ = handoffs.load_handoff(out, range(1), "gym/Pendulum-v1")
    assert (int(handoff.state.step), task.name) == (4, "gym/Pendulum-v1")


@pytest.mark.usefixtures("data")
def test_the_dataset_names_its_task(tmp_path):
    tiny.call(offline, *OFFLINE, "--dataset=o2o/hopper/random-v0", f"--out={tmp_path / 'out'}", "--eval_episodes=1")
    assert settings_of(tmp_path / "out")["env"] == tiny.ENV
    assert log.read(tmp_path / "out", "evaluation")["step"].tolist() == [4]


@pytest.mark.usefixtures("data")
def test_without_evaluation_no_simulator_is_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    arguments = [*OFFLINE, f"--env={tiny.ENV}", f"--out={tmp_path / 'out'}"]
    tiny.call(offline, *arguments, status=1)
    assert "gymnasium is not installed: pip install 'o2o_jax[mujoco]'" in capsys.readouterr().err
    tiny.call(offline, *arguments, "--eval_episodes=0")
    assert log.read(tmp_path / "out", "offline")["step"].max() == 4
    assert not (tmp_path / "out" / "evaluation.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass --env, a task, or --dataset, its data, or both"),
        (["--env=gym/Pendulum-v1"], "gym/Pendulum-v1 names no dataset: pass the id or path of one"),
        (["--env=gym/CartPole-v1", "--dataset=ARRAYS"], "CartPole-v1 takes Discrete actions; only continuous"),
        (["--env=mujoco/hopper", "--dataset=ARRAYS"], "observation has shape (400, 3), expected (400, 11)"),
        (["--dataset=nowhere.npz"], "no file nowhere.npz"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(arguments, message, pendulum, tmp_path, capsys):
    arguments = [argument.replace("ARRAYS", str(pendulum)) for argument in arguments]
    tiny.call(offline, *OFFLINE, *arguments, f"--out={tmp_path / 'out'}", status=1)
    refusals.check(capsys.readouterr().err, message)
    assert not (tmp_path / "out").exists()
