import sys

import pytest
from absl.flags import FlagValues

from o2o_jax.cli import flags, program
from tests.cli.test_program import run


def test_a_sink_without_its_package_is_refused_before_the_script_runs(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert run(lambda args: pytest.fail("main must not run"), "--out=x", "--log_to=tensorboard") == 2
    assert "pip install 'o2o_jax[tensorboard]'" in capsys.readouterr().err


def test_an_unknown_sink_is_answered_with_those_there_are(capsys):
    assert run(lambda args: pytest.fail("main must not run"), "--out=x", "--log_to=wandb,tensorbord") == 2
    assert "unknown sink 'tensorbord'. Did you mean 'tensorboard'?" in capsys.readouterr().err


def test_a_script_takes_the_common_flags_it_needs(capsys):
    def define_out(values):
        flags.define_common(values, "out")

    with pytest.raises(SystemExit) as exit_:
        program.run(lambda args: None, define_out, argv=["--out=x", "--seeds=2"])
    assert exit_.value.code == 2


def test_devices_are_a_mesh_over_the_seeds():
    assert flags.setup_devices(2, 1).shape == {"seed": 1}


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("~/runs/a", "/home/me/runs/a"),
        ("runs/a/", "runs/a"),
        ("./runs//a", "runs/a"),
        (".", "."),
        ("mujoco/hopper/medium-v0", "mujoco/hopper/medium-v0"),
        ("", ""),
    ],
)
def test_a_path_has_one_text(typed, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    values = FlagValues()
    flags.define_path(values, "out", None, "folder", required=True)
    values(["", f"--out={typed}"])
    assert values.out == path


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("a,b", ["a", "b"]),
        ("a,x,y", ["a", "x,y"]),
        ("x,y,a", ["x,y", "a"]),
        ("a, x, z", ["a", "x, z"]),
        ("", []),
        ("./a/,a+a/", ["a", "a+a"]),
        ("x,y+a,a", ["x,y+a", "a"]),
        ("x,y:best,last", ["x,y:best", "last"]),
        ('"a,b",a', ["a,b", "a"]),
        ("x*", ["x, z", "x,y"]),
        ("a, x*", ["a", "x, z", "x,y"]),
        ("[ab]", ["[ab]"]),
    ],
)
def test_a_path_that_is_there_may_have_a_comma(typed, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "x,y", "x, z", "[ab]"):
        (tmp_path / name).mkdir()
    values = FlagValues()
    flags.define_paths(values, "runs", None, "some runs")
    values(["", f"--runs={typed}"])
    assert values.runs == found
