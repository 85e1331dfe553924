"""WSRL from the command line: on what a run of CQL left, and on what re-evaluation makes of it."""

import numpy as np
import pytest

from o2o_jax.cli import finetune, offline
from o2o_jax.runtime import log
from tests import tiny

CRITICS = ["--set=num_critics=3", "--set=num_target_critics=2", "--set=layer_norm=true", "--set=actor_layer_norm=true"]
SCHEDULE = [
    "--set=update.batch_size=8", "--set=interaction.warmup_env_steps=2", "--set=env_steps=4",
    "--set=evaluation.every_env_steps=2", "--set=evaluation.episodes=1", "--checkpoint_every=2",
]  # fmt: skip
REEVALUATED = ["--set=reevaluate.updates=4", "--set=update.backup_entropy=true"]
pytestmark = pytest.mark.usefixtures("data")


@pytest.fixture(scope="module")
def cql_run(data, tmp_path_factory):
    """The folder of two seeds of CQL, with three critics and LayerNorm, after 2 updates."""
    out = tmp_path_factory.mktemp("runs") / "cql"
    arguments = ["--algorithm=cql", f"--env={tiny.ENV}", f"--out={out}", "--seeds=2", "--set=num_actions=2"]
    tiny.call(offline, *arguments, *tiny.SETTINGS, *CRITICS, "--set=updates=2", "--eval_every=0", "--eval_episodes=1")
    return out


def run(out, policy, *arguments, status=0):
    argv = ["--algorithm=wsrl", f"--policy={policy}", f"--out={out}", "--seeds=2"]
    tiny.call(finetune, *argv, *SCHEDULE, *arguments, status=status)
    return out


def test_critics_that_are_re_evaluated_once_serve_several_runs(cql_run, tmp_path, capsys):
    # networks are those of the offline run, without a word of them
    first = run(tmp_path / "first", cql_run, *REEVALUATED)
    updated = ~np.isnan(log.read(first, "finetune")["critic_loss"])
    assert updated.tolist() == [False, False, True, True]  # two steps of the policy itself first
    assert np.isfinite(log.read(first, "reevaluate")["critic_loss"]).all()

    reconstruction = f"--reconstruction={first}"
    capsys.readouterr()
    run(tmp_path / "out", cql_run, *REEVALUATED, "--set=finetune.alpha_lr=0.01", reconstruction, "--dry_run")
    assert "all checks passed" in capsys.readouterr().out
    for arguments, message in (
        (REEVALUATED[:1], "backup_entropy"),
        ((), "phases before its first environment step"),  # on the offline run's own critics
    ):
        run(tmp_path / "out", cql_run, *arguments, reconstruction, status=1)
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
