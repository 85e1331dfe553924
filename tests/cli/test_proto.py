"""PROTO+TD3 from the command line: on what a run of TD3+BC left, with a buffer that begins with rows of the data."""

import numpy as np
import pytest

from o2o_jax.cli import finetune, offline
from o2o_jax.runtime import log
from tests import tiny

pytestmark = pytest.mark.usefixtures("data")


def test_a_run_from_td3_bc(data, tmp_path):
    policy, out = tmp_path / "td3_bc", tmp_path / "proto_td3"
    arguments = ["--algorithm=td3_bc", f"--env={tiny.ENV}", f"--out={policy}", "--seeds=2", "--set=updates=2"]
    tiny.call(offline, *arguments, *tiny.SETTINGS, "--eval_every=0", "--eval_episodes=0")
    # networks are those of the offline run, without a word of them
    arguments = ["--algorithm=proto_td3", f"--policy={policy}", f"--out={out}", "--seeds=2", "--set=env_steps=4"]
    settings = ["update.batch_size=8", "replay.prefill=5", "evaluation.episodes=0", "evaluation.every_env_steps=2"]
    tiny.call(finetune, *arguments, *(f"--set={text}" for text in settings))
    rows = log.read(out, "finetune")
    assert np.isfinite(rows["critic_loss"]).all()  # from the first environment step on
    assert np.isfinite(rows["actor_loss"]).all()
    assert (rows["weight"] <= 2.0).all()
    assert len(rows["weight"]) == 4  # two seeds, two intervals
