"""Commands that ask for more than a machine has end in one line, before anything is made or written."""

import pytest

from o2o_jax.cli import behaviour, dataset, estimates, finetune, offline, play
from o2o_jax.jobs.policies import save_policy
from o2o_jax.runtime import limits
from tests import tiny


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tiny.make_policy("deterministic"), tmp_path_factory.mktemp("policies") / "policy", tiny.ENV)


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (offline, ["--seeds=1000000000"], "of memory (networks "),
        (offline, ["--set=batch_size=2e9"], "lower --seeds or the batch size"),
        (offline, ["--set=hidden=1e9,1e9", "--print_config"], "lower --seeds, or the number or widths of the networks"),
        (offline, ["--set=updates=1e13"], "updates must be at most 2,147,483,647, as a number of 32 bits, got 10,000,"),
        (offline, ["--set=critic_hidden=8,1e10"], "critic_hidden must be at most 2,147,483,647"),
        (offline, ["--eval_episodes=1000000000000"], "lower --seeds, or the episodes of an evaluation"),
        (finetune, ["--seeds=1000000000"], "of memory ("),
        (finetune, ["--seeds=1000000000", "--print_config"], "of memory ("),
        (finetune, ["--set=networks.num_critics=1e9", "--dry_run"], "lower --seeds, or the number or widths"),
        (finetune, ["--set=env_steps=1e13"], "env_steps must be at most 2,147,483,647"),
        (finetune, ["--set=env_steps=2e9", "--set=replay.buffer_size=1000"], "more than a year, on this machine: ask"),
        (behaviour, ["--seeds=1000000000"], "of memory ("),
        (behaviour, ["--set=rollout.env_steps=1e9"], "lower --seeds, or replay.buffer_size (of a method on rollouts"),
        (dataset, ["--transitions=1000000000000"], "of memory (transitions "),
        (dataset, ["--transitions=10000000000"], "more than a year, on this machine: lower --transitions"),
        (dataset, ["--seed=99999999999999999999"], "not an integer in the range"),
        (play, ["--episodes=1000000000"], "of memory (episodes "),
        (play, ["--episodes=10000000"], "more than a year, on this machine: lower --episodes"),
    ],
)
def test_what_is_too_large_is_one_line(script, arguments, message, policy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimates, "measure_env_step", lambda task: 0.01)
    monkeypatch.setattr(estimates, "measure_rate", lambda *_: 1e9)
    year = "year" in message  # then memory is no matter
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: None if year else 16 * 10**9)
    out = tmp_path / "out"
    of_script = {
        offline: ["--algorithm=td3_bc", f"--env={tiny.ENV}", f"--out={out}"],
        finetune: ["--algorithm=o2td3", f"--policy={policy}", f"--out={out}", "--set=networks.hidden=8,8"],
        behaviour: [f"--out={out}"],
        dataset: [f"--env={tiny.ENV}", "--out=mine/out-v0"],
        play: [f"--run={policy}"],
    }
    tiny.call(script, *of_script[script], *arguments, status=2 if "range" in message else 1)
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note:")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not out.exists()
