"""WSRL from the command line: on what a run of CQL left, and on what re-evaluation makes of it."""

import numpy as np
import pytest

from o2o_jax.cli import finetune, offline
from o2o_jax.runtime import log
from tests import tiny

CRITICS = ["--set=num_critics=3", "--set=num_target_critics=2", "--set=layer_norm=true", "--set=actor_layer_norm=true"]
SCHEDULE = ["--set=update.batch_size=8", "--set=evaluation.episodes=0"]
REEVALUATED = ["--set=reevaluate.updates=4", "--set=update.backup_entropy=true"]
pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture(scope="module")
def cql_run(data, tmp_path_factory):
    """The folder of two seeds of CQL, with three critics and LayerNorm, after 2 updates."""
    out = tmp_path_factory.mktemp("runs") / "cql"
    arguments = ["--algorithm=cql", f"--env={tiny.ENV}", f"--out={out}", "--seeds=2", "--set=num_actions=2"]
    tiny.call(offline, *arguments, *tiny.SETTINGS, *CRITICS, "--set=updates=2", "--eval_every=0", "--eval_episodes=0")
    return out


def run(out, policy, *arguments, status=0):
    argv = ["--algorithm=wsrl", f"--policy={policy}", f"--out={out}", "--seeds=2"]
    tiny.call(finetune, *argv, *SCHEDULE, *arguments, status=status)
    return out


def test_critics_that_are_re_evaluated_once_serve_several_runs(cql_run, tmp_path, capsys):
    # networks are those of the offline run, without a word of them
    first = run(tmp_path / "first", cql_run, *REEVALUATED, "--set=env_steps=0")
    reconstruction = f"--reconstruction={first}"
    steps = ["--set=env_steps=3", "--set=interaction.warmup_env_steps=2", "--set=evaluation.every_env_steps=1"]
    second = run(tmp_path / "second", cql_run, *REEVALUATED, reconstruction, *steps)
    assert (second / "reevaluate.csv").read_text() == (first / "reevaluate.csv").read_text()
    updated = ~np.isnan(log.read(second, "finetune")["critic_loss"])
    assert updated.tolist() == [False] * 4 + [True] * 2  # two seeds, two steps of the policy itself first

    capsys.readouterr()
    for arguments, message in (
        (REEVALUATED[:1], "backup_entropy"),
        ((), "phases before its first environment step"),  # on the offline run's own critics
    ):
        run(tmp_path / "out", cql_run, *arguments, reconstruction, status=1)
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
