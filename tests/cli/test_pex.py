"""PEX from the command line: from a run of IQL alone; stopped and resumed, played and kept."""

import numpy as np
import pytest

import o2o_jax
from o2o_jax.cli import diagnose, finetune, offline, play
from o2o_jax.jobs.handoffs import load_handoff, load_kept
from o2o_jax.runtime import log
from tests import tiny
from tests.cli.test_finetune import stop_at

SCHEDULE = [
    "--set=interaction.warmup_env_steps=2", "--set=env_steps=6", "--set=evaluation.every_env_steps=2",
    "--set=evaluation.episodes=2", "--checkpoint_every=2",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture(scope="module")
def iql_run(data, tmp_path_factory):
    """The folder of two seeds of IQL after 4 updates."""
    out = tmp_path_factory.mktemp("runs") / "iql"
    arguments = ["--algorithm=iql", f"--env={tiny.ENV}", f"--out={out}", "--seeds=2"]
    tiny.call(offline, *arguments, *tiny.SETTINGS, "--set=updates=4", "--eval_every=0", "--eval_episodes=1")
    return out


def run(out, policy, *arguments, status=0):
    argv = ["--algorithm=pex", f"--policy={policy}", f"--out={out}", "--seeds=2"]
    tiny.call(finetune, *argv, *SCHEDULE, *arguments, status=status)
    return out


def test_it_goes_on_beside_iqls_policy(iql_run, tmp_path, monkeypatch, capsys):
    out = run(tmp_path / "out", iql_run)
    assert not (out / "clone.csv").exists()
    metrics = log.read(out, "finetune")
    assert (~np.isnan(metrics["learning_share"])).tolist() == [False, False, True, True, True, True]
    assert np.isfinite(log.read(out, "evaluation")["score"]).all()
    handoff, task, _ = load_handoff(iql_run, range(2))
    policy = load_kept(out, 1, "last")[0]
    theirs, kept = handoff.policy.params["params"], policy.kept.params["params"]
    np.testing.assert_array_equal(kept["log_std"], theirs["log_std"][1])
    np.testing.assert_array_equal(kept["Dense_0"]["kernel"], theirs["Dense_0"]["kernel"][1])

    # a run that is stopped ends as this one, its evaluations' draws included
    stop_at(monkeypatch, 1 + 4)
    run(tmp_path / "stopped", iql_run, status=130)
    run(tmp_path / "stopped", iql_run, "--resume")
    for phase in ("evaluation", "finetune", "start"):
        assert (tmp_path / "stopped" / f"{phase}.csv").read_text() == (out / f"{phase}.csv").read_text()

    deployed = o2o_jax.load_policy(out, which="last")
    observation = np.linspace(-1.0, 1.0, task.spec.observation_dim)
    o2o_jax.save_policy(deployed, tmp_path / "saved")
    np.testing.assert_array_equal(o2o_jax.load_policy(tmp_path / "saved")(observation), deployed(observation))
    capsys.readouterr()
    tiny.call(play, f"--run={out}", "--compare=offline,last", "--episodes=1")
    assert len(capsys.readouterr().out.splitlines()) == 4  # a title, a header, a row of each
    tiny.call(diagnose, f"--run={out}", status=1)
    assert capsys.readouterr().err.startswith("error: ")


def test_what_is_refused(iql_run, offline_run, tmp_path, capsys):
    for policy, arguments, message in (
        (
            offline_run,
            (),
            "pex continues from iql, with its whole state, and this policy comes from td3_bc: pass the",
        ),
        (iql_run, ("--set=update.hidden=9",), "set update.hidden and update.critic_hidden as that run has them"),
        (iql_run, ("--set=update.reward_scale=2",), "the pex run was trained on other rewards"),
    ):
        run(tmp_path / "out", policy, *arguments, status=1)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    run(tmp_path / "dry", iql_run, "--dry_run")
    assert "2 seeds: 6 environment steps" in capsys.readouterr().out
