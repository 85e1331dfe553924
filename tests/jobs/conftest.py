"""The tiny dataset and runs of the commands' tests."""

from tests.cli.conftest import datasets, offline_run

__all__ = ["datasets", "offline_run"]
