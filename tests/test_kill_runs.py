"""The short form of `kill_runs`, and what it says of runs that differ."""

import collections
import shutil

import numpy as np
import pytest

from o2o_jax.runtime.checkpoint import Checkpoints
from o2o_jax.runtime.log import MetricLog
from tests import kill_runs, tiny

SHORT = [
    "--algorithm=td3_bc",
    f"--env={tiny.ENV}",
    *tiny.SETTINGS,
    "--set=updates=80",
    "--eval_every=20",
    "--eval_episodes=0",
]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Restores what the script sets for its processes."""
    for name in ("MINARI_DATASETS_PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, "")


def test_a_killed_run_ends_as_the_unbroken_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(kill_runs.CASES, "td3_bc", ("offline", SHORT))
    tiny.call(kill_runs, "--kills=1", "--cases=td3_bc", f"--folder={tmp_path}")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("td3_bc: killed, ") for line in lines)
    header, row, _ = (line.split() for line in lines[-3:])
    assert row[:1] + row[-2:] == ["td3_bc", "the", "same"]
    found = dict(zip(header, row, strict=False))
    assert int(found["kills"]) == sum(int(found[phase]) for phase in kill_runs.PHASES) == 1


def test_runs_that_differ_are_told_apart(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with MetricLog(ours) as metrics, Checkpoints(ours / "checkpoints", {}) as checkpoints:
        metrics.write("offline", 10, {"q": 1.0})
        checkpoints.save(10, {"x": np.array([0.0, np.nan], np.float32), "step": np.int32(10)})
    shutil.copytree(ours, theirs)
    assert kill_runs.compare(ours, theirs) == []
    (theirs / "offline.csv").write_text((ours / "offline.csv").read_text().replace("1.0", "1.00"))
    (theirs / "start.csv").touch()
    (theirs / "clone" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    shutil.rmtree(theirs / "checkpoints")
    with Checkpoints(theirs / "checkpoints", {}) as checkpoints:
        checkpoints.save(10, {"x": np.array([-0.0, np.nan], np.float32), "step": np.int32(10)})
    assert kill_runs.compare(ours, theirs) == [
        "clone/3.orbax-checkpoint-tmp is left over",
        "offline.csv is another one",
        "start.csv is another one",
        "checkpoints: 10 x is another one",
    ]


def test_one_difference_is_enough(monkeypatch, tmp_path, capsys):
    outcomes = {
        "td3_bc": kill_runs.Outcome(collections.Counter(offline=3), 1, 2, []),
        "o2td3": kill_runs.Outcome(collections.Counter(align=1), 0, 1, ["align.csv is another one"]),
    }
    monkeypatch.setattr(kill_runs, "kill_all", lambda *_: outcomes)
    monkeypatch.setattr(kill_runs.subprocess, "run", lambda *_, **__: None)
    tiny.call(kill_runs, "--kills=4", status=1)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1] == ["td3_bc", "0", "3", "0", "0", "0", "0", "0", "3", "1", "2", "the", "same"]
    assert rows[2] == ["o2td3", "0", "0", "0", "0", "1", "0", "0", "1", "0", "1", "DIFFERS"]
    assert rows[3] == ["all", "0", "3", "0", "0", "1", "0", "0", "4", "1", "3", "DIFFERS"]


def test_unknown_cases_are_answered_with_the_nearest(capsys):
    tiny.call(kill_runs, "--cases=o2tdd3", status=1)
    assert "unknown case 'o2tdd3'. Did you mean 'o2td3'?" in capsys.readouterr().err
