"""Failures of environments, and the folder and streams that they may not take away."""

import contextlib
import os
import sys
from collections.abc import Iterator

FAILURE = "failure"  # entry of `info` by which one of several environments that step together reports its own


class EnvironmentFailure(ValueError):
    """Failure of an environment, in one line that names it."""


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Goes back to the working folder where what is called within has left it: relative paths would lead elsewhere.

    Standard streams that it has put something else in the place of, to be mute for example, come back too.
    """
    home, streams = os.getcwd(), (sys.stdout, sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        if os.getcwd() != home:
            os.chdir(home)
