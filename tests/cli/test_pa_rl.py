"""PA-RL from the command line: of the clone of a deterministic policy, in its reduced form."""

import numpy as np
import pytest

import o2o_jax as o2o
from o2o_jax.cli import finetune
from o2o_jax.runtime import log
from tests import tiny

pytestmark = pytest.mark.usefixtures("data")


def test_a_run_from_a_clone(offline_run, tmp_path):
    out = tmp_path / "pa_rl"
    settings = ["critics.updates=2", "env_steps=4", "interaction.warmup_env_steps=2", "evaluation.every_env_steps=2"]
    settings += ["evaluation.episodes=1", "update.conservative_weight=0.005"]
    arguments = ["--algorithm=pa_rl", f"--policy={offline_run}", f"--out={out}", "--seeds=2", "--clone_updates=2"]
    tiny.call(finetune, *arguments, *tiny.ONLINE_SETTINGS, *(f"--set={text}" for text in settings))
    assert {path.name for path in out.glob("c*.csv")} == {"clone.csv", "critics.csv"}
    rows = log.read(out, "finetune")
    assert np.isfinite(rows["gap"]).tolist() == [False, False, True, True]
    policy = o2o.load_policy(out, which="last")
    assert policy.policy.head == "optimized"
    assert policy(np.zeros(11)).shape == (3,)
