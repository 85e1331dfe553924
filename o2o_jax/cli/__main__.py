"""Command `o2o`: the first argument names what to do, the others are its flags."""

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from o2o_jax import cli, registry
from o2o_jax.runtime import interrupt


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and exits. Impure.

    Args:
      argv: the command line without the program's name; None takes that of the process.

    Raises:
      SystemExit: always; see `program.run`. Status 2 for an unknown command.
    """
    with contextlib.nullcontext() if argv is not None else interrupt.own_process():
        _main(argv)


def _main(argv: Sequence[str] | None) -> None:
    from o2o_jax.cli import program  # which takes seconds, in which a signal may come

    program.readable_output(lasting=argv is None)
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if name in ("--help", "-h"):
        program.show(overview())
        sys.exit(0)
    if name not in cli.COMMANDS:
        program.fail(registry.unknown("command", name, cli.COMMANDS), 2)
    run(name, rest, installed)


def run(name: str, argv: Sequence[str] | None = None, wording: Callable[[str], str] = str) -> NoReturn:
    """Runs the command of a name and exits. Impure.

    Args:
      name: one of `cli.COMMANDS`.
      argv: its flags; None takes those of the process.
      wording: of `program.run`.

    Raises:
      SystemExit: always; see `program.run`.
    """
    with contextlib.nullcontext() if argv is not None else interrupt.own_process():
        from o2o_jax.cli import program

        program.readable_output(lasting=argv is None)
        command = _load(name)
        positional = getattr(command, "POSITIONAL", None)
        program.run(command.main, command.define, command.__doc__, argv, wording, positional)
    raise AssertionError  # run never returns


def overview() -> str:
    """Returns a line per command."""
    width = max(map(len, cli.COMMANDS))
    lines = [f"  {name:{width}}  {installed(_load(name).__doc__ or '').splitlines()[0]}" for name in cli.COMMANDS]
    return "\n".join(["usage: o2o <command> --flag=value …", "", *lines, "", "o2o <command> --help lists its flags."])


def installed(text: str) -> str:
    """Returns a text about the commands of a checkout, `experiments.<name>`, as one about those of `o2o`."""
    return re.sub(r"(python -m )?experiments\.(?=[a-z])", "o2o ", text)


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"o2o_jax.cli.{name}")


if __name__ == "__main__":
    main()
