"""RLPD from the command line: from policies of any kind, which it only normalises by; stopped and resumed."""

import numpy as np
import pytest

from o2o_jax.cli import diagnose, finetune
from o2o_jax.jobs.handoffs import load_delivered, load_handoff
from o2o_jax.runtime import log
from tests import tiny
from tests.cli.test_finetune import stop_at

SCHEDULE = [
    *tiny.ONLINE_SETTINGS, "--set=networks.num_critics=3", "--set=interaction.updates_per_env_step=2",
    "--set=interaction.warmup_env_steps=2", "--set=interaction.random_env_steps=2", "--set=env_steps=6",
    "--set=evaluation.every_env_steps=2", "--set=evaluation.episodes=1", "--checkpoint_every=2",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("data")


def run(out, policy, *arguments, status=0):
    argv = ["--algorithm=rlpd", f"--policy={policy}", f"--out={out}", "--seeds=2"]
    tiny.call(finetune, *argv, *SCHEDULE, *arguments, status=status)
    return out


@pytest.mark.parametrize("source", ["offline_run", "dt_run"])
def test_it_starts_afresh_beside_a_policy_of_any_kind(source, request, tmp_path, monkeypatch, capsys):
    policy = request.getfixturevalue(source)
    out = run(tmp_path / "out", policy)
    assert not (out / "clone.csv").exists()
    handoff, task, _ = load_handoff(policy, range(2))
    delivered = load_delivered(out, task.spec)
    assert delivered.head == "tanh_gaussian"
    np.testing.assert_array_equal(delivered.normalizer.mean, handoff.policy.normalizer.mean)
    metrics = log.read(out, "finetune")
    updated = ~np.isnan(metrics["critic_loss"])
    assert updated.tolist() == [False, False, True, True, True, True]  # two steps of random actions first
    np.testing.assert_array_equal(
        updated, ~np.isnan(metrics["actor_loss"])
    )  # in every round, though not in every update

    # a run that is stopped ends as this one
    stop_at(monkeypatch, 1 + 4)
    run(tmp_path / "stopped", policy, status=130)
    run(tmp_path / "stopped", policy, "--resume")
    for phase in ("evaluation", "finetune", "start"):
        assert (tmp_path / "stopped" / f"{phase}.csv").read_text() == (out / f"{phase}.csv").read_text()
    capsys.readouterr()
    tiny.call(diagnose, f"--run={out}", status=1)  # no phase re-evaluates anything
    assert capsys.readouterr().err.startswith("error: ")
    run(tmp_path / "dry", policy, "--dry_run")
    assert not (tmp_path / "dry").exists()
