import dataclasses
import io
import os
import signal
import subprocess
import sys
import types

import absl.flags
import jax
import numpy as np
import pytest

from o2o_jax import offline
from o2o_jax.cli import flags, program
from o2o_jax.data.dataset import Dataset
from o2o_jax.runtime import limits, log
from o2o_jax.runtime.devices import seed_mesh
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.setup import Setup
from o2o_jax.types import Transition
from tests import refusals, tiny


def define(values):
    flags.define_common(values)
    absl.flags.DEFINE_enum("algorithm", "cql", ["cql", "td3_bc"], "offline algorithm", flag_values=values)


def run(main, *argv):
    """Exit status of a script."""
    with pytest.raises(SystemExit) as exit_:
        program.run(main, define, "What it does.", argv)
    return exit_.value.code


def test_flags_arrive_as_attributes():
    seen = []
    argv = ["--out=x", "--seeds=3", "--set=a=1,2", "--set", "b=2", "--resume", "--algorithm=td3_bc"]
    assert run(lambda args: seen.append((args.out, args.seeds, args.set, args.resume, args.algorithm)), *argv) == 0
    assert run(lambda args: seen.append((args.seeds, args.set, args.resume, args.devices)), "--out=x") == 0
    assert seen == [("x", 3, ["a=1,2", "b=2"], True, "td3_bc"), (1, [], False, None)]


def test_a_preview_by_hand(monkeypatch):
    # 4 seeds of td3_bc with networks of one unit; a million rows of 11 + 3 + 1 + 11 + 1 numbers: 108 MB on each device
    rows, column = np.zeros((1_000_000, 11), np.float32), np.zeros(1_000_000, np.float32)
    dataset = Dataset(Transition(rows, rows[:, :3], column, rows, column), np.array([400, 1_000_000]), "mine")
    module = offline.load("td3_bc")
    config = tiny.config(module.Config, hidden=(1,), critic_hidden=(1,), updates=1_200, batch_size=1_000)
    setup = Setup(module.make(config, dataset.spec), config, dataset.spec, range(4), seed_mesh(4, 2))
    plan = Plan(setup, dataset, settings={"algorithm": "td3_bc"})
    networks = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(plan.shapes()))
    expected = {"networks": 4 * networks, "replay": 0, "batches": 4 * 4_000 * 28, "data": 216_000_000, "evaluation": 0}
    assert limits.memory_of(plan) == expected
    needed = sum(expected.values())
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: needed)
    assert program.preview(plan).splitlines() == [
        "all checks passed",
        "4 seeds: 1,200 updates of offline",
        "mine: 1,000,000 transitions, 2 episodes",
        "memory, beside programs and simulators: networks 0 MB, batches 0 MB, data 216 MB; this machine has 216 MB "
        "free",
    ]
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: needed - 1)
    with pytest.raises(ValueError, match=r"^this takes at least 216 MB of memory \(data 216 MB, .*\), but this"):
        program.preview(plan)
    # an accelerator has a copy of the data and half of the seeds
    gpu = types.SimpleNamespace(platform="gpu", device_kind="H100")
    on_gpus = types.SimpleNamespace(size=2, devices=np.array([gpu, gpu]))
    plan = dataclasses.replace(plan, setup=dataclasses.replace(plan.setup, mesh=on_gpus))
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: needed // 2 if device else 1)
    assert program.preview(plan).endswith("; each H100 has 108 MB free")
    monkeypatch.setattr(limits.devices, "memory_available", lambda device=None: needed // 2 - 1 if device else 1)
    with pytest.raises(ValueError, match="but each H100 has 108 MB free: take less data$"):
        program.preview(plan)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out=x", "--seeds=0"], "error: flag --seeds=0: 0 is not an integer in the range"),
        (["--out=x", "--seeds=two"], "error: flag --seeds=two"),
        (["--out=x", "--devices=0"], "error: flag --devices=0"),
        ([], "error: --out=… is missing"),
        (["--out=x", "--sedes=1"], "error: Unknown command line flag 'sedes'. Did you mean: seeds ?"),
        (["--out=x", "--algorithm=sql"], "error: flag --algorithm=sql: value should be one of <cql|td3_bc>"),
        (["--out=x", "seeds=3"], "error: unexpected argument 'seeds=3': flags are written --name=value"),
    ],
)
def test_a_wrong_command_line_is_one_line(argv, message, capsys):
    assert run(lambda args: pytest.fail("main must not run"), *argv) == 2
    output = capsys.readouterr()
    assert refusals.check(output.err).startswith(message)
    assert output.out == ""


@pytest.mark.parametrize(
    "error", [ValueError("no such\n field"), FileNotFoundError("nothing there"), OSError(28, "no space left")]
)
def test_an_error_of_the_script_is_one_line(error, capsys):
    def main(args):
        raise error

    assert run(main, "--out=x") == 1
    message = capsys.readouterr().err
    assert message == f"error: {' '.join(str(error).split())}\n"
    assert run(main, "--out=x", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_any_length_is_a_line_that_can_be_read(capsys):
    def main(args):
        raise ValueError(f"no such thing as {'x, ' * 20_000}: write another")

    assert run(main, "--out=x") == 1
    message = capsys.readouterr().err
    assert len(message) < 2_000
    assert message.startswith("error: no such thing as x, x")
    assert message.endswith("x, : write another\n")


def test_a_terminal_without_the_letters_shows_the_others(monkeypatch):
    def main(args):
        print("π ± ȧ \ud800")
        with log.progress("λ", 3) as bar:
            bar.update(3)
        raise ValueError("no such π")

    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert run(main, "--out=x") == 1
    found = {}
    for name, stream in streams.items():
        stream.flush()
        found[name] = stream.buffer.getvalue().decode("ascii")
    assert found["stdout"] == "? ? ? ?\n"
    assert "?: 100%" in found["stderr"]
    assert found["stderr"].endswith("error: no such ?\n")


def test_the_overview_is_readable_in_ascii():
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONPATH": os.getcwd(),
    }
    command = [sys.executable, "-m", "o2o_jax.cli", "--help"]
    result = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert b"usage: o2o <command> --flag=value ?" in result.stdout


def test_an_error_of_the_system_names_its_file(tmp_path, capsys):
    assert run(lambda args: (tmp_path / "no" / "x.png").write_text(""), "--out=x") == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'no' / 'x.png'} can't be read or written (No such file or directory): look after it, or "
        "choose another path\n"
    )


def test_a_closed_terminal_leads_nowhere(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert run(lambda args: print("anything"), "--out=x") == 0


def test_a_working_folder_that_is_gone_is_one_line(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run(lambda args: None, "--out=x") == 1
    assert capsys.readouterr().err == "error: the working folder is gone: change to one that exists\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        program.run(lambda args: 1 / 0, define, argv=["--out=x"])


def test_an_interruption_is_no_success(capsys):
    def main(args):
        raise KeyboardInterrupt

    assert run(main, "--out=x") == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_a_line_and_its_status(signum, status, capsys):
    assert run(lambda args: signal.raise_signal(signum), "--out=x") == status
    assert capsys.readouterr().err == f"error: stopped by {signum.name}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_script_and_its_flags(flag, capsys):
    assert run(lambda args: pytest.fail("main must not run"), flag) == 0
    text = capsys.readouterr().out
    assert text.startswith("What it does.")
    for name in ("algorithm", "seeds", "out", "set", "devices", "resume", "log_to", "debug"):
        assert f"--{name}\n" in text
    assert "flagfile" not in text
