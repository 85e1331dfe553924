"""ACA from the command line: on what a run of SAC+ML left, and on nothing else."""

import json

import numpy as np
import pytest

from o2o_jax.cli import finetune, offline
from o2o_jax.runtime import log
from tests import tiny

pytestmark = pytest.mark.usefixtures("data")


def test_a_run_from_sac_ml(data, offline_run, tmp_path, capsys):
    policy, out = tmp_path / "sac_ml", tmp_path / "aca"
    arguments = ["--algorithm=sac_ml", f"--env={tiny.ENV}", f"--out={policy}", "--seeds=2", "--set=updates=2"]
    tiny.call(offline, *arguments, *tiny.SETTINGS, "--set=head=gaussian", "--eval_every=0", "--eval_episodes=0")
    # networks and head are those of the offline run, without a word of them
    arguments = ["--algorithm=aca", f"--out={out}", "--seeds=2", "--set=env_steps=4"]
    settings = ["replay.mode=part", "interaction.warmup_env_steps=2", "evaluation.episodes=0"]
    arguments += [f"--set={text}" for text in (*settings, "evaluation.every_env_steps=2")]
    tiny.call(finetune, *arguments, f"--policy={policy}")
    assert json.loads((out / "config.json").read_text())["config"]["update"]["head"] == "gaussian"
    assert not (out / "clone.csv").exists()
    rows = log.read(out, "finetune")
    assert np.isfinite(rows["critic_loss"]).tolist() == [False, False, True, True]
    # of random data, where w falls in 10,000 steps: two updates, 1 and 0.9999
    np.testing.assert_allclose(rows["weight"][2:], 0.99995, rtol=1e-6)

    capsys.readouterr()
    tiny.call(finetune, *arguments, f"--policy={offline_run}", f"--out={tmp_path / 'refused'}", status=1)
    error = capsys.readouterr().err
    assert "aca continues from sac_ml, with its critics and all, and this policy comes from td3_bc: pass the" in error
    assert error.count("\n") == 1
