"""The command that runs studies."""

import csv

import pytest

from o2o_jax.cli import study
from o2o_jax.studies import grid, progress
from tests import tiny

FILE = """
title = "Tiny"
tasks = ["mujoco/hopper-random"]
seeds = 2

[defaults.offline]
flags = ["eval_every=0", "eval_episodes=2"]
set = ["hidden=8", "critic_hidden=8", "batch_size=8", "updates=4"]

[defaults.online]
set = ["networks.hidden=8", "networks.critic_hidden=8", "update.batch_size=8", "env_steps=20",
       "evaluation.every_env_steps=10", "evaluation.episodes=2"]

[offline.td3_bc]
label = "TD3+BC"

[online.td3]
label = "direct TD3"
from = ["td3_bc"]
"""


@pytest.fixture
def file(tmp_path, data):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return path


def call(file, *arguments, status=0):
    tiny.call(study, f"--study={file}", f"--out={file.parent / 'runs'}", *arguments, status=status)


def test_a_study_from_start_to_report(file, capfd):
    call(file, "--status")
    assert "1 done, 2 waiting" in capfd.readouterr().out  # the data are there already
    call(file, "--dry_run")
    assert "2 of 3 runs to do" in capfd.readouterr().out
    assert not (file.parent / "runs").exists()
    call(file)
    out = capfd.readouterr().out
    assert "[3/3] hopper-random/td3_bc-td3-" in out
    assert "hopper-random/direct TD3: starts at" in out
    (report,) = csv.DictReader((file.parent / "runs" / "mine" / "report_runs.csv").open())
    assert report["seeds"] == "2"
    assert (file.parent / "runs" / "mine" / "report.png").exists()
    page = (file.parent / "runs" / "mine" / "index.html").read_text()
    assert f"<pre>o2o study {file}</pre>" in page  # a file's name alone would be a study of the package
    assert "<p>Commands: 3 done.</p>" in page
    call(file, "--status")
    assert "3 done; nothing is left" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("updates=4", "update=4", ["td3_bc-", "unknown field 'update'"]),
        ("eval_every=0", "eval_evry=0", ["td3_bc-", "Unknown command line flag 'eval_evry'"]),
        ("td3_bc]", "td4_bc]", ["unknown start 'td3_bc'"]),
        ("hopper-random", "hoper-random", ["hoper-random", "Did you mean 'mujoco/hopper-random'?"]),
        ("[online.td3]", "[online.pex]", ["pex-", "iql"]),
    ],
)
def test_what_is_wrong_with_a_study_is_said_before_any_run(file, old, new, words, capfd):
    file.write_text(FILE.replace(old, new))
    call(file, status=1)
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert all(word in error for word in words), error
    assert not (file.parent / "runs").exists()


def test_runs_that_fail_are_named_at_the_end(file, capfd, monkeypatch):
    monkeypatch.setattr(progress, "OWN_COMMAND", ("false",))
    call(file, "--retries=0", status=1)
    error = capfd.readouterr().err
    assert "2 of 3 runs are not done" in error
    call(file, "--status")
    assert "1 done, 1 failed, 1 waiting" in capfd.readouterr().out


@pytest.mark.parametrize("schedule", ["fast", "paper"])
@pytest.mark.parametrize("name", grid.names())
def test_studies_that_come_with_the_package_are_understood(name, schedule, tmp_path):
    found = grid.load(name)
    cells = grid.cells(found, schedule, only=found.tasks[:1])
    assert [*study.check(cells, tmp_path)] == [cell.name for cell in cells if cell.command != grid.DATASET]
