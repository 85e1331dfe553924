"""Off2On from the command line: on an ensemble's run, stopped and resumed, and on nothing else."""

import numpy as np
import pytest

import o2o_jax
from o2o_jax.cli import finetune, offline
from o2o_jax.runtime import log
from tests import tiny
from tests.cli.test_finetune import stop_at

pytestmark = pytest.mark.usefixtures("data")


def test_a_run_from_an_ensemble(data, offline_run, tmp_path, monkeypatch, capsys):
    policy, out = tmp_path / "ensemble", tmp_path / "out"
    arguments = ["--algorithm=cql_ensemble", f"--env={tiny.ENV}", f"--out={policy}", "--seeds=2", "--eval_every=0"]
    settings = [*tiny.SETTINGS, "--set=num_agents=2", "--set=updates=2", "--set=num_actions=2"]
    tiny.call(offline, *arguments, *settings, "--eval_episodes=1")
    assert o2o_jax.load_policy(policy, seed=1).policy.head == "mixture"

    settings = ["env_steps=6", "interaction.warmup_env_steps=2", "evaluation.episodes=1", "ratio.hidden=8"]
    arguments = ["--algorithm=off2on", "--seeds=2", "--checkpoint_every=2", "--set=evaluation.every_env_steps=2"]
    arguments += [f"--set={text}" for text in settings]
    tiny.call(finetune, *arguments, f"--policy={policy}", f"--out={out}")
    assert not (out / "clone.csv").exists()
    rows = log.read(out, "finetune")
    assert np.isfinite(rows["ratio_loss"]).tolist() == [False, False, True, True, True, True]
    arrays = tiny.saved(out / "checkpoints")
    priority = next(values for name, values in arrays.items() if name.startswith("7 ") and name.endswith("priority"))
    assert priority.shape == (2, 200 + 6)  # of the data's rows and of fresh ones, of two seeds
    assert np.all(priority > 0)
    assert not np.allclose(priority[:, :200], 1.0)  # updates say what is worth drawing

    # priorities are part of what a stopped run goes on with
    stop_at(monkeypatch, 1 + 4)
    stopped = [*arguments, f"--policy={policy}", f"--out={tmp_path / 'stopped'}"]
    tiny.call(finetune, *stopped, status=130)
    tiny.call(finetune, *stopped, "--resume")
    for name, values in tiny.saved(tmp_path / "stopped" / "checkpoints").items():
        if name.startswith("7 "):
            np.testing.assert_array_equal(values, arrays[name], err_msg=name)

    capsys.readouterr()
    refused = [f"--policy={offline_run}", f"--out={tmp_path / 'refused'}"]
    tiny.call(finetune, *arguments, *refused, status=1)
    error = capsys.readouterr().err
    assert (
        "off2on continues from cql_ensemble, with its whole state, and this policy comes from td3_bc: pass the" in error
    )
    assert error.count("\n") == 1
