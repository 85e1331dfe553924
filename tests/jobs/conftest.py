"""The tiny dataset and runs of the commands' tests."""

from tests.cli.conftest import data, datasets, offline_run

__all__ = ["data", "datasets", "offline_run"]
