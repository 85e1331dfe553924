"""IQL and Cal-QL from the command line: offline, then online with the same update, stopped and resumed."""

import json

import numpy as np
import pytest

from o2o_jax import envs
from o2o_jax.cli import diagnose, finetune, offline, report
from o2o_jax.jobs.handoffs import load_delivered, load_handoff
from o2o_jax.runtime import log
from tests import tiny
from tests.cli.test_finetune import stop_at

SIZES = ["--set=hidden=8", "--set=critic_hidden=8", "--set=batch_size=8", "--set=discount=0.9"]
ONLINE = [
    "--set=env_steps=6",
    "--set=interaction.warmup_env_steps=0",
    "--set=evaluation.every_env_steps=2",
    "--set=evaluation.episodes=1",
    "--checkpoint_every=2",
]
pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture(scope="module", params=["iql", "cal_ql"])
def trained(request, data, tmp_path_factory):
    """The name of a method and the folder of two seeds of it after 4 updates."""
    out = tmp_path_factory.mktemp("runs") / request.param
    arguments = [f"--algorithm={request.param}", f"--env={tiny.ENV}", f"--out={out}", "--seeds=2"]
    tiny.call(offline, *arguments, *SIZES, "--set=updates=4", "--eval_every=0", "--eval_episodes=1")
    return request.param, out


def run(out, policy, algorithm, *arguments, status=0):
    argv = [f"--algorithm={algorithm}", f"--policy={policy}", f"--out={out}", "--seeds=2"]
    tiny.call(finetune, *argv, *ONLINE, *arguments, status=status)
    return out


def test_a_method_goes_on_as_its_offline_run_left_it(trained, tmp_path, monkeypatch, capsys):
    name, policy = trained
    out = run(tmp_path / "out", policy, name, "--set=update.actor_lr=0.01")
    settings = json.loads((out / "config.json").read_text())["config"]
    theirs = json.loads((policy / "config.json").read_text())["config"]
    assert settings["update"] == theirs | {"actor_lr": 0.01}  # not the published sizes
    assert not (out / "reference.csv").exists()
    start, evaluation = log.read(out, "start"), log.read(out, "evaluation")
    np.testing.assert_allclose(start["offline_score"], log.read(policy, "evaluation")["score"], rtol=1e-5)
    assert evaluation["step"].tolist() == [2, 2, 4, 4, 6, 6]
    assert np.isfinite(log.read(out, "finetune")["critic_loss"]).all()  # no warm-up
    handoff, task, _ = load_handoff(policy, range(2))
    delivered = load_delivered(out, task.spec)
    assert delivered.head == handoff.policy.head
    np.testing.assert_array_equal(delivered.normalizer.mean, handoff.policy.normalizer.mean)
    assert any(np.any(a != b) for a, b in zip(*map(_leaves, (delivered, handoff.policy)), strict=True))

    # a run that is stopped ends as this one
    stop_at(monkeypatch, 1 + 4)
    run(tmp_path / "stopped", policy, name, "--set=update.actor_lr=0.01", status=130)
    run(tmp_path / "stopped", policy, name, "--set=update.actor_lr=0.01", "--resume")
    for phase in ("evaluation", "finetune", "start"):
        assert (tmp_path / "stopped" / f"{phase}.csv").read_text() == (out / f"{phase}.csv").read_text()
    capsys.readouterr()
    run(tmp_path / "stopped", policy, name, "--resume", status=1)
    assert f"config.update.actor_lr is 0.01 there and {theirs['actor_lr']} now" in capsys.readouterr().err
    tiny.call(report, f"--runs={out}", f"--out={tmp_path / 'curve.png'}")
    assert (tmp_path / "curve.png").stat().st_size > 0
    capsys.readouterr()
    tiny.call(diagnose, f"--run={out}", status=1)
    assert capsys.readouterr().err.startswith("error: ")


def _leaves(policy):
    return [np.asarray(leaf) for leaf in _flat(policy.params)]


def _flat(params):
    return [leaf for value in params.values() for leaf in (_flat(value) if isinstance(value, dict) else [value])]


def test_what_is_refused_before_a_folder_is_claimed(trained, offline_run, tmp_path, capsys):
    name, policy = trained
    for arguments, source, message in (
        ((), offline_run, f"{name} continues from {name}, with its whole state, and this policy comes from td3_bc"),
        (("--print_config",), offline_run, f"{name} continues from {name}"),
        (("--set=temperatur=1",), policy, "unknown field 'temperatur'"),
        (("--set=discount=0.8",), policy, "unknown field 'discount' in --set=discount=0.8: did you mean update.disc"),
        (("--set=update.discount=0.8",), policy, "trained with another discount: set update.discount=0.9"),
        (("--set=update.reward_scale=2",), policy, "set update.reward_scale=1.0 and update.reward_shift=0.0"),
        (("--set=update.hidden=9",), policy, "set update.hidden and update.critic_hidden as that run has them"),
        (
            (f"--config={policy / 'config.json'}",),
            policy,
            f"is of experiments.offline, whose {name} has other settings",
        ),
    ):
        run(tmp_path / "out", source, name, *arguments, status=1)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_said_beforehand(trained, tmp_path, capsys):
    name, policy = trained
    run(tmp_path / "out", policy, name, "--dry_run", "--set=evaluation.episodes=0")
    assert "2 seeds: 6 environment steps" in capsys.readouterr().out
    run(tmp_path / "out", policy, name, "--print_config")
    shown = capsys.readouterr()
    assert json.loads(shown.out)["config"]["update"]["hidden"] == [8]
    assert "finetune: 6 updates of " in shown.err
    run(tmp_path / "out", policy, name, "--print_config", "--set=env_steps=0")
    assert "no update is due" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_task_of_other_sizes_is_refused(trained, tmp_path, capsys):
    name, policy = trained
    run(tmp_path / "out", policy, name, "--env=mujoco/walker2d-medium", status=1)
    assert "pass --env, a task that fits" in capsys.readouterr().err
    assert envs.get_task(tiny.ENV).spec.observation_dim == 11
