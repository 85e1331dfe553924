"""Disasters of real processes: a full disk, a signal, a second one in their folder, a command line that is wrong.

Kills at random moments are `tests/kill_runs.py`, whose short form is `tests/test_kill_runs.py`.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from o2o_jax.runtime import log
from o2o_jax.runtime.checkpoint import locked
from tests import kill_runs, refusals, tiny

UPDATES = 40
LIMITED = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
    "from o2o_jax.cli.__main__ import main; main()"
)
OFFLINE = [
    "offline", "--algorithm=td3_bc", f"--env={tiny.ENV}", *tiny.SETTINGS, f"--set=updates={UPDATES}", "--eval_every=10",
    "--eval_episodes=0", "--resume",
]  # fmt: skip


def start(*arguments, largest_file=None):
    """Starts a real `o2o`, which may write files of that many bytes, compiled programs among them."""
    command, environment = [sys.executable, "-m", "o2o_jax.cli"], os.environ | {"PYTHONPATH": str(kill_runs.ROOT)}
    if largest_file is not None:
        command = [sys.executable, "-c", LIMITED.format(largest_file)]
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # which others read
    return subprocess.Popen(
        [*command, *arguments], text=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def errors(process):
    """Waits for a process; its lines on stderr but for those of progress bars."""
    _, text = process.communicate(timeout=300)
    return [line for line in text.splitlines() if line.startswith("error: ") or "Traceback" in line]


def finish(out):
    """Resumes a run by the same command, which must get to its end and leave nothing half written."""
    process = start(*OFFLINE, f"--out={out}")
    assert (errors(process), process.returncode) == ([], 0)
    assert np.unique(log.read(out, "offline")["step"]).tolist() == [10, 20, 30, UPDATES]
    assert kill_runs.unfinished(out) == []


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(here, tmp_path):
    out = tmp_path / "out"
    process = start(*OFFLINE, f"--out={out}", largest_file=8_000)  # enough for the settings, not for a checkpoint
    found = errors(process)
    assert len(found) == 1, found
    (line,) = found
    assert process.returncode == 1
    refusals.check(
        f"{line}\n",
        "checkpoint",
        "could not be written",
        "then start over, since none is before it",
    )
    finish(out)


def test_a_signal_ends_a_run_that_goes_on_where_it_was(here, tmp_path):
    out = tmp_path / "out"
    process = start(*OFFLINE, f"--out={out}", f"--set=updates={10**6}")
    deadline = time.monotonic() + 300
    while not (out / "offline.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert text.splitlines()[-1] == ("stopped by SIGTERM: all is saved, resume with the same command and --resume")
    assert kill_runs.unfinished(out) == []
    assert any((out / "checkpoints").iterdir())


def test_two_runs_do_not_share_a_folder(here, capsys):
    command = [
        "offline", "--algorithm=td3_bc", f"--env={tiny.ENV}", "--out=td3_bc", "--seeds=2", *tiny.SETTINGS,
        "--set=updates=12", "--eval_every=4", "--eval_episodes=2", "--resume",
    ]  # fmt: skip
    with locked(here / "td3_bc"):
        refusals.refuse(capsys, command, "td3_bc belongs to a live run", f"process {os.getpid()}")


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("offline --algorithm=td3_bc --out=new --seeds=nan", 2, "--seeds=nan"),
        ("report --runs=td3_bc --out=new.png", 1, "reports are of fine-tuning runs"),
    ],
)
def test_real_command_lines(line, status, words, here):
    before = refusals.contents(here)
    process = start(*line.split())
    _, text = process.communicate(timeout=300)
    assert process.returncode == status
    refusals.check(text, words)
    assert refusals.contents(here) == before
