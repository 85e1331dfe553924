"""Commands from their first word to their exit status. Impure.

A command is a module of this package:

    def define(values: FlagValues) -> None:
        flags.define_common(values, "seeds", "out", "set")
        absl.flags.DEFINE_string("algorithm", None, "offline algorithm", flag_values=values)

    def main(args: FlagValues) -> None:
        ...

and `run(main, define, __doc__)` what a process does with it.
"""

import contextlib
import io
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags
from absl.flags import FlagValues

from o2o_jax import envs, registry
from o2o_jax.cli import estimates
from o2o_jax.cli.overrides import Printed
from o2o_jax.runtime import devices, interrupt, limits
from o2o_jax.runtime.checkpoint import check_claim, has_checkpoint
from o2o_jax.runtime.output import CHECKPOINTS, Output
from o2o_jax.runtime.plan import Plan
from o2o_jax.runtime.train import train

# what word processors make of "-" and "--": hyphens, dashes, the minus sign
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"


class _Flags(FlagValues):
    """Flags of a command line alone: absl would read more of them from what --flagfile names, which may never end."""

    def read_flags_from_files(self, argv: Sequence[str], force_gnu: bool = True) -> list[str]:
        del force_gnu
        return list(argv)


def run(
    main: Callable[[FlagValues], None],
    define: Callable[[FlagValues], None],
    description: str | None = None,
    argv: Sequence[str] | None = None,
    wording: Callable[[str], str] = str,
    positional: str | None = None,
) -> NoReturn:
    """Parses the command line, runs a script and exits.

    Errors that a user can mend, which are ValueError, OSError (with FileNotFoundError and FileExistsError) and a flag
    that does not parse, end as one line `error: …` on stderr; `--debug` shows where they came from.

    Args:
      main: the script; gets the parsed flags as attributes.
      define: defines the script's flags on the values that it is given.
      description: what `--help` prints first, such as `__doc__`.
      argv: the command line without the program's name; None takes that of the process.
      wording: (text) -> text, of help and errors; says commands as they are called where this one is.
      positional: the flag that an argument without a name is for; None where there is none.

    Raises:
      SystemExit: always. Status 0, 1 for an error of `main`, 2 for the command line, 130 for SIGINT, 143 for SIGTERM.
    """
    readable_output()
    devices.share_heap()
    values = _flags(define)
    arguments = list(sys.argv[1:] if argv is None else argv)
    _check_surroundings(arguments)
    if {"--help", "-h", "-help"} & set(arguments):
        show(wording(f"{(description or '').strip()}\n\n{_help(values)}"))
        sys.exit(0)
    try:
        _parse(values, arguments, positional)
    except flags.Error as error:
        advice = "--help lists the flags"
        if isinstance(error, flags.UnrecognizedFlagError) and "set" in values:
            advice += f"; a setting of the algorithm is --set={error.flagname}=…"
        fail(wording(f"{_one_line(error, values)} ({advice})"), 2)
    shown = ""
    try:
        out = sys.stderr if _prints(values) else sys.stdout
        with interrupt.tidily(), contextlib.redirect_stdout(out), envs.trusting(values.trust_modules):
            main(values)
    except Printed as settings_text:
        shown = str(settings_text)
    except (ValueError, OSError) as error:
        if values.debug:
            traceback.print_exc()
        fail(wording(_one_line(error)), 1)
    except interrupt.Interrupted as stopped:
        with contextlib.suppress(BrokenPipeError):
            print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except interrupt.Stopped as stopped:
        fail(str(stopped), 128 + stopped.signum)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    if shown:
        show(shown)
    sys.exit(0)


def parsed(define: Callable[[FlagValues], None], arguments: Sequence[str]) -> FlagValues:
    """Returns the flags of another command, as its process would read them.

    Args:
      define: defines its own flags, as of `run`.
      arguments: its command line, without its name.

    Raises:
      ValueError: there is no such flag, or a value doesn't fit.
    """
    values = _flags(define)
    try:
        _parse(values, arguments)
    except flags.Error as error:
        raise ValueError(_one_line(error)) from None
    return values


def _flags(define: Callable[[FlagValues], None]) -> FlagValues:
    """Returns the flags that all commands have, and those of one."""
    values = _Flags()
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
    flags.DEFINE_bool("debug", False, "show the whole traceback of an error", flag_values=values)
    flags.DEFINE_list(
        "trust_modules",
        [],
        "modules that an environment's name may import where a file names it, of a run or of data; what --env names is "
        "trusted",
        flag_values=values,
    )
    define(values)
    return values


def _parse(values: FlagValues, arguments: Sequence[str], positional: str | None = None) -> None:
    """Gives flags the values of a command line, of which one argument may stand alone."""
    alone = [argument for argument in arguments[:1] if positional and not argument.startswith("-")]
    named = [f"--{positional}={argument}" for argument in alone]
    twice = [argument for argument in arguments if alone and argument.partition("=")[0] == f"--{positional}"]
    if twice:
        raise flags.Error(f"{alone[0]!r} and {twice[0]} both name the {positional}: leave one of them out")
    arguments = [*named, *arguments[len(alone) :]]
    _check_stray(values, arguments)
    _, *rest = values(["", *arguments])
    if rest:  # after a bare --
        raise _unexpected(rest[0])


def _check_surroundings(arguments: Sequence[str]) -> None:
    """Makes sure that the working folder is there and that arguments are text; else exits with one line."""
    try:
        os.getcwd()
    except OSError:
        fail("the working folder is gone: change to one that exists", 1)
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:  # bytes that Python couldn't read as letters
            fail(
                f"{argument!a} is no text in {sys.getfilesystemencoding().upper()}: choose a name of letters that are, "
                "or set PYTHONUTF8=1",
                2,
            )


def _check_stray(values: FlagValues, arguments: Sequence[str]) -> None:
    """Refuses the first argument that is no flag and no flag's value, which is why flags after it would be missing.

    Raises:
      flags.Error: there is one.
    """
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
            continue
        name = argument.lstrip(_DASHES)
        if argument == "--":
            return
        if not argument.startswith("-") or not argument.removesuffix(name).isascii():
            raise _unexpected(argument)
        if "=" not in name:
            if name not in values and name.removeprefix("no") not in values:
                return  # unknown, with or without a value
            is_value = name in values and not values[name].boolean


def _unexpected(argument: str) -> flags.Error:
    name = argument.lstrip(_DASHES)
    advice = "flags are written --name=value"
    if name and not argument.removesuffix(name).isascii():
        advice = f"it begins with a dash that is none of --, write --{name}"
    return flags.Error(f"unexpected argument {registry.clipped(argument, 100)!r}: {registry.clipped(advice, 150)}")


def readable_output(lasting: bool = False) -> None:
    """Lets a terminal that lacks a letter, such as π in ASCII, show a question mark in its place. Impure.

    A stream that is closed leads nowhere from now on, and keeps its number from becoming that of a file.

    Args:
      lasting: whether the process is a command's alone, which goes on where readers of its streams don't.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if lasting:
        sys.stdout, sys.stderr = (
            _Lasting(stream) if isinstance(stream, io.TextIOWrapper) else stream for stream in (sys.stdout, sys.stderr)
        )


class _Lasting(io.TextIOWrapper):
    """A standard stream that is written line by line, and leads nowhere once its reader has gone, as `head` does.

    The command goes on: what it makes was asked for, whoever listens.

    Args:
      stream: which lives on, since loggers may write to it.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.buffer, stream.encoding, "replace", line_buffering=True)
        self._stream = stream

    def write(self, text: str) -> int:
        with self._outlived():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._outlived():
            super().flush()

    @contextlib.contextmanager
    def _outlived(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # where the rest of it goes
            if not isinstance(error, BrokenPipeError):  # such as a full disk
                raise OSError(error.errno, error.strerror, self.name) from error


def show(text: str) -> None:
    """Prints a text, of which a reader such as `head` may take a part.

    Raises:
      SystemExit: it can't be written, as on a full disk.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        if not isinstance(error, BrokenPipeError):
            fail(_one_line(OSError(error.errno, error.strerror, sys.stdout.name)), 1)


def _prints(values: FlagValues) -> bool:
    """Returns whether --print_config is on: stdout then is for the settings alone."""
    return "print_config" in values and values.print_config


def execute(args: FlagValues, plan: Plan) -> None:
    """Runs a plan in the folder --out, or under --dry_run says what it would do. Impure.

    Args:
      args: with the flags of `define_common`.
      plan: whose evaluator is closed at the end.
    """
    for warning in plan.warnings:
        print(f"note: {warning}")
    try:
        if plan.reconstruction is not None and not has_checkpoint(Path(args.out) / CHECKPOINTS):
            plan.reconstruction()
        check_claim(args.out, plan.settings, args.resume)
        if args.dry_run:
            print(preview(plan))
        else:
            hours = estimates.announce(plan)  # which refuses a run of years before it claims its folder
            with Output(args.out, plan, args.resume, args.log_to) as output:
                if hours:
                    print(hours)
                for event in train(plan, output.restore):
                    output.take(event)
    finally:
        if plan.evaluator is not None:
            plan.evaluator.close()


def preview(plan: Plan) -> str:
    """Returns what a run would do, for --dry_run: its phases, its data, and the memory that both take. Impure.

    Args:
      plan: of the run, with data.

    Raises:
      ValueError: it takes more memory than is free, or more than a year.
    """
    dataset, setup = plan.dataset, plan.setup
    assert dataset is not None
    memory, device = limits.check(plan), setup.mesh.devices.flat[0]
    free = devices.memory_available(device)
    where = "this machine" if device.platform == "cpu" else f"each {device.device_kind}"
    parts = ", ".join(f"{name} {limits.size_text(count)}" for name, count in memory.items() if count)
    lines = [
        "all checks passed",
        f"{len(setup.seeds)} seeds: " + ", ".join(f"{count:,} {name}" for name, count in plan.work.items()),
        f"{dataset.name}: {dataset.size:,} transitions, {len(dataset.episode_ends):,} episodes",
        f"memory, beside programs and simulators: {parts}"
        + (f"; {where} has {limits.size_text(free)} free" if free else ""),
        estimates.announce(plan),
    ]
    return "\n".join(line for line in lines if line)


def _help(values: FlagValues) -> str:
    """A paragraph per flag, without those that absl adds to every program."""
    paragraphs = []
    for name in sorted(set(values) - {"flagfile", "undefok", "h"}):
        flag = values[name]
        default = "" if flag.default in (None, []) else f" (default: {flag.default})"
        text = " ".join(flag.help.split()) + default
        paragraphs.append(f"  --{name}\n{textwrap.fill(text, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6)}")
    return "\n".join(paragraphs)


def _one_line(error: Exception, values: FlagValues | None = None) -> str:
    text = " ".join((str(error) or type(error).__name__).split())
    if isinstance(error, OSError) and error.strerror and error.filename is not None:  # in the system's own words
        text = f"{error.filename} can't be read or written ({error.strerror}): look after it, or choose another path"
    number = re.match(r"(flag --(\w+)=.*?: )(invalid literal for int|could not convert string to float)", text)
    if values is not None and number:  # in Python's words
        whole = "whole " if number[3].endswith("int") else ""
        text = f"{number[1]}it takes one {whole}number, {values[number[2]].help}"
    return re.sub(r"^flag --(\w+)=None: .*", r"--\1=… is missing", text)  # absl's words for a required flag


def fail(message: str, status: int) -> NoReturn:
    """Prints an error, as one line of limited length, and exits.

    Raises:
      SystemExit: always.
    """
    text = registry.clipped(f"error: {message}")
    with contextlib.suppress(OSError):  # where it can't be written either, the status says it
        print(text, file=sys.stderr)
    sys.exit(status)
