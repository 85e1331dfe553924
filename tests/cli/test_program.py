import functools
import types

import absl.flags
import jax
import numpy as np
import pytest

from o2o_jax.cli import flags, program
from o2o_jax.data.dataset import Dataset
from o2o_jax.types import Transition
from tests import refusals


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
    # a million rows of 4 + 1 + 1 + 4 + 1 numbers: 44 MB, here and on two devices; 3 seeds of 10 MB
    rows, column = np.zeros((1_000_000, 4), np.float32), np.zeros(1_000_000, np.float32)
    dataset = Dataset(Transition(rows, column[:, None], column, rows, column), np.array([400, 1_000_000]), "mine")
    state = {"x": np.zeros(1_249_999), "shape": jax.ShapeDtypeStruct((), np.float64)}
    mesh = types.SimpleNamespace(size=2, devices=np.array(jax.devices("cpu")))
    preview = functools.partial(program.preview, {"updates": 1200, "nothing": 0}, dataset, state, 3)
    monkeypatch.setattr(program.devices, "memory_limit", lambda _: 162_000_000)
    assert preview(mesh).splitlines() == [
        "all checks passed",
        "3 seeds: 1,200 updates",
        "mine: 1,000,000 transitions, 2 episodes",
        "memory beside programs, batches and simulators: 30 MB of states and replay, 3 copies of 44 MB of data; 162 of "
        "the 162 MB that this machine has",
    ]
    monkeypatch.setattr(program.devices, "memory_limit", lambda _: 161_999_999)
    with pytest.raises(
        ValueError, match="take 162 MB, but this machine has 162: lower --seeds or replay.buffer_size, or"
    ):
        preview(mesh)
    monkeypatch.setattr(program.devices, "memory_limit", lambda _: None)
    assert preview(mesh).endswith("3 copies of 44 MB of data")
    # an accelerator has a copy of the data and half of the seeds
    gpu = types.SimpleNamespace(platform="gpu", device_kind="H100")
    on_gpus = types.SimpleNamespace(size=2, devices=np.array([gpu, gpu]))
    monkeypatch.setattr(program.devices, "memory_limit", lambda _: 59_000_000)
    assert preview(on_gpus).endswith("3 copies of 44 MB of data; 59 of the 59 MB that each H100 has")
    monkeypatch.setattr(program.devices, "memory_limit", lambda _: 58_999_999)
    with pytest.raises(ValueError, match="take 59 MB, but each H100 has 59"):
        preview(on_gpus)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out=x", "--seeds=0"], "error: flag --seeds=0: 0 is not a positive integer"),
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
    "error", [ValueError("no such\n field"), FileNotFoundError("nothing there"), FileExistsError(17, "taken", "x")]
)
def test_an_error_of_the_script_is_one_line(error, capsys):
    def main(args):
        raise error

    assert run(main, "--out=x") == 1
    message = capsys.readouterr().err
    assert message == f"error: {' '.join(str(error).split())}\n"
    assert run(main, "--out=x", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        program.run(lambda args: 1 / 0, define, argv=["--out=x"])


def test_an_interruption_is_no_success(capsys):
    def main(args):
        raise KeyboardInterrupt

    assert run(main, "--out=x") == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_script_and_its_flags(flag, capsys):
    assert run(lambda args: pytest.fail("main must not run"), flag) == 0
    text = capsys.readouterr().out
    assert text.startswith("What it does.")
    for name in ("algorithm", "seeds", "out", "set", "devices", "resume", "log_to", "debug"):
        assert f"--{name}\n" in text
    assert "flagfile" not in text
