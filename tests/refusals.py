"""Refusals: how every command answers input that it can't use, in one line, with nothing written."""

import contextlib
import os
import shlex

import pytest

from o2o_jax.cli import __main__ as o2o

LONGEST = 400  # characters of the line


def check(error, *words, longest=LONGEST):
    """Makes sure that what a command left on stderr is one line of ours that holds these words; returns it."""
    assert error.startswith("error: "), error
    assert error.endswith("\n"), error
    assert error.count("\n") == 1, error
    assert len(error) <= longest + 1, f"{len(error)} characters: {error}"
    assert "Traceback" not in error
    for word in words:
        assert word in error, error
    return error


def refuse(capsys, line, *words, watched="."):
    """Runs a command line of `o2o` in this process, which must be refused and leave every file as it is.

    Args:
      capsys: pytest's.
      line: the command line, as text or as its arguments.
      words: what the message must hold.
      watched: folder in which nothing may change.

    Returns:
      The message.
    """
    before = contents(watched)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        o2o.main(shlex.split(line) if isinstance(line, str) else [os.fspath(argument) for argument in line])
    error = capsys.readouterr().err
    assert ended.value.code in (1, 2), error
    assert contents(watched) == before
    return check(error, *words)


def contents(folder):
    """Path -> when it was written and its size, of all that is in a folder."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(where, name)
            with contextlib.suppress(FileNotFoundError):
                facts = os.stat(path)
                found[path] = facts.st_mtime_ns, facts.st_size
    return found
