"""Failures of environments."""

FAILURE = "failure"  # entry of `info` by which one of several environments that step together reports its own


class EnvironmentFailure(ValueError):
    """Failure of an environment, in one line that names it."""
