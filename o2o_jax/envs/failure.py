"""Failures of environments, and the folder that they may not leave."""

import contextlib
import os
from collections.abc import Iterator

FAILURE = "failure"  # entry of `info` by which one of several environments that step together reports its own


class EnvironmentFailure(ValueError):
    """Failure of an environment, in one line that names it."""


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Goes back to the working folder where what is called within has left it: relative paths would lead elsewhere."""
    home = os.getcwd()
    try:
        yield
    finally:
        if os.getcwd() != home:
            os.chdir(home)
