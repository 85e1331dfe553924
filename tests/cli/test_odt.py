"""Online DT from the command line: rounds as episodes end; stopped and resumed, alone as among others, played."""

import jax
import numpy as np
import pytest

import o2o_jax
from o2o_jax.cli import finetune, play
from o2o_jax.jobs.handoffs import load_online
from o2o_jax.runtime import log
from tests import tiny
from tests.cli.test_finetune import stop_at

SETTINGS = [
    "--set=env_steps=60", "--set=interaction.updates_per_episode=2", "--set=replay.max_episodes=4",
    "--set=evaluation.every_env_steps=20", "--set=evaluation.episodes=1", "--checkpoint_every=20",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("data")


def run(out, policy, *arguments, status=0):
    tiny.call(finetune, "--algorithm=odt", f"--policy={policy}", f"--out={out}", *SETTINGS, *arguments, status=status)
    return out


def test_rounds_of_updates_follow_a_seed_s_own_episodes(dt_run, tmp_path, monkeypatch, capsys):
    out = run(tmp_path / "out", dt_run, "--seeds=2")
    assert not (out / "clone.csv").exists()
    policy = o2o_jax.load_policy(out, which="last", seed=1)
    state = load_online(out, policy.spec)[1].agent
    episodes = log.read(out, "episode")
    counts = [int(episodes["episodes"][episodes["seed"] == seed].sum()) for seed in range(2)]
    assert min(counts) >= 2
    assert np.asarray(state.step).tolist() == [2 * count for count in counts]
    # LAMB's own count goes on where that of the offline run ended
    counted = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt.actor)
               if jax.tree_util.keystr(path).endswith(".count")]  # fmt: skip
    assert all(np.asarray(leaf).tolist() == [4 + 2 * count for count in counts] for leaf in counted)
    assert counted

    # a run that is stopped ends as this one; a seed alone as among others
    stop_at(monkeypatch, 1 + 40)
    run(tmp_path / "stopped", dt_run, "--seeds=2", status=130)
    run(tmp_path / "stopped", dt_run, "--seeds=2", "--resume")
    for phase in ("evaluation", "finetune", "episode"):
        assert (tmp_path / "stopped" / f"{phase}.csv").read_text() == (out / f"{phase}.csv").read_text()
    alone = run(tmp_path / "alone", dt_run, "--seeds=1", "--first_seed=1")
    together = log.read(out, "finetune")
    for name, values in log.read(alone, "finetune").items():
        np.testing.assert_allclose(values, together[name][together["seed"] == 1], rtol=1e-4, err_msg=name)

    assert policy(np.zeros(policy.spec.observation_dim)).shape == (policy.spec.action_dim,)
    capsys.readouterr()
    tiny.call(play, f"--run={out}", "--compare=offline,last", "--episodes=1")
    assert len(capsys.readouterr().out.splitlines()) == 4  # a title, a header, a row of each


def test_what_is_refused(dt_run, offline_run, tmp_path, capsys):
    for policy, arguments, message in (
        (offline_run, (), "odt continues from dt, with its whole state, and this policy comes from td3_bc: pass the"),
        (dt_run, ("--set=update.width=16",), "set update.width and update.layers as that run has them"),
    ):
        run(tmp_path / "out", policy, *arguments, "--seeds=2", status=1)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    run(tmp_path / "dry", dt_run, "--seeds=2", "--dry_run")
    assert "2 seeds: 60 environment steps" in capsys.readouterr().out
