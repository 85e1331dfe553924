"""`o2o`: commands by their names."""

import os
import subprocess
import sys

import pytest

from o2o_jax import cli
from o2o_jax.cli import __main__ as o2o
from tests import refusals


def call(*arguments):
    """Status of the command."""
    with pytest.raises(SystemExit) as result:
        o2o.main(arguments)
    return result.value.code


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_an_overview_has_a_line_per_command(arguments, capsys):
    assert call(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_commands_have_a_help_and_a_file_for_checkouts(name, capsys, pytestconfig):
    assert call(name, "--help") == 0
    text = capsys.readouterr().out
    assert "--debug" in text
    assert f"o2o {name} " in text  # an example, as it is where the package is installed
    assert "experiments." not in text
    assert f'run("{name}")' in (pytestconfig.rootpath / "experiments" / f"{name}.py").read_text()


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    assert call("finetun") == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'finetun'. Did you mean 'finetune'?")


def test_errors_of_a_command_are_its_own(capsys):
    assert call("offline", "--algorithm=td3_bc", "--out=x") == 1
    assert capsys.readouterr().err == "error: pass --env, a task, or --dataset, its data, or both\n"


COMMAND = [sys.executable, "-c", "import sys; from o2o_jax.cli.__main__ import main; main()"]
TWICE = (
    "import sys; from o2o_jax.cli import program; program.readable_output(lasting=True); print('one');"
    "sys.stdin.readline(); print('two'); print('three', file=sys.stderr); sys.exit(5)"
)


def test_a_command_outlives_the_reader_of_its_output():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", TWICE], text=True, **pipes) as process:
        assert process.stdout.readline() == "one\n"  # at once, though it is no terminal
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stderr.read() == "three\n"
    assert process.returncode == 5


HELD = (
    "import logging, sys; logging.basicConfig(stream=sys.stderr, format='%(message)s');"
    "from o2o_jax.cli import program; program.readable_output(lasting=True);"
    "logging.warning('one'); print('two', file=sys.stderr)"
)


def test_streams_that_loggers_have_live_on():
    ended = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert ended.stderr == "one\ntwo\n"


full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")


@full_device
@pytest.mark.parametrize("line", ["--help", "offline --help", "behaviour --print_config"])
def test_output_that_cannot_be_written_is_one_line(line, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            assert call(*line.split()) == 1
        full.flush()  # as Python does at its end
    refusals.check(capsys.readouterr().err.splitlines(keepends=True)[-1], "/dev/full can't be", "(No space left on dev")


@full_device
def test_output_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, "offline", "--algorithm=td3_bc", "--env=gym/Pendulum-v1", "--out=new", "--dataset=no.npz"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    refusals.check(ended.stderr, "<stdout> can't be read or written (No space left on device)")
